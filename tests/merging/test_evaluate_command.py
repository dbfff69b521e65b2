"""The evaluation flags, from the command line's words to the printed table and the report."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from common.cli import Parser
from common.errors import UserError
from engine.loading import SkippedImages
from merging.arguments import add_merge_arguments, options_of
from merging.evaluate import Scores
from merging.evaluate_arguments import add_evaluation_arguments
from merging.evaluate_command import _chosen, _show, check_evaluation, evaluate_as_asked, sweep_as_asked
from merging.inputs import open_inputs
from merging.merge import merge
from merging.report import Evaluated
from merging.sources import open_weights
from merging.table import METHODS
from merging.task_names import GROUPS
from models.loading import load_encoder
from tests.helpers import forget_accelerator

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture(scope="module")
def folder(small_model, tmp_path_factory):
    """Three models around the small one: ``red``, ``green`` and ``blue.safetensors``."""
    root = tmp_path_factory.mktemp("models")
    own = load_encoder(str(small_model)).model.state_dict()
    for seed, name in enumerate(("red", "green", "blue")):
        generator = torch.Generator().manual_seed(seed)
        visual = {key: tensor for key, tensor in own.items() if key.startswith("visual.") and key != "visual.proj"}
        moved = {key: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for key, tensor in visual.items()}
        save_file(moved, root / f"{name}.safetensors")
    return root


@pytest.fixture
def words(folder, small_model, image_folder, tmp_path):
    """What every command has."""
    models = [str(folder / f"{name}.safetensors") for name in ("red", "green", "blue")]
    base = ["--base", f"local-dir:{small_model}", "--models", *models]
    return [*base, "--heads", str(tmp_path / "heads"), "--num-workers", "0", "--evaluate", f"imagefolder:{image_folder}"]


def parsed(words):
    parser = Parser("")
    add_merge_arguments(parser)
    add_evaluation_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    method = METHODS[args.method] if args.method else None
    return args, method, options_of(args, args.method or "evaluating", method.reads if method else ())


def command(*words):
    """As merge.py does it."""
    args, method, options = parsed(words)
    check_evaluation(args, method, options)
    inputs = open_inputs(args.base, args.models, args.towers, args.only)
    if args.sweep:
        options = sweep_as_asked(args, inputs, method, options)
    if method is not None and args.out is not None:
        merge(inputs, method, options, args.out, per_model=args.per_model, overwrite=args.overwrite)
    if args.evaluate and not args.sweep:
        evaluate_as_asked(args, inputs, method, options)
    forget_accelerator()
    return inputs, options


def read(path):
    return json.loads(path.read_text())


def numbers(report):
    return {key: value for key, value in report.items() if key not in ("model_info", "clipscope")}


def test_single_models_are_a_table_of_all_on_all(words, tmp_path, capsys):
    command(*words, "--include-base", "--report", tmp_path / "all.json", "--eval-split", "test")
    reports = read(tmp_path / "all.json")
    assert [report["model_info"]["name"] for report in reports] == ["small", "red", "green", "blue"]
    lines = capsys.readouterr().out.splitlines()
    assert "12 images, 4 encoders" in lines[0]
    average = [f"{100 * report['average']['accuracy']:.1f}" for report in reports]
    assert [line.split()[-1] for line in lines[3:7]] == average
    assert reports[1]["clipscope"]["model"]["kind"] == "safetensors file"
    assert len(reports[1]["clipscope"]["model"]["sha256"]["red.safetensors"]) == 64
    assert reports[0]["clipscope"]["model"]["sha256"].keys() == {"weights"}
    assert len({json.dumps(numbers(report)) for report in reports}) == 4


def test_a_merge_in_memory_is_the_merge_that_is_written(words, tmp_path):
    merging = [*words, "--method", "ties"]
    command(*merging, "--report", tmp_path / "memory.json")
    command(*merging, "--report", tmp_path / "file.json", "--out", tmp_path / "out.safetensors")
    command(*words[:2], "--models", f"ties={tmp_path / 'out.safetensors'}", *words[6:], "--report", tmp_path / "again.json")
    memory, file, again = (read(tmp_path / f"{name}.json") for name in ("memory", "file", "again"))
    assert numbers(memory) == numbers(file) == numbers(again)
    assert memory["model_info"] == again["model_info"]
    assert memory["clipscope"]["merge"]["options"] == {"scaling": 0.3, "density": 0.2, "merge_func": "sum", "scope": "model"}


def test_a_sweep_is_as_many_evaluations_and_writes_the_best(words, tmp_path, capsys):
    merging = [*words, "--method", "task_arithmetic"]
    inputs, best = command(
        *merging, "--sweep", "scaling=0.2:1.0:0.4", "--report", tmp_path / "sweep.json", "--out", tmp_path / "best.safetensors"
    )
    reports = read(tmp_path / "sweep.json")
    for report, scaling in zip(reports, (0.2, 0.6, 1.0), strict=True):
        command(*merging, "--scaling", scaling, "--report", tmp_path / f"{scaling}.json")
        assert numbers(report) == numbers(read(tmp_path / f"{scaling}.json"))
        assert report["clipscope"]["sweep"] == {"scaling": scaling}
        assert report["model_info"]["name"] == f"scaling={scaling:g}"
    averages = [report["average"]["accuracy"] for report in reports]
    assert [report["clipscope"]["best"] for report in reports] == [number == averages.index(max(averages)) for number in range(3)]
    assert best.scaling == (0.2, 0.6, 1.0)[averages.index(max(averages))]
    merge(inputs, METHODS["task_arithmetic"], best, tmp_path / "expected.safetensors")
    one, other = (open_weights(str(tmp_path / f"{name}.safetensors"), inputs.reference) for name in ("best", "expected"))
    assert all(torch.equal(one.read(name), other.read(name)) for name in inputs.pool.merged)
    assert f"Best on the test images: scaling={best.scaling:g}" in capsys.readouterr().out


def test_a_sweep_is_not_begun_when_its_output_exists(words, tmp_path, monkeypatch):
    (tmp_path / "out.safetensors").write_text("earlier")
    monkeypatch.setattr("merging.evaluate_command.open_bench", lambda *args: pytest.fail("too late"))
    with pytest.raises(UserError, match="exists"):
        command(*words, "--method", "ties", "--sweep", "density=0.1,0.2", "--out", tmp_path / "out.safetensors")


@pytest.mark.parametrize(("split", "told"), [("test", "which is optimistic; --eval-split val"), ("val", "Best on the val images")])
def test_what_the_best_was_chosen_on_is_said(words, capsys, split, told):
    command(*words, "--method", "task_arithmetic", "--sweep", "scaling=0,1", "--eval-split", split)
    last = capsys.readouterr().out.splitlines()[-1]
    assert told in last
    assert ("optimistic" in last) == (split == "test")


def test_val_images_of_the_hub_are_said_to_have_been_trained_on():
    scores = Scores(1, 2, 0.5, 0.5, SkippedImages())
    bench = SimpleNamespace(tasks={"dtd": SimpleNamespace(name="DTD@hub")})
    best = Evaluated("scaling=0.3", {"dtd": scores}, 1, {})
    told = "Best on the val images: scaling=0.3, average 50.0. The val images of the hub's sets are part of what the released"
    assert _chosen(SimpleNamespace(eval_split="val"), bench, best).startswith(told)


def test_published_numbers_stand_beside_ours(capsys):
    """The eight tasks of B/32 are not at hand, so scores are made up; everything between them and the print is as it is."""
    tasks = dict.fromkeys(GROUPS["TA8"])
    scores = {task: Scores(1, 2, 0.5, 0.5, SkippedImages()) for task in tasks}
    bench = SimpleNamespace(tasks=tasks, parameters=87_456_000, runtime=SimpleNamespace(say=print))
    flags = SimpleNamespace(published=True, seen=[], corruption=None, severity=None, corruption_style=None)
    inputs = SimpleNamespace(models=(None,) * 8, base=None)
    _show(flags, inputs, bench, METHODS["task_arithmetic"], [Evaluated("task_arithmetic", scores, 87_456_000, {})])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "task_arithmetic (published: Task Arithmetic scaling 0.3)"
    assert lines[3].split() == ["sun397", "50.0", "1", "2", "0.5000", "57.1"]
    assert lines[11].split() == ["average", "50.0", "0.5000", "68.0"]
    names = [f"clip-vit-base-patch32_{task}" for task in ("sun397", "dtd")]
    _show(flags, inputs, bench, None, [Evaluated(name, scores, 87_456_000, {}) for name in names])
    published = [line for line in capsys.readouterr().out.splitlines() if line.startswith("published:")]
    assert [line.split()[1:] for line in published] == [
        ["clip-vit-base-patch32_sun397", *["75.0", "47.0", "54.3", "46.5", "28.3", "26.4", "44.3", "41.6", "45.4"]],
        ["clip-vit-base-patch32_dtd", *["54.6", "51.3", "36.9", "25.0", "28.9", "21.8", "47.3", "79.7", "43.2"]],
    ]


def test_seen_tasks_have_columns_of_their_own(words, tmp_path, capsys):
    seen = [*words, "Shapes-Size", "--eval-split", "val", "--seen", "Shapes-Size"]
    command(*seen, "--method", "simple_average", "--report", tmp_path / "one.json")
    report = read(tmp_path / "one.json")
    assert report["clipscope"]["seen"] == {"tasks": ["Shapes-Size"], **report["Shapes-Size"]}
    printed = capsys.readouterr().out
    assert "\nseen " in printed
    assert "\nunseen " in printed
    command(*seen)
    assert capsys.readouterr().out.splitlines()[3].split()[-3:] == ["average", "seen", "unseen"]


def test_a_task_without_a_model_is_told(words):
    per_model = [*words, "--method", "emr", "--per-model"]
    with pytest.raises(UserError, match=r"None of the 3 models can be told to be that of 'imagefolder:.*; name it: --models colors=SOURCE"):
        command(*per_model)


def test_the_model_of_a_task_is_found_by_its_name(words, tmp_path):
    models = ["clip_Shapes-Size=" + words[3], "colors=" + words[4], "x=" + words[5]]
    run = [*words[:2], "--models", *models, *words[6:], "Shapes-Size", "--eval-split", "val"]
    size, colors = "Shapes-Size", words[-1]
    command(*run, "--method", "emr", "--per-model", "--report", tmp_path / "memory.json")
    command(*run, "--method", "emr", "--per-model", "--report", tmp_path / "files.json", "--out", tmp_path / "experts")
    experts = [f"{name}={tmp_path / 'experts' / name}.safetensors" for name in ("clip_Shapes-Size", "colors")]
    command(*words[:2], "--models", *experts, *run[6:], "--report", tmp_path / "each.json")
    memory, files, (first, second) = (read(tmp_path / f"{name}.json") for name in ("memory", "files", "each"))
    assert numbers(memory) == numbers(files)
    assert (memory[size], memory[colors]) == (first[size], second[colors])
    assert (first[colors], second[size]) != (second[colors], first[size])


def test_a_vision_tower_needs_an_encoder_to_be_evaluated_with(words, small_model, tmp_path):
    alone = ["--models", words[3], *words[6:]]
    with pytest.raises(UserError, match=r"'red' \(safetensors file\) has no text tower .* --encoder"):
        command(*alone)
    with pytest.raises(UserError, match="--include-base: there is no base"):
        command(*alone, "--encoder", f"local-dir:{small_model}", "--include-base")
    forget_accelerator()
    command(*alone, "--encoder", f"local-dir:{small_model}", "--report", tmp_path / "alone.json")
    command(*words, "--report", tmp_path / "all.json")
    assert numbers(read(tmp_path / "alone.json")) == numbers(read(tmp_path / "all.json")[0])


def test_unreadable_images_are_listed_beside_the_report(words, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "copy")
    (tmp_path / "copy/test/red/01.png").write_bytes(b"no image")
    broken = [*words[:-1], f"imagefolder:{tmp_path / 'copy'}", "--method", "simple_average", "--report", tmp_path / "r.json"]
    with pytest.raises(UserError, match="1 image is unreadable"):
        command(*broken)
    assert not (tmp_path / "r.json").exists()
    forget_accelerator()
    command(*broken, "--max-skipped", "1")
    assert (tmp_path / "r.json.skipped.txt").read_text().startswith("test/red/01.png\t")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--evaluate", "stanford-car"], "did you mean 'stanford-cars'"),
        (["--seen", "TA8"], r"Unknown task in --seen, which are among those of --evaluate, 'sun397'"),
        (["--sweep", "scaling=0,1"], "--sweep is over an option of a merging method"),
        (["--method", "ties", "--sweep", "t=0,1"], "Unknown numeric option of ties 't'"),
        (["--method", "emr", "--per-model", "--sweep", "scaling=0,1"], "leave --per-model out"),
        (["--method", "ties", "--per-model"], "ties gives one encoder for all models"),
        (["--method", "ties", "--include-base"], "--include-base is for evaluating models"),
        (["--report", "."], "is a folder; --report names a JSON file"),
    ],
)
def test_mistakes_are_told_before_anything_is_opened(words, more, reason, monkeypatch):
    monkeypatch.setattr("merging.inputs.open_all", lambda *args: pytest.fail("too late"))
    with pytest.raises(UserError, match=reason):
        check_evaluation(*parsed([*words, *more]))


@pytest.mark.parametrize("flag", [["--report", "x.json"], ["--seen", "dtd"], ["--published"], ["--include-base"], ["--encoder", "tiny"]])
def test_evaluation_flags_without_an_evaluation_are_refused(words, flag):
    with pytest.raises(UserError, match=f"{flag[0]} is of an evaluation"):
        check_evaluation(*parsed([*words[:6], *flag]))


def test_a_report_that_exists_is_kept(words, tmp_path):
    (tmp_path / "r.json").write_text("earlier")
    with pytest.raises(UserError, match="exists; name another --report, or add --overwrite"):
        check_evaluation(*parsed([*words, "--report", tmp_path / "r.json"]))
    command(*words, "--method", "simple_average", "--report", tmp_path / "r.json", "--overwrite")
    assert read(tmp_path / "r.json")["model_info"]["name"] == "simple_average"
