"""Cosine similarities, norms and counts against the definitions on whole vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from merging.analysis import cosine_csv, cosine_similarities, draw_cosine, norms, norms_csv
from merging.weights import PART, Pool, TensorWeights, make_pool


def pool(count: int = 3, size: int = 5) -> Pool:
    generator = torch.Generator().manual_seed(0)
    names = {"visual.blocks.0.w": (size, 3), "visual.blocks.0.b": (3,), "visual.blocks.1.w": (2, 2), "other": ()}

    def draw() -> dict[str, torch.Tensor]:
        return {name: torch.randn(shape, generator=generator) for name, shape in names.items()}

    return make_pool(TensorWeights("base", draw()), [TensorWeights(f"m{number}", draw()) for number in range(count)])


def flat(pool: Pool) -> torch.Tensor:
    """The task vectors as rows, [K, d], float64."""
    return torch.cat([pool.task_vectors(name).reshape(len(pool.models), -1) for name in pool.merged], dim=1).double()


@pytest.mark.parametrize("size", [5, PART // 2], ids=["small", "in parts"])
def test_cosine_similarities_are_those_of_the_flattened_task_vectors(size: int) -> None:
    given = pool(size=size)
    vectors = flat(given)
    expected = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    np.testing.assert_allclose(cosine_similarities(given), expected.numpy(), rtol=0, atol=1e-12)


def test_the_task_vector_of_the_base_itself_has_no_direction() -> None:
    given = pool()
    assert given.base is not None
    still = Pool(given.base, (given.models[0], given.base), given.merged)
    assert np.isnan(cosine_similarities(still)).tolist() == [[False, True], [True, True]]


def test_norms_are_those_of_the_vectors_at_every_scope() -> None:
    given = pool()
    rows = {(row.scope, row.name): row for row in norms(given)}
    assert [scope for scope, _ in rows] == ["all", "layer", "layer", *["tensor"] * 4]
    np.testing.assert_allclose(rows["all", ""].models, flat(given).norm(dim=1), rtol=1e-12)
    layer = torch.cat([given.task_vectors(f"visual.blocks.0.{name}").flatten(1) for name in "wb"], dim=1).double()
    np.testing.assert_allclose(rows["layer", "visual.blocks.0"].models, layer.norm(dim=1), rtol=1e-12)
    assert rows["layer", "visual.blocks.0"].parameters == 18
    assert given.base is not None
    assert rows["tensor", "other"].base == pytest.approx(abs(float(given.base.read("other"))), rel=1e-12)


def test_tables_have_names_and_every_digit() -> None:
    given = pool()
    similarities = cosine_similarities(given)
    lines = cosine_csv(["a", "b, c", "d"], similarities).splitlines()
    assert lines[0] == 'model,a,"b, c",d'
    assert [float(cell) for cell in lines[3].split(",")[1:]] == similarities[2].tolist()
    assert norms_csv(["a", "b", "c"], norms(given)).splitlines()[0] == "scope,name,parameters,base,a,b,c"


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_the_heat_map_is_drawn_the_same_each_time(tmp_path: Path, suffix: str) -> None:
    similarities = np.array([[1, 0.2, np.nan], [0.2, 1, -0.1], [np.nan, -0.1, 1]])
    for name in ("one", "two"):
        draw_cosine(tmp_path / f"{name}{suffix}", ["sun397", "a$b", "dtd"], similarities)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()
