"""Every closed form against the definition, pair by pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.iimm import iimm_terms
from metrics.sample import Sample
from metrics.table import METRICS
from tests.metrics import pairs

NAMES = ("iimm", "image_image", "wrong_label", "alignment", "text_text", "gap", "uniformity_text")  # functions of sums


INSTANCES = st.builds(
    pairs.random_instance,
    st.integers(0, 2**32 - 1),
    images=st.integers(2, 40),
    classes=st.integers(2, 12),
    dimensions=st.integers(1, 20),
    empty=st.integers(0, 10),
    spread=st.sampled_from([0.01, 1.0, 100.0]),
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(instance=INSTANCES)
def test_equals_the_definition_in_float64(name, instance):
    expected = getattr(pairs, name)(*instance)
    assert METRICS[name](*instance) == pytest.approx(expected, rel=0, abs=1e-12)
    assert METRICS[name].from_sample(Sample(*instance)) == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_more_images_than_fit_a_block(name, monkeypatch):
    instance = pairs.random_instance(3, images=101)
    expected = METRICS[name](*instance)
    monkeypatch.setattr("metrics.statistics.BLOCK_VALUES", 16 * 7)  # seven rows at a time, the last block is not full
    assert METRICS[name](*instance) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("name", NAMES)
def test_accumulates_in_float64_whatever_the_storage(name, dtype):
    images, texts, labels = pairs.random_instance(1, spread=0.3)
    images, texts = images.astype(dtype), texts.astype(dtype)
    expected = getattr(pairs, name)(images.astype(np.float64), texts.astype(np.float64), labels)
    assert METRICS[name](images, texts, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_storage_in_low_precision_hardly_moves_iimm(dtype):
    images, texts, labels = pairs.random_instance(1, images=500, dimensions=64)
    stored = METRICS["iimm"](images.astype(dtype), texts.astype(dtype), labels)
    assert stored == pytest.approx(METRICS["iimm"](images, texts, labels), abs=1e-4)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint64])
def test_every_integer_type_of_labels(dtype):
    images, texts, labels = pairs.random_instance(2)
    assert METRICS["iimm"](images, texts, labels.astype(dtype)) == METRICS["iimm"](images, texts, labels)


# By hand: images (1, 0), (.6, .8), (0, 1) of classes 0, 0, 1; texts (1, 0), (0, 1).
GOLDEN = {
    "image_image": (0.6 + 0.0 + 0.8) / 3,
    "wrong_label": (0.0 + 0.8 + 0.0) / 3,
    "iimm": (1.4 / 3 + 0.8 / 3) / 2,
    "alignment": (1.0 + 0.6 + 1.0) / 3,
    "text_text": 0.0,
    "gap": np.hypot(1.6 / 3 - 0.5, 1.8 / 3 - 0.5),
    "uniformity_text": (0.0 + (0.0 + 0.8) / 2) / 2,
}


@pytest.mark.parametrize("name", NAMES)
def test_by_hand(name):
    images, texts, labels = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [0, 0, 1]
    assert METRICS[name](images, texts, labels) == pytest.approx(GOLDEN[name], abs=1e-15)


def test_iimm_is_the_mean_of_its_terms():
    instance = pairs.random_instance(5)
    terms = iimm_terms(*instance)
    assert terms == pytest.approx([METRICS[name](*instance) for name in ("iimm", "image_image", "wrong_label")], abs=1e-14)
    assert terms.iimm == (terms.image_image + terms.wrong_label) / 2


@pytest.mark.parametrize("copies", [2, 5])
def test_repeating_all_images_adds_pairs_of_equal_images(copies):
    """S' = (k (N-1) S + (k-1)) / (k N - 1): of the partners of an image, k - 1 are now itself."""
    images, _, _ = pairs.random_instance(7)
    count, once = len(images), METRICS["image_image"](images, None, None)
    expected = (copies * (count - 1) * once + copies - 1) / (copies * count - 1)
    assert METRICS["image_image"](np.tile(images, (copies, 1)), None, None) == pytest.approx(expected, abs=1e-13)
