"""test.py as users run it: rows that are on disk as soon as they are known, with all that is known about them."""

import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from common.files import read_csv
from datasets.registry import load_task
from models.checkpoint import checkpoint_sha256
from models.loading import load_encoder
from models.selection import select_encoder
from tests.datasets.sources.small_fmow import write_fmow
from tests.helpers import files_below, run_here, run_script, start_script, write_images

HEADER = ["model", "tuning", "checkpoint", "dataset", "split", "n_images", "top1", "mean_per_class", "seconds"]
QUICK = ["--num-workers", 0, "--device", "cpu", "--bs", 5]


@pytest.fixture
def folder(tmp_path):
    """Two classes of 9 and 3 test images, so that the two accuracies differ."""
    write_images(tmp_path / "data/train", 2, colors=["blue", "red"])
    write_images(tmp_path / "data/test", 9, colors=["blue"])
    write_images(tmp_path / "data/test", 3, colors=["red"])
    return tmp_path / "data"


@pytest.fixture(scope="module")
def probe(small_model, image_folder, tmp_path_factory):
    """A trained probe's checkpoint."""
    ckpts = tmp_path_factory.mktemp("ckpts")
    flags = ["--model-name", "probe", "--base-model", small_model, "--model-dir", ckpts, "--lr", 0.05, "--nepochs", 2, "--val-p", 0.2]
    run_here("train", "--dataset", f"imagefolder:{image_folder}", *flags, *QUICK).succeeded()
    (path,) = ckpts.glob("*_best.safetensors")
    return path


def run_test(model, *datasets, outfile, more=()):
    return run_here("test", "--model-name", model, "--eval-datasets", *datasets, "--outfile", outfile, *QUICK, *more)


@torch.no_grad()
def oracle(encoder, task):
    """(top-1, mean per class) by scikit-learn from predictions made one image at a time."""
    texts = encoder.encode_text(encoder.tokenize([prompts[0] for prompts in task.prompts()]))
    logits = [encoder.encode_image(encoder.preprocess(task.samples.image(index))[None])[0] @ texts.T for index in range(len(task))]
    predicted = np.array([int(each.argmax()) for each in logits])
    return accuracy_score(task.labels, predicted), balanced_accuracy_score(task.labels, predicted)


def test_the_row(small_model, folder, tmp_path):
    name = f"imagefolder:{folder}"
    ended = run_test(small_model, name, outfile=tmp_path / "out/results.csv").succeeded()
    (row,) = read_csv(tmp_path / "out/results.csv")
    assert list(row)[:9] == HEADER
    assert {"n_skipped", "precision", "batch_size", "templates", "fingerprint", "checkpoint_sha256", "created", "versions"} <= row.keys()
    task, selection = load_task(name, "test"), select_encoder(str(small_model), None, {})
    top1, mean_per_class = oracle(selection.encoder, task)
    assert (float(row["top1"]), float(row["mean_per_class"])) == (pytest.approx(top1), pytest.approx(mean_per_class))
    assert top1 != mean_per_class
    expected = {
        **{"model": str(small_model), "tuning": "none", "checkpoint": "", "dataset": name, "split": "test", "n_images": "12"},
        **{
            "n_skipped": "0",
            "precision": "fp32",
            "batch_size": "5",
            "fingerprint": task.fingerprint,
            "checkpoint_sha256": selection.sha256,
        },
    }
    assert {key: row[key] for key in expected} == expected
    assert float(row["seconds"]) > 0
    assert f"{top1:.4f}" in ended.stdout


def test_the_json_beside_it_has_the_row_and_more(small_model, folder, tmp_path):
    run_test(small_model, f"imagefolder:{folder}", outfile=tmp_path / "out/results.csv", more=["--seed", 4]).succeeded()
    (row,) = read_csv(tmp_path / "out/results.csv")
    (path,) = (tmp_path / "out/results").iterdir()
    told = json.loads(path.read_text())
    assert {key: str(told[key]) for key in row} == dict(row)
    assert (told["classnames"], told["seed"], told["device"], told["processes"]) == (["blue", "red"], 4, "cpu", 1)
    assert told["images_per_second"] > 0


def test_every_accuracy_is_the_same_for_any_batch_size_and_number_of_loaders(small_model, folder, tmp_path):
    for how in (["--bs", 1], ["--bs", 12], ["--num-workers", 1], ["--num-workers", 2, "--bs", 2]):
        run_test(small_model, f"imagefolder:{folder}", outfile=tmp_path / "r.csv", more=how).succeeded()
    rows = read_csv(tmp_path / "r.csv")
    assert len({(row["top1"], row["mean_per_class"], row["n_images"]) for row in rows}) == 1
    assert len(rows) == 4


def test_earlier_rows_stay(small_model, folder, tmp_path, monkeypatch):
    """With a file name without a folder, which made the released code lose everything after the work."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results.csv").write_text("model,top1,note\nmine,0.5,by hand\n")
    for split in ("test", "train"):
        run_test(small_model, f"imagefolder:{folder}", outfile="results.csv", more=["--split", split, "--val-p", 0.3]).succeeded()
    rows = read_csv(tmp_path / "results.csv")
    assert [(row["model"], row["note"]) for row in rows] == [("mine", "by hand"), (str(small_model), ""), (str(small_model), "")]
    assert [row["n_images"] for row in rows] == ["", "12", "3"]


def test_a_row_is_on_disk_before_the_next_data_set_is_begun(small_model, folder, tmp_path):
    """The second data set has an image that cannot be read."""
    shutil.copytree(folder, tmp_path / "bad")
    (tmp_path / "bad/test/red/02.jpg").write_bytes(b"no image")
    ended = run_test(small_model, f"imagefolder:{folder}", f"imagefolder:{tmp_path / 'bad'}", outfile=tmp_path / "r.csv")
    ended.refused("1 image is unreadable, more than --max-skipped 0 allows", "test/red/02.jpg")
    (row,) = read_csv(tmp_path / "r.csv")
    assert row["dataset"] == f"imagefolder:{folder}"


def test_skipped_images_are_counted_and_listed(small_model, folder, tmp_path):
    (folder / "test/red/02.jpg").write_bytes(b"no image")
    run_test(small_model, f"imagefolder:{folder}", outfile=tmp_path / "r.csv", more=["--max-skipped", 1]).succeeded()
    (row,) = read_csv(tmp_path / "r.csv")
    assert (row["n_images"], row["n_skipped"]) == ("11", "1")
    (path,) = (tmp_path / "r").glob("*.skipped.txt")
    assert path.read_text() == "test/red/02.jpg\tnot an image of a known format\n"
    assert path.with_name(path.name.removesuffix(".skipped.txt")).suffix == ".json"


def test_a_checkpoint_is_tested_without_any_other_flag(probe, image_folder, tmp_path):
    name = f"imagefolder:{image_folder}"
    run_here("test", "--model-path", probe, "--eval-datasets", name, "--outfile", tmp_path / "r.csv", *QUICK).succeeded()
    (row,) = read_csv(tmp_path / "r.csv")
    assert (row["tuning"], row["checkpoint"], row["checkpoint_sha256"]) == ("probe", str(probe), checkpoint_sha256(probe))
    encoder, task = select_encoder(None, probe, {}).encoder, load_task(name, "test")
    with torch.no_grad():
        images = torch.cat([encoder.encode_image(encoder.preprocess(task.samples.image(index))[None]) for index in range(12)])
    predicted = encoder.probe(images).argmax(dim=1).numpy()
    assert float(row["top1"]) == pytest.approx(accuracy_score(task.labels, predicted))
    (path,) = (tmp_path / "r").iterdir()
    assert json.loads(path.read_text())["trained_on"] == name


def test_several_templates(small_model, folder, tmp_path):
    more = ["--template", "a photo of a {c}", "--template", "the colour {}"]
    run_test(small_model, f"imagefolder:{folder}", outfile=tmp_path / "r.csv", more=more).succeeded()
    (row,) = read_csv(tmp_path / "r.csv")
    assert json.loads(row["templates"]) == ["a photo of a {c}", "the colour {c}"]


def test_two_processes_write_one_row_with_the_accuracies_of_one(small_model, folder, tmp_path):
    """12 images in batches of 5: one process has 7 of them, the other 5."""
    flags = ["--model-name", small_model, "--eval-datasets", f"imagefolder:{folder}", *QUICK]
    two = run_script("test", *flags, "--outfile", tmp_path / "two.csv", processes=2).succeeded()
    one = run_here("test", *flags, "--outfile", tmp_path / "one.csv").succeeded()
    (row,), (other,) = read_csv(tmp_path / "two.csv"), read_csv(tmp_path / "one.csv")
    for column in ("top1", "mean_per_class", "n_images", "fingerprint", "checkpoint_sha256"):
        assert row[column] == other[column]
    assert len(list((tmp_path / "two").iterdir())) == 1
    assert two.stdout.count("top-1") == one.stdout.count("top-1") == 1
    assert len(two.stdout.splitlines()) == len(one.stdout.splitlines()) == 2


@torch.no_grad()
def predicted_classes(encoder, task):
    """The class of each image, all in one batch."""
    texts = encoder.encode_text(encoder.tokenize([prompts[0] for prompts in task.prompts()]))
    pixels = torch.stack([encoder.preprocess(task.samples.image(index)) for index in range(len(task))])
    return (encoder.encode_image(pixels) @ texts.T).argmax(dim=1).numpy()


@pytest.fixture
def fmow(small_model, tmp_path):
    """A data folder with a small FMoW, and which images the model gets right: half of them show its favourite class."""
    write_fmow(tmp_path / "data")
    predicted = predicted_classes(load_encoder(str(small_model)), load_task("FMoW-ood", "test", data_dir=tmp_path / "data"))
    favourite = load_task("FMoW-ood", "test", data_dir=tmp_path / "data").classnames[np.bincount(predicted).argmax()].replace(" ", "_")
    table = tmp_path / "data/fmow_v1.1/rgb_metadata.csv"
    table.write_text(table.read_text().replace(",zoo,", f",{favourite},").replace(",airport,", f",{favourite},"))
    return tmp_path / "data", predicted == load_task("FMoW-ood", "test", data_dir=tmp_path / "data").labels


def test_the_worst_region(small_model, fmow, tmp_path):
    """FMoW has regions, Digits has none; the table was begun before there was such a column."""
    data_dir, right = fmow
    groups = load_task("FMoW-ood", "test", data_dir=data_dir).groups
    accuracies = {groups.names[number]: float(right[groups.labels == number].mean()) for number in np.unique(groups.labels)}
    assert 0 < right.mean() < 1
    (tmp_path / "r.csv").write_text("model,top1\nmine,0.5\n")
    ended = run_test(small_model, "FMoW-ood", "Digits", outfile=tmp_path / "r.csv", more=["--data-dir", data_dir]).succeeded()
    earlier, row, without = read_csv(tmp_path / "r.csv")
    assert float(row["top1"]) == pytest.approx(right.mean())
    assert float(row["worst_group"]) == pytest.approx(min(accuracies.values()))
    assert (earlier["worst_group"], without["worst_group"], without["dataset"]) == ("", "", "Digits")
    told = json.loads(next((tmp_path / "r").glob("*FMoW*")).read_text())
    assert told["group_accuracies"] == pytest.approx(accuracies)
    assert told["group_images"] == {name: (groups.labels == groups.names.index(name)).sum() for name in accuracies}
    worst = min(told["group_accuracies"], key=told["group_accuracies"].get)
    lines = ended.stdout.splitlines()
    assert lines[2] == f"  worst region: {worst} {accuracies[worst]:.4f} ({told['group_images'][worst]} images)"
    assert len(lines) == 4


def test_two_runs_at_once_lose_no_row(small_model, folder, tmp_path):
    """Each tests the same data set five times over."""
    names = [f"imagefolder:{folder}"] * 5
    flags = ["--model-name", small_model, "--eval-datasets", *names, "--outfile", tmp_path / "r.csv", *QUICK]
    processes = [start_script("test", *flags, "--seed", seed) for seed in (0, 1)]
    ends = [process.communicate(timeout=120) for process in processes]
    assert [(process.returncode, err) for process, (_, err) in zip(processes, ends, strict=True)] == [(0, "")] * 2
    assert len(read_csv(tmp_path / "r.csv")) == 10
    told = [json.loads(content)["seed"] for name, content in files_below(tmp_path / "r").items()]
    assert (told.count(0), told.count(1)) == (5, 5)


def test_bf16(small_model, folder, tmp_path):
    run_test(small_model, f"imagefolder:{folder}", outfile=tmp_path / "r.csv", more=["--precision", "bf16"]).succeeded()
    (row,) = read_csv(tmp_path / "r.csv")
    top1, _ = oracle(load_encoder(str(small_model)), load_task(f"imagefolder:{folder}", "test"))
    assert row["precision"] == "bf16"
    assert abs(float(row["top1"]) - top1) <= 2 / 12  # what is close to a tie may fall on the other side
