"""get_embeddings.py --parts as users run it: a data set in parts, by whichever processes, is the data set in one file."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import UserError
from common.files import read_csv
from datasets.registry import task_slug
from engine.embed_parts import TaskInParts
from engine.embedding_parts import PART, part_path, parts_beside
from engine.embeddings import load_embeddings, read_metadata
from models.selection import model_slug
from tests.helpers import files_below, load_script, run_here, run_script

QUICK = ["--num-workers", 0, "--device", "cpu", "--batch-size", 5]
LOST = ("test/blue/03.png", "test/green/00.jpg", "test/red/02.jpg")  # the images 3, 4 and 10; a batch ends between the first two
RUN = ("created", "embedding_seconds", "text_seconds", "parts")  # what may differ between two runs


@pytest.fixture(scope="module")
def damaged(image_folder, tmp_path_factory):
    """The coloured images, of which three cannot be read. Do not write to it."""
    folder = tmp_path_factory.mktemp("images") / "damaged"
    shutil.copytree(image_folder, folder)
    for name in LOST:
        (folder / name).write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def whole(image_folder, damaged, small_model, tmp_path_factory):
    """The embeddings of both folders in one file each: {folder: file}."""
    out = tmp_path_factory.mktemp("whole")
    what = ["--model-name", small_model, "--datasets", f"imagefolder:{image_folder}", f"imagefolder:{damaged}", "--split", "test"]
    run_here("get_embeddings", *what, "--outfolder", out, *QUICK, "--max-skipped", 3).succeeded()
    return {folder: next(out.rglob(f"{task_slug(f'imagefolder:{folder}')}_test.safetensors")) for folder in (image_folder, damaged)}


@pytest.fixture
def flags(small_model, tmp_path):
    """A function: flags to embed the test split of a folder into tmp_path/NAME."""

    def make(folder, name="embeddings", *more):
        what = ["--model-name", small_model, "--datasets", f"imagefolder:{folder}", "--split", "test"]
        return [*what, "--outfolder", tmp_path / name, *QUICK, *more]

    return make


@pytest.fixture
def main_file(small_model, tmp_path):
    """A function: the name of the embeddings of a folder below tmp_path/NAME."""
    return lambda folder, name="embeddings": (
        tmp_path / name / model_slug(str(small_model)) / f"{task_slug(f'imagefolder:{folder}')}_test.safetensors"
    )


@pytest.fixture
def embed(flags):
    """A function: run the script in this process."""
    return lambda *how: run_here("get_embeddings", *flags(*how))


def same(one, other):
    """The same embeddings to the bit, and the same facts but for those of the run."""
    for name in ("image_embeddings", "text_embeddings", "labels"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.sample_ids == other.sample_ids
    ignored = dict.fromkeys(RUN, "")
    assert one.metadata | ignored == other.metadata | ignored


@pytest.mark.parametrize("count", [1, 3, 7, 12])
def test_parts_are_the_whole_to_the_bit(whole, image_folder, embed, main_file, count):
    """However the cuts lie to the batches of five."""
    ended = embed(image_folder, "cut", "--parts", count).succeeded()
    assert len(parts_beside(main_file(image_folder, "cut"))) == count
    assert not main_file(image_folder, "cut").exists()
    assert ended.stdout.endswith(f": {count} of {count} parts are there\n")
    same(load_embeddings(main_file(image_folder, "cut")), load_embeddings(whole[image_folder]))


def test_joined_they_are_the_same_file(whole, damaged, embed, main_file):
    embed(damaged, "cut", "--max-skipped", 3, "--parts", 4, "--part", 2).succeeded()
    ended = embed(damaged, "cut", "--max-skipped", 3, "--parts", 4, "--join").succeeded()
    assert "9 images of 4 parts" in ended.stdout
    cut = main_file(damaged, "cut")
    same(load_embeddings(cut), load_embeddings(whole[damaged]))
    for beside in (".ids.txt", ".safetensors.skipped.txt"):
        assert cut.with_name(cut.stem + beside).read_bytes() == whole[damaged].with_name(whole[damaged].stem + beside).read_bytes()
    again = embed(damaged, "cut", "--max-skipped", 3, "--parts", 5, "--join").succeeded()  # the file is there: nothing to do
    assert again.stdout == f"kept {cut} (--overwrite makes it anew)\n"
    assert len(parts_beside(cut)) == 4


@pytest.mark.parametrize("count", [2, 5])
def test_unreadable_images_belong_to_one_part_each(whole, damaged, embed, main_file, count):
    embed(damaged, "cut", "--max-skipped", 3, "--parts", count).succeeded()
    main = main_file(damaged, "cut")
    same(load_embeddings(main), load_embeddings(whole[damaged]))
    lists = sorted(main.parent.glob("*.skipped.txt"))
    assert [line.split("\t")[0] for path in lists for line in path.read_text().splitlines()] == list(LOST)
    numbers = [json.loads(read_metadata(path)[PART])["unreadable"] for path in parts_beside(main)]
    assert [position for of_part in numbers for position, *_ in of_part] == [3, 4, 10]


def test_unreadable_images_are_counted_over_the_parts(damaged, embed, flags, main_file):
    """Of one process: those of parts that it finds too. The neighbours' images in a batch that was cut do not count."""
    embed(damaged, "cut", "--max-skipped", 2, "--parts", 3).refused("3 images are unreadable, more than --max-skipped 2", LOST[0])
    assert len(parts_beside(main_file(damaged, "cut"))) == 2
    embed(damaged, "cut", "--max-skipped", 2, "--parts", 3).refused("3 images are unreadable, more than --max-skipped 2")
    embed(damaged, "cut", "--max-skipped", 1, "--parts", 3).refused("2 images are unreadable, more than --max-skipped 1")
    embed(damaged, "cut", "--max-skipped", 1, "--parts", 3, "--part", 3).succeeded()  # it knows no other part's
    embed(damaged, "joined", "--max-skipped", 1, "--parts", 3, "--part", 1).succeeded()
    embed(damaged, "joined", "--max-skipped", 1, "--parts", 3, "--join").refused("2 images are unreadable")


def test_a_part_without_any_image(damaged, embed):
    embed(damaged, "cut", "--max-skipped", 3, "--parts", 12).refused("No image of part 4 of 12", "use fewer --parts")


@pytest.mark.parametrize("done", [0, 2, 4])
def test_a_run_that_was_killed_makes_what_is_missing(whole, image_folder, embed, flags, main_file, monkeypatch, done):
    made, make = [], TaskInParts.make

    def killed(self, number, overwrite=False):
        if len(made) == done:
            raise KeyboardInterrupt
        made.append(number)
        return make(self, number, overwrite)

    monkeypatch.setattr(TaskInParts, "make", killed)
    assert embed(image_folder, "embeddings", "--parts", 5).status == 130
    monkeypatch.undo()
    main = main_file(image_folder)
    before = files_below(main.parent) if done else {}
    assert len(parts_beside(main)) == done
    ended = embed(image_folder, "embeddings", "--parts", 5).succeeded()
    assert ended.stdout.count("kept ") == done
    assert before.items() <= files_below(main.parent).items()
    same(load_embeddings(main), load_embeddings(whole[image_folder]))


def test_jobs_of_an_array_and_other_batch_sizes_fit_together(whole, image_folder, embed, main_file):
    """Cuts do not depend on the batch size; the bits may."""
    for number, size in ((3, 4), (1, 5), (2, 12)):
        ended = embed(image_folder, "embeddings", "--parts", 3, "--part", number, "--batch-size", size).succeeded()
    assert "3 of 3 parts are there" in ended.stdout
    found, expected = load_embeddings(main_file(image_folder)), load_embeddings(whole[image_folder])
    np.testing.assert_allclose(found.image_embeddings, expected.image_embeddings, rtol=0, atol=1e-6)
    assert found.sample_ids == expected.sample_ids
    assert found.metadata["fingerprint"] == expected.metadata["fingerprint"]


def test_two_processes_make_different_parts(whole, image_folder, embed, flags, main_file):
    ended = run_script("get_embeddings", *flags(image_folder, "two", "--parts", 5), processes=2).succeeded()
    assert [ended.stdout.count(f"part {number} of 5,") for number in range(1, 6)] == [1] * 5
    same(load_embeddings(main_file(image_folder, "two")), load_embeddings(whole[image_folder]))


def test_overwrite(image_folder, embed, main_file):
    embed(image_folder, "embeddings", "--parts", 3).succeeded()
    paths = parts_beside(main_file(image_folder))
    before = [path.stat().st_ino for path in paths]
    embed(image_folder, "embeddings", "--parts", 3, "--part", 2, "--overwrite").succeeded()
    assert [path.stat().st_ino == inode for path, inode in zip(paths, before, strict=True)] == [True, False, True]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--template", "another {c}"], "other prompts"),
        (["--precision", "bf16", "--full-decode"], "other precision and decoding"),
    ],
    ids=["prompts", "precision"],
)
def test_parts_of_something_else_are_not_kept(image_folder, embed, main_file, more, what):
    embed(image_folder, "embeddings", "--parts", 3, "--part", 2).succeeded()
    embed(image_folder, "embeddings", "--parts", 3, *more).refused("part-00002-of-00003", what, "--overwrite", "--outfolder")


def test_parts_of_other_images_are_not_kept(image_folder, tmp_path, embed):
    """Told by ids and labels, without reading the images again."""
    folder = tmp_path / "images"
    shutil.copytree(image_folder, folder)
    embed(folder, "embeddings", "--parts", 3).succeeded()
    (folder / "test/red/03.png").rename(folder / "test/red/04.png")
    embed(folder, "embeddings", "--parts", 3).refused("part-00001-of-00003", "was made from other images")


def test_two_cuts_are_refused_where_they_are_read(image_folder, embed):
    embed(image_folder, "embeddings", "--parts", 3).succeeded()
    embed(image_folder, "embeddings", "--parts", 2, "--join").refused("parts of 2 and parts of 3")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--part", 1], "--part needs --parts N"),
        (["--join"], "--join needs --parts N"),
        (["--parts", 3, "--part", 4], "--part 4 is not one of the --parts 3"),
        (["--parts", 3, "--part", 1, "--join"], "--join needs all parts; leave --part out"),
        (["--parts", 13], "--parts 13 is more than the 12 images of"),
        (["--parts", 3, "--format", "csv"], "CSV files are not written in parts"),
        (["--parts", 3, "--measure", "gap"], "measure the files afterwards with get_metric_scores.py"),
        (["--parts", 0], "0 is less than 1"),
    ],
    ids=lambda value: "".join(map(str, value)) if isinstance(value, list) else "",
)
def test_flags_that_contradict(image_folder, embed, more, words):
    embed(image_folder, "embeddings", *more).refused(words)


def test_joining_by_two_processes():
    with pytest.raises(UserError, match="--join is for one process"):
        load_script("get_embeddings").embed_parts(SimpleNamespace(world=2), None, [], None, SimpleNamespace(join=True))


def test_a_pixel_cache_serves_a_part(whole, image_folder, tmp_path, embed, main_file):
    for _ in range(2):
        embed(image_folder, "cut", "--parts", 2, "--overwrite", "--pixel-cache", tmp_path / "pixels").succeeded()
    same(load_embeddings(main_file(image_folder, "cut")), load_embeddings(whole[image_folder]))


def test_transfer_scores_find_parts(image_folder, small_model, embed, main_file, tmp_path):
    """A whole set of parts serves as a file does; with a part missing, the embeddings are made, beside them."""
    embed(image_folder, "embeddings", "--split", "train", "--val-p", 0.1, "--parts", 3).succeeded()
    main = main_file(image_folder).with_name(main_file(image_folder).name.replace("_test", "_train"))
    flags = ["--dataset", f"imagefolder:{image_folder}", "--eval-models", small_model, "--metrics", "iimm"]
    where = ["--embeddings-dir", tmp_path / "embeddings", "--results-dir", tmp_path / "results", "--num-workers", 0, "--device", "cpu"]
    assert f"(embeddings found: {main})" in run_here("get_transfer_scores", *flags, *where).succeeded().stdout
    part_path(main, 2, 3).unlink()
    assert "found" not in run_here("get_transfer_scores", *flags, *where).succeeded().stdout
    assert not main.exists()
    (table,) = (tmp_path / "results").glob("*.csv")
    first, second = (float(row["score"]) for row in read_csv(table))
    assert first == pytest.approx(second, abs=1e-6)
