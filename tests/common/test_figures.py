"""What figures share: names, limits and pages; both files, the same for the same numbers; densities of area 1."""

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from common.figures import PALETTE, columns_for, density_curve, drawing, padded, pages, panels, save, short, write


@pytest.mark.parametrize(
    ("name", "expected"), [("clip", "clip"), ("ViT-H-14-quickgelu/dfn5b_and_more", "ViT-H-14-qu…n5b_and_more"), ("a$b", r"a\$b")]
)
def test_short_names(name, expected):
    assert short(name, 24) == expected


def test_pages_and_limits():
    assert pages("abcde", 2) == [("", "ab"), ("_2", "cd"), ("_3", "e")]
    assert padded([1, 3], 0.1) == pytest.approx((0.8, 3.2))
    low, high = padded([0.0, 0.0])
    assert low < 0 < high


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 12])
def test_panels(count):
    columns, width = columns_for(count)
    with drawing(width, 2) as figure:
        assert len(panels(figure, count, columns)) == len(figure.axes) == count


def test_seven_colours():
    assert len(set(PALETTE)) == 7


def test_a_density_has_area_1_and_no_empty_ends():
    with drawing(3, 2) as figure:
        axes = panels(figure, 1, 1)[0]
        density_curve(axes, np.linspace(-1, 1, 6), [0, 1, 0, 3, 0], mean=0.3, color=PALETTE[0])
        outline = axes.patches[0].get_data()
        assert outline.edges == pytest.approx([-0.6, -0.2, 0.2, 0.6])
        assert outline.values @ np.diff(outline.edges) == pytest.approx(1)
        assert axes.lines[0].get_xdata() == [0.3]


def test_the_mean_of_the_bins_where_no_other_is_known():
    with drawing(3, 2) as figure:
        axes = panels(figure, 1, 1)[0]
        density_curve(axes, [0, 1, 2], [1, 3])
        assert axes.lines[0].get_xdata() == [pytest.approx(1.25)]


def draw(folder, name="a b/c"):
    with drawing(3, 2) as figure:
        panels(figure, 1, 1)[0].set_title("loss")
        return save(figure, folder, name, "caption")


def test_both_files_at_300_dots_per_inch(tmp_path):
    drawn = draw(tmp_path / "new")
    assert (drawn.png, drawn.pdf) == (tmp_path / "new" / "a-b-c.png", tmp_path / "new" / "a-b-c.pdf")
    with Image.open(drawn.png) as image:
        assert image.size == (900, 600)
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    content = drawn.pdf.read_bytes()
    assert content.startswith(b"%PDF-")
    assert b"/FontFile2" in content  # TrueType, embedded


def test_the_same_numbers_give_the_same_files(tmp_path):
    one, other = draw(tmp_path / "1"), draw(tmp_path / "2")
    assert one.png.read_bytes() == other.png.read_bytes()
    assert one.pdf.read_bytes() == other.pdf.read_bytes()


def test_another_kind_of_file(tmp_path):
    with drawing(3, 2) as figure, pytest.raises(UserError, match=r"plot\.svg' does not end in \.png or \.pdf"):
        write(figure, tmp_path / "plot.svg")
