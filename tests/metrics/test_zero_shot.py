"""Zero-shot accuracy against a loop."""

import numpy as np
import pytest

from metrics.sample import Sample
from metrics.statistics import MetricError
from metrics.zero_shot import METRICS, zero_shot
from tests.metrics import pairs

INSTANCES = {
    "unbalanced": pairs.random_instance(0, images=60, classes=6, empty=1),
    "narrow": pairs.random_instance(1, spread=0.05),
    "classes without images": pairs.random_instance(2, classes=12, empty=9),
}


def accuracy(images, texts, labels):
    return np.mean([max(range(len(texts)), key=lambda k: float(x @ texts[k])) == label for x, label in zip(images, labels, strict=True)])


@pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES)
def test_equals_the_definition(instance):
    assert zero_shot(*instance) == accuracy(*instance)


def test_more_images_than_fit_a_block(monkeypatch):
    monkeypatch.setattr("metrics.statistics.BLOCK_VALUES", 16 * 7)
    assert zero_shot(*INSTANCES["unbalanced"]) == accuracy(*INSTANCES["unbalanced"])


def test_of_equal_texts_the_first_answers():
    images, texts, _ = pairs.random_instance(3, dimensions=32)
    everywhere = np.tile(texts[:1], (37, 1))
    assert zero_shot(images, everywhere, np.zeros(40, int)) == 1.0
    assert zero_shot(images, everywhere, np.full(40, 36)) == 0.0


def test_texts_that_tell_all_classes_and_none():
    images, labels = np.repeat(np.eye(4), 3, axis=0), np.repeat(np.arange(4), 3)
    assert zero_shot(images, np.eye(4), labels) == 1.0
    assert zero_shot(images, np.eye(4)[[1, 2, 3, 0]], labels) == 0.0


def test_standard_error_is_binomial():
    instance = INSTANCES["unbalanced"]
    share = accuracy(*instance)
    assert METRICS[0].standard_error(Sample(*instance)) == pytest.approx((share * (1 - share) / 60) ** 0.5)


def test_no_image():
    images, texts, labels = pairs.random_instance(4)
    with pytest.raises(MetricError, match="zero_shot is undefined for 0 images"):
        zero_shot(images[:0], texts, labels[:0])


def test_leaves_its_input_as_it_was():
    inputs = pairs.random_instance(5)
    for value in inputs:
        value.setflags(write=False)
    zero_shot(*inputs)
