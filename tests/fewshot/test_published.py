"""Published grids, by the numbers of their papers' code."""

import numpy as np
import pytest

from fewshot import published
from fewshot.published import ape_grid, steps, tip_fixed, tip_grid, tip_x_grid


def test_the_grid_of_the_overlap_correction():
    grid = tip_x_grid("overlap")
    assert grid.alphas == pytest.approx(np.linspace(0, 20, 200))
    assert grid.betas == pytest.approx(np.linspace(0, 20, 20))
    assert grid.gammas == pytest.approx(np.linspace(0, 30, 50))
    assert grid.order == ("alpha", "beta", "gamma")
    assert tip_grid("DTD", "overlap") == published.Grid(grid.alphas, grid.betas)


def test_tip_adapter_own_grid_leaves_its_end_out():
    grid = tip_grid("DTD", "own")
    assert len(grid.alphas) == 20
    assert len(grid.betas) == 200
    assert grid.betas[0] == 0.1
    assert grid.betas[-1] == pytest.approx(199 * 12.9 / 200 + 0.1)
    assert grid.order[0] == "beta"
    assert steps(0, 1, 4) == (0, 0.25, 0.5, 0.75)


def test_grids_of_sus_x_and_ape():
    assert (tip_x_grid("own").betas[0], tip_x_grid("own").alphas[0], len(tip_x_grid("own").gammas)) == (1, 0.1, 50)
    assert (len(ape_grid("ImageNet").gammas), ape_grid("ImageNet").gammas[1]) == (5, pytest.approx(0.1))
    assert (len(ape_grid("EuroSAT").gammas), ape_grid("EuroSAT").betas[-1]) == (20, pytest.approx(199 * 29.9 / 200 + 0.1))


def test_a_data_set_is_known_under_any_convention():
    assert tip_fixed("Flowers102@coop+contrast-3").alpha == 10
    assert tip_fixed("Digits").alpha == 1.17


def test_every_data_set_is_one_of_the_project():
    from datasets.registry import SOURCES

    known = {*published.TIP, *published.APE}
    assert known == {*published.TIP} == {*published.APE}
    assert known <= set(SOURCES)
