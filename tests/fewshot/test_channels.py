"""APE's choice of channels in closed form, against loops over all pairs."""

import math

import pytest
import torch

from fewshot.channels import channels_kept, class_similarity, on_channels, select_channels, surprise
from tests.fewshot.drawn_features import draw


def similarity_by_loops(data):
    """Over ordered pairs of classes, and all members of both: the text and the keys."""
    members = [torch.cat([data.classifier[c : c + 1], data.cache.original[data.cache.labels == c]]).double() for c in range(data.classes)]
    total, pairs = torch.zeros(data.classifier.shape[1], dtype=torch.float64), 0
    for i, one in enumerate(members):
        for j, other in enumerate(members):
            for x in one if i != j else ():
                for y in other:
                    total, pairs = total + x * y, pairs + 1
    return total / pairs


@pytest.mark.parametrize("shots", [2, [3, 1, 0, 4]], ids=["balanced", "unbalanced"])
def test_closed_form_is_the_loops(shots):
    data = draw(classes=4, shots=shots, dim=12)
    found = class_similarity(data.classifier, data.cache.original, data.cache.labels)
    torch.testing.assert_close(found, similarity_by_loops(data), rtol=1e-12, atol=1e-15)


def test_the_channels_of_greatest_score():
    data = draw(classes=4, dim=12)
    score = 0.3 * data.classifier.double().var(dim=0) - 0.7 * similarity_by_loops(data)
    found = select_channels(data.classifier, data.cache.original, data.cache.labels, (0.7, 0.3), 5)
    assert found.tolist() == score.topk(5).indices.tolist()


def test_the_share_of_channels():
    assert channels_kept(500, 1024) == 500
    assert channels_kept(800, 512) == 400
    assert channels_kept(400, 2) == 1


def test_rows_of_some_channels_are_unit():
    chosen = on_channels(draw().classifier, torch.tensor([3, 0, 7]))
    assert chosen.shape == (7, 3)
    torch.testing.assert_close(chosen.norm(dim=1), torch.ones(7))


@pytest.mark.parametrize("as_released", [False, True])
def test_surprise_by_the_formula(as_released):
    data = draw()
    found = surprise(data.classifier, data.cache.original, data.cache.labels, as_released)
    for row, label, bits in zip(data.cache.original.double(), data.cache.labels, found, strict=True):
        p = (data.classifier.double() @ row).softmax(dim=0)[label].item()
        expected = math.log2((1 + 1e-6) / (p + 1e-6)) if as_released else -math.log2(p)
        assert bits.item() == pytest.approx(expected, rel=1e-5)
