"""Names beside the points of a scatter plot, put where they cover neither points nor each other.

A box is (left, bottom, right, top) in pixels; boxes are an array [m, 4]. The figure must have been laid out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
Point = tuple[float, float]
Place = tuple[float, float, Literal["left", "center", "right"], Literal["bottom", "center", "top"]]

# Where a label may stand around its point, the preferred place first: offset in points, alignment. From FAR points on, a thin
# line leads to the point.
PLACES: tuple[Place, ...] = (
    *((4, 3, "left", "bottom"), (-4, 3, "right", "bottom"), (4, -3, "left", "top"), (-4, -3, "right", "top")),
    *((0, 5, "center", "bottom"), (0, -5, "center", "top"), (6, 0, "left", "center"), (-6, 0, "right", "center")),
    *((8, 9, "left", "bottom"), (-8, 9, "right", "bottom"), (8, -9, "left", "top"), (-8, -9, "right", "top")),
    *((16, 16, "left", "bottom"), (-16, 16, "right", "bottom"), (16, -16, "left", "top"), (-16, -16, "right", "top")),
)
FAR = 8
LEADER = {"arrowstyle": "-", "linewidth": 0.4, "color": "#5F5F5F", "shrinkA": 0, "shrinkB": 2}
MARKER, STROKE = 3.5, 1.0  # half the width of a marker and of a line, with a little air, in points
ROUNDS = 3  # later rounds give way to labels that were placed after
NOTHING: Boxes = np.empty((0, 4))


def label_points(axes: Axes, names: Sequence[str], points: Sequence[Point], taken: Boxes = NOTHING, **style: Any) -> Boxes:
    """Write each name beside its point and return all boxes that are taken now, those given included.

    Greedy, in rounds: each label moves to where it and its leader overlap least with points, ``taken``, the other labels and
    what lies outside the frame.
    """
    labels = [
        axes.annotate(name, at, (0, 0), textcoords="offset points", arrowprops=LEADER, parse_math=False, **style)
        for name, at in zip(names, points, strict=True)
    ]
    markers = np.concatenate([NOTHING, *(_around(axes, at, MARKER) for at in points)])
    placed = [NOTHING for _ in labels]
    for _ in range(ROUNDS):
        for index, label in enumerate(labels):
            others = np.concatenate([taken, np.delete(markers, index, axis=0), *placed[:index], *placed[index + 1 :]])
            costs = [_cost(axes, _moved(axes, label, place), others, markers[index]) for place in PLACES]
            placed[index] = _moved(axes, label, PLACES[int(np.argmin(costs))])
    return np.concatenate([taken, markers, *placed])


def boxes_along(axes: Axes, start: Point, end: Point, pieces: int = 40) -> Boxes:
    """Small boxes along the straight line between two points of the plot, as obstacles for labels."""
    steps = np.linspace(start, end, pieces + 1)
    return np.concatenate([_around(axes, (float(x), float(y)), STROKE) for x, y in steps])


def _moved(axes: Axes, label: Annotation, place: Place) -> Boxes:
    """Put the label there; its box, and those along its leader where it has one."""
    label.set_position(place[:2])
    label.set(ha=place[2], va=place[3])
    far = abs(place[0]) >= FAR
    assert label.arrow_patch is not None
    label.arrow_patch.set_visible(far)
    label.update_positions(cast(FigureCanvasAgg, axes.figure.canvas).get_renderer())
    box = np.asarray(Text.get_window_extent(label).extents)[None]  # the annotation's own extent has the leader in it
    return np.concatenate([box, _along_leader(axes, label.xy, place)]) if far else box


def _along_leader(axes: Axes, point: Point, place: Place) -> Boxes:
    unit = axes.figure.dpi / 72
    steps = axes.transData.transform(point) + np.outer(np.linspace(0.4, 1, 4), place[:2]) * unit
    return np.hstack([steps - STROKE * unit, steps + STROKE * unit])


def _cost(axes: Axes, boxes: Boxes, others: Boxes, own_marker: NDArray[np.float64]) -> float:
    """Area shared with others, a leader's counted tenfold for being thin; of the label, area outside the frame tenfold too."""
    label, leader = boxes[:1], boxes[1:]
    frame = np.asarray(axes.get_window_extent().extents)[None]
    outside = float(_areas(label).sum() - _shared(label, frame))
    return _shared(label, np.vstack([others, own_marker])) + 10 * _shared(leader, others) + 10 * outside


def _shared(boxes: Boxes, others: Boxes) -> float:
    """The area that boxes have in common with others, summed over all pairs."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return float(np.prod(np.clip(high - low, 0, None), axis=2).sum())


def _areas(boxes: Boxes) -> NDArray[np.float64]:
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def _around(axes: Axes, point: Point, reach: float) -> Boxes:
    """The box [1, 4] around a point of the plot, ``reach`` typographic points to each side."""
    pixels, unit = axes.transData.transform(point), axes.figure.dpi / 72
    return np.concatenate([pixels - reach * unit, pixels + reach * unit])[None]
