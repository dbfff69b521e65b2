"""--prompts and --corruption, which mean the same to every command that has them."""

import json

import pytest

from common.files import read_csv
from datasets.naming import CORRUPTIONS
from datasets.prompts import chosen_templates
from datasets.registry import SOURCES, Source, load_task, task_slug
from engine.embeddings import load_embeddings
from models.checkpoint import read_header
from tests.helpers import files_below, run_here

QUICK = ["--num-workers", 0, "--device", "cpu"]


@pytest.fixture
def task(image_folder):
    """A small data set's name."""
    return f"imagefolder:{image_folder}"


@pytest.fixture
def mnist(monkeypatch):
    """MNIST's name and prompts over the digits that need no download."""
    monkeypatch.setitem(SOURCES, "MNIST", {"standard": Source("sources.digits:digits_source")})
    return "MNIST"


@pytest.fixture
def command(small_model, tmp_path):
    """A function that runs one of the commands on a data set, with all that it needs to write below ``tmp_path``."""
    where = {
        "test": ["--model-name", small_model, "--outfile", tmp_path / "results.csv", "--eval-datasets"],
        "get_embeddings": ["--model-name", small_model, "--outfolder", tmp_path / "embeddings", "--split", "test", "--datasets"],
        "get_transfer_scores": [
            *("--eval-models", small_model, "--metrics", "iimm", "--val-p", 0.2, "--embeddings-dir", tmp_path / "embeddings"),
            *("--results-dir", tmp_path, "--dataset"),
        ],
        "train": [
            *("--model-name", "probe", "--base-model", small_model, "--model-dir", tmp_path / "ckpts", "--nepochs", 1, "--val-p", 0.2),
            "--dataset",
        ],
    }
    return lambda script, *arguments: run_here(script, *where[script], *arguments, *QUICK)


EVALUATING = ("test", "get_embeddings", "get_transfer_scores")
ALL = (*EVALUATING, "train")


def test_test_tests_on_corrupted_images(command, task, tmp_path):
    command("test", task, "Digits", "--corruption", "contrast", "--severity", 5).succeeded()
    rows = read_csv(tmp_path / "results.csv")
    assert [row["dataset"] for row in rows] == [f"{task}+contrast-5", "Digits+contrast-5"]
    assert rows[0]["fingerprint"] == load_task(f"{task}+contrast-5", "test").fingerprint != load_task(task, "test").fingerprint


def test_the_flags_are_the_name_written_otherwise(command, task, tmp_path):
    flags = ["--corruption", "gaussian_noise", "--severity", 3, "--corruption-style", "cifar"]
    command("test", task, *flags).succeeded()
    command("test", f"{task}+gaussian_noise-3-cifar").succeeded()
    by_flag, by_name = read_csv(tmp_path / "results.csv")
    for column in ("dataset", "fingerprint", "top1", "templates"):
        assert by_flag[column] == by_name[column]


def test_embeddings_of_corrupted_images_are_a_file_of_their_own(command, task, tmp_path):
    command("get_embeddings", task).succeeded()
    command("get_embeddings", task, "--corruption", "pixelate", "--severity", 2).succeeded()
    name = f"{task}+pixelate-2"
    paths = {dataset: next((tmp_path / "embeddings").rglob(f"{task_slug(dataset)}_test.safetensors")) for dataset in (task, name)}
    clean, corrupted = (load_embeddings(paths[dataset]) for dataset in (task, name))
    assert corrupted.metadata["dataset"] == name
    assert corrupted.sample_ids == clean.sample_ids
    assert (corrupted.image_embeddings != clean.image_embeddings).any()


def test_transfer_scores_on_corrupted_images_are_a_table_of_their_own(command, task, tmp_path):
    command("get_transfer_scores", task, "--corruption", "contrast", "--severity", 4).succeeded()
    (row,) = read_csv(tmp_path / f"{task_slug(f'{task}+contrast-4')}_transfer_scores.csv")
    assert f"{task}+contrast-4" in row.values()


def test_training_on_corrupted_images_by_their_name(command, task, tmp_path):
    command("train", f"{task}+contrast-2").succeeded()
    (path,) = (tmp_path / "ckpts").glob("*_best.safetensors")
    assert read_header(path).task == f"{task}+contrast-2"
    assert "contrast-2" in path.name
    command("train", task, "--corruption", "contrast").refused("unrecognized arguments: --corruption")


@pytest.mark.parametrize("script", EVALUATING)
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--severity", 3], ["--severity says how", "no --corruption is given"]),
        (["--corruption-style", "cifar"], ["--corruption-style says how", "no --corruption is given"]),
        (["--corruption", "contrast"], ["--corruption contrast needs a strength", "--severity"]),
        (["--corruption", "fog", "--severity", 1], ["argument --corruption", "'fog'", *CORRUPTIONS]),
        (["--corruption", "contrast", "--severity", 6], ["argument --severity", "6", "1, 2, 3, 4, 5"]),
        (["--template", "a {c}", "--prompts", "openai"], ["argument --prompts: not allowed with argument --template"]),
        (["--prompts", "openai"], ["has no 'openai' prompts", "a text file with one prompt per line"]),
        (["--prompts", "mine"], ["Unknown prompts 'mine'"]),
        (["--prompts", "absent.txt"], ["Cannot read 'absent.txt'"]),
    ],
)
def test_contradictions(command, task, tmp_path, script, flags, words):
    command(script, task, *flags).refused(*words)
    assert not files_below(tmp_path)


@pytest.mark.parametrize("script", EVALUATING)
def test_no_second_corruption(command, task, script):
    command(script, f"{task}+spatter-1", "--corruption", "contrast", "--severity", 1).refused("names a corruption already")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--template", "a {c}", "--prompts", "openai"], ["argument --prompts: not allowed with argument --template"]),
        (["--prompts", "coop"], ["has no 'coop' prompts"]),
    ],
)
def test_contradictions_in_training(command, task, tmp_path, flags, words):
    command("train", task, *flags).refused(*words)
    assert not files_below(tmp_path)


def test_unknown_data_sets_are_told_before_their_prompts(command):
    for script in ALL:
        command(script, "Digit", "--prompts", "openai").refused("Unknown data set 'Digit'")


@pytest.mark.parametrize("prompts", ["iimm", "openai", "merging"])
def test_named_prompts_are_those_of_the_data_set(command, mnist, tmp_path, prompts):
    command("test", mnist, "--prompts", prompts).succeeded()
    (row,) = read_csv(tmp_path / "results.csv")
    assert json.loads(row["templates"]) == list(chosen_templates("MNIST", prompts))


def test_named_prompts_with_a_corruption_and_another_data_set(command, mnist, tmp_path):
    """The prompts are those of each data set, whatever is done to its images."""
    command("get_embeddings", mnist, "--prompts", "merging", "--corruption", "contrast", "--severity", 1).succeeded()
    (path,) = (tmp_path / "embeddings").rglob("*.safetensors")
    assert load_embeddings(path).templates == ['a photo of the number: "{c}".']
    command("test", mnist, "Digits", "--prompts", "merging").refused("Digits has no 'merging' prompts")


def test_prompts_of_a_file(command, task, tmp_path):
    listed = tmp_path / "mine.txt"
    listed.write_text("a {c}\nthe {}\n")
    command("test", task, "--prompts", listed).succeeded()
    command("test", task, "--template", "a {c}", "--template", "the {c}").succeeded()
    by_file, by_template = read_csv(tmp_path / "results.csv")
    assert json.loads(by_file["templates"]) == ["a {c}", "the {c}"]
    assert (by_file["templates"], by_file["top1"]) == (by_template["templates"], by_template["top1"])


def test_a_run_keeps_the_prompts_that_it_was_trained_with(command, mnist, tmp_path):
    """In the checkpoint and the record; and its name tells it from the run with the default prompts."""
    command("train", mnist, "--prompts", "merging").succeeded()
    (path,) = (tmp_path / "ckpts").glob("*_best.safetensors")
    (record,) = (tmp_path / "ckpts").glob("*_run.json")
    templates = ['a photo of the number: "{c}".']
    assert list(read_header(path).templates) == json.loads(record.read_text())["settings"]["templates"] == templates
    assert "_prompts-" in path.name
    command("train", mnist).succeeded()
    assert len(list((tmp_path / "ckpts").glob("*_best.safetensors"))) == 2
    command("train", mnist, "--template", templates[0]).refused("exists; continue that run with --resume")
