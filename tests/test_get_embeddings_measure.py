"""get_embeddings.py --measure: the numbers of get_metric_scores.py, without a file of embeddings."""

import shutil

import numpy as np
import pytest

from common.files import read_csv
from engine.embeddings import load_embeddings
from metrics.sums import OF_SUMS
from tests.helpers import files_below, run_here, run_script, write_images

NAMES = list(OF_SUMS)


@pytest.fixture
def flags(small_model, image_folder, tmp_path):
    """For the twelve images of the coloured test split; tables and files below tmp_path."""
    table, files = tmp_path / "scores.csv", tmp_path / "embeddings"
    model = ["--model-name", small_model, "--outfolder", files, "--measure-outpath", table]
    return [*model, "--datasets", f"imagefolder:{image_folder}", "--split", "test", "--num-workers", 0, "--batch-size", 5]


@pytest.fixture
def expected(flags, tmp_path):
    """Rows of get_metric_scores.py by measure, for the file of the same embeddings."""
    run_here("get_embeddings", *flags, "--device", "cpu", "--outfolder", tmp_path / "kept").succeeded()
    (file,) = (tmp_path / "kept").rglob("*.safetensors")
    table = tmp_path / "kept.csv"
    run_here("get_metric_scores", "--embeddings", file, "--metrics", *NAMES, "--outpath", table).succeeded()
    shutil.rmtree(tmp_path / "kept")
    return {row["measure"]: row for row in read_csv(table)}


def scores(table):
    return {row["measure"]: float(row["score"]) for row in read_csv(table)}


def close_to(expected):
    return pytest.approx({name: float(row["score"]) for name, row in expected.items()}, rel=1e-8)


def test_rows_are_those_of_the_file_and_no_file_is_written(flags, expected, tmp_path):
    before = set(files_below(tmp_path))
    ended = run_here("get_embeddings", *flags, "--device", "cpu", "--measure", *NAMES).succeeded()
    rows = read_csv(tmp_path / "scores.csv")
    assert scores(tmp_path / "scores.csv") == close_to(expected)
    same = ("data", "model", "finetuning", "split", "proportion", "variant", "n_images", "n_classes", "seed")
    more = ("fingerprint", "checkpoint_sha256", "templates", "precision", "numpy")
    for row in rows:
        assert {column: row[column] for column in (*same, *more)} == {column: expected[row["measure"]][column] for column in (*same, *more)}
    assert list(rows[0]) == list(expected["iimm"])
    assert set(files_below(tmp_path)) - before == {"scores.csv", ".scores.csv.lock"}
    assert f"Rows added to {tmp_path / 'scores.csv'}: {len(NAMES)}; already there: 0." in ended.stdout


def test_a_repeated_measurement_is_not_added(flags, tmp_path):
    for added, there in ((2, 0), (0, 2)):
        ended = run_here("get_embeddings", *flags, "--device", "cpu", "--measure", "iimm", "gap").succeeded()
        assert f": {added}; already there: {there}." in ended.stdout
    assert len(read_csv(tmp_path / "scores.csv")) == 2


def test_two_processes_give_the_numbers_of_one(flags, expected, tmp_path):
    """Three batches: the processes have different numbers of images."""
    ended = run_script("get_embeddings", *flags, "--measure", *NAMES, processes=2).succeeded()
    assert scores(tmp_path / "scores.csv") == close_to(expected)
    assert ended.stdout.count("Rows added") == 1


def test_bf16_sums_in_float64(flags, expected, tmp_path):
    run_here("get_embeddings", *flags, "--device", "cpu", "--precision", "bf16", "--measure", "iimm", "hscore").succeeded()
    found = scores(tmp_path / "scores.csv")
    assert found["iimm"] == pytest.approx(float(expected["iimm"]["score"]), abs=0.01)
    run_here("get_embeddings", *flags, "--device", "cpu", "--precision", "bf16").succeeded()
    (file,) = (tmp_path / "embeddings").rglob("*.safetensors")
    run_here("get_metric_scores", "--embeddings", file, "--metrics", "iimm", "--outpath", tmp_path / "bf16.csv").succeeded()
    assert found["iimm"] == pytest.approx(scores(tmp_path / "bf16.csv")["iimm"], abs=1e-7)


def test_keep_embeddings_writes_both_and_takes_every_measure(flags, tmp_path):
    run_here("get_embeddings", *flags, "--device", "cpu", "--measure", "iimm", "knn", "zero_shot", "--keep-embeddings").succeeded()
    (file,) = (tmp_path / "embeddings").rglob("*.safetensors")
    rows = read_csv(tmp_path / "scores.csv")
    assert [(row["measure"], row["file"]) for row in rows] == [(name, str(file)) for name in ("iimm", "knn", "zero_shot")]
    assert float(rows[0]["stderr"]) > 0
    assert len(load_embeddings(file).labels) == 12


def test_unreadable_images_are_left_out_and_listed_beside_the_table(flags, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "data")
    (tmp_path / "data/test/red/02.jpg").write_bytes(b"no image")
    flags[flags.index("--datasets") + 1] = f"imagefolder:{tmp_path / 'data'}"
    assert "more than --max-skipped 0" in run_here("get_embeddings", *flags, "--device", "cpu", "--measure", "gap").refused()
    run_here("get_embeddings", *flags, "--device", "cpu", "--measure", "gap", "--max-skipped", 1).succeeded()
    assert [row["n_images"] for row in read_csv(tmp_path / "scores.csv")] == ["11"]
    (listed,) = tmp_path.glob("scores.csv.*.skipped.txt")
    assert listed.read_text().startswith("test/red/02.jpg\t")


def test_what_is_undefined_is_told_after_the_others_are_written(flags, tmp_path):
    """With one image to a class nothing varies within classes; an hour of embedding is not lost to that."""
    write_images(tmp_path / "few" / "test", 1)
    flags[flags.index("--datasets") + 1] = f"imagefolder:{tmp_path / 'few'}"
    ended = run_here("get_embeddings", *flags, "--device", "cpu", "--measure", "between_within_ratio", "alignment")
    ended.refused("between_within_ratio of imagefolder:", "test: between_within_ratio is undefined")
    assert list(scores(tmp_path / "scores.csv")) == ["alignment"]


def test_refusals_come_before_any_embedding(flags, tmp_path):
    run = ["get_embeddings", *flags, "--device", "cpu"]
    run_here(*run, "--measure", "iimm", "knn").refused("knn needs all embeddings at once", "keep the embeddings")
    run_here(*run, "--measure", "aligment").refused("Unknown metric 'aligment'; did you mean 'alignment'?")
    run_here(*run, "--keep-embeddings").refused("--keep-embeddings says what to do besides measuring")
    (tmp_path / "scores.csv").mkdir()
    run_here(*run, "--measure", "iimm").refused("is a folder")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_weights_that_have_diverged(flags, small_model, tmp_path):
    from safetensors.numpy import load_file, save_file

    shutil.copytree(small_model, tmp_path / "diverged")
    weights = load_file(tmp_path / "diverged/open_clip_model.safetensors")
    weights["visual.proj"] = np.full_like(weights["visual.proj"], np.nan)
    save_file(weights, tmp_path / "diverged/open_clip_model.safetensors")
    flags[1] = tmp_path / "diverged"
    run_here("get_embeddings", *flags, "--device", "cpu", "--measure", "iimm").refused("cannot be measured", "not finite")
