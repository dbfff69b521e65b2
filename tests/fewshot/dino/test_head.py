"""The head: its size, its start, and what it computes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from fewshot.dino.head import DinoHead


def head(width: int = 6, out_dim: int = 10, seed: int = 0, **sizes: int) -> DinoHead:
    return DinoHead(width, out_dim, torch.Generator().manual_seed(seed), **sizes)


def test_parameters_of_the_published_size() -> None:
    """Of the released code with CLIP's 512-wide features."""
    built = head(512, 65536)
    assert sum(parameter.numel() for parameter in built.mlp.parameters()) == 5_771_520
    assert built.last_layer.numel() == 16_777_216


def test_outputs_are_those_of_a_weight_normalised_layer() -> None:
    """torch's own weight normalisation, its gains 1, behind the MLP written out."""
    built, features = head(hidden=8, bottleneck=5), torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    first, second, third = (built.mlp[number] for number in (0, 2, 4))
    vectors = F.normalize(third(F.gelu(second(F.gelu(first(features))))))
    last = weight_norm(torch.nn.Linear(5, 10, bias=False))
    with torch.no_grad():
        last.parametrizations.weight.original0.fill_(1.0)  # type: ignore[union-attr]
        last.parametrizations.weight.original1.copy_(built.last_layer)  # type: ignore[union-attr]
    torch.testing.assert_close(built(features) @ built.prototypes().T, last(vectors))


def test_the_start() -> None:
    built = head(width=300, out_dim=2000)
    for linear in (built.mlp[0], built.mlp[2], built.mlp[4]):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert not linear.bias.any()
    assert built.last_layer.abs().max().item() == pytest.approx(1 / 16, rel=1e-3)
    assert torch.equal(built.last_layer, head(width=300, out_dim=2000).last_layer)
    assert not torch.equal(built.last_layer, head(width=300, out_dim=2000, seed=1).last_layer)


def test_vectors_stay_exact_in_half_precision() -> None:
    built = head(hidden=8, bottleneck=5)
    with torch.autocast("cpu", torch.bfloat16):
        vectors, prototypes = built(torch.ones(2, 6)), built.prototypes()
    assert vectors.dtype == prototypes.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
