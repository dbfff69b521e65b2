"""Published grids and values of hyper-parameters, for each data set where they are so."""

from __future__ import annotations

from typing import NamedTuple

from fewshot.affine import Point
from fewshot.search import Grid


def evenly(first: float, last: float, count: int) -> tuple[float, ...]:
    """``count`` values from ``first`` to ``last``, both included."""
    return tuple(first + (last - first) * i / (count - 1) for i in range(count))


def steps(first: float, last: float, count: int) -> tuple[float, ...]:
    """``count`` steps from ``first`` towards ``last``, which is not reached: as the code of Tip-Adapter, SuS-X and APE has it."""
    return tuple(i * (last - first) / count + first for i in range(count))


class TipScale(NamedTuple):
    """Tip-Adapter: the ends of its grid, and the alpha that is the default (beta 1)."""

    beta: float
    alpha: float
    init_alpha: float


class ApeScale(NamedTuple):
    """APE: the ends of its grid; channels that are kept of 1024; weights of similarity and variance in their choice; default alpha."""

    beta: float
    alpha: float
    gamma: float
    channels: int
    weights: tuple[float, float]
    init_alpha: float
    gamma_steps: int = 20


# Zhang et al., ECCV 2022: the configuration files of the released code; those without one have ImageNet's alpha.
TIP = {
    "Caltech101": TipScale(12, 5, 3),
    "DTD": TipScale(13, 13, 2),
    "EuroSAT": TipScale(12, 10, 2),
    "FGVCAircraft": TipScale(30, 30, 5),
    "Food101": TipScale(10, 10, 1.17),
    "ImageNet": TipScale(7, 3, 1.17),
    "Flowers102": TipScale(50, 50, 10),
    "OxfordPets": TipScale(7, 3, 1.17),
    "Cars": TipScale(20, 10, 3),
    "SUN397": TipScale(12, 10, 1.17),
    "UCF101": TipScale(7, 3, 3),
}
OTHER_TIP = TipScale(12, 10, 1.17)

# Zhu et al., ICCV 2023: the configuration files of the released code, for ResNet-50; others have the commonest values.
APE = {
    "Caltech101": ApeScale(7, 7, 1, 800, (0.5, 0.5), 1),
    "DTD": ApeScale(7, 7, 1, 400, (0.5, 0.5), 3),
    "EuroSAT": ApeScale(30, 5, 1.5, 700, (0.9, 0.1), 1),
    "FGVCAircraft": ApeScale(20, 10, 1, 800, (0.1, 0.9), 5),
    "Food101": ApeScale(7, 7, 1, 700, (0.3, 0.7), 0.8),
    "ImageNet": ApeScale(7, 7, 0.5, 500, (0.7, 0.3), 2, gamma_steps=5),
    "Flowers102": ApeScale(7, 7, 1, 700, (0.4, 0.6), 3),
    "OxfordPets": ApeScale(7, 7, 1, 800, (0.7, 0.3), 2),
    "Cars": ApeScale(10, 7, 1, 500, (0.6, 0.4), 1),
    "SUN397": ApeScale(10, 7, 1, 800, (0.7, 0.3), 1),
    "UCF101": ApeScale(7, 7, 1.5, 700, (0.3, 0.7), 1),
}
OTHER_APE = ApeScale(7, 7, 1, 700, (0.5, 0.5), 1)
APE_WIDTH = 1024  # of the embeddings of the ResNet-50 that the channels were chosen for
APE_GAMMA = 0.1  # the default of all data sets

OVERLAP_ALPHAS, OVERLAP_BETAS, OVERLAP_GAMMAS = evenly(0, 20, 200), evenly(0, 20, 20), evenly(0, 30, 50)
TIP_X_GAMMA = 1.0  # of Tip-X no default is published


def tip_scale(dataset: str) -> TipScale:
    """That of a data set, whatever its split convention."""
    return TIP.get(_name(dataset), OTHER_TIP)


def ape_scale(dataset: str) -> ApeScale:
    """That of a data set, whatever its split convention."""
    return APE.get(_name(dataset), OTHER_APE)


def tip_grid(dataset: str, grid: str) -> Grid:
    """Tip-Adapter's alphas and betas: 200 x 20 for the overlap correction, 20 x 200 for Tip-Adapter's own code, beta outside."""
    if grid == "overlap":
        return Grid(OVERLAP_ALPHAS, OVERLAP_BETAS)
    scale = tip_scale(dataset)
    return Grid(steps(0.1, scale.alpha, 20), steps(0.1, scale.beta, 200), order=("beta", "alpha", "gamma"))


def tip_x_grid(grid: str) -> Grid:
    """Tip-X: 200 x 20 x 50 for the overlap correction, 20 x 200 x 50 for the code of SuS-X (Udandarao et al., ICCV 2023)."""
    if grid == "overlap":
        return Grid(OVERLAP_ALPHAS, OVERLAP_BETAS, OVERLAP_GAMMAS)
    return Grid(steps(0.1, 50, 20), steps(1, 50, 200), steps(0.1, 30, 50))


def ape_grid(dataset: str) -> Grid:
    """APE: 20 x 200 x 20 (5 gammas on ImageNet), beta outside. The code of the overlap correction has none for it."""
    scale = ape_scale(dataset)
    gammas = steps(0, scale.gamma, scale.gamma_steps)
    return Grid(steps(0.1, scale.alpha, 20), steps(0.1, scale.beta, 200), gammas, order=("beta", "alpha", "gamma"))


def tip_fixed(dataset: str) -> Point:
    """The values with which Tip-Adapter is trained, and tested before the search."""
    return Point(tip_scale(dataset).init_alpha, 1.0)


def tip_x_fixed(dataset: str) -> Point:
    """Tip-Adapter's, and gamma 1."""
    return Point(tip_scale(dataset).init_alpha, 1.0, TIP_X_GAMMA)


def ape_fixed(dataset: str) -> Point:
    """The values with which APE is tested before the search."""
    return Point(ape_scale(dataset).init_alpha, 1.0, APE_GAMMA)


def _name(dataset: str) -> str:
    return dataset.split("@", maxsplit=1)[0].split("+", maxsplit=1)[0]
