"""The figures of inversion: both files are there, the words and numbers are on them, and no label lies on another."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from inversion import figures
from inversion.figures import Dynamics, Score, draw_comparison, draw_dynamics, draw_similarities
from inversion.misalignment import similarities

METHODS = ("native", "OTI", "PCA", "IsoCLIP")


@pytest.fixture
def kept(monkeypatch):
    """The figures that were drawn, laid out; they are written all the same."""
    found = []

    def keep(figure, *rest):
        drawn = save(figure, *rest)
        found.append(figure)
        return drawn

    save = figures.save
    monkeypatch.setattr(figures, "save", keep)
    return found


def check_files(drawn, width):
    assert drawn.caption
    assert drawn.pdf.read_bytes().startswith(b"%PDF-")
    with Image.open(drawn.png) as image:
        assert image.format == "PNG"
        assert image.width == width
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


def texts(figure):
    """All that is written on a figure and is seen."""
    found = [text for text in figure.findobj(lambda of: hasattr(of, "get_text")) if text.get_visible() and text.get_text().strip()]
    return [text for text in found if text.get_window_extent().width > 0]


def words(figure):
    return {text.get_text() for text in texts(figure)}


def check_nothing_covered(figure):
    """Numbers on bars, titles, labels of axes, names of data sets and keys keep off each other."""
    own = [text for axes in figure.axes for text in (*axes.texts, axes._left_title, axes.xaxis.label, axes.yaxis.label)]
    ticks = [text for axes in figure.axes for text in axes.get_xticklabels()]
    limits = {id(text): text for text in [*own, *ticks, *figure.legends[0].get_texts()] if text.get_visible() and text.get_text()}
    boxes = [np.asarray(text.get_window_extent().extents) for text in limits.values()]
    inside = [box for box in boxes if (box[:2] >= 0).all() and (box[2:] <= figure.bbox.extents[2:]).all()]
    assert not [1 for a, b in combinations(inside, 2) if (a[:2] + 0.5 < b[2:]).all() and (b[:2] + 0.5 < a[2:]).all()]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def found():
    random = np.random.default_rng(0)
    labels, texts = random.integers(0, 4, 60), unit(random.normal(size=(4, 16)))
    features = unit(texts[labels] + 0.3 * random.normal(size=(60, 16)))
    return similarities(features, labels, texts, unit(features + 0.1 * random.normal(size=(60, 16))))


def test_similarities(tmp_path, kept, found):
    drawn = draw_similarities(found, tmp_path, "tiny, Digits test")
    check_files(drawn, 1490)
    assert drawn.name == "similarities"
    titles = [axes.get_title(loc="left") for axes in kept[0].axes]
    assert titles[0] == f"image to image: overlap {found.overlap('image_image'):.3f}"
    assert [title.split(":")[0] for title in titles] == ["image to image", "image to text", "OTI feature to image", "OTI feature to text"]
    assert {"tiny, Digits test", "same class", "different classes", "its own item", "cosine"} <= words(kept[0])
    assert f"image to text {found.gaps['image_text']:.3f}" in drawn.caption
    check_nothing_covered(kept[0])


def test_similarities_of_texts_without_labels(tmp_path, kept):
    rows = unit(np.random.default_rng(0).normal(size=(30, 8)))
    draw_similarities(similarities(rows, modality="text", inverted=rows), tmp_path, name="texts")
    assert (tmp_path / "texts.png").is_file()
    assert {"text to text", "OVI feature to text", "all pairs", "its own item"} <= words(kept[0])
    assert "same class" not in words(kept[0])


def test_a_spike_does_not_flatten_the_rest(tmp_path, kept):
    """Inversions that reach their items all have cosine 1, a density of 100; the other curves still fill their panel."""
    rows = unit(np.random.default_rng(0).normal(size=(300, 8)))
    found = similarities(rows, inverted=rows)
    draw_similarities(found, tmp_path)
    highest = found.histograms["oti_image_all"].shares.max() * 100
    assert kept[0].axes[1].get_ylim()[1] == pytest.approx(1.06 * 2.5 * highest, rel=0.05)


def test_few_pairs_are_drawn_in_wider_bins(tmp_path, kept):
    """The widths of Scott's rule; narrow distributions keep the bins of 0.01 that overlaps are computed with."""
    random = np.random.default_rng(0)
    rows = unit(random.normal(size=(20, 8)))
    draw_similarities(similarities(rows, inverted=unit(rows + 0.001 * random.normal(size=rows.shape))), tmp_path)
    wide, narrow = (kept[0].axes[panel].patches[where].get_data().edges for panel, where in ((0, 0), (1, -1)))
    assert np.diff(wide) == pytest.approx(0.05)
    assert np.diff(narrow) == pytest.approx(0.01)


def test_no_pair_to_draw(tmp_path):
    with pytest.raises(UserError, match="no two items"):
        draw_similarities(similarities([[1.0, 0.0]]), tmp_path)


def dynamics():
    steps = (1, 5, 10, 20, 50)
    return [Dynamics(f"r{r}", r, step, 1 / (r + step), 0.2 + 0.1 / (1 + abs(step - 10) / r)) for r in (4, 1) for step in steps]


def test_dynamics(tmp_path, kept):
    curve = np.linspace(0.8, 0.1, 50)
    check_files(draw_dynamics(dynamics(), {"r4": curve}, {"native (intra-modal)": 0.25}, tmp_path), 2070)
    losses, scores = kept[0].axes
    (line,) = [of for of in losses.lines if len(of.get_xdata()) == 49]
    assert line.get_xdata().tolist() == list(range(1, 50))
    np.testing.assert_array_equal(line.get_ydata(), curve[1:])  # before step 2 is after step 1
    first = scores.lines[0]  # R = 1 before R = 4
    np.testing.assert_allclose(first.get_ydata(), [100 * row.score for row in dynamics()[5:]])
    assert scores.lines[-1].get_ydata() == [25, 25]
    assert {"R = 1", "R = 4", "native (intra-modal)", "loss, 1 - cosine", "mAP (%)", "steps"} <= words(kept[0])
    assert scores.get_ylim()[0] < 25 < scores.get_ylim()[1]
    check_nothing_covered(kept[0])


def test_experiments_of_the_same_r_are_told_apart(tmp_path, kept):
    rows = [Dynamics(name, 1, step, 0.5, 0.3) for name in ("slow", "fast") for step in (1, 2)]
    references = dict.fromkeys(("native", "PCA", "IsoCLIP", "fused"), 0.3)
    draw_dynamics(rows, {}, references, tmp_path)
    assert set(references) <= words(kept[0])
    assert {"R = 1, slow", "R = 1, fast"} <= words(kept[0])


def test_dynamics_without_retrieval(tmp_path, kept):
    rows = [Dynamics("r1", 1, step, 1 / step, None) for step in (1, 10)]
    draw_dynamics(rows, {}, {}, tmp_path)
    assert "no retrieval was run" in words(kept[0])


def test_comparison(tmp_path, kept):
    datasets = ("Digits", "Shapes-Colours", "Glyphs")
    rows = [
        Score(of, method, 0.5 + 0.1 * index) for of in datasets for index, method in enumerate(METHODS) if (of, method) != ("Glyphs", "PCA")
    ]
    (drawn,) = draw_comparison(rows, tmp_path, measure="R-precision")
    check_files(drawn, 2070)
    assert {*datasets, *METHODS, "50.0", "60.0", "70.0", "80.0", "R-precision (%)"} <= words(kept[0])
    heights = [bar.get_height() for bar in kept[0].axes[0].patches]
    np.testing.assert_allclose(heights, [50, 50, 50, 60, 60, 60, 70, 70, np.nan, 80, 80, 80])
    check_nothing_covered(kept[0])


def test_the_fifteen_sets_of_the_paper(tmp_path, kept):
    rows = [Score(f"Data set {index}", method, 0.05 * index) for index in range(1, 16) for method in (*METHODS, "native + OTI")]
    (drawn,) = draw_comparison(rows, tmp_path)
    check_files(drawn, 2070)
    assert len(kept[0].axes) == 3
    assert {"75.0", "5.0", "Data set 15", "native + OTI"} <= words(kept[0])
    check_nothing_covered(kept[0])


def test_many_sets_go_on_in_another_figure(tmp_path):
    drawn = draw_comparison([Score(str(index), "native", 0.5) for index in range(21)], tmp_path)
    assert [of.name for of in drawn] == ["comparison", "comparison_2"]


def test_nothing_to_compare(tmp_path):
    assert draw_comparison([], tmp_path) == []
