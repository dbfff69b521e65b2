"""The figures of a made-up study: which there are, their sizes, and what is on them."""

import numpy as np
import pytest
from PIL import Image

from common.figures import PALETTE, drawing, panels, remark
from study.analysis import analyse
from study.collect import collect
from study.forgetting import ForgettingMatrix
from study.plots.matrix import draw_forgetting
from study.plots.scatter import draw_panel, points_of
from study.plots.style import look, title_of
from study.prediction import GAIN
from study.study_figures import draw_all
from tests.study.small_study import small_plan, write_small_study

TASKS = ("Cars", "DTD", "MNIST", "SVHN")


def drawn(folder, plan, skip=lambda cell: False):
    write_small_study(folder, plan, skip)
    collected = collect(plan, folder)
    analysis = analyse(collected, plan)
    return analysis, draw_all(analysis, collected, plan, folder / "figures")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    plan = small_plan(models=("clip",), tuned_models=("clip",), tasks=TASKS, eval_tasks=TASKS, seeds=(0,))
    return drawn(tmp_path_factory.mktemp("study"), plan)


def test_all_figures(small):
    names = ["gain_vs_iimm", "components", "forgetting_vs_iimm", "forgetting_matrix", "tau", "cost", "geometry"]
    assert [of.name for of in small[1]] == names
    assert all(of.caption and of.png.name == f"{of.name}.png" and of.pdf.name == f"{of.name}.pdf" for of in small[1])


def test_one_or_two_columns_at_300_dpi(small):
    for of in small[1]:
        with Image.open(of.png) as image:
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            assert image.width in (990, 2070)
            assert image.height <= 300 * 10


def test_pdf_embeds_its_fonts(small):
    content = small[1][0].pdf.read_bytes()
    assert content.startswith(b"%PDF-")
    assert b"/FontFile2" in content
    assert b"/CreationDate" not in content


def test_panel_has_points_line_and_band(small):
    with drawing(3, 3) as figure:
        axes = panels(figure, 1, 1)[0]
        draw_panel(axes, small[0], ("clip", "full"), "iimm", GAIN)
        line, *_ = [of for of in axes.lines if len(of.get_xdata()) == 200]
        fit = small[0].fit("clip", "full").fit.line
        np.testing.assert_allclose(line.get_ydata(), fit.at(line.get_xdata()))
        (band,) = axes.collections
        low, high = fit.confidence_band(axes.get_xlim()[0])
        at_left = [y for x, y in band.get_paths()[0].vertices if x == axes.get_xlim()[0]]
        assert (min(at_left), max(at_left)) == pytest.approx((float(low), float(high)))
        dots = {(of.get_xdata()[0], of.get_ydata()[0]) for of in axes.lines if of.get_linestyle() == "None"}
    assert dots == {(of.score, of.value) for of in points_of(small[0], "clip", "full", "iimm", GAIN)}
    assert len(dots) == len(TASKS)


def test_too_few_tasks_for_a_line(tmp_path):
    plan = small_plan(tasks=TASKS[:2], eval_tasks=TASKS[:2], models=("clip",), tuned_models=("clip",))
    _, figures = drawn(tmp_path, plan)
    assert "gain_vs_iimm" in [of.name for of in figures]
    assert "tau" not in [of.name for of in figures]


def test_measures_without_training(tmp_path):
    _, figures = drawn(tmp_path, small_plan(tunings=()))
    assert [of.name for of in figures] == ["cost", "geometry"]


def test_nothing_done_yet(tmp_path):
    assert drawn(tmp_path, small_plan(), skip=lambda cell: True)[1] == []


def test_long_grids_go_on_in_another_figure(tmp_path):
    names = [f"T{index}" for index in range(12)]
    matrices = [ForgettingMatrix("m", f"t{number}", tuple(names), tuple(names), np.full((12, 12), -0.1), {}) for number in range(3)]
    figures = draw_forgetting(matrices, tmp_path)
    assert [of.name for of in figures] == ["forgetting_matrix", "forgetting_matrix_2"]


def test_matrix_scale_is_symmetric_and_unknown_is_grey(tmp_path, monkeypatch):
    """A loss of 10 points elsewhere is the reddest; the gain of 60 on the task itself does not wash it out."""
    kept = []
    monkeypatch.setattr("study.plots.matrix.save", lambda figure, *rest: kept.append(figure))
    draw_forgetting([ForgettingMatrix("m", "t", ("a", "b"), ("a", "b"), np.asarray([[0.6, -0.1], [np.nan, 0.2]]), {})], tmp_path)
    axes = kept[0].axes[0]
    (image,) = axes.images
    assert image.get_clim() == pytest.approx((-10, 10))
    assert [text.get_text() for text in axes.texts] == ["60.0", "−10.0", "20.0", "–"]
    assert image.cmap(np.ma.masked) == pytest.approx((0.85, 0.85, 0.85, 1), abs=0.01)
    assert len(axes.patches) == 2


def test_every_task_looks_different():
    looks = [look(index) for index in range(70)]
    assert len({(of["color"], of["marker"]) for of in looks}) == 70
    assert len(set(PALETTE)) == 7


def test_odd_names_do_not_break_the_drawing():
    with drawing(3, 3) as figure:
        axes = panels(figure, 1, 1)[0]
        axes.set_title(title_of("model$_{", "x^$y\\"))
        remark(axes, "costs $5 and $6_{")
        figure.canvas.draw()
