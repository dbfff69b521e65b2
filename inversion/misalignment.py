"""How cosines are distributed within and between modalities: the numbers behind "intra-modal misalignment".

Contrastive training pulls an image to its own text and away from others; nothing orders images among themselves. If image-image
similarities are badly calibrated, then pairs of the same class and of different classes look alike: their histograms overlap.
Inversion should part them (Mistretta et al., "Cross the Gap", ICLR 2025). Matrices are made in tiles, of which one is held at a
time: O(N^2 D) time, O(N D) memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from inversion.histograms import ALL, DIFFERENT, SAME, SAME_ITEM, Histogram, Similarities
from metrics.pair_counts import BINS
from metrics.statistics import UNIT_TOLERANCE

TILE = 1024  # rows on a side of a tile: 4 MB, which the histogram finds in the processor's cache
INSIDE = 1e-4  # of a bin (1e-6 of cosine): 0 and other cosines on an edge are in the bin above, whatever their last bit
Keep = Callable[[Tensor, Tensor], Tensor]  # which pairs count, by the numbers of row and column


def similarities(
    features: ArrayLike | Tensor,
    labels: ArrayLike | Tensor | None = None,
    others: ArrayLike | Tensor | None = None,
    inverted: ArrayLike | Tensor | None = None,
    *,
    modality: Literal["image", "text"] = "image",
    device: torch.device | str = "cpu",
    tile: int = TILE,
) -> Similarities:
    """Histograms of the cosines of items among themselves, with the other modality, and of their inversions with both.

    ``features`` [N, D] are native features of ``modality``, unit rows; ``labels`` [N] are classes (for captions: which image);
    ``others`` [C, D] is the other modality, a row for each class (item i belongs to row labels[i]; without labels to none);
    ``inverted`` [N, D] are the OTI features of images or OVI features of texts, in the order of ``features``. The ``device`` needs
    float64. Results do not depend on ``tile`` but for cosines within rounding of an edge. Raises ValueError for wrong shapes,
    rows that are not unit and labels out of range.

    >>> of = similarities([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]], labels=[0, 0, 0, 1])
    >>> round(of.overlap("image_image"), 6)
    0.666667
    """
    own, other, made = names = ("image", "text", "oti") if modality == "image" else ("text", "image", "ovi")
    given = {own: features, other: others, made: inverted}
    rows = {name: _rows(name, values, device) for name, values in given.items() if values is not None}
    _check(rows, own, made)
    classes = _classes(labels, len(rows[own]), len(rows[other]) if other in rows else None)
    found = _histograms(rows, classes, names, tile)
    gaps = {f"{a}_{b}": _gap(rows[a], rows[b]) for a, b in ((own, other), (made, own), (made, other)) if a in rows and b in rows}
    return Similarities({name: of for name, of in found.items() if of is not None}, gaps)


def _histograms(
    rows: Mapping[str, Tensor], classes: NDArray[np.int64] | None, names: tuple[str, str, str], tile: int
) -> dict[str, Histogram | None]:
    """All kinds of pairs of the sides that there are; pairs of different classes are all without those of the same class."""
    own, other, made = names
    sides = _sides(rows, classes, other)
    found: dict[str, Histogram | None] = {}
    for a, b, keep in ((own, own, torch.lt), (own, other, None), (made, own, torch.ne), (made, other, None)):
        if a in sides and b in sides:
            everything, same = _tallies(sides[a], sides[b], keep, tile)
            named = {SAME: same, DIFFERENT: everything.without(same)} if classes is not None else {ALL: everything}
            found |= {f"{a}_{b}_{relation}": tally.histogram() for relation, tally in named.items()}
    if made in rows:
        found[f"{made}_{own}_{SAME_ITEM}"] = _Tally(rows[own].device).add((rows[made] * rows[own]).sum(dim=1)).histogram()
    return found


class _Side(NamedTuple):
    """Rows [N, D] in ascending order of their classes [N], where these are known."""

    rows: Tensor
    classes: NDArray[np.int64] | None


def _sides(rows: Mapping[str, Tensor], classes: NDArray[np.int64] | None, other: str) -> dict[str, _Side]:
    """Items sorted by class, so that few tiles hold pairs of the same class; the other modality has a row for each class."""
    if classes is None:
        return {name: _Side(values, None) for name, values in rows.items()}
    order = np.argsort(classes, kind="stable")
    items = {name: _Side(values[order], classes[order]) for name, values in rows.items() if name != other}
    return items | {name: _Side(values, np.arange(len(values))) for name, values in rows.items() if name == other}


class _Tally:
    """Counts and moments of cosines that come in parts, kept on the device: nothing waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.int64, device=device)
        self.moments = torch.zeros(2, dtype=torch.float64, device=device)  # sum, sum of squares

    def add(self, cosines: Tensor) -> _Tally:
        """Add cosines of any shape; those beyond [-1, 1] by rounding count at its ends."""
        bins = cosines.mul(BINS / 2).add_(BINS / 2 + INSIDE).int().clamp_(0, BINS - 1)
        self.counts += torch.bincount(bins.flatten(), minlength=BINS)
        squares = torch.linalg.vector_norm(cosines, dtype=torch.float64).square()
        self.moments += torch.stack([cosines.sum(dtype=torch.float64), squares])
        return self

    def without(self, part: _Tally) -> _Tally:
        """This tally with the cosines of ``part`` taken out, which were the very same numbers."""
        rest = _Tally(self.counts.device)
        rest.counts, rest.moments = self.counts - part.counts, self.moments - part.moments
        return rest

    def histogram(self) -> Histogram | None:
        """The histogram, or None where nothing was added."""
        counts, (total, squares) = self.counts.cpu().numpy(), self.moments.tolist()
        if not (n := int(counts.sum())):
            return None
        mean = total / n
        return Histogram(counts, mean, max(squares / n - mean**2, 0.0) ** 0.5)


def _tallies(first: _Side, second: _Side, keep: Keep | None, tile: int) -> tuple[_Tally, _Tally]:
    """All cosines first_i . second_j where keep(i, j), and those known to be of the same class among them.

    A pair of the same class is taken from the tile that it was counted in among all, lest the two differ by rounding.
    """
    everything, same = _Tally(first.rows.device), _Tally(first.rows.device)
    numbers = torch.arange(max(len(first.rows), len(second.rows)), device=first.rows.device)
    for top, left in _tiles(len(first.rows), len(second.rows), tile, upper=keep is torch.lt):
        cosines = first.rows[top] @ second.rows[left].T
        kept = keep(numbers[top, None], numbers[left]) if keep is not None and top == left else None
        everything.add(cosines if kept is None else cosines[kept])
        if (alike := _alike(first, top, second, left)) is not None:
            same.add(cosines[alike if kept is None else alike & kept])
    return everything, same


def _tiles(rows: int, columns: int, tile: int, upper: bool) -> Iterator[tuple[slice, slice]]:
    """Tiles of a matrix; with ``upper`` those on and above its diagonal."""
    for top in range(0, rows, tile):
        for left in range(top if upper else 0, columns, tile):
            yield slice(top, min(top + tile, rows)), slice(left, min(left + tile, columns))


def _alike(first: _Side, top: slice, second: _Side, left: slice) -> Tensor | None:
    """Which pairs of a tile are of the same class; None where none is, or no classes are known."""
    if first.classes is None or second.classes is None:
        return None
    down, across = first.classes[top], second.classes[left]
    if down[-1] < across[0] or across[-1] < down[0]:
        return None
    return torch.from_numpy(down[:, None] == across).to(first.rows.device)


def _gap(first: Tensor, second: Tensor) -> float:
    """|mean first - mean second|, in float64."""
    return float(torch.linalg.vector_norm(first.mean(dim=0, dtype=torch.float64) - second.mean(dim=0, dtype=torch.float64)))


def _rows(name: str, values: ArrayLike | Tensor, device: torch.device | str) -> Tensor:
    """Float32 rows on the device; ValueError unless they are unit."""
    rows = torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values)).detach().to(device, torch.float32)
    if rows.ndim != 2 or not rows.numel():
        raise ValueError(f"{name} features must be a matrix [N, D] with at least one row, not of shape {list(rows.shape)}.")
    off = float((torch.linalg.vector_norm(rows, dim=1) - 1).abs().max())
    if not off <= UNIT_TOLERANCE:  # also true for NaN
        raise ValueError(f"The length of a row of the {name} features is {off:.6g} off 1; every row must be a unit vector.")
    return rows


def _check(rows: Mapping[str, Tensor], own: str, made: str) -> None:
    widths = {name: values.shape[1] for name, values in rows.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"Features have different dimensions: {widths}.")
    if made in rows and len(rows[made]) != len(rows[own]):
        raise ValueError(f"{len(rows[made])} inverted features do not belong to {len(rows[own])} {own} features.")


def _classes(labels: ArrayLike | Tensor | None, count: int, rows: int | None) -> NDArray[np.int64] | None:
    """Labels as int64 [N]; ValueError unless there is one for each item, and a row of the other modality for each label."""
    if labels is None:
        return None
    classes = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels).astype(np.int64)
    if classes.shape != (count,):
        raise ValueError(f"There are {count} items and labels of shape {list(classes.shape)}; each item needs one.")
    if rows is not None and (classes.min() < 0 or classes.max() >= rows):
        raise ValueError(f"Labels are {classes.min()}..{classes.max()}, but there are {rows} rows of the other modality.")
    return classes
