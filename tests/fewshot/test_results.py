"""Tables, gains and correlations of results whose numbers are known, and the figures of them."""

import json
from dataclasses import replace

import pytest
from PIL import Image
from scipy import stats

from common.files import read_csv, write_json
from fewshot.figures import draw_accuracy, draw_overlap
from fewshot.gains import ALL_SHOTS, Correlation, correlations, gains, mean_gains
from fewshot.results import Mean, all_results, cell_path, finished, means, write_accuracy_table, write_cells_table
from fewshot.summary import correlation_table
from fewshot.tables import AVERAGE, accuracy_tables, average

ROW = {
    **{
        "correct": 1,
        "n_test": 2,
        "mean_per_class": 0.5,
        "val_correct": None,
        "n_val": 0,
        "val_split": "val",
        "n_cache": 3,
        "model": "tiny",
    },
    **{"adapter": "", "views": 2, "order": "independent", "val_shots": "min", "search": "exact", "grid": "overlap", "as_released": False},
    **{"fit_seconds": 0.1, "precision": "fp32", "created": "now", "hyperparameters": {"alpha": 1.5}},
}


def result(dataset, method, shots, seed, accuracy, test=None):
    return {**ROW, "dataset": dataset, "test": test or dataset, "method": method, "shots": shots, "seed": seed, "accuracy": accuracy}


@pytest.fixture
def results():
    """Two methods with their zero-shot start on three data sets: the correction gains 1, 2 and 4 points at one shot."""
    found = [result(name, "zero_shot", 0, 0, 0.4) for name in ("A", "B", "C")]
    for name, gain in (("A", 0.01), ("B", 0.02), ("C", 0.04)):
        for seed, noise in ((1, -0.02), (2, 0.0), (3, 0.02)):
            found += [result(name, "tip_adapter", shots, seed, 0.5 + shots / 100 + noise) for shots in (1, 4)]
            found += [result(name, "tip_adapter_corrected", 1, seed, 0.51 + noise + gain)]
            found += [result(name, "tip_adapter_corrected", 4, seed, 0.54 + noise - gain)]
    return found


def test_means_and_deviations_over_seeds(results):
    of = means(results)
    assert of["A", "tip_adapter", 4] == Mean(pytest.approx(0.54), pytest.approx(0.02), 3)
    assert of["A", "zero_shot", 0] == Mean(0.4, None, 1)
    assert [str(of[key]) for key in (("A", "tip_adapter", 4), ("A", "zero_shot", 0))] == ["54.0 ±2.0", "40.0"]


def test_the_printed_table(results):
    blocks = accuracy_tables(means(results)).split("\n\n")
    assert len(blocks) == 4
    assert blocks[2].splitlines() == [
        "C                           1 shot    4 shots",
        "  zero_shot                   40.0       40.0",
        "  tip_adapter            51.0 ±2.0  54.0 ±2.0",
        "  tip_adapter_corrected  55.0 ±2.0  50.0 ±2.0",
    ]
    assert blocks[3].splitlines()[0].startswith("mean of the data sets (n = 3)")
    assert blocks[3].splitlines()[3].split() == ["tip_adapter_corrected", "53.3", "51.7"]


def test_transfers_have_blocks_but_no_part_in_the_average(results):
    more = [*results, result("A", "zero_shot", 0, 0, 0.1, test="A+contrast-3")]
    assert "A -> A+contrast-3" in accuracy_tables(means(more))
    assert average(means(more)) == average(means(results))
    assert average(means(more))[AVERAGE, "zero_shot", 0].mean == pytest.approx(0.4)


def test_a_method_that_one_data_set_lacks_is_not_averaged(results):
    of = means([*results, result("A", "ape", 1, 1, 0.9)])
    assert (AVERAGE, "ape", 1) not in average(of)


def test_gains(results):
    of = means(results)
    assert gains(of, "tip_adapter", 1) == {"A": pytest.approx(0.01), "B": pytest.approx(0.02), "C": pytest.approx(0.04)}
    assert gains(of, "tip_adapter", 4)["C"] == pytest.approx(-0.04)
    assert gains(of, "tip_adapter", ALL_SHOTS) == mean_gains(of) == dict.fromkeys("ABC", pytest.approx(0.0))
    assert mean_gains(means(results[:3])) == {}


def test_correlations_say_n_and_match_scipy(results):
    reductions = {"A": 0.3, "B": 0.1, "C": 0.2}
    one, four, both = correlations(means(results), reductions)
    tau, rho = stats.kendalltau([0.3, 0.1, 0.2], [1, 2, 4]).statistic, stats.spearmanr([0.3, 0.1, 0.2], [1, 2, 4]).statistic
    assert one == Correlation("tip_adapter", 1, 3, pytest.approx(tau), pytest.approx(rho))
    assert four == replace(one, shots=4, kendall=pytest.approx(-tau), spearman=pytest.approx(-rho))
    assert (both.shots, both.n) == (ALL_SHOTS, 3)
    assert correlation_table([one, replace(both, kendall=None, spearman=None)]).splitlines()[1:] == [
        "tip_adapter                                1  3          -0.33           -0.50",
        "tip_adapter                             mean  3              -               -",
    ]


@pytest.mark.parametrize("reductions", [{"A": 0.1, "B": 0.2}, {"A": 0.1, "B": 0.1, "C": 0.1}, {}])
def test_correlations_that_are_undefined(results, reductions):
    found = correlations(means(results), reductions)
    assert {(each.n, each.kendall, each.spearman) for each in found} == {(len(reductions), None, None)}


def test_files(results, tmp_path):
    inputs = {"dataset": "imagefolder:/a/b", "test": "imagefolder:/a/b", "method": "ape", "shots": 4, "seed": 2, "classnames": ("x", "y")}
    path = cell_path(tmp_path, inputs)
    assert path.name.startswith("ape_4shots_seed2-")
    assert "_on_C-contrast-3-" in cell_path(tmp_path, inputs | {"test": "C+contrast-3"}).name
    assert cell_path(tmp_path, inputs | {"classnames": ("x", "z")}) != path
    assert finished(path, inputs) is None
    write_json(path, results[3] | {"inputs": inputs})
    assert finished(path, inputs)["accuracy"] == results[3]["accuracy"]
    assert finished(path, inputs | {"seed": 3}) is None
    write_json(path.with_name("a.json"), results[4])
    write_cells_table(tmp_path, all_results(tmp_path))
    write_accuracy_table(tmp_path, means(results))
    first, second = read_csv(tmp_path / "cells.csv")
    assert [row["accuracy"] for row in (first, second)] == [str(each["accuracy"]) for each in (results[4], results[3])]
    assert (json.loads(first["hyperparameters"]), first["val_correct"]) == ({"alpha": 1.5}, "")
    assert read_csv(tmp_path / "accuracy.csv")[0] == {
        **{"dataset": "A", "method": "zero_shot", "shots": "0", "mean": "0.4", "deviation": "", "n_seeds": "1"}
    }
    path.write_text("{")
    assert finished(path, inputs) is None


def test_figures(results, tmp_path, monkeypatch):
    """Three data sets and their mean, on two pages of two panels."""
    monkeypatch.setattr("fewshot.figures.ROWS", 1)
    of = means(results)
    drawn = [*draw_accuracy(of, tmp_path), draw_overlap({"A": (0.6, 0.5), "B": (0.4, 0.45)}, mean_gains(of), tmp_path)]
    assert [each.name for each in drawn] == ["accuracy", "accuracy_2", "overlap"]
    assert {path.name for path in tmp_path.iterdir()} == {f"{each.name}.{kind}" for each in drawn for kind in ("pdf", "png")}
    for each in drawn:
        with Image.open(each.png) as image:
            assert min(image.size) > 300


def test_nothing_to_draw(results, tmp_path):
    assert draw_accuracy(means(results[:3]), tmp_path) == []
    assert draw_overlap({}, {}, tmp_path) is None
    assert not list(tmp_path.iterdir())
