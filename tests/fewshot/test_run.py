"""Cells and how they are made, on images in memory and methods of the test's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.files import read_json
from datasets.samples import RawSamples
from datasets.task import Task
from engine.embed import LoadOptions
from engine.runtime import start
from fewshot.cells import Cells, Request, Target
from fewshot.features import Towers
from fewshot.method import Fitted, Method
from fewshot.options import FewShotOptions
from fewshot.overlap import before_and_after, measured, rows, table
from fewshot.protocol import Splits, draw_all
from fewshot.run import run_data_set
from fewshot.table import METHODS
from models.selection import select_encoder
from tests.fewshot.adapters import write_adapter
from tests.helpers import forget_accelerator

NAMES = ("red", "green", "blue", "grey")


def drawn(split, per_class, seed, classes=(0, 1, 2, 3), name="Drawn"):
    generator = np.random.default_rng(seed)
    labels = np.arange(len(classes)).repeat(per_class)
    colors = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200), (128, 128, 128)])[list(classes)][labels]
    pixels = np.clip(colors[:, None, None] + generator.normal(0, 50, (len(labels), 16, 16, 3)), 0, 255).astype(np.uint8)
    return Task(name, split, RawSamples(pixels, f"{split}-{seed}"), labels, tuple(NAMES[index] for index in classes), ("a {c} page",))


@pytest.fixture(scope="module")
def runtime():
    yield start("cpu", "fp32")
    forget_accelerator()


@pytest.fixture(scope="module")
def adapter(small_model, tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("adapter") / "adapter.safetensors", small_model)


@pytest.fixture
def towers(runtime, small_model, adapter, tmp_path):
    return Towers(runtime, select_encoder(str(small_model), adapter, {}), LoadOptions(num_workers=0), tmp_path / "kept")


@pytest.fixture
def splits():
    return Splits.of(drawn("train", 6, 0), drawn("val", 3, 1), drawn("test", 5, 2))


class Centroids:
    """A method for tests: logits are cosines with the mean key of each class; remembers what it was given."""

    def __init__(self, name="centroids", needs_adapter=False):
        self.given = []
        self.method = Method(name, "", "", needs_adapter, False, self.fit)

    def fit(self, data, options):
        self.given.append((data, options))
        keys = data.cache.among_images(self.method.needs_adapter)
        means = torch.stack([keys[data.cache.labels == label].mean(dim=0) for label in range(data.classes)])
        val = int((data.val.among_images(self.method.needs_adapter) @ means.T).argmax(1).eq(data.val.labels).sum())
        return Fitted({"power": 1.0}, lambda images: images.among_images(self.method.needs_adapter) @ means.T, val, {"seen": len(data.val)})


ZERO_SHOT = Method("zero_shot", "", "", False, False, lambda data, options: Fitted({}, data.zero_shot))


def request(tmp_path, *methods, **more):
    given = {"shots": (1, 2), "seeds": (1,), "order": "independent", "val_shots": "min", "views": 2, "options": FewShotOptions()}
    return Request(methods=methods, out=tmp_path / "out", **{**given, **more})


def test_what_a_method_sees(towers, splits, tmp_path):
    plain, corrected = Centroids(), Centroids("centroids_corrected", needs_adapter=True)
    results = run_data_set(towers, splits, request(tmp_path, ZERO_SHOT, plain.method, corrected.method))
    assert [(each["method"], each["shots"], each["seed"]) for each in results] == [
        ("zero_shot", 0, 0),
        *((name, shots, 1) for shots in (1, 2) for name in ("centroids", "centroids_corrected")),
    ]
    for method, shots in ((plain, 0), (plain, 1), (corrected, 1)):
        data, options = method.given[shots]
        draw = draw_all(splits, (1, 2), 1, "independent", "min")[shots]
        assert data.cache.labels.tolist() == splits.train.labels[draw.cache].tolist()
        assert data.val.labels.tolist() == splits.val.labels[draw.val].tolist()
        expected = towers.features(splits.train.subset(draw.cache), 2, 1)[0]
        torch.testing.assert_close(data.cache.original, expected.original, atol=1e-6, rtol=0)
        torch.testing.assert_close(data.cache.adapted, expected.adapted, atol=1e-6, rtol=0)
        assert (options.seed, options.device, data.dataset, data.classnames) == (1, "cpu", "Drawn", NAMES)
        torch.testing.assert_close(data.classifier.norm(dim=1), torch.ones(4))
    assert all(len(features) == 20 for data, _ in plain.given for features in (data.test,))


def test_scores_are_counted_as_by_hand(towers, splits, tmp_path):
    method = Centroids("centroids_corrected", needs_adapter=True)
    (found,) = run_data_set(towers, splits, request(tmp_path, method.method, shots=(2,)))
    data, _ = method.given[0]
    logits = method.method.fit(data, FewShotOptions()).logits(data.test)
    right = logits.argmax(dim=1) == data.test.labels
    assert (found["correct"], found["accuracy"], found["n_test"]) == (int(right.sum()), float(right.float().mean()), 20)
    assert found["mean_per_class"] == pytest.approx(np.mean([right[data.test.labels == label].float().mean() for label in range(4)]))
    assert (found["val_correct"], found["facts"]) == (method.method.fit(data, FewShotOptions()).val_correct, {"seen": 8})


def test_other_images_of_some_of_the_classes(towers, splits, tmp_path):
    """Only the logits of their classes count; each classifier is made once for all test sets."""
    method, other = Centroids(), drawn("test", 6, 9, classes=(3, 0), name="Other")
    own, found = run_data_set(towers, splits, request(tmp_path, method.method, shots=(2,)), [other])
    assert len(method.given) == 1
    logits = method.method.fit(method.given[0][0], FewShotOptions()).logits(towers.features(other)[0])
    assert found["correct"] == int((logits[:, [3, 0]].argmax(dim=1) == torch.from_numpy(other.labels)).sum())
    assert (own["test"], found["test"], found["dataset"], found["n_test"]) == ("Drawn", "Other", "Drawn", 12)
    with pytest.raises(UserError, match="is no class of Drawn"):
        run_data_set(towers, splits, request(tmp_path, method.method), [replace(other, classnames=("grey", "pink"))])


def test_hyper_parameters_from_held_out_images(towers, tmp_path):
    """Where validation and test are the same images no method ever sees these with its labels."""
    test, method = drawn("test", 5, 2), Centroids()
    splits = Splits.of(drawn("train", 6, 0), replace(test, split="val"), test)
    (found,) = run_data_set(towers, splits, request(tmp_path, method.method, shots=(2,), val_shots="full"))
    data, _ = method.given[0]
    assert (found["val_split"], found["n_val"], found["n_cache"]) == ("train", 8, 8)
    assert not any(torch.equal(row, other) for row in data.val.original for other in data.test.original)


def test_what_is_done_is_read(towers, splits, tmp_path):
    method, again = Centroids(), Centroids()
    first = run_data_set(towers, splits, request(tmp_path, method.method))
    assert run_data_set(towers, splits, request(tmp_path, again.method)) == first
    assert again.given == []
    path = next((tmp_path / "out/cells/Drawn").glob("*_2shots_*"))
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 5'))  # of other inputs than its name says
    assert [each["accuracy"] for each in run_data_set(towers, splits, request(tmp_path, again.method))] == [
        each["accuracy"] for each in first
    ]
    assert len(again.given) == 1
    assert read_json(path)["inputs"]["seed"] == 1


def paths(towers, splits, asked):
    """The files of a request's cells by (method, shots)."""
    draws = [draw for seed in asked.seeds for draw in draw_all(splits, asked.shots, seed, asked.order, asked.val_shots)]
    cells = Cells(towers, splits, asked).all(draws, [Target(splits.test, np.arange(4))])
    return {(cell.method.name, cell.inputs["shots"]): cell.path for cell in cells}


@pytest.mark.parametrize(
    "more",
    [
        {"views": 3},
        {"val_shots": 3},
        {"seeds": (2,)},
        {"order": "legacy"},
        {"options": FewShotOptions(search="grid")},
        {"options": FewShotOptions(grid="own")},
        {"options": FewShotOptions(as_released=True)},
    ],
    ids=["views", "val-shots", "seed", "order", "search", "grid", "as-released"],
)
def test_each_setting_decides(towers, splits, tmp_path, more):
    """All but the result without shots."""
    methods = (ZERO_SHOT, Centroids().method)
    one, other = paths(towers, splits, request(tmp_path, *methods)), paths(towers, splits, request(tmp_path, *methods, **more))
    assert {key for key in one if one[key] == other[key]} == {("zero_shot", 0)}


def test_what_the_images_prompts_and_models_decide(towers, splits, tmp_path, small_model):
    methods = (ZERO_SHOT, Centroids().method, Centroids("corrected", needs_adapter=True).method)
    asked = request(tmp_path, *methods, shots=(1,))

    def same_as(towers, splits):
        one, other = paths(*first, asked), paths(towers, splits, asked)
        return {name for name, shots in one if one[name, shots] == other[name, shots]}

    first = towers, splits
    other_adapter = write_adapter(tmp_path / "other.safetensors", small_model, seed=5)
    assert same_as(replace(towers, selection=select_encoder(None, other_adapter, {})), splits) == {"zero_shot", "centroids"}
    assert same_as(towers, replace(splits, train=drawn("train", 6, 5))) == {"zero_shot"}
    assert same_as(towers, replace(splits, val=drawn("val", 3, 5))) == {"zero_shot"}
    assert same_as(towers, replace(splits, test=replace(splits.test, templates=("{c}",)))) == set()
    assert same_as(towers, replace(splits, test=drawn("test", 5, 5))) == set()


def test_logits_that_are_no_numbers(towers, splits, tmp_path):
    method = Method("broken", "", "", False, False, lambda data, options: Fitted({}, lambda images: data.zero_shot(images) * torch.nan))
    with pytest.raises(UserError, match="not finite"):
        run_data_set(towers, splits, request(tmp_path, method))
    assert not list((tmp_path / "out").rglob("*.json"))


def test_methods_that_train_the_towers_get_images(towers, splits, tmp_path):
    given = []

    def fit(images, options):
        given.append((images, options))
        return Fitted({}, images.data.zero_shot)

    method = Method("tuned", "", "", False, True, lambda data, options: pytest.fail("features are not enough"), fit)
    run_data_set(towers, splits, request(tmp_path, method, shots=(2,)), [drawn("test", 6, 9, name="Other")])
    ((images, options),) = given
    assert {name: len(task) for name, task in images.tasks.items()} == {"train": 8, "val": 8, "test": 20, "Other": 24}
    assert {name: len(features) for name, features in images.features.items()} == {"Other": 24}
    assert images.tasks["train"].labels.tolist() == images.data.cache.labels.tolist()
    assert (images.selection, options.seed) == (towers.selection, 1)


def test_overlap_before_and_after(towers, splits, tmp_path, monkeypatch):
    found = measured(towers, splits.test, tmp_path)
    assert found["n"] == 20
    names = {"overlap", "proxy_a_distance", "auroc", "total_variance", "within_variance", "between_variance"}
    assert set(found["original"]) == set(found["adapted"]) == names
    assert before_and_after([found]) == {"Drawn": (found["original"]["overlap"], found["adapted"]["overlap"])}
    assert [row["features"] for row in rows([found])] == ["original", "adapted"]
    monkeypatch.setattr("fewshot.overlap.intra_modal", lambda *_: pytest.fail("it is done already"))
    assert measured(towers, splits.test, tmp_path) == found


def test_an_overlap_that_is_undefined_is_absent(towers, tmp_path):
    found = measured(towers, drawn("test", 1, 3), tmp_path)
    assert (found["original"], before_and_after([found])) == ({}, {})
    assert table([found]).splitlines()[1].split() == ["Drawn,", "original", *"------"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_what_the_processor_finds(towers, splits, tmp_path):
    asked = request(tmp_path, METHODS["zero_shot"], METHODS["tip_adapter_corrected"], shots=(2,))
    on_cpu = run_data_set(towers, splits, asked)
    forget_accelerator()
    on_gpu = run_data_set(replace(towers, runtime=start("cuda", "fp32"), cache=None), splits, replace(asked, out=tmp_path / "gpu"))
    forget_accelerator()
    assert [each["correct"] for each in on_gpu] == pytest.approx([each["correct"] for each in on_cpu], abs=1)
