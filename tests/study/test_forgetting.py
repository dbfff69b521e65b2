"""The forgetting matrix, on a real one and on unfinished ones."""

import csv
from collections.abc import Iterator

import numpy as np
import pytest

from study.collected import Collected, EvaluatedRow, ZeroShotRow
from study.forgetting import ForgettingMatrix, forgetting_matrices
from study.gains import gain_rows, outcomes
from study.outcomes_table import read_outcomes
from tests.study.examples import GAINS, REAL

MATRIX = REAL.with_name("clip_vit_b32_matrix.csv")


def before(task: str, top1: float, model: str = "clip") -> ZeroShotRow:
    """A row of zero-shot accuracy."""
    sizes = {"mean_per_class": None, "worst_group": None, "n_images": None, "n_skipped": None, "seconds": None}
    return ZeroShotRow(cell=f"cells/zero_shot/{task}.json", model=model, task=task, top1=top1, **sizes)


def after(task: str, eval_task: str, top1: float, seed: int = 0, tuning: str = "full") -> EvaluatedRow:
    """A row of accuracy after training on ``task``."""
    return EvaluatedRow(
        **{"cell": f"cells/test/{task}-{eval_task}-{seed}.json", "model": "clip", "tuning": tuning, "task": task, "seed": seed},
        **{"eval_task": eval_task, "top1": top1, "mean_per_class": None, "worst_group": None, "n_images": None},
        **{"n_skipped": None, "validation": None, "chosen": "lr1e-05", "values": {"lr": 1e-5}, "checkpoint": ""},
    )


def published() -> Collected:
    """The real matrix as a study's rows."""
    zero_shot, *rows = csv.DictReader(MATRIX.open(newline=""))
    tasks = [name for name in zero_shot if name != "trained_on"]
    return Collected(
        zero_shot=[before(task, float(zero_shot[task]) / 100) for task in tasks],
        tests=[after(row["trained_on"], task, float(row[task]) / 100) for row in rows for task in tasks],
    )


def test_the_real_matrix_gives_the_published_gains_and_mean_changes() -> None:
    expected = {of.task: of for of in read_outcomes(REAL)}
    found = outcomes(published())
    assert [of.task for of in found] == list(GAINS)
    for of in found:
        known = expected[of.task]
        assert of.gain == pytest.approx(GAINS[of.task], abs=0.0006)
        assert of.accuracy_after == pytest.approx(known.accuracy_after)
        assert of.zero_shot_accuracy == pytest.approx(known.zero_shot_accuracy)
        assert of.mean_change_elsewhere == pytest.approx(known.mean_change_elsewhere, abs=0.0006)


def test_the_matrix_is_trained_on_by_evaluated_on() -> None:
    (of,) = forgetting_matrices(published())
    assert of.trained_on == of.evaluated_on == tuple(GAINS)
    svhn, mnist = of.trained_on.index("SVHN"), of.evaluated_on.index("MNIST")
    assert of.change[svhn, mnist] == pytest.approx(0.818 - 0.483)  # training on SVHN helps on MNIST
    assert of.change[mnist, svhn] == pytest.approx(0.501 - 0.316)
    assert of.cells["SVHN", "MNIST"] == ("cells/zero_shot/MNIST.json", "cells/test/SVHN-MNIST-0.json")
    assert not of.unknown


def small(*tests: EvaluatedRow, unknown: str = "") -> ForgettingMatrix:
    """The matrix of these tests on the tasks a, b and c, with zero-shot accuracy 0.5 on all but one."""
    (of,) = forgetting_matrices(Collected(zero_shot=[before(task, 0.5) for task in "abc" if task != unknown], tests=list(tests)))
    return of


def full_rows(rows: str = "abc", columns: str = "abc") -> Iterator[EvaluatedRow]:
    """Each row's own task gains 0.3, the others lose 0.1."""
    return (after(row, column, 0.8 if row == column else 0.4) for row in rows for column in columns)


def test_seeds_are_averaged_and_the_diagonal_is_no_forgetting() -> None:
    of = small(*full_rows(), after("a", "b", 0.2, seed=1), after("a", "c", 0.4, seed=1))
    np.testing.assert_allclose(of.change[0], [0.3, -0.2, -0.1])
    assert of.mean_change_elsewhere("a") == pytest.approx(-0.15)
    assert of.mean_change_elsewhere("b") == pytest.approx(-0.1)


def test_a_row_that_lacks_a_test_has_no_mean() -> None:
    of = small(*full_rows("ab"), after("c", "c", 0.8), after("c", "a", 0.4))
    assert np.isnan(of.change[2, 1])
    assert of.mean_change_elsewhere("c") is None
    assert of.mean_change_elsewhere("a") == pytest.approx(-0.1)


def test_a_column_without_zero_shot_is_left_out_of_all_means() -> None:
    of = small(*full_rows(), unknown="b")
    assert of.unknown == ("b",)
    assert of.mean_change_elsewhere("a") == of.mean_change_elsewhere("b") == pytest.approx(-0.1)


def test_columns_are_in_the_plans_order_whatever_was_done_first() -> None:
    assert small(after("b", "c", 0.4), after("b", "b", 0.4), after("c", "a", 0.4)).evaluated_on == ("a", "b", "c")


def test_one_task_alone_forgets_nothing_that_is_known() -> None:
    assert small(after("a", "a", 0.9)).mean_change_elsewhere("a") is None
    assert small(after("a", "a", 0.9)).mean_change_elsewhere("z") is None


def test_tasks_that_are_only_tested_count_for_the_mean() -> None:
    of = small(after("a", "a", 0.9), after("a", "c", 0.3))
    assert (of.trained_on, of.evaluated_on) == (("a",), ("a", "c"))
    assert of.mean_change_elsewhere("a") == pytest.approx(-0.2)


def test_tasks_that_are_tested_only_after_their_own_training_are_no_forgetting() -> None:
    of = small(*(after(task, task, 0.9) for task in "ab"), after("a", "c", 0.4), after("b", "c", 0.3))
    assert of.unknown == ("a", "b")
    assert (of.mean_change_elsewhere("a"), of.mean_change_elsewhere("b")) == (pytest.approx(-0.1), pytest.approx(-0.2))


def test_a_corrupted_copy_of_a_task_is_no_other_task() -> None:
    zero_shot = [before(task, 0.5) for task in ("CIFAR10", "CIFAR10+contrast-5", "DTD")]
    tests = [after("CIFAR10", of["task"], top1) for of, top1 in zip(zero_shot, (0.9, 0.8, 0.3), strict=True)]
    (of,) = forgetting_matrices(Collected(zero_shot=zero_shot, tests=tests))
    assert of.mean_change_elsewhere("CIFAR10") == pytest.approx(-0.2)


def test_tunings_have_matrices_of_their_own() -> None:
    tests = [*full_rows(), after("a", "a", 0.6, tuning="probe")]
    collected = Collected(zero_shot=[before(task, 0.5) for task in "abc"], tests=tests)
    assert [(of.tuning, of.change.shape) for of in forgetting_matrices(collected)] == [("full", (3, 3)), ("probe", (1, 1))]


def test_a_gain_has_the_spread_over_seeds_and_the_files_of_its_numbers() -> None:
    collected = Collected(zero_shot=[before("a", 0.5)], tests=[after("a", "a", 0.8, seed=0), after("a", "a", 0.6, seed=1)])
    (row,) = gain_rows(collected, forgetting_matrices(collected))
    assert (row.accuracy_after, row.gain) == (pytest.approx(0.7), pytest.approx(0.4))
    assert (row.accuracy_std, row.gain_std) == (pytest.approx(0.1 * 2**0.5), pytest.approx(0.2 * 2**0.5))
    assert row.cells == ("cells/zero_shot/a.json", "cells/test/a-a-0.json", "cells/test/a-a-1.json")
    assert row.settings == ("lr1e-05",)
    assert [run.accuracy for run in row.runs] == [0.8, 0.6]


def test_one_seed_has_no_spread() -> None:
    collected = Collected(zero_shot=[before("a", 0.5)], tests=[after("a", "a", 0.8)])
    (row,) = gain_rows(collected, forgetting_matrices(collected))
    assert row.accuracy_std is row.gain_std is None


@pytest.mark.parametrize("zero_shot", [[], [before("a", 1.0)]], ids=["unknown", "perfect"])
def test_without_an_error_to_gain_over_there_is_no_outcome(zero_shot: list[ZeroShotRow]) -> None:
    collected = Collected(zero_shot=zero_shot, tests=[after("a", "a", 0.8)])
    (row,) = gain_rows(collected, forgetting_matrices(collected))
    assert (row.accuracy_after, row.gain, row.gain_std) == (0.8, None, None)
    assert outcomes(collected) == []
