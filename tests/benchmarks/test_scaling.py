"""Growth that is measured: exponents, the table, and the place in the page where it goes. No times are tested."""

from __future__ import annotations

from functools import partial
from inspect import signature
from pathlib import Path

import pytest

from benchmarks.scaling.growth import Grown, Point, Series, exponent, grown
from benchmarks.scaling.series import every_series
from benchmarks.scaling.tables import BEGIN, END, renew, table
from benchmarks.work import Way
from common.errors import UserError


def series(axis: str = "N", **changes: object) -> Series:
    known = {"work": "sorting", "axis": axis, "sizes": (10, 20), "fixed": "D = 2", "prepare": prepare, "varies": "count"}
    return Series(**{**known, **changes})  # type: ignore[arg-type]


def prepare(count: int, word: str) -> Way:
    return lambda: [word] * count


def quadratic(of: Series, mib: int) -> Grown:
    return Grown(of, tuple(Point(size, 1e-3 * size**2, 1.0, mib * size) for size in of.sizes))


def test_the_exponent_is_that_of_a_power() -> None:
    assert exponent([1, 10, 100], [3.0, 3e1, 3e2]) == pytest.approx(1)
    assert quadratic(series(), 1).exponent == pytest.approx(2)


def test_memory_that_hardly_grows_has_no_exponent() -> None:
    assert quadratic(series(), 1).memory_exponent is None
    assert quadratic(series(), 10).memory_exponent == pytest.approx(1)


def test_points_come_in_order_of_their_series_and_sizes() -> None:
    (found,) = grown([series(prepare=partial(prepare, word="a"))], jobs=2)
    assert [point.size for point in found.points] == [10, 20]
    assert all(point.cpu > 0 and point.seconds > 0 for point in found.points)


@pytest.mark.parametrize("quick", [True, False])
def test_every_series_has_sizes_that_grow(quick: bool) -> None:
    for each in every_series(Path("nowhere"), quick):
        assert list(each.sizes) == sorted(set(each.sizes)), each.work
        assert len(each.sizes) > 1
        signature(each.prepare).bind(**{each.varies: each.sizes[0]})  # which it is called with


def test_the_page_is_renewed_between_its_marks_alone(tmp_path: Path) -> None:
    page, every = tmp_path / "scaling.md", [quadratic(series(), 10), quadratic(series("processes"), 1)]
    page.write_text(f"Before.\n{BEGIN}\nold\n{END}\nAfter.\n")
    renew(page, every, "A machine")
    text = page.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith(f"{END}\nAfter.\n")
    assert "old" not in text
    assert "| sorting | N | 10, 20 | D = 2 | 0.1, 0.4 | 2.00 | 100, 200 | 1.00 |" in table(every)
    assert table(every) in text
    renew(page, every, "A machine")
    assert page.read_text() == text


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "scaling.md"
    page.write_text("No marks.\n")
    with pytest.raises(UserError, match="between which the tables go"):
        renew(page, [], "A machine")
    assert page.read_text() == "No marks.\n"
