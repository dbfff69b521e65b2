"""Histograms of cosines against full matrices, and what they must not depend on."""

import json
from itertools import product

import numpy as np
import pytest
import torch

from inversion.histograms import EDGES, Histogram
from inversion.misalignment import similarities
from metrics.gap import gap
from metrics.overlap import overlap
from metrics.pair_counts import BINS

N, C, D = 40, 6, 8


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def drawn():
    """Features, labels (class 4 has one item, class 5 none), the other modality, inversions."""
    random = np.random.default_rng(3)
    labels = np.concatenate([random.integers(0, 4, N - 1), [4]])
    texts = unit(random.normal(size=(C, D)))
    features = unit(texts[labels] + random.normal(size=(N, D)))
    return features, labels, texts, unit(features + random.normal(size=(N, D)))


def brute_force(features, labels, others, inverted, own="image", other="text", made="oti"):
    """Every kind of pair by two loops."""
    found = {}

    def add(name, a, b):
        found.setdefault(name, []).append(float(a.astype(np.float64) @ b))

    for i, j in product(range(N), range(N)):
        relation = "same_class" if labels[i] == labels[j] else "different_class"
        if i < j:
            add(f"{own}_{own}_{relation}", features[i], features[j])
        add(f"{made}_{own}_{'same_item' if i == j else relation}", inverted[i], features[j])
    for i, c in product(range(N), range(C)):
        relation = "same_class" if labels[i] == c else "different_class"
        add(f"{own}_{other}_{relation}", features[i], others[c])
        add(f"{made}_{other}_{relation}", inverted[i], others[c])
    return found


def same(one, other):
    return (
        one.histograms.keys() == other.histograms.keys()
        and all((of.counts == other.histograms[name].counts).all() for name, of in one.histograms.items())
        and all(of.mean == pytest.approx(other.histograms[name].mean, abs=1e-7) for name, of in one.histograms.items())
        and all(of.std == pytest.approx(other.histograms[name].std, abs=1e-7) for name, of in one.histograms.items())
    )


@pytest.mark.parametrize("tile", [1, 7, 40, 1000])
@pytest.mark.parametrize(("modality", "names"), [("image", ("image", "text", "oti")), ("text", ("text", "image", "ovi"))])
def test_all_kinds_of_pairs_by_brute_force(drawn, tile, modality, names):
    found = similarities(*drawn, modality=modality, tile=tile)
    expected = brute_force(*drawn, *names)
    assert found.histograms.keys() == expected.keys()
    assert len(expected) == 9
    for name, cosines in expected.items():
        of = found.histograms[name]
        np.testing.assert_array_equal(of.counts, np.histogram(cosines, EDGES)[0], err_msg=name)
        assert of.n == len(cosines)
        assert of.mean == pytest.approx(np.mean(cosines), abs=1e-7)
        assert of.std == pytest.approx(np.std(cosines), abs=1e-6)


def test_totals_are_the_numbers_of_pairs(drawn):
    n = {name: of.n for name, of in similarities(*drawn).histograms.items()}
    assert n["image_image_same_class"] + n["image_image_different_class"] == N * (N - 1) // 2
    assert n["oti_image_same_class"] + n["oti_image_different_class"] == N * (N - 1)
    assert n["oti_image_same_item"] == n["image_text_same_class"] == n["oti_text_same_class"] == N
    assert n["image_text_different_class"] == n["oti_text_different_class"] == N * (C - 1)


def test_order_of_items_and_of_classes_and_tiles_change_nothing(drawn):
    features, labels, texts, inverted = drawn
    expected = similarities(*drawn)
    order, classes = np.random.default_rng(0).permutation(N), np.random.default_rng(1).permutation(C)
    renamed = np.argsort(classes)[labels]
    assert same(similarities(features[order], labels[order], texts, inverted[order], tile=9), expected)
    assert same(similarities(features, renamed, texts[classes], inverted, tile=16), expected)
    assert not same(similarities(features, labels, texts, inverted[order]), expected)


def test_the_overlap_is_that_of_the_measures(drawn):
    features, labels, texts, _ = drawn
    found = similarities(features, labels, texts)
    assert found.overlap("image_image") == pytest.approx(overlap(features, labels), abs=1e-12)
    assert found.gaps == {"image_text": pytest.approx(gap(features, texts), abs=1e-7)}


def test_cosines_on_an_edge_are_in_the_bin_above():
    """Orthogonal rows: every cosine is 0 to rounding, wherever the last bit falls."""
    random = np.random.default_rng(0)
    rows, _ = np.linalg.qr(random.normal(size=(16, 16)))
    (of,) = similarities(rows, tile=5).histograms.values()
    assert np.flatnonzero(of.counts).tolist() == [BINS // 2]
    assert of.n == 16 * 15 // 2


def test_both_ends_are_in_the_histogram():
    found = similarities([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    of = found.histograms["image_image_all"]
    assert (of.counts[0], of.counts[-1], of.n) == (2, 1, 3)
    assert of.mean == pytest.approx(-1 / 3)


def test_rows_a_little_too_long_count_at_the_end():
    found = similarities(np.asarray([[1.0005, 0.0], [1.0005, 0.0]]))
    assert found.histograms["image_image_all"].counts[-1] == 1


def histogram(*counts):
    return Histogram(np.asarray(counts + (0,) * (BINS - len(counts))), 0.0, 1.0)


@pytest.mark.parametrize(
    ("one", "other", "overlap", "union"),
    [((1, 3), (2, 6), 1, 1), ((1, 3, 0), (0, 0, 5), 0, 0), ((1, 1), (0, 1, 1), 0.5, 1 / 3), ((3, 1), (1, 3), 0.5, 1 / 3)],
)
def test_overlap_and_intersection_over_union(one, other, overlap, union):
    for a, b in ((one, other), (other, one)):
        assert histogram(*a).overlap(histogram(*b)) == pytest.approx(overlap)
        assert histogram(*a).intersection_over_union(histogram(*b)) == pytest.approx(union)


def test_without_labels_all_pairs_are_one_kind(drawn):
    features, _, texts, inverted = drawn
    found = similarities(features, None, texts, inverted)
    assert set(found.histograms) == {"image_image_all", "image_text_all", "oti_image_all", "oti_image_same_item", "oti_text_all"}
    assert found.sides == []
    known = similarities(*drawn)
    for kind in ("image_image", "image_text", "oti_image", "oti_text"):
        together = sum(of.counts for of in known.of_classes(kind))
        np.testing.assert_array_equal(found.histograms[f"{kind}_all"].counts, together)


def test_kinds_without_a_pair_are_left_out(drawn):
    features, _, texts, inverted = drawn
    found = similarities(features[:C], np.arange(C), texts, inverted[:C])
    assert "image_image_same_class" not in found.histograms
    assert "oti_image_same_class" not in found.histograms
    assert found.sides == ["image_text", "oti_text"]
    assert similarities(features[:1]).histograms == {}


def test_gaps_are_distances_of_means(drawn):
    features, labels, texts, inverted = drawn
    means = [of.mean(axis=0, dtype=np.float64) for of in (features, texts, inverted)]
    expected = {"image_text": (0, 1), "oti_image": (2, 0), "oti_text": (2, 1)}
    found = similarities(features, labels, texts, inverted).gaps
    assert found == {name: pytest.approx(np.linalg.norm(means[a] - means[b]), abs=1e-7) for name, (a, b) in expected.items()}


def test_inversions_that_are_the_items_change_nothing_but_that_each_pair_counts_twice(drawn):
    features, labels, *_ = drawn
    found = similarities(features, labels, None, features)
    for relation in ("same_class", "different_class"):
        native, inverted = (found.histograms[f"{side}_{relation}"] for side in ("image_image", "oti_image"))
        np.testing.assert_array_equal(inverted.counts, 2 * native.counts)
    assert found.histograms["oti_image_same_item"].mean == pytest.approx(1)
    assert found.gaps["oti_image"] == 0


def test_tensors_and_half_precision(drawn):
    features, labels, texts, inverted = (torch.from_numpy(of) for of in drawn)
    assert same(similarities(features, labels, texts, inverted), similarities(*drawn))
    half = similarities(features.half(), labels, texts.half(), inverted.half())
    assert half.histograms["image_image_same_class"].mean == pytest.approx(
        similarities(*drawn).histograms["image_image_same_class"].mean, abs=1e-3
    )


def test_record_is_json_and_complete(drawn):
    found = similarities(*drawn)
    record = json.loads(json.dumps(found.as_record(), allow_nan=False))
    assert record["overlap"].keys() == record["intersection_over_union"].keys() == set(found.sides)
    assert record["overlap"]["oti_image"] == found.overlap("oti_image")
    for name, of in record["histograms"].items():
        assert sum(of["counts"]) == of["n"] == found.histograms[name].n
        assert len(of["edges"]) == len(of["counts"]) + 1
        assert of["counts"][0] > 0 < of["counts"][-1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": np.eye(3)[0]}, r"must be a matrix \[N, D\].*not of shape \[3\]"),
        ({"features": 2 * np.eye(3)}, "length of a row of the image features is 1 off 1"),
        ({"features": np.full((3, 3), np.nan)}, "length of a row of the image features is nan off 1"),
        ({"features": np.eye(3), "labels": [0, 1]}, r"3 items and labels of shape \[2\]"),
        ({"features": np.eye(3), "labels": [0, 1, 2], "others": np.eye(3)[:2]}, r"Labels are 0\.\.2, but there are 2 rows"),
        ({"features": np.eye(3), "labels": [0, -1, 1], "others": np.eye(3)}, r"Labels are -1\.\.1, but there are 3 rows"),
        ({"features": np.eye(3), "others": np.eye(4)}, "different dimensions: {'image': 3, 'text': 4}"),
        ({"features": np.eye(3), "inverted": np.eye(3)[:2]}, "2 inverted features do not belong to 3 image features"),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        similarities(**given)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_on_a_gpu(drawn):
    assert same(similarities(*drawn, device="cuda", tile=16), similarities(*drawn))
