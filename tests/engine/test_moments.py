"""Second moments batch by batch and merged, against all images at once."""

import pytest
import torch

from engine.moments import Layout, Moments

N, C, D = 60, 4, 5


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows far from 0, where digits would be lost; class 3 has no images."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(N, D, generator=generator, dtype=torch.float64) + 1e4
    return rows, torch.randint(0, C - 1, (N,), generator=generator)


def added(rows: torch.Tensor, labels: torch.Tensor, layout: Layout, size: int = 7) -> Moments:
    moments = Moments.of(layout.zeros(), layout)
    for batch, of in zip(rows.split(size), labels.split(size), strict=True):
        moments.add(batch, of)
    return moments


@pytest.mark.parametrize("matrices", [0, 1, C])
@pytest.mark.parametrize("cut", [0, 1, 23, N])
def test_merged_parts_are_those_of_all_images(matrices: int, cut: int) -> None:
    (rows, labels), layout = drawn(), Layout(C, D, matrices)
    merged = added(rows[:cut], labels[:cut], layout)
    merged.merge(added(rows[cut:], labels[cut:], layout))
    scatters = torch.zeros(C, D, D, dtype=torch.float64)
    for label in range(C):
        own = rows[labels == label]
        assert merged.counts[label] == len(own)
        centred = own - own.mean(dim=0) if len(own) else own
        scatters[label] = centred.T @ centred
        torch.testing.assert_close(merged.means[label], own.mean(dim=0) if len(own) else torch.zeros(D, dtype=torch.float64))
        torch.testing.assert_close(merged.squares[label], centred.square().sum(dim=0), rtol=1e-9, atol=1e-9)
    expected = {0: scatters[:0], 1: scatters.sum(dim=0, keepdim=True), C: scatters}[matrices]
    torch.testing.assert_close(merged.within, expected, rtol=1e-9, atol=1e-7)
