"""The plot: a file of the right kind and size, with every name on it and none upon another."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from common.errors import UserError
from common.labels import label_points
from study.figures import plot_prediction
from study.new_task import NewTask
from study.outcomes_table import joined, read_outcomes, read_scores
from study.prediction import GAIN, fit_all, predict
from tests.study.examples import REAL, write_scores


@pytest.fixture
def fits(tmp_path):
    path = write_scores(tmp_path / "scores.csv")
    return fit_all(joined(read_outcomes(REAL), read_scores(path), path), "iimm")[0]


def new(fits, score=0.44):
    return [predict(fits, NewTask("FMoW_train.safetensors", "FMoW", score, 0.2))]


def test_two_panels_are_two_columns_wide(tmp_path, fits):
    plot_prediction(tmp_path / "plot.png", fits, new(fits))
    with Image.open(tmp_path / "plot.png") as image:
        assert (image.format, image.size) == ("PNG", (1980, 900))
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 20)}
        interval = (np.asarray(image.convert("RGB")) == (213, 94, 0)).all(axis=2).sum(axis=0).max()
    assert {(213, 94, 0), (0, 114, 178), (0, 0, 0), (255, 255, 255)} <= colors  # new task, line, known tasks, ground
    assert interval > 100  # its interval is an upright bar, longer than any letter


def test_one_panel_is_one_column_wide(tmp_path, fits):
    only = {GAIN: fits[GAIN]}
    plot_prediction(tmp_path / "plot.PNG", only, new(only))
    with Image.open(tmp_path / "plot.PNG") as image:
        assert image.size == (990, 900)


def test_pdf_with_fonts_and_without_the_time(tmp_path, fits):
    for name in ("a.pdf", "b.pdf"):
        plot_prediction(tmp_path / name, fits, new(fits))
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert b"/FontFile2" in content  # TrueType, embedded
    assert content == (tmp_path / "b.pdf").read_bytes()


def test_without_a_new_task(tmp_path, fits):
    plot_prediction(tmp_path / "plot.png", fits, [])
    with Image.open(tmp_path / "plot.png") as image:
        assert (213, 94, 0) not in {color for _, color in image.convert("RGB").getcolors(1 << 20)}


def test_another_kind_of_file(tmp_path, fits):
    with pytest.raises(UserError, match=r"plot\.svg' does not end in \.png or \.pdf"):
        plot_prediction(tmp_path / "plot.svg", fits, [])


def test_labels_cover_nothing():
    """Ten points in a heap: names keep off each other, off all points, and inside the frame."""
    figure = Figure(figsize=(3.3, 3), dpi=300)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    points = [(float(x), float(y)) for x, y in np.random.default_rng(2).uniform(0.3, 0.7, (10, 2))]
    label_points(axes, [f"Task{index}" for index in range(10)], points, fontsize=7)
    boxes = [np.asarray(super(type(text), text).get_window_extent().extents) for text in axes.texts]
    pixels = axes.transData.transform(points)
    assert len(boxes) == 10
    assert not [1 for a, b in combinations(boxes, 2) if (a[:2] < b[2:]).all() and (b[:2] < a[2:]).all()]
    assert not [1 for box in boxes for point in pixels if (box[:2] < point).all() and (point < box[2:]).all()]
    frame = axes.get_window_extent().extents
    assert all((box[:2] >= frame[:2]).all() and (box[2:] <= frame[2:]).all() for box in boxes)
