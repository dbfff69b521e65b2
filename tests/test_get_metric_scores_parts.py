"""get_metric_scores.py on a data set in parts: the rows of the one file, with one part in memory at a time."""

import weakref
from dataclasses import replace

import numpy as np
import pytest

import engine.embeddings
from common.files import read_csv
from datasets.fingerprint import Fingerprint
from engine.embedding_parts import Place, part_path, parts_beside
from engine.embeddings import Embeddings, PartedEmbeddings, describe, save_embeddings
from engine.parted_scores import score_parts
from metrics.sums import OF_SUMS
from tests.helpers import run_here

N, D, C, PARTS = 240, 8, 4, 7
SUMS = [name for name in OF_SUMS if name != "transrate"]
NUMBERS = ("score", "stderr", "low", "high")


def embeddings(seed=0):
    """Images about one centre for each class, of which the last has none."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, C - 1, N)
    rows = generator.standard_normal((C, D))[labels] + generator.standard_normal((N, D))
    texts = generator.standard_normal((C, D))
    images, texts = ((made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32) for made in (rows, texts))
    ids, digests = [f"{number}.jpg" for number in range(N)], generator.integers(0, 256, (N, 32), np.uint8)
    facts = {"model": "clip", "dataset": "Pets", "split": "train", "classnames": list("abcd"), "templates": ["a {c}"]}
    return Embeddings(images, texts, labels, ids, describe(**facts, embedding_seconds="1", n_skipped="0"), digests)


def fingerprint(of, rows):
    found = Fingerprint()
    for row in rows:
        found.add(of.sample_ids[row], int(of.labels[row]), of.sample_digests[row].tobytes())
    return {"fingerprint": found.hexdigest()}


def cut(main, of, parts=PARTS):
    """Write the parts of ``of``."""
    for number in range(1, parts + 1):
        place = Place(number, parts, N, "listing")
        start, stop = place.samples.start, place.samples.stop
        arrays = {name: getattr(of, name)[start:stop] for name in ("image_embeddings", "labels", "sample_ids", "sample_digests")}
        facts = of.metadata | fingerprint(of, place.samples) | place.metadata()
        save_embeddings(part_path(main, number, parts), replace(of, **arrays, metadata=facts))


@pytest.fixture
def whole(tmp_path):
    of = embeddings()
    return save_embeddings(
        tmp_path / "whole/Pets_train", replace(of, metadata=of.metadata | fingerprint(of, range(N)), sample_digests=None)
    )


@pytest.fixture
def parted(tmp_path):
    cut(tmp_path / "parted/Pets_train.safetensors", embeddings())
    return tmp_path / "parted/Pets_train.safetensors"


@pytest.fixture
def measured(tmp_path):
    """A function: the rows of the table after measuring files with flags, and what was printed."""

    def run(table, *flags):
        ended = run_here("get_metric_scores", "--outpath", tmp_path / table, *flags).succeeded()
        return read_csv(tmp_path / table), ended.stdout

    return run


def near(rows, others):
    """The same rows, numbers to rounding."""
    changing = dict.fromkeys((*NUMBERS, "file", "seconds"), "")
    assert [row | changing for row in rows] == [row | changing for row in others]
    for row, other in zip(rows, others, strict=True):
        for name in NUMBERS:
            assert (row[name] == "") == (other[name] == "")
            if row[name]:
                assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-10, abs=1e-12), (row["measure"], name)


@pytest.fixture
def one_at_a_time(monkeypatch):
    """Fails where all parts are loaded together."""

    def load(self):
        raise AssertionError("all parts are loaded")

    monkeypatch.setattr(engine.embeddings.PartedEmbeddings, "load", load)


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize("flags", [[], ["--prop", 0.3, "--seed", 5], ["--prop", 0.02]], ids=["all", "share", "five images"])
def test_measures_of_sums_are_those_of_one_file(whole, parted, measured, flags):
    """Scores, standard errors, intervals and provenance; of five images some parts have none."""
    names = SUMS if len(flags) != 2 else ["iimm", "gap", "alignment"]
    parts, _ = measured("parts.csv", "--embeddings", parted, "--metrics", *names, *flags)
    file, _ = measured("file.csv", "--embeddings", whole, "--metrics", *names, *flags)
    assert [row["measure"] for row in parts] == names
    near(parts, file)


@pytest.mark.usefixtures("one_at_a_time")
def test_what_is_measured_of_the_file_is_not_added_again(whole, parted, measured):
    measured("same.csv", "--embeddings", whole)
    rows, told = measured("same.csv", "--embeddings", parted)
    assert "Rows added" in told
    assert f"already there: {len(rows)}." in told


@pytest.mark.parametrize(
    ("names", "flags"),
    [(["zero_shot", "iimm"], []), (["transrate"], []), (["gbc_spherical"], ["--as-released"]), (["hscore"], ["--bootstrap", 5])],
    ids=["accuracy", "transrate", "released", "bootstrap"],
)
def test_other_measures_load_all_parts_and_say_so(whole, parted, measured, names, flags):
    parts, told = measured("parts.csv", "--embeddings", parted, "--metrics", *names, *flags)
    file, _ = measured("file.csv", "--embeddings", whole, "--metrics", *names, *flags)
    assert f"some measures need all images at once; {N} images of {PARTS} parts are loaded." in told
    near(parts, file)


def test_parts_that_the_shell_lists_are_the_whole(parted, measured):
    rows, _ = measured("listed.csv", "--embeddings", *parts_beside(parted), "--metrics", "gap")
    assert [(row["file"], row["n_images"]) for row in rows] == [(str(parted), str(N))]


def test_one_part_is_measured_alone_and_said_so(parted, measured):
    path = part_path(parted, 2, PARTS)
    rows, told = measured("one.csv", "--embeddings", path, "--metrics", "gap")
    assert told.startswith(f"{path} is part 2 of {PARTS} alone; ")
    assert [row["n_images"] for row in rows] == ["34"]


def test_a_missing_part_is_told_before_anything_is_measured(whole, parted, tmp_path):
    part_path(parted, 5, PARTS).unlink()
    ended = run_here("get_metric_scores", "--embeddings", whole, parted, "--outpath", tmp_path / "scores.csv")
    ended.refused("is in 7 parts, of which part 5 is missing", "--parts 7 --part 5")
    assert not (tmp_path / "scores.csv").exists()


def test_rows_that_are_not_unit_are_refused(tmp_path, parted):
    of = embeddings()
    of.image_embeddings[100] *= 2
    cut(parted, of)
    run_here("get_metric_scores", "--embeddings", parted, "--outpath", tmp_path / "scores.csv").refused(
        f"'{parted}' cannot be measured", "must be a unit vector"
    )


def test_no_more_than_two_parts_are_in_memory(parted, monkeypatch):
    """The one before is forgotten when the next has been read."""
    kept = weakref.WeakSet()
    load = engine.embeddings.load_embeddings

    def watched(path):
        assert len(kept) <= 1
        kept.add(found := load(path))
        return found

    monkeypatch.setattr(engine.embeddings, "load_embeddings", watched)
    count, classes, _ = score_parts(PartedEmbeddings(parted), ["iimm", "hscore"], np.arange)
    assert (count, classes) == (N, C)
