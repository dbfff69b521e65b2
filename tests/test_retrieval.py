"""retrieval.py as users run it: rows, combinations of sides, features that are kept, and what is refused."""

import json

import pytest

from common.files import read_csv
from datasets.retrieval.table import load_retrieval
from inversion import features
from models.selection import select_encoder
from tests.helpers import files_below, run_here, write_images, write_model
from tests.inversion.fake_tokens import write_inversion

QUICK = ["--num-workers", 0, "--device", "cpu", "--batch-size", 5]


@pytest.fixture
def name(image_folder):
    return f"imagefolder:{image_folder}"


@pytest.fixture
def search(small_model, name, tmp_path):
    """Run the script on the small model and the folder of colours, all below one temporary folder."""

    def run(query, gallery, *more, model=small_model, data=name):
        places = ["--outfile", tmp_path / "out.csv", "--features", tmp_path / "kept", "--pseudo-tokens", tmp_path / "tokens"]
        return run_here(
            "retrieval", "--dataset-name", data, "--model-name", model, "--query", query, "--gallery", gallery, *places, *QUICK, *more
        )

    return run


@pytest.fixture
def tokens(small_model, name, tmp_path):
    """Learnt features of the queries, in the experiments ``first`` and ``second``."""
    task, selection = load_retrieval(name), select_encoder(str(small_model), None, {})
    place = {"dataset": task.name, "split": task.split, "side": "query"}
    for exp_name in ("first", "second"):
        write_inversion(tmp_path / "tokens", "oti", exp_name, task.query, selection, **place)


def rows_of(folder):
    return read_csv(folder / "out.csv")


def test_the_row_and_its_json(search, name, small_model, tmp_path):
    ended = search("image", "image").succeeded()
    (row,) = rows_of(tmp_path)
    task, selection = load_retrieval(name), select_encoder(str(small_model), None, {})
    expected = {
        **{"model": str(small_model), "dataset": name, "split": "test", "gallery_split": "train", "query": "image", "gallery": "image"},
        **{"query_exp_name": "", "gallery_exp_name": "", "query_step": "", "gallery_step": "", "fuse": "", "project": ""},
        **{"n_queries": "12", "n_gallery": str(len(task.gallery)), "n_without_positives": "0", "precision": "fp32"},
        **{"fingerprint": task.fingerprint, "checkpoint_sha256": selection.sha256},
    }
    assert {key: row[key] for key in expected} == expected
    assert {
        "mAP",
        "mAP_at_R",
        "precision_at_R",
        "recall_at_1",
        "recall_at_5",
        "recall_at_10",
        "seconds",
        "created",
        "versions",
    } <= row.keys()
    assert 30 < float(row["mAP"]) <= 100  # a percentage: by chance it would be a third
    assert f"{float(row['mAP']):.2f}" in ended.stdout
    (details,) = (tmp_path / "out").glob("*.json")
    found = json.loads(details.read_text())
    assert (found["mAP"], found["without_positives"], found["processes"]) == (float(row["mAP"]), {"": 0}, 1)


def test_steps_experiments_and_weights_are_rows(search, tokens, tmp_path):
    ended = search("oti", "image", "--query-exp-name", "first", "second", "--steps", "2,5", "--fuse", 0.25, 0.5).succeeded()
    found = [(row["query_exp_name"], row["fuse"], row["query_step"]) for row in rows_of(tmp_path)]
    assert found == [(exp_name, weight, step) for exp_name in ("first", "second") for weight in ("0.25", "0.5") for step in ("2", "5")]
    assert "oti second@5 -> image, fused 0.5" in ended.stdout
    details = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    assert {of["inversion"]["query"]["template"] for of in details} == {"a photo of {}"}


def test_by_default_the_last_step(search, tokens, tmp_path):
    search("oti", "image", "--query-exp-name", "first").succeeded()
    assert [row["query_step"] for row in rows_of(tmp_path)] == ["5"]


def test_what_oti_learns_is_found_without_a_name(search, small_model, name, tmp_path):
    flags = ["--dataset-name", name, "--model-name", small_model, "--outfolder", tmp_path / "tokens", "--oti-steps", 2, "--num-workers", 0]
    run_here("oti", *flags, "--device", "cpu").succeeded()
    search("oti", "image").succeeded()
    (row,) = rows_of(tmp_path)
    assert row["query_exp_name"] == select_encoder(str(small_model), None, {}).label
    assert row["query_step"] == "2"


@pytest.mark.parametrize(("sides", "counts"), [(("text", "image"), ("3", "22")), (("image", "text"), ("12", "3"))])
def test_across_modalities(search, tmp_path, sides, counts):
    search(*sides).succeeded()
    (row,) = rows_of(tmp_path)
    assert (row["n_queries"], row["n_gallery"]) == counts


def test_leave_one_out(search, tmp_path):
    search("image", "image", "--gallery-split", "test").succeeded()
    (row,) = rows_of(tmp_path)
    assert (row["gallery_split"], row["n_gallery"]) == ("test", "12")


@pytest.mark.parametrize(("flags", "label"), [(["pca"], "pca"), (["iso", "--drop-top", 2, "--drop-bottom", 3], "iso 2/3")])
def test_projections(search, tmp_path, flags, label):
    search("image", "image", "--project", *flags).succeeded()
    assert [row["project"] for row in rows_of(tmp_path)] == [label]


def test_released_spellings(search, tokens, name, small_model, tmp_path):
    flags = ["--query_eval_type", "oti", "--gallery_eval_type", "image", "--query_exp_name", "first", "--dataroot", tmp_path]
    places = ["--outfile", tmp_path / "out.csv", "--features", tmp_path / "kept", "--pseudo-tokens", tmp_path / "tokens"]
    template = ["--oti_template_sentence", "a photo of {}"]
    run_here("retrieval", "--dataset_name", name, "--model-name", small_model, *flags, *template, *places, *QUICK).succeeded()
    assert [row["query"] for row in rows_of(tmp_path)] == ["oti"]


def test_features_are_kept_and_no_image_is_decoded_again(search, tmp_path, monkeypatch):
    first = search("image", "image").succeeded()
    kept = files_below(tmp_path / "kept")
    monkeypatch.setattr(features, "embed_images", None)
    second = search("image", "image").succeeded()
    assert files_below(tmp_path / "kept") == kept
    assert first.stdout.split()[:-1] == second.stdout.split()[:-1]  # all but the seconds


def test_kept_features_of_other_images_are_not_taken(search, tmp_path):
    write_images(tmp_path / "data/train", 4)
    write_images(tmp_path / "data/test", 3, seed=1)
    search("image", "image", data=f"imagefolder:{tmp_path / 'data'}").succeeded()
    (tmp_path / "data/test/red/00.jpg").unlink()
    search("image", "image", data=f"imagefolder:{tmp_path / 'data'}").succeeded()
    assert [row["n_queries"] for row in rows_of(tmp_path)] == ["9", "8"]


def test_figures(search, tokens, tmp_path):
    ended = search("oti", "image", "--query-exp-name", "first", "--steps", "all", "--figures", tmp_path / "figures").succeeded()
    drawn = sorted(path.name.split("_")[0] for path in (tmp_path / "figures").glob("*.png"))
    assert drawn == ["dynamics", "similarities", "similarities"]
    assert ended.stdout.count("drawn: ") == 3


def test_missing_pseudo_tokens_say_which_command_makes_them(search, name):
    search("oti", "image", "--query-exp-name", "none").refused(
        "no pseudo-tokens", f"python oti.py --dataset-name {name}", "--exp-name none"
    )


def test_pseudo_tokens_of_another_model(search, tokens, tmp_path):
    other = write_model(tmp_path / "other", seed=1)
    search("oti", "image", "--query-exp-name", "first", model=other).refused("whose weights are not those of", "other")


def test_a_step_that_was_not_recorded(search, tokens):
    search("oti", "image", "--query-exp-name", "first", "--steps", 3).refused("Step 3 was not recorded, only 2, 5")


def test_another_template_than_was_learnt_with(search, tokens):
    flags = ["--query-exp-name", "first", "--oti-template-sentence", "an image of {}"]
    search("oti", "image", *flags).refused("made with the template 'a photo of {}', not 'an image of {}'")


@pytest.mark.parametrize(
    ("sides", "flags", "words"),
    [
        (("oti", "pictures"), [], ["invalid choice: 'pictures'"]),
        (("ovi", "image"), [], ["no pseudo-tokens", "python ovi.py"]),
        (("image", "image"), ["--query-exp-name", "first"], ["--query-exp-name names an inversion, but --query is image"]),
        (("image", "image"), ["--fuse", 0.5], ["--fuse mixes native and inverted"]),
        (("oti", "image"), ["--query-exp-name", "first", "--fuse", 2], ["between 0 and 1, not 2"]),
        (("oti", "image"), ["--query-exp-name", "first", "--project", "pca"], ["takes the place of an inversion"]),
        (
            ("oti", "image"),
            ["--query-exp-name", "first", "--steps", "last"],
            ["--steps takes numbers of steps, 'final' or 'all', not 'last'"],
        ),
        (("image", "image"), ["--steps", "all"], ["--steps are those of an inversion"]),
        (("image", "image"), ["--drop-top", 3], ["belong to --project iso"]),
        (("image", "image"), ["--project", "iso"], ["no published numbers", "--drop-top"]),
        (("image", "image"), ["--max-skipped", 3], ["no image can be left out"]),
        (("image", "image"), ["--crop"], ["--crop is not for"]),
        (("image", "image"), ["--query-split", "tset"], ["Unknown split", "did you mean 'test'"]),
        (("text", "text"), [], ["among texts nothing is relevant"]),
    ],
)
def test_what_is_refused(search, tokens, tmp_path, sides, flags, words):
    search(*sides, *flags).refused(*words)
    assert not (tmp_path / "out.csv").exists()


def test_a_gallery_of_another_split_where_each_split_has_its_own(search):
    search("image", "image", "--query-split", "test", "--gallery-split", "all", data="sop").refused(
        "SOP has a gallery for each of its splits"
    )


def test_images_that_cannot_be_read(search, tmp_path):
    write_images(tmp_path / "data/train", 4)
    write_images(tmp_path / "data/test", 3, seed=1)
    (tmp_path / "data/test/red/00.jpg").write_bytes(b"no image")
    search("image", "image", data=f"imagefolder:{tmp_path / 'data'}").refused("1 of the 9 images", "red/00.jpg")
