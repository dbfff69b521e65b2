"""few_shot.py as users run it: results, what is not done again, protocols, robustness, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.files import read_csv, read_json
from datasets.few_shot import few_shot
from datasets.registry import load_task
from engine.classifier import average_templates, frozen_text_features
from fewshot.augmented import views_of
from fewshot.table import METHODS
from models.checkpoint import load_checkpoint
from models.parallel_adapter import adapted_and_original
from tests.fewshot.adapters import write_adapter
from tests.helpers import ROOT, files_below, run_here, run_script, write_images, write_model

FIXED = ["--search", "fixed"]  # where it does not matter how hyper-parameters are found
QUICK = ["--num-workers", 0, "--device", "cpu", "--batch-size", 16, "--val-p", 0.25]
TWO = ["--methods", "zero_shot", "tip_adapter", "tip_adapter_corrected"]


@pytest.fixture(scope="module")
def adapter(small_model, tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("adapter") / "adapter.safetensors", small_model)


@pytest.fixture(scope="module")
def name(image_folder):
    return f"imagefolder:{image_folder}"


@pytest.fixture
def classify(small_model, name, tmp_path, monkeypatch):
    """Run the script on the small model and the folder of colours, all below one temporary folder; without figures unless asked."""

    def run(*more, model=small_model, data=name, out="out", figures=False):
        if not figures:
            monkeypatch.setattr("fewshot.summary.draw_accuracy", lambda *_: [])
            monkeypatch.setattr("fewshot.summary.draw_overlap", lambda *_: None)
        places = ["--out", tmp_path / out, "--features", tmp_path / "kept"]
        return run_here("few_shot", "--dataset", data, "--model-name", model, *places, *QUICK, *more)

    return run


def results(folder):
    return {path.name.rsplit("-", 1)[0]: read_json(path) for path in sorted((folder / "cells").rglob("*.json"))}


def test_results_tables_and_figures(classify, adapter, name, tmp_path):
    ended = classify("--shots", 1, 2, "--seeds", 1, 2, "--views", 2, "--adapter", adapter, *TWO, figures=True).succeeded()
    found = results(tmp_path / "out")
    both = [f"tip_adapter{end}_{shots}shots_seed{seed}" for end in ("", "_corrected") for shots in (1, 2) for seed in (1, 2)]
    assert set(found) == {"zero_shot_0shots_seed0", *both}
    for each in found.values():
        assert each["accuracy"] == each["correct"] / each["n_test"]
        assert (each["n_test"], each["dataset"], each["test"]) == (12, name, name)
    one = found["tip_adapter_corrected_2shots_seed1"]
    assert (one["n_cache"], one["val_split"], one["views"], one["order"], one["val_shots"]) == (6, "val", 2, "independent", "min")
    assert set(one["hyperparameters"]) >= {"alpha", "beta"}
    assert 0 <= one["val_correct"] <= one["n_val"] <= 6
    assert one["versions"]["torch"] == torch.__version__.split("+")[0]
    assert len(read_csv(tmp_path / "out/cells.csv")) == 9
    rows = read_csv(tmp_path / "out/accuracy.csv")
    seeds = [found[f"tip_adapter_1shots_seed{seed}"]["accuracy"] for seed in (1, 2)]
    (row,) = [row for row in rows if (row["method"], row["shots"]) == ("tip_adapter", "1")]
    assert (float(row["mean"]), row["n_seeds"]) == (pytest.approx(np.mean(seeds)), "2")
    assert float(row["deviation"]) == pytest.approx(np.std(seeds, ddof=1))
    before, after = read_csv(tmp_path / "out/overlap.csv")
    assert (before["features"], after["features"], before["n"]) == ("original", "adapted", "12")
    assert before["total_variance"] != after["total_variance"]
    assert float(before["total_variance"]) == pytest.approx(float(before["within_variance"]) + float(before["between_variance"]))
    assert {row["n"] for row in read_csv(tmp_path / "out/correlation.csv")} == {"1"}
    assert {path.suffix for path in (tmp_path / "out").glob("accuracy.*")} == {".csv", ".pdf", ".png"}
    assert f"tip_adapter{' ' * 12}" in ended.stdout
    assert "overlap" in ended.stdout


def test_the_number_is_tip_adapters(classify, adapter, name, small_model, tmp_path):
    """By hand, from images on: Z = 100 f W, plus alpha exp(-beta (1 - f_A K_A)) V."""
    classify("--shots", 4, "--seeds", 1, "--views", 3, "--adapter", adapter, *TWO[:1], "tip_adapter_corrected").succeeded()
    (found,) = results(tmp_path / "out").values()
    encoder, _ = load_checkpoint(adapter)
    train, test = (load_task(name, split, val_p=0.25) for split in ("train", "test"))
    shots = few_shot(train, 4, seed=1)

    def both(task):
        images = torch.stack([encoder.preprocess(task.samples.image(index)) for index in range(len(task))])
        with torch.no_grad():
            return adapted_and_original(encoder, images)

    keys = F.normalize(both(views_of(shots, 32, 3, 1))[0].unflatten(0, (12, 3)).mean(dim=1), dim=1)
    adapted, original = (F.normalize(rows, dim=1) for rows in both(test))
    prompts = [prompt for of_class in test.prompts() for prompt in of_class]
    texts = average_templates(frozen_text_features(encoder, prompts), len(test.templates))
    alpha, beta = (found["hyperparameters"][key] for key in ("alpha", "beta"))
    similarities = torch.exp(-beta * (1 - adapted @ keys.T)) @ F.one_hot(torch.from_numpy(shots.labels), 3).float()
    logits = 100 * original @ texts.T + alpha * similarities
    assert found["correct"] == int((logits.argmax(dim=1) == torch.from_numpy(test.labels)).sum())
    assert found["n_cache"] == 12


def test_what_is_done_is_not_done_again(classify, adapter, tmp_path):
    asked = ("--shots", 1, 2, "--seeds", 1, "--views", 2, "--adapter", adapter, *TWO, *FIXED)
    classify(*asked).succeeded()
    before = {name: content for name, content in files_below(tmp_path).items() if "out/cells/" in name or "kept/" in name}
    (tmp_path / next(name for name in before if "tip_adapter_2shots" in name)).unlink()
    ended = classify(*asked).succeeded()
    assert "5 results, 4 of them done before" in ended.stdout
    after = {name: content for name, content in files_below(tmp_path).items() if "out/cells/" in name or "kept/" in name}
    changed = {name for name in before if before[name] != after[name]}
    assert set(before) == set(after)
    assert all("tip_adapter_2shots" in name for name in changed)
    assert "9 results, 5 of them done before" in classify(*asked, "--seeds", 1, 2).succeeded().stdout


def test_a_plain_method_does_not_depend_on_the_adapter(classify, adapter):
    asked = ("--shots", 2, "--seeds", 1, "--views", 1, "--methods", "zero_shot", "tip_adapter", *FIXED)
    classify(*asked).succeeded()
    assert "2 results, 2 of them done before" in classify(*asked, "--adapter", adapter).succeeded().stdout


def test_numbers_do_not_depend_on_batches_workers_or_company(classify, adapter, tmp_path):
    """Nor on which other shots, seeds and methods were asked for."""
    few, many = ("--shots", 2, "--seeds", 2), ("--shots", 1, 2, "--seeds", 1, 2, "--batch-size", 3, "--num-workers", 2)
    classify(*few, "--adapter", adapter, "--methods", "tip_adapter_corrected", "--views", 2, out="few").succeeded()
    classify(*many, "--adapter", adapter, *TWO, "--views", 2, "--features", tmp_path / "others", out="many").succeeded()
    one, other = (results(tmp_path / folder)["tip_adapter_corrected_2shots_seed2"] for folder in ("few", "many"))
    assert [one[key] for key in ("correct", "val_correct", "n_val", "n_cache")] == [
        other[key] for key in ("correct", "val_correct", "n_val", "n_cache")
    ]


def test_two_processes_give_what_one_gives(classify, adapter, name, small_model, tmp_path):
    asked = ["--shots", 1, 2, "--seeds", 1, "--views", 2, "--adapter", adapter, *TWO, *FIXED]
    classify(*asked).succeeded()
    places = ["--out", tmp_path / "two", "--features", tmp_path / "kept-two"]
    run_script("few_shot", "--dataset", name, "--model-name", small_model, *places, *QUICK, *asked, processes=2).succeeded()
    one, two = (results(tmp_path / folder) for folder in ("out", "two"))
    assert {key: each["correct"] for key, each in one.items()} == {key: each["correct"] for key, each in two.items()}
    assert {each["processes"] for each in two.values()} == {2}


def test_transfer_to_corrupted_images(classify, name, tmp_path):
    asked = ("--shots", 2, "--seeds", 1, "--views", 1, "--methods", "zero_shot", "tip_adapter", *FIXED)
    ended = classify(*asked, "--transfer", f"{name}+contrast-5").succeeded()
    assert len(results(tmp_path / "out")) == 4
    own, other = [each for each in results(tmp_path / "out").values() if each["method"] == "tip_adapter"]
    assert {own["test"], other["test"]} == {name, f"{name}+contrast-5"}
    assert own["hyperparameters"] == other["hyperparameters"]
    assert "-> imagefolder" in ended.stdout
    assert len(read_csv(tmp_path / "out/overlap.csv")) == 1


def test_released_spellings(name, small_model, adapter, tmp_path):
    flags = [
        "--datasetname",
        name,
        "--num_shots",
        2,
        "--num_augment",
        1,
        "--model_path",
        adapter,
        "--model_checkpoint",
        "unused.pt",
        "--save_dir",
        tmp_path / "out",
        "--seed",
        3,
    ]
    flags += ["--root", tmp_path, "--features", tmp_path / "kept", "--methods", "tip_adapter_corrected"]
    run_here("few_shot", *flags, *QUICK).succeeded()
    assert list(results(tmp_path / "out")) == ["tip_adapter_corrected_2shots_seed3"]


def test_all_five_shots(classify, tmp_path):
    classify("--num_shots", -1, "--seed", 0, "--views", 0, "--methods", "tip_adapter", "--search", "fixed").succeeded()
    assert {(each["shots"], each["seed"]) for each in results(tmp_path / "out").values()} == {(shots, 0) for shots in (1, 2, 4, 8, 16)}
    assert {each["n_cache"] for each in results(tmp_path / "out").values()} == {3, 6, 12, 18}  # no class has more than 6


def test_groups_leave_out_what_needs_an_adapter(classify, tmp_path):
    classify("--shots", 1, "--seeds", 1, "--views", 0, "--search", "fixed").succeeded()
    expected = {name for name, method in METHODS.items() if not method.needs_adapter and not method.trains}
    assert {each["method"] for each in results(tmp_path / "out").values()} == expected


def test_unreadable_images_are_listed(small_model, tmp_path):
    write_images(tmp_path / "images/train", 6)
    write_images(tmp_path / "images/test", 4)
    (tmp_path / "images/test/red/01.png").write_bytes(b"damaged")
    flags = ["--dataset", f"imagefolder:{tmp_path / 'images'}", "--model-name", small_model, "--out", tmp_path / "out", "--shots", 1]
    flags += ["--features", tmp_path / "kept", "--methods", "zero_shot", *QUICK]
    run_here("few_shot", *flags).refused("test/red/01.png", "--max-skipped 0")
    ended = run_here("few_shot", *flags, "--max-skipped", 1, "--shots", 1, 16).succeeded()
    run_here("few_shot", *flags, "--max-skipped", 1).succeeded()  # finds everything done, and leaves the list
    assert "3 of 3 classes have fewer than 16 training images and give all of them" in ended.stdout
    assert "test/red/01.png\t" in (tmp_path / "out/few_shot.skipped.txt").read_text()
    assert next(iter(results(tmp_path / "out").values()))["n_test"] == 11


def test_the_list_of_methods():
    ended = run_here("few_shot", "--list").succeeded()
    assert [line.split()[0] for line in ended.stdout.splitlines()] == list(METHODS)
    assert "--adapter" in next(line for line in ended.stdout.splitlines() if line.startswith("tip_adapter_corrected"))


def test_refusals(classify, adapter, small_model, tmp_path):
    classify("--methods", "tip_adaptor").refused("Unknown method 'tip_adaptor'", "did you mean 'tip_adapter'?")
    classify("--methods", "ape_corrected").refused("ape_corrected compares images by adapted features", "--adapter")
    other = write_model(tmp_path / "other", seed=1)
    classify("--adapter", adapter, model=other).refused("adapter.safetensors", other)
    classify("--shots", 0).refused("--shots", "'0' is neither a whole number of at least 1 nor -1")
    classify("--val-shots", "some").refused("'some' is neither min nor full")
    classify("--seed", 1, "--seeds", 2).refused("--seed and --seeds")
    classify("--transfer", "Digits", "--methods", "zero_shot").refused("class of Digits", "--transfer")
    run_here("few_shot", "--dataset", "Digits", "--transfer", "Digits").refused("--transfer Digits is one of --dataset")
    classify("--adapter", tmp_path / "none.safetensors").refused("none.safetensors")
    classify(data="Digit").refused("Unknown data set 'Digit'", "Digits")
    classify("--out", adapter).refused("Cannot create the output folder")
    run_here("few_shot", "--methods", "ape").refused("name a data set with --dataset")
    assert not list((tmp_path / "out").rglob("*.json"))


def test_a_checkpoint_of_another_tuning(classify, small_model, name, tmp_path):
    run_here(
        *(
            "train",
            "--model-name",
            "lora",
            "--base-model",
            small_model,
            "--dataset",
            name,
            "--nepochs",
            1,
            "--model-dir",
            tmp_path / "ckpts",
        ),
        *("--num-workers", 0, "--device", "cpu"),
    ).succeeded()
    checkpoint = next((tmp_path / "ckpts").glob("*.safetensors"))
    classify("--adapter", checkpoint).refused("tuning 'lora'", "train_adapter.py")


@pytest.mark.parametrize("preset", sorted((ROOT / "configs/few_shot").glob("*.toml")), ids=lambda path: path.stem)
def test_presets_are_read(preset):
    from datasets.registry import checked_name
    from fewshot.arguments import parse_arguments
    from fewshot.robustness import data_set

    args = parse_arguments(None, ["--config", str(preset)])
    for each in (*args.dataset, *map(data_set, args.transfer)):
        checked_name(each)
    assert set(args.methods or []) <= {*METHODS, "all", "training-free"}


def test_help_needs_no_torch():
    code = "import sys, runpy; sys.argv = ['few_shot.py', '--help']\ntry: runpy.run_path('few_shot.py', run_name='__main__')\n"
    code += "except SystemExit: print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], cwd=Path(ROOT), capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "False"
    assert json.dumps("--val-shots")[1:-1] in told
