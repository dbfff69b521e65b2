"""Retrieval between two sides: scores by brute force, whatever the sides; fusion and projections by their definitions."""

import numpy as np
import pytest
import torch

from common.errors import UserError
from datasets.retrieval.collection import Collection
from datasets.retrieval.options import Options
from datasets.retrieval.relevance import Lists, Relevance
from datasets.retrieval.table import load_retrieval
from datasets.retrieval.task import RetrievalTask
from engine.embed import LoadOptions
from engine.runtime import start
from inversion.baselines import Projection, object_texts, projected_features
from inversion.items import class_prompts
from inversion.retrieve import evaluate_sides, similar_rows
from inversion.sides import Features, Side
from models.selection import select_encoder
from models.tunings import TuningOptions, apply_tuning
from tests.helpers import forget_accelerator
from tests.inversion.fake_tokens import write_inversion

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
LOAD = LoadOptions(batch_size=8, num_workers=0)
IMAGE, TEXT = Side("image"), Side("text")


@pytest.fixture
def features(small_model):
    return Features(start("cpu"), select_encoder(str(small_model), None, {}), LOAD)


@pytest.fixture
def task(image_folder):
    return load_retrieval(f"imagefolder:{image_folder}")


def inverted(task, features, outfolder, role="query", kind="oti"):
    """A side with learnt features, and these [N, D]."""
    collection = task.query if role == "query" else task.gallery
    if kind == "ovi":
        collection = class_prompts(collection.classnames, "a photo of {}")
    place = {"dataset": task.name, "split": task.split, "side": "classes" if kind == "ovi" else role}
    found = write_inversion(outfolder, kind, "exp", collection, features.selection, **place)
    return Side(kind, "exp", outfolder=outfolder), found[:, -1]


def average_precision(similarities, relevant):
    """Of one query, item by item down the ranking."""
    found, total = 0, 0.0
    for position, item in enumerate(np.argsort(-similarities, kind="stable"), start=1):
        if relevant[item]:
            found += 1
            total += found / position
    return total / found


def mean_average_precision(similarities, task):
    relevant = task.query.labels[:, None] == task.gallery.labels
    return np.mean([average_precision(*each) for each in zip(similarities, relevant, strict=True)])


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_image_to_image(features, task):
    query, gallery = features.native(task.query, "q", "test"), features.native(task.gallery, "g", "test")
    found = evaluate_sides(features, task, IMAGE, IMAGE)
    assert found.scores["mAP"] == pytest.approx(mean_average_precision(query @ gallery.T, task), abs=1e-6)
    assert (found.n_queries, found.n_gallery, found.without_positives) == (12, len(task.gallery), {"": 0})
    assert {"mAP", "mAP_at_R", "precision_at_R", "recall_at_1", "recall_at_5", "recall_at_10"} <= found.scores.keys()
    assert found.seconds > 0


def test_oti_to_image(features, task, tmp_path):
    oti, learnt = inverted(task, features, tmp_path)
    expected = mean_average_precision(learnt @ features.native(task.gallery, "g", "test").T, task)
    assert evaluate_sides(features, task, oti, IMAGE).scores["mAP"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kinds", [("text", "image"), ("image", "text"), ("ovi", "image"), ("oti", "text"), ("ovi", "oti")])
def test_each_side_has_its_own_features(kinds, features, image_folder, tmp_path):
    # Published code takes the gallery's encoder from the query's type; text queries then search texts, whatever the gallery is.
    items = {"oti": "image", "ovi": "text"}
    task = load_retrieval(f"imagefolder:{image_folder}", options=Options(*(items.get(kind, kind) for kind in kinds)))
    sides, rows = [], []
    for role, kind in zip(("query", "gallery"), kinds, strict=True):
        native = features.native(task.query if role == "query" else task.gallery, role, "test")
        side, learnt = inverted(task, features, tmp_path, role, kind) if kind in items else (Side(kind), native)
        sides.append(side)
        rows.append(learnt)
    expected = mean_average_precision(rows[0] @ rows[1].T, task)
    assert evaluate_sides(features, task, *sides).scores["mAP"] == pytest.approx(expected, abs=1e-6)


def test_protocols_and_queries_without_positives(features, task):
    some = Collection(task.query.items, task.query.labels)
    easy = Relevance(Lists.of([[0, 1]] * 11 + [[]]), Lists.of([[2]] * 12))
    hard = Relevance(Lists.of([[2]] * 12), Lists.of([[0, 1]] * 12))
    judged = RetrievalTask("two", "test", some, task.gallery, {"easy": easy, "hard": hard})
    found = evaluate_sides(features, judged, IMAGE, IMAGE)
    assert found.without_positives == {"easy": 1, "hard": 0}
    assert {"mAP_easy", "mP_at_1_easy", "mP_at_10_hard"} <= found.scores.keys()
    assert "mAP" not in found.scores


@pytest.mark.parametrize("weight", [0, 0.3, 1])
@pytest.mark.parametrize("roles", [("query",), ("gallery",), ("query", "gallery")])
def test_fused_similarities(weight, roles, features, task, tmp_path):
    native = {"query": features.native(task.query, "q", "test"), "gallery": features.native(task.gallery, "g", "test")}
    learnt, sides = dict(native), {"query": IMAGE, "gallery": IMAGE}
    for role in roles:
        sides[role], learnt[role] = inverted(task, features, tmp_path, role)
    expected = (1 - weight) * native["query"] @ native["gallery"].T + weight * learnt["query"] @ learnt["gallery"].T
    rows = similar_rows(features, task, sides["query"], sides["gallery"], fuse=weight)
    np.testing.assert_allclose(rows.query @ rows.gallery.T, expected, atol=2e-6)
    scores = evaluate_sides(features, task, sides["query"], sides["gallery"], fuse=weight).scores
    assert scores["mAP"] == pytest.approx(mean_average_precision(expected, task), abs=1e-6)


def test_a_fusion_needs_an_inversion_and_a_weight(features, task, tmp_path):
    with pytest.raises(UserError, match="make the query or the gallery one of oti, ovi"):
        evaluate_sides(features, task, IMAGE, IMAGE, fuse=0.5)
    oti, _ = inverted(task, features, tmp_path)
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match="between 0 and 1, not"):
            evaluate_sides(features, task, oti, IMAGE, fuse=weight)


def test_pca_keeps_the_first_half_of_the_texts_directions(features, task):
    texts = object_texts(features)
    assert texts.shape == (1000, 32)
    _, _, directions = np.linalg.svd(texts - texts.mean(axis=0), full_matrices=False)
    expected = unit(features.native(task.query, "q", "test") @ directions[:16].T)
    found = projected_features(features, task, "query", Projection("pca"))
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_isoclip_replaces_the_projection(modality, features, image_folder):
    task = load_retrieval(f"imagefolder:{image_folder}", options=Options(query=modality))
    model = features.selection.encoder.model
    image, text = model.visual.proj.numpy().T, model.text_projection.numpy().T  # [out, in]
    u, _, vt = np.linalg.svd((image.T @ text).astype(np.float64))
    basis = (u if modality == "image" else vt.T)[:, 5 : 32 - 7]
    before = features.native(task.query, "q", "test", projected=False)
    own = image if modality == "image" else text
    np.testing.assert_allclose(unit(before @ own.T), features.native(task.query, "q", "test"), atol=1e-5)
    found = projected_features(features, task, "query", Projection("iso", 5, 7))
    np.testing.assert_allclose(found, unit(before @ (own @ basis @ basis.T).T), atol=1e-5)


def test_projected_features_are_what_is_ranked(features, task):
    rows = [projected_features(features, task, role, Projection("iso", 3, 3)) for role in ("query", "gallery")]
    found = evaluate_sides(features, task, IMAGE, IMAGE, projection=Projection("iso", 3, 3))
    assert found.scores["mAP"] == pytest.approx(mean_average_precision(rows[0] @ rows[1].T, task), abs=1e-6)


def test_what_a_projection_does_not_go_with(features, task, tmp_path):
    oti, _ = inverted(task, features, tmp_path)
    with pytest.raises(UserError, match="--project pca takes the place of an inversion"):
        evaluate_sides(features, task, oti, IMAGE, projection=Projection("pca"))
    with pytest.raises(UserError, match="--drop-top and --drop-bottom belong to '--project iso'"):
        Projection("pca", 1, 1)
    with pytest.raises(UserError, match="Unknown projection 'is0'; did you mean 'iso'"):
        Projection("is0")
    with pytest.raises(UserError, match=r"no published numbers for the image side of '.*small'"):
        evaluate_sides(features, task, IMAGE, IMAGE, projection=Projection("iso"))


def test_an_adapter_is_behind_the_projection(features, task):
    apply_tuning(features.selection.encoder, "adapter", TuningOptions())
    with pytest.raises(UserError, match="has an adapter behind its projections"):
        evaluate_sides(features, task, IMAGE, IMAGE, projection=Projection("pca"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_ranks_as_the_processor_does(small_model, task):
    selection = select_encoder(str(small_model), None, {})
    on_gpu = evaluate_sides(Features(start("cuda", "fp32"), selection, LOAD), task, IMAGE, IMAGE).scores
    forget_accelerator()
    on_cpu = evaluate_sides(Features(start("cpu"), selection, LOAD), task, IMAGE, IMAGE).scores
    assert on_gpu == pytest.approx(on_cpu, abs=0.02)
