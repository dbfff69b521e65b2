"""The search over hyper-parameters, against evaluating every point; tiles and blocks change nothing."""

from dataclasses import replace

import pytest
import torch

import fewshot.affine
import fewshot.search
from fewshot.affine import Affine, Point, count_correct, image_by_image, logits_of
from fewshot.methods.ape import ape_model
from fewshot.methods.tip_adapter import tip_model
from fewshot.methods.tip_x import tip_x_model
from fewshot.options import FewShotOptions
from fewshot.search import Grid, Searched, fitted, near
from tests.fewshot.drawn_features import correct, draw

ALPHAS, BETAS, GAMMAS = (0.0, 0.3, 1.0, 2.5, 7.0, 20.0), (0.0, 1.0, 5.5, 20.0), (0.0, 0.5, 3.0)
MODELS = {
    "tip_adapter": lambda data: tip_model(data, data.cache.original, False),
    "tip_x": lambda data: tip_x_model(data, False, False),
    "ape": lambda data: ape_model(data, torch.arange(0, 32, 2), False),
}


def grid_of(name, order=("alpha", "beta", "gamma")):
    return Grid(ALPHAS, BETAS, (0.0,) if name == "tip_adapter" else GAMMAS, order)


def searched(name, data, **grid):
    return Searched(MODELS[name](data), data.val, len(data.cache) + data.classes, grid_of(name, **grid))


@pytest.mark.parametrize("small", [0, 2**14])
@pytest.mark.parametrize("together", [1, 1000, 2**16])
@pytest.mark.parametrize("name", MODELS)
def test_counts_are_those_of_evaluating_every_point(name, together, small, monkeypatch):
    monkeypatch.setattr(fewshot.search, "TOGETHER", together)
    monkeypatch.setattr(fewshot.search, "SMALL", small)
    data = draw(noise=0.4)
    search = searched(name, data)
    counts, grid = search.counts(), search.grid
    for b, beta in enumerate(grid.betas):
        for g, gamma in enumerate(grid.gammas):
            for a, alpha in enumerate(grid.alphas):
                point = Point(float(torch.tensor(alpha)), beta, gamma)
                assert counts[b, g, a] == correct(logits_of(search.model, data.val, search.keys, point), data.val.labels)


@pytest.mark.parametrize("order", [("alpha", "beta", "gamma"), ("beta", "alpha", "gamma")])
@pytest.mark.parametrize("name", MODELS)
def test_the_first_best_point_in_the_released_order(name, order):
    data = draw(val=30, noise=0.4)
    search = searched(name, data, order=order)
    axes = {"alpha": ALPHAS, "beta": BETAS, "gamma": search.grid.gammas}
    best, at = 0, None
    for first in axes[order[0]]:
        for second in axes[order[1]]:
            for third in axes[order[2]]:
                point = Point(**dict(zip(order, (first, second, third), strict=True)))
                right = count_correct(search.model, data.val, search.keys, point)
                if right > best:
                    best, at = right, point
    assert search.on_grid() == (at, best, 0.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MODELS)
def test_exact_is_never_worse_than_the_grid_and_its_count_is_true(name, seed):
    data = draw(val=80, noise=0.45, seed=seed)
    search = searched(name, data)
    found = search.find("exact", Point(1, 1))
    assert found.correct >= search.on_grid().correct
    assert found.correct == correct(logits_of(search.model, data.val, search.keys, found.point), data.val.labels)
    for value, values in zip(found.point, (ALPHAS, BETAS, search.grid.gammas), strict=True):
        assert values[0] <= value <= values[-1]


def test_exact_finds_an_alpha_between_the_points_of_the_grid():
    """The image is right for alphas from 3 to 4 alone."""
    data = draw(classes=3, val=1)
    base, slope = torch.tensor([[0.0, 3.0, -4.0]]), torch.tensor([[1.0, 0.0, 2.0]])
    data.val.labels[:] = 0
    search = Searched(image_by_image(lambda images: Affine(base, lambda beta, gamma: slope)), data.val, 10, Grid(ALPHAS, BETAS))
    assert search.on_grid().correct == 0
    found = search.find("exact", Point(1, 1))
    assert found.correct == 1
    assert found.point.alpha == pytest.approx(3.5, abs=1e-3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("search", ["exact", "grid"])
def test_tiles_and_blocks_change_nothing(name, search, monkeypatch):
    data = draw(noise=0.4)
    whole = searched(name, data).find(search, Point(1, 1))
    monkeypatch.setitem(fewshot.affine.TILE_BYTES, "cpu", 1000)
    monkeypatch.setattr(fewshot.search, "INTERVAL_BYTES", 3000)
    monkeypatch.setattr(fewshot.search, "TOGETHER", 1)
    monkeypatch.setattr(fewshot.search, "SMALL", 0)
    small = searched(name, data).find(search, Point(1, 1))
    assert small.correct == whole.correct
    assert small.point == pytest.approx(whole.point, rel=1e-4)


def test_fixed_values_where_there_is_no_validation():
    data = draw()
    point = Point(1.17, 1.0)
    for without in (replace(data, val=None), replace(data, val=data.val[:0])):
        found = fitted(MODELS["tip_adapter"](data), without, FewShotOptions(), grid_of("tip_adapter"), point)
        assert found.hyperparameters == {"alpha": 1.17, "beta": 1.0}
        assert found.val_correct is None
        assert found.facts["search"] == "fixed"


def test_fixed_values_are_counted_where_there_is_validation():
    data = draw()
    found = fitted(MODELS["tip_x"](data), data, FewShotOptions(search="fixed"), grid_of("tip_x"), Point(2.0, 1.0, 0.5))
    assert found.hyperparameters == {"alpha": 2.0, "beta": 1.0, "gamma": 0.5}
    assert found.val_correct == correct(found.logits(data.val), data.val.labels)


def test_near_a_value():
    assert near(5.0, (0.0, 5.0, 10.0), 0) == pytest.approx([1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert near(5.0, (0.0, 5.0, 10.0), 1) == pytest.approx([3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7])
    assert min(near(0.0, (0.0, 5.0, 10.0), 0)) == 0
    assert near(2.0, (2.0,), 0) == [2.0]


@pytest.mark.parametrize("label, right", [(0, 4), (1, 0)])
def test_where_no_image_depends_on_alpha(label, right, monkeypatch):
    monkeypatch.setattr(fewshot.search, "SMALL", 0)
    data = draw(classes=2, val=4)
    data.val.labels[:] = label
    base, slope = torch.tensor([[1.0, 0.0]]).expand(4, 2), torch.tensor([[0.5, 0.0]]).expand(4, 2)
    search = Searched(image_by_image(lambda images: Affine(base, lambda beta, gamma: slope)), data.val, 10, Grid(ALPHAS, BETAS))
    assert (search.counts() == right).all()
    assert search.find("exact", Point(1, 1)).correct == right
