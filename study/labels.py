"""Names beside the points of a scatter plot, put where they cover neither points nor each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

# Where a label may stand around its point, the preferred place first: offset in points, alignment. From FAR points on, a thin
# line leads to the point.
PLACES = (
    *((4, 3, "left", "bottom"), (-4, 3, "right", "bottom"), (4, -3, "left", "top"), (-4, -3, "right", "top")),
    *((0, 5, "center", "bottom"), (0, -5, "center", "top"), (6, 0, "left", "center"), (-6, 0, "right", "center")),
    *((8, 9, "left", "bottom"), (-8, 9, "right", "bottom"), (8, -9, "left", "top"), (-8, -9, "right", "top")),
    *((16, 16, "left", "bottom"), (-16, 16, "right", "bottom"), (16, -16, "left", "top"), (-16, -16, "right", "top")),
)
FAR = 8
LEADER = {"arrowstyle": "-", "linewidth": 0.4, "color": "#5F5F5F", "shrinkA": 0, "shrinkB": 2}
MARKER = 3.5  # half the width of a marker with a little air, in points


def label_points(
    axes: Axes, names: Sequence[str], x: Sequence[float], y: Sequence[float], taken: Sequence[Bbox] = (), **style: Any
) -> list[Bbox]:
    """Write each name beside its point; returns the boxes, in pixels, that are now taken. The figure must have been laid out.

    Greedy: names are placed in turn, each where it overlaps least with points, earlier names, ``taken``, and the frame.
    """
    unit = axes.figure.dpi / 72
    obstacles = [*taken, *(_around(axes, point, MARKER * unit) for point in zip(x, y, strict=True))]
    for name, point in zip(names, zip(x, y, strict=True), strict=True):
        label = axes.annotate(name, point, xytext=(0, 0), textcoords="offset points", arrowprops=LEADER, **style)
        best = min(PLACES, key=lambda place: (_cost(axes, _moved(label, place), obstacles), PLACES.index(place)))
        obstacles.append(_moved(label, best))
    return obstacles


def boxes_along(axes: Axes, x: Sequence[float], y: Sequence[float], pieces: int = 40) -> list[Bbox]:
    """Small boxes along the straight line between two points, as obstacles for labels, in pixels."""
    reach = axes.figure.dpi / 72
    steps = [step / pieces for step in range(pieces + 1)]
    return [_around(axes, (x[0] + step * (x[1] - x[0]), y[0] + step * (y[1] - y[0])), reach) for step in steps]


def _moved(label: Annotation, place: tuple[int, int, str, str]) -> Bbox:
    """Put the label there; the box that it then has."""
    label.set_position(place[:2])
    label.set(ha=place[2], va=place[3])
    assert label.arrow_patch is not None
    label.arrow_patch.set_visible(abs(place[0]) >= FAR)
    label.update_positions(label.figure.canvas.get_renderer())
    return Text.get_window_extent(label)  # the annotation's own extent has the leader in it


def _cost(axes: Axes, box: Bbox, obstacles: Sequence[Bbox]) -> float:
    """Area shared with what is there already, and, ten times as bad, area outside the frame."""
    shared = sum(_area(Bbox.intersection(box, other)) for other in obstacles)
    return shared + 10 * (_area(box) - _area(Bbox.intersection(box, axes.get_window_extent())))


def _area(box: Bbox | None) -> float:
    return 0.0 if box is None else box.width * box.height


def _around(axes: Axes, point: tuple[float, float], reach: float) -> Bbox:
    x, y = axes.transData.transform(point)
    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)
