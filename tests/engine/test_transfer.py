"""Embeddings that serve again only when they are of what is asked, and rows that are those of the measures."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.errors import CannotWrite
from datasets.registry import load_task, task_slug
from engine import transfer
from engine.embed import LoadOptions, embed_task
from engine.embeddings import load_embeddings, save_embeddings
from engine.runtime import start
from engine.transfer import COLUMNS, EmbeddingsFile, Measured, TransferRequest, embeddings_file, embeddings_files, measure, ncti_comparison
from metrics.ncti import NctiParts, compare_ncti, ncti_parts
from metrics.sample import Sample
from metrics.table import METRICS
from metrics.uncertainty import uncertainty
from models.encoder import Encoder
from models.selection import model_slug, select_encoder
from tests.helpers import files_below, write_images, write_model

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture(scope="module")
def narrow_model(tmp_path_factory):
    """Embeds in 8 dimensions, fewer than there are images, so that regressions on them are not exact. Do not write to it."""
    return write_model(tmp_path_factory.mktemp("models") / "narrow", seed=3, embed_dim=8)


@pytest.fixture
def ask(image_folder, tmp_path):
    """A function: a request for the coloured images' training split; files below tmp_path/embeddings."""

    def make(*metrics, val_p=0.1, templates=("a photo of a {c}",), folder=image_folder, max_skipped=0, **more):
        task = load_task(f"imagefolder:{folder}", "train", val_p=val_p, templates=templates)
        return TransferRequest(task, metrics or ("iimm",), tmp_path / "embeddings", LoadOptions(8, 0, max_skipped), **more)

    return make


@pytest.fixture
def blind(monkeypatch):
    """A function: from now on no image tower can be called."""

    def encode_image(self, pixels):
        raise AssertionError("the image tower was called")

    return lambda: monkeypatch.setattr(Encoder, "encode_image", encode_image)


def tree(folder):
    """What is below the folder, less the locks of tables."""
    return {name: content for name, content in files_below(folder).items() if not name.endswith(".lock")}


# --- files ---------------------------------------------------------------------------------------------------------


def test_a_file_is_made_where_get_embeddings_puts_it_and_then_serves(narrow_model, ask, blind, tmp_path):
    """Its rows are embed_task's; the second time the tower is not called and no file is touched."""
    request = ask()
    made = embeddings_file(start("cpu"), str(narrow_model), request)
    place = tmp_path / "embeddings" / model_slug(str(narrow_model)) / f"{task_slug(request.task.name)}_train.safetensors"
    assert made == EmbeddingsFile(str(narrow_model), place)
    expected, _ = embed_task(start("cpu"), select_encoder(str(narrow_model), None, {}), request.task, request.load)
    np.testing.assert_array_equal(load_embeddings(place).image_embeddings, expected.image_embeddings)
    before = tree(tmp_path)
    blind()
    assert embeddings_file(start("cpu"), str(narrow_model), ask()) == made._replace(found=True)
    assert tree(tmp_path) == before


def test_the_towers_of_the_blind_are_called_when_there_is_no_file(narrow_model, ask, blind):
    """So that the tests which blind prove something."""
    blind()
    with pytest.raises(AssertionError, match="tower was called"):
        embeddings_file(start("cpu"), str(narrow_model), ask())


def other_images(folder):
    for image in (folder / "train" / "red").iterdir():
        shutil.copy(folder / "train" / "blue" / image.name, image)


def other_class_names(folder):
    (folder / "classnames.txt").write_text("navy\nlime\nscarlet\n")


@pytest.mark.parametrize(
    ("of", "change"),
    [
        ({"val_p": 0.3}, None),
        ({"templates": ("the colour {c}",)}, None),
        ({"templates": ("a photo of a {c}", "the colour {c}")}, None),
        ({}, other_images),
        ({}, other_class_names),
    ],
    ids=["val-p", "template", "one template more", "images", "class names"],
)
def test_a_file_of_other_images_or_prompts_does_not_serve(narrow_model, ask, blind, image_folder, tmp_path, of, change):
    """It stays as it is, what is asked lies beside it, and from then on both serve."""
    data = shutil.copytree(image_folder, tmp_path / "data")
    runtime, earlier = start("cpu"), ask(folder=data)
    first = embeddings_file(runtime, str(narrow_model), earlier)
    before = tree(tmp_path / "embeddings")
    if change:
        change(data)
    later = ask(folder=data, **of)
    second = embeddings_file(runtime, str(narrow_model), later)
    after = tree(tmp_path / "embeddings")
    assert (second.found, second.path.parent, second.path == first.path) == (False, first.path.parent, False)
    assert {name: after[name] for name in before} == before
    expected, _ = embed_task(runtime, select_encoder(str(narrow_model), None, {}), later.task, later.load)
    for name in ("image_embeddings", "text_embeddings", "labels"):
        np.testing.assert_array_equal(getattr(load_embeddings(second.path), name), getattr(expected, name))
    blind()
    for request, made in ((earlier, first), (later, second)):
        assert embeddings_file(runtime, str(narrow_model), request) == made._replace(found=True)


def test_a_file_of_other_weights_under_the_same_name_does_not_serve(ask, tmp_path):
    runtime, model = start("cpu"), write_model(tmp_path / "model")
    first = embeddings_file(runtime, str(model), ask())
    before = tree(tmp_path / "embeddings")
    shutil.rmtree(model)
    write_model(model, seed=1)
    second = embeddings_file(runtime, str(model), ask())
    assert (second.found, second.path.parent, second.path == first.path) == (False, first.path.parent, False)
    assert before.items() <= tree(tmp_path / "embeddings").items()
    assert load_embeddings(second.path).metadata["checkpoint_sha256"] == select_encoder(str(model), None, {}).sha256


def test_a_third_kind_does_not_replace_the_second(narrow_model, ask):
    """Same images, same weights, three prompts: three files."""
    runtime = start("cpu")
    paths = [
        embeddings_file(runtime, str(narrow_model), ask(templates=(text,))).path for text in ("a photo of a {c}", "the {c}", "some {c}")
    ]
    assert [load_embeddings(path).templates for path in paths] == [["a photo of a {c}"], ["the {c}"], ["some {c}"]]


def test_a_file_of_another_split_does_not_serve(narrow_model, ask, tmp_path):
    """A file in the place of the training split whose metadata says "val"."""
    made = embeddings_file(start("cpu"), str(narrow_model), ask())
    kept = load_embeddings(made.path)
    save_embeddings(made.path, replace(kept, metadata={**kept.metadata, "split": "val"}))
    again = embeddings_file(start("cpu"), str(narrow_model), ask())
    assert (again.found, again.path == made.path) == (False, False)


def test_a_truncated_file_does_not_serve_and_stays(narrow_model, ask):
    made = embeddings_file(start("cpu"), str(narrow_model), ask())
    made.path.write_bytes(made.path.read_bytes()[:-100])
    again = embeddings_file(start("cpu"), str(narrow_model), ask())
    assert (again.found, again.error) == (False, "")
    assert len(load_embeddings(again.path).labels) == 22
    assert measure(made, ask()).rows[0]["error"].startswith(f"'{made.path}' is not a whole safetensors file")


def test_a_file_that_leaves_out_more_images_than_are_allowed_does_not_serve(narrow_model, ask, image_folder, tmp_path):
    """Its fingerprint is that of all images of the split, the unreadable one too."""
    data = shutil.copytree(image_folder, tmp_path / "data")
    image = data / "train" / "red" / "00.jpg"
    image.write_bytes(image.read_bytes()[:200])
    made = embeddings_file(start("cpu"), str(narrow_model), ask(folder=data, max_skipped=1))
    assert made.error == ""
    assert embeddings_file(start("cpu"), str(narrow_model), ask(folder=data, max_skipped=1)).found
    refused = embeddings_file(start("cpu"), str(narrow_model), ask(folder=data))
    assert "1 image is unreadable, more than --max-skipped 0 allows" in refused.error


def test_several_processes_hear_of_too_many_unreadable_images_together(narrow_model, ask, image_folder, tmp_path, monkeypatch):
    """None leaves the others in the middle of their work: the limit is not checked before all images are seen."""
    data = shutil.copytree(image_folder, tmp_path / "data")
    for image in (data / "train" / "blue").iterdir():
        image.write_bytes(image.read_bytes()[:200])
    seen = []
    real = Encoder.encode_image
    monkeypatch.setattr(Encoder, "encode_image", lambda self, pixels: seen.append(len(pixels)) or real(self, pixels))
    for world, images in ((1, 0), (2, 15)):
        runtime = start("cpu")
        monkeypatch.setattr(transfer, "embed_task", lambda _, *rest, alone=runtime: embed_task(alone, *rest))
        several = SeveralProcesses(world)
        refused = embeddings_file(several, str(narrow_model), ask(folder=data))
        assert "unreadable, more than --max-skipped 0 allows" in refused.error
        assert sum(seen) == images
        assert not list((tmp_path / "embeddings").rglob("*.*"))


class SeveralProcesses:
    """What is asked of a runtime before and after embedding, of which ``world`` processes agree."""

    is_main = True

    def __init__(self, world):
        self.world = world

    def gather_objects(self, items):
        return list(items) * self.world


def test_one_process_makes_each_file_when_it_is_asked_for(narrow_model, small_model, ask, tmp_path):
    files = embeddings_files(start("cpu"), [str(narrow_model), str(small_model)], ask())
    assert next(files).path.exists()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert next(files).path.exists()


@pytest.mark.parametrize("models", [1, 2])
def test_several_processes_make_all_files_first(ask, monkeypatch, models):
    """When the first is there to be measured, no process waits for another any more."""
    made = []
    monkeypatch.setattr(transfer, "embeddings_file", lambda runtime, model, request: made.append(model) or EmbeddingsFile(model))
    names = ["a", "b"][:models]
    assert next(embeddings_files(SeveralProcesses(2), names, ask())).model == "a"
    assert made == names


# --- models that fail ----------------------------------------------------------------------------------------------


def test_a_model_that_cannot_be_loaded_says_so_in_each_of_its_rows(ask):
    file = embeddings_file(start("cpu"), "tinny", ask("iimm", "gap"))
    rows = measure(file, ask("iimm", "gap")).rows
    assert [row["metric"] for row in rows] == ["iimm", "gap"]
    for row in rows:
        assert "'tiny'" in row["error"]
        assert (row["model"], row["score"], row["embedding_seconds"], row["n_images"]) == ("tinny", "", "", "")


def test_a_model_that_does_not_fit_into_memory(narrow_model, ask, monkeypatch):
    """Alone it says so; one of several processes must not go on while the others wait for it."""

    def encode_image(self, pixels):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Encoder, "encode_image", encode_image)
    assert "8 images do not fit into memory; make --bs smaller." in embeddings_file(start("cpu"), str(narrow_model), ask()).error
    monkeypatch.setattr(transfer, "embed_task", lambda *_: encode_image(None, None))
    with pytest.raises(torch.OutOfMemoryError):
        embeddings_file(SeveralProcesses(2), str(narrow_model), ask())


def test_a_full_disk_is_nothing_that_a_row_says(narrow_model, ask, monkeypatch):
    """It ends the run, which goes on when there is room; a row would stay."""

    def full(*_):
        raise CannotWrite("Cannot write 'x': No space left on device.")

    monkeypatch.setattr(transfer, "save_embeddings", full)
    with pytest.raises(CannotWrite, match="No space left"):
        embeddings_file(start("cpu"), str(narrow_model), ask())


def test_a_file_with_a_changed_number_is_reported(narrow_model, ask):
    made = embeddings_file(start("cpu"), str(narrow_model), ask())
    content = bytearray(made.path.read_bytes())
    content[-5] ^= 1
    made.path.write_bytes(content)
    assert "is damaged or was edited" in measure(made, ask()).rows[0]["error"]


# --- rows ----------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_measures_called_on_the_file(narrow_model, ask):
    """Each of them; where the images are too few for one, the measure says the same."""
    request = ask(*METRICS)
    file = embeddings_file(start("cpu"), str(narrow_model), request)
    rows, of = measure(file, request).rows, load_embeddings(file.path)
    sample = Sample(of.image_embeddings, of.text_embeddings, of.labels, logit_scale=float(of.metadata["logit_scale"]))
    assert [row["metric"] for row in rows] == list(METRICS)
    assert [row["score"] for row in rows] == pytest.approx([metric.score(sample) for metric in METRICS.values()], rel=1e-12)
    for row in rows:
        if row["metric"] != "leep":  # whose function takes the logit scale besides
            direct = METRICS[row["metric"]](of.image_embeddings, of.text_embeddings, of.labels)
            assert row["score"] == pytest.approx(direct, rel=1e-12), row["metric"]


def test_what_a_row_says(narrow_model, ask):
    request = ask("iimm", seed=4)
    file = embeddings_file(start("cpu"), str(narrow_model), request)
    (row,) = measure(file, request).rows
    of = load_embeddings(file.path)
    assert list(row)[: len(COLUMNS)] == list(COLUMNS)
    expected = {
        **{"train_data": request.task.name, "model": str(narrow_model), "metric": "iimm", "variant": "definition", "split": "train"},
        **{"n_images": 22, "n_classes": 3, "error": "", "interval": "jackknife", "bootstrap": 0, "seed": 4, "precision": "fp32"},
        **{"fingerprint": request.task.fingerprint, "templates": '["a photo of a {c}"]'},
        "checkpoint_sha256": of.metadata["checkpoint_sha256"],
    }
    assert {key: row[key] for key in expected} == expected
    closed = uncertainty(METRICS["iimm"], Sample(of.image_embeddings, of.text_embeddings, of.labels))
    assert [row[key] for key in ("stderr", "low", "high")] == pytest.approx(closed[:3], rel=1e-12)


def test_embedding_seconds_are_those_that_the_file_remembers(narrow_model, ask):
    made = embeddings_file(start("cpu"), str(narrow_model), ask())
    kept = load_embeddings(made.path)
    save_embeddings(made.path, replace(kept, metadata={**kept.metadata, "embedding_seconds": "1234.5", "text_seconds": "0.25"}))
    again = embeddings_file(start("cpu"), str(narrow_model), ask())
    assert again.found
    assert measure(again, ask()).rows[0]["embedding_seconds"] == 1234.75


def test_seconds_that_a_file_does_not_know_are_not_zero(narrow_model, ask):
    made = embeddings_file(start("cpu"), str(narrow_model), ask())
    kept = load_embeddings(made.path)
    save_embeddings(made.path, replace(kept, metadata={key: value for key, value in kept.metadata.items() if key != "embedding_seconds"}))
    assert np.isnan(measure(made, ask()).rows[0]["embedding_seconds"])


def test_prompts_are_written_as_in_the_embeddings(narrow_model, ask):
    """Tables are joined by them."""
    request = ask("gap", templates=("une photo d'été: {c}",))
    file = embeddings_file(start("cpu"), str(narrow_model), request)
    assert measure(file, request).rows[0]["templates"] == load_embeddings(file.path).metadata["templates"]


def test_an_undefined_measure_is_reported_and_the_others_have_the_scores_that_they_have_alone(narrow_model, ask, tmp_path):
    """One image per class: no two of one class. The undefined stand before, between and behind the others."""
    write_images(tmp_path / "single" / "train", 1)
    write_images(tmp_path / "single" / "val", 1, seed=1)
    request = ask("parc", "gap", "ncti", "alignment", "sfda", folder=tmp_path / "single", bootstrap=5)
    file = embeddings_file(start("cpu"), str(narrow_model), request)
    measured = measure(file, request)
    told = {row["metric"]: row["error"] for row in measured.rows}
    assert list(told) == ["parc", "gap", "ncti", "alignment", "sfda"]
    assert told["parc"] == "parc is undefined: no two images are of the same class."
    assert [name for name, error in told.items() if error] == ["parc", "ncti", "sfda"]
    assert {row["score"] for row in measured.rows if row["error"]} == {""}
    assert measured.ncti is None
    for name in ("gap", "alignment"):
        alone = measure(file, replace(request, metrics=(name,))).rows[0]
        (row,) = (row for row in measured.rows if row["metric"] == name)
        same = ("score", "stderr", "low", "high", "interval")
        assert [row[key] for key in same] == [alone[key] for key in same]


def test_as_released_where_there_is_such_a_number(narrow_model, ask):
    request = ask("ncti", "gap", "gbc_spherical", as_released=True)
    file = embeddings_file(start("cpu"), str(narrow_model), request)
    rows, of = measure(file, request).rows, load_embeddings(file.path)
    sample = Sample(of.image_embeddings, of.text_embeddings, of.labels)
    for row in rows:
        metric = METRICS[row["metric"]]
        assert row["variant"] == ("as released" if metric.as_released else "definition")
        assert row["score"] == pytest.approx((metric.as_released or metric.from_sample)(sample), rel=1e-12)
    assert [row["variant"] for row in rows[:2]] == ["as released", "definition"]
    assert rows[0]["score"] != pytest.approx(METRICS["ncti"].score(sample), rel=1e-3)


def test_resamples_give_intervals_where_there_is_no_closed_form(narrow_model, ask):
    """The same at the same seed, others at another; the closed form and the scores stay."""
    runtime, requests = (
        start("cpu"),
        [ask("iimm", "hscore", bootstrap=count, seed=seed) for count, seed in ((0, 0), (9, 0), (9, 0), (9, 1))],
    )
    file = embeddings_file(runtime, str(narrow_model), requests[0])
    without, first, again, other = ({row["metric"]: row for row in measure(file, request).rows} for request in requests)
    assert (without["hscore"]["interval"], without["hscore"]["stderr"]) == ("none", "")
    assert (first["hscore"]["interval"], first["hscore"]["bootstrap"]) == ("bootstrap", 9)
    assert first["hscore"]["low"] < first["hscore"]["high"]
    numbers = ("score", "stderr", "low", "high")
    assert [first["hscore"][key] for key in numbers] == [again["hscore"][key] for key in numbers]
    assert first["hscore"]["stderr"] != other["hscore"]["stderr"]
    assert {rows["hscore"]["score"] for rows in (without, first, other)} == {first["hscore"]["score"]}
    assert first["iimm"]["interval"] == "jackknife"
    assert [first["iimm"][key] for key in numbers] == [without["iimm"][key] for key in numbers]


def test_the_order_of_measures_does_not_change_a_score(narrow_model, ask):
    """Nor that of those which share sums, or draw."""
    names = ("ncti", "hscore", "linear_probe", "iimm", "sfda", "leep", "knn")
    file = embeddings_file(start("cpu"), str(narrow_model), ask())
    forward, backward = (
        {row["metric"]: row["score"] for row in measure(file, ask(*order)).rows} for order in (names, tuple(reversed(names)))
    )
    assert forward == backward
    assert list(forward) == list(reversed(backward))


# --- NCTI over models ----------------------------------------------------------------------------------------------


def test_the_parts_of_ncti_are_kept_where_it_is_asked_for(narrow_model, ask):
    file = embeddings_file(start("cpu"), str(narrow_model), ask())
    of = load_embeddings(file.path)
    assert measure(file, ask("gap", "ncti")).ncti == pytest.approx(ncti_parts(of.image_embeddings, of.labels), rel=1e-12)
    assert measure(file, ask("gap")).ncti is None


def test_ncti_over_the_models_that_have_it():
    """Of three: the one without stays out, the others are ranked."""
    parts = [NctiParts(10.0, 0.5, 3.0), NctiParts(20.0, 0.9, 3.5), NctiParts(13.0, 0.8, 3.4)]
    measured = [Measured("low", [], parts[0]), Measured("none", []), Measured("high", [], parts[1]), Measured("middle", [], parts[2])]
    words = ncti_comparison(measured)
    scores = dict(zip(("low", "high", "middle"), compare_ncti(parts), strict=True))
    expected = [[f"{scores[name]:.6g}", name] for name in ("high", "middle", "low")]
    assert [line.split() for line in words.splitlines()[2:]] == expected
    assert "depend on which models" in words
    assert "not written to the table" in words


@pytest.mark.parametrize("measured", [[], [Measured("one", [], NctiParts(1.0, 1.0, 1.0))], [Measured("a", []), Measured("b", [])]])
def test_one_model_is_not_compared(measured):
    assert ncti_comparison([*measured, Measured("without", [])]) == ""


def test_embeddings_of_files_decoded_otherwise_do_not_serve(narrow_model, ask):
    made = embeddings_file(start("cpu"), str(narrow_model), ask())
    full = replace(ask(), load=replace(ask().load, full_decode=True))
    other = embeddings_file(start("cpu"), str(narrow_model), full)
    assert (other.found, other.path != made.path) == (False, True)
    assert embeddings_file(start("cpu"), str(narrow_model), ask()).found
    assert embeddings_file(start("cpu"), str(narrow_model), full).found
