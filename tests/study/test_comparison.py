"""Comparing measures over SYNTHETIC outcomes: each number against SciPy, each reason in words."""

import numpy as np
import pytest
from scipy import stats

from study.comparison import Compared, Resampling, compare
from study.comparison_report import comparison_lines
from study.outcomes import Outcome

FAST = Resampling(resamples=200)


def outcomes(models=("clip", "siglip", "coca", "eva02"), tasks=tuple("ABCDEFGH"), seed=0):
    """SYNTHETIC: a score that follows the gain, one that does not, a constant, and one that few rows have."""
    generator = np.random.default_rng(seed)
    made = []
    for model in models:
        for index, task in enumerate(tasks):
            before, gain = generator.uniform(0.2, 0.8), generator.uniform(0, 1)
            scores = {"iimm": gain + generator.normal(0, 0.05), "noise": generator.normal(), "constant": 0.5}
            scores |= {"rare": gain} if index < 2 else {}
            made.append(Outcome(model, "full", task, before, before + gain * (1 - before), -gain / 5 if model == "clip" else None, scores))
    return made


def find(rows, **wanted):
    (row,) = [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
    return row


def test_across_tasks():
    known = outcomes()
    row = find(compare(known, ["noise", "iimm"], FAST), group=("coca", "full"), outcome="gain", measure="iimm")
    x, y = zip(*[(of.scores["iimm"], of.gain) for of in known if of.model == "coca"], strict=True)
    line = stats.linregress(x, y)
    assert (row.n, row.relation.r2, row.relation.p, row.relation.slope) == pytest.approx((8, line.rvalue**2, line.pvalue, line.slope))
    assert (row.agreement.tau, row.agreement.weighted_tau) == pytest.approx((stats.kendalltau(x, y)[0], stats.weightedtau(x, y)[0]))
    assert row.relation.r2_interval.low <= row.relation.r2 <= row.relation.r2_interval.high


def test_across_models():
    known = outcomes()
    rows = [row for row in compare(known, ["iimm"], FAST) if row.direction == "across models"]
    assert [(row.group, row.outcome) for row in rows[:3]] == [
        (("A", "full"), "accuracy_after"),
        (("A", "full"), "gain"),
        (("B", "full"), "accuracy_after"),
    ]
    row = find(rows, group=("D", "full"), outcome="accuracy_after")
    x, y = zip(*[(of.scores["iimm"], of.accuracy_after) for of in known if of.task == "D"], strict=True)
    assert (row.n, row.agreement.tau) == (4, pytest.approx(stats.kendalltau(x, y)[0]))
    assert row.relation is None


def test_only_known_changes_are_compared():
    groups = {row.group for row in compare(outcomes(), ["iimm"], FAST) if row.outcome == "mean_change_elsewhere"}
    assert groups == {("clip", "full")}


def test_the_best_comes_first_and_the_undefined_last():
    of_group = [row.measure for row in compare(outcomes(), ["constant", "noise", "rare", "iimm"], FAST) if row.group == ("clip", "full")][
        :4
    ]
    assert of_group == ["iimm", "noise", "constant", "rare"]


def test_why_there_are_no_numbers():
    rows = [row for row in compare(outcomes(), ["constant", "rare", "absent"], FAST) if row.group == ("clip", "full")]
    reasons = {row.measure: (row.n, row.undefined) for row in rows}
    assert reasons == {
        "constant": (8, "all scores are the same (0.5)"),
        "rare": (2, "only 2 points, at least 3 are needed"),
        "absent": (0, "only 0 points, at least 3 are needed"),
    }


def test_no_number_depends_on_what_else_is_compared_or_on_the_order_of_rows():
    known = outcomes()
    everything = {(row.group, row.outcome, row.measure): row for row in compare(known[::-1], ["noise", "zero_shot", "iimm"], FAST)}
    for row in compare(known, ["iimm"], FAST):
        other = everything[row.group, row.outcome, row.measure]
        assert row.agreement == other.agreement
        assert row.relation is None or row.relation.r2 == pytest.approx(other.relation.r2, rel=1e-12)
        assert row.relation is None or row.relation.r2_interval == other.relation.r2_interval


def test_the_tables_on_the_screen():
    lines = comparison_lines(compare(outcomes(), ["iimm", "constant", "zero_shot"], FAST), 0.95)
    start = lines.index("across tasks, clip, full: gain")
    assert lines[start + 1].split() == ["measure", "tasks", "R2", "p", "tau", "p", "weighted", "tau"]
    assert lines[start + 2].startswith("  iimm       8      0.9")
    assert lines[start + 4] == "  constant   8      all scores are the same (0.5)"
    assert "across models, A, full: accuracy_after" in lines
    assert "The best of several measures on the same few points looks better than it is." in lines
    assert not any("nan" in line for line in lines)


def test_one_model_only():
    lines = comparison_lines(compare(outcomes(models=("clip",)), ["iimm"], FAST), 0.95)
    assert "Nothing can be compared across models: the table has no two models to compare." in lines


def test_the_remarks():
    perfect = [Outcome("clip", "full", task, 0.5, 0.5 + index / 20, None, {"s": index}) for index, task in enumerate("ABCD")]
    lines = comparison_lines(compare(perfect, ["s"], FAST), 0.9)
    assert "[low, high]: 90 % percentile bootstrap over the points of a table." in lines
    assert any(line.startswith("Resamples in which all scores or outcomes are the same have no tau") for line in lines)
    assert any(line.startswith("[1, 1] and [-1, -1] are no certainty") for line in lines)
    tied = [Outcome("clip", "full", str(index), 0.5, 0.5 + (index % 3) / 20, None, {"s": index % 4}) for index in range(12)]
    assert any(line.startswith("~p: normal approximation") for line in comparison_lines(compare(tied, ["s"], FAST), 0.9))


def test_a_pair_is_not_enough():
    (row,) = compare([Outcome("clip", "full", task, 0.5, 0.6, None, {"s": 1.0}) for task in "AB"], ["s"], FAST)
    assert row == Compared("across tasks", ("clip", "full"), "gain", "s", 2, undefined="only 2 points, at least 3 are needed")
