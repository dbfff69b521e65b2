"""What task vectors look like: how alike they are, where they are large, and how many parameters are merged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from merging.inputs import Inputs
from merging.weights import Pool

LAYER = re.compile(r"((?:.*?\.)?(?:layers?|resblocks|blocks?|h)\.\d+)\..*")  # a tensor of a numbered layer


def cosine_similarities(pool: Pool) -> NDArray[np.float64]:
    """cos(τ_j, τ_k) = <τ_j, τ_k> / (||τ_j|| ||τ_k||) over all merged tensors: [K, K], float64.

    NaN in the row and column of a task vector that is 0. Every coordinate counts: the K x K products are added up piece by piece.
    """
    count = len(pool.models)
    products = torch.zeros(count, count, dtype=torch.float64)
    for name in pool.merged:
        for part in pool.parts(name):
            vectors = pool.task_vectors(name, part).double()
            products += vectors @ vectors.T
    squares = products.diagonal()
    return (products / squares.outer(squares).sqrt()).numpy()


@dataclass(frozen=True)
class Norms:
    """Euclidean norms of the base and of every task vector [K] over one tensor, one layer or everything that is merged."""

    scope: str
    name: str
    parameters: int
    base: float
    models: tuple[float, ...]


def norms(pool: Pool) -> list[Norms]:
    """||θ_0|| and ||τ_k||: of all that is merged, then of each layer, then of each tensor; sums of squares in float64."""
    squares = {name: _squares(pool, name) for name in pool.merged}
    layers: dict[str, list[str]] = {}
    for name in pool.merged:
        if found := LAYER.fullmatch(name):
            layers.setdefault(found[1], []).append(name)
    groups = [("all", "", list(pool.merged)), *(("layer", layer, names) for layer, names in layers.items())]
    groups += [("tensor", name, [name]) for name in pool.merged]
    return [_norms(pool, scope, title, names, squares) for scope, title, names in groups]


def _squares(pool: Pool, name: str) -> NDArray[np.float64]:
    """The sums of squares of θ_0 and of every τ_k: [1 + K]."""
    assert pool.base is not None
    total = np.zeros(1 + len(pool.models))
    for part in pool.parts(name):
        rows = [pool.base.read(name, part).float(), *pool.task_vectors(name, part)]
        total += [float(row.double().square_().sum()) for row in rows]
    return total


def _norms(pool: Pool, scope: str, title: str, names: Sequence[str], squares: dict[str, NDArray[np.float64]]) -> Norms:
    base, *models = np.sqrt(np.sum([squares[name] for name in names], axis=0)).tolist()
    return Norms(scope, title, _parameters(pool, names), base, tuple(models))


def _parameters(pool: Pool, names: Sequence[str]) -> int:
    return sum(prod(pool.reference.specs[name].shape) for name in names)


def counts(inputs: Inputs) -> str:
    """A sentence with the numbers of tensors and parameters that are merged, and of those that there are."""
    pool, specs = inputs.pool, inputs.reference.specs
    merged, every = _parameters(pool, pool.merged), _parameters(pool, list(specs))
    return f"merged: {len(pool.merged)} of {len(specs)} tensors, {merged:,} of {every:,} parameters, from {len(pool.models)} models"


def cosine_csv(names: Sequence[str], similarities: NDArray[np.float64]) -> str:
    """The matrix with its names, one row a model."""
    return _csv(["model", *names], [[name, *row] for name, row in zip(names, similarities.tolist(), strict=True)])


def norms_csv(names: Sequence[str], rows: Sequence[Norms]) -> str:
    """One line for each of the norms' groups."""
    header = ["scope", "name", "parameters", "base", *names]
    return _csv(header, [[row.scope, row.name, row.parameters, row.base, *row.models] for row in rows])


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def draw_cosine(path: Path, names: Sequence[str], similarities: NDArray[np.float64]) -> None:
    """A heat map, as PDF or PNG, with the values written in."""
    from common import figures

    side = min(figures.PAGE, 1.6 + 0.36 * len(names))
    labels = [figures.short(name) for name in names]
    with figures.drawing(side, side) as figure:
        (axes,) = figures.panels(figure, 1, 1)
        axes.imshow(similarities, vmin=0, vmax=1, cmap="Blues")
        axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), labels)
        for (row, column), value in np.ndenumerate(similarities):
            color = "white" if value > 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color=color)
        axes.set_title("Cosine similarity of task vectors")
        figures.write(figure, path)
