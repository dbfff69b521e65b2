"""Fits to real outcomes with SYNTHETIC scores, and predictions of SYNTHETIC new tasks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from common.errors import UserError
from engine.embeddings import load_embeddings, save_embeddings
from study.new_task import NewTask, new_task
from study.outcomes import Outcome
from study.outcomes_table import joined, read_outcomes, read_scores
from study.prediction import CHANGE, GAIN, Estimate, accuracy_from, fit_all, fit_outcome, predict
from tests.study.examples import REAL, write_embeddings, write_scores


@pytest.fixture
def outcomes(tmp_path):
    path = write_scores(tmp_path / "scores.csv")
    return joined(read_outcomes(REAL), read_scores(path), path)


def made_up(scores, gains, changes=None):
    """SYNTHETIC outcomes with a zero-shot accuracy of 0.5 and these gains."""
    changes = changes or [None] * len(scores)
    rows = zip("ABCDEFGHIJ", scores, gains, changes, strict=False)
    return [Outcome("clip", "full", task, 0.5, 0.5 + gain / 2, change, {"iimm": score}) for task, score, gain, change in rows]


def at(score, zero_shot=0.5):
    return NewTask("new.safetensors", "New", score, zero_shot)


def test_the_fit_of_the_real_outcomes(outcomes):
    fits, remarks = fit_all(outcomes, "iimm")
    assert (list(fits), remarks) == ([GAIN, CHANGE], ())
    for fit, values in ((fits[GAIN], [of.gain for of in outcomes]), (fits[CHANGE], [of.mean_change_elsewhere for of in outcomes])):
        other = stats.linregress([of.scores["iimm"] for of in outcomes], values)
        assert (fit.line.n, fit.line.slope, fit.line.r2) == pytest.approx((8, other.slope, other.rvalue**2))
        assert fit.warnings == ()


def test_leave_one_out_errors_are_those_of_refitting(outcomes):
    fit = fit_outcome(outcomes, "iimm")
    errors, of_accuracy = [], []
    for left_out in outcomes:
        others = [of for of in outcomes if of is not left_out]
        predicted = predict({GAIN: fit_outcome(others, "iimm")}, at(left_out.scores["iimm"], left_out.zero_shot_accuracy))
        errors.append(left_out.gain - predicted.gain.value)
        of_accuracy.append(left_out.accuracy_after - left_out.zero_shot_accuracy - predicted.gain.value * (1 - left_out.zero_shot_accuracy))
    assert fit.leave_one_out.mean_absolute == pytest.approx(np.abs(errors).mean())
    assert fit.leave_one_out.rms == pytest.approx(np.sqrt(np.square(errors).mean()))
    assert fit.leave_one_out_accuracy.mean_absolute == pytest.approx(np.abs(of_accuracy).mean())
    assert fit.leave_one_out_accuracy.rms == pytest.approx(np.sqrt(np.square(of_accuracy).mean()))


def test_the_prediction_is_the_line_at_the_score(outcomes):
    fits, _ = fit_all(outcomes, "iimm")
    found = predict(fits, at(0.44, zero_shot=0.2), level=0.9)
    for fit, estimate in ((fits[GAIN], found.gain), (fits[CHANGE], found.mean_change_elsewhere)):
        low, high = fit.line.prediction_interval(0.44, 0.9)
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((fit.line.intercept + fit.line.slope * 0.44, low, high))
    assert found.accuracy_after.value == pytest.approx(0.2 + 0.8 * found.gain.value)
    assert (found.accuracy_after.low, found.accuracy_after.high) == pytest.approx((0.2 + 0.8 * found.gain.low, 0.2 + 0.8 * found.gain.high))
    assert not found.accuracy_after.clipped
    assert found.warnings == ()


def test_an_accuracy_lies_in_its_range():
    assert accuracy_from(Estimate(0.9, 0.5, 1.3), 0.5) == Estimate(0.95, 0.75, 1.0, clipped=True)
    assert accuracy_from(Estimate(-1.0, -3.0, 0.5), 0.5) == Estimate(0.0, 0.0, 0.75, clipped=True)
    assert accuracy_from(Estimate(0.5, 0.0, 1.0), 0.5) == Estimate(0.75, 0.5, 1.0, clipped=False)


GOOD = made_up([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], [0.1, 0.21, 0.3, 0.39, 0.5, 0.61, 0.7, 0.79])


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (0.94, "iimm 0.94 lies outside the fitted range: 0.14 above the highest (0.8), 20% of the range; this extrapolates."),
        (0.03, "iimm 0.03 lies outside the fitted range: 0.07 below the lowest (0.1), 10% of the range; this extrapolates."),
    ],
)
def test_outside_the_fitted_range(score, words):
    assert predict({GAIN: fit_outcome(GOOD, "iimm")}, at(score)).warnings == (words,)


@pytest.mark.parametrize("score", [0.1, 0.45, 0.8])
def test_within_the_fitted_range(score):
    assert predict({GAIN: fit_outcome(GOOD, "iimm")}, at(score)).warnings == ()


def test_a_gain_of_more_than_everything():
    warnings = predict({GAIN: fit_outcome(GOOD, "iimm")}, at(1.2)).warnings
    assert "A gain above 1 would be more than all errors gone: the straight line does not hold here." in warnings


def test_too_wide():
    noisy = made_up([0.1, 0.2, 0.3, 0.4, 0.5], [0.40, 0.55, 0.42, 0.60, 0.52], [-0.1, -0.3, -0.1, -0.3, -0.2])
    fits, _ = fit_all(noisy, "iimm")
    gain_words, change_words = predict(fits, at(0.3)).warnings
    assert gain_words.startswith("The interval of the gain over zero-shot error is 0.")
    assert gain_words.endswith("wide, the known ones differ by 0.2: too wide to mean anything.")
    assert change_words.startswith("The interval of the mean change on other tasks is 0.")


def test_an_interval_that_holds_everything():
    wild = made_up([0.1, 0.2, 0.3, 0.4], [-0.5, 1.0, -0.2, 1.0])
    warnings = predict({GAIN: fit_outcome(wild, "iimm")}, at(0.25)).warnings
    assert warnings == ("The interval of the gain holds everything from 0, nothing won, to 1, no error left: too wide to mean anything.",)


def test_few_tasks_are_called_few():
    few = fit_outcome(made_up([0.1, 0.2, 0.3], [0.1, 0.2, 0.31]), "iimm")
    assert few.warnings == ("Only 3 tasks, 1 degree of freedom: take every number here lightly.",)
    assert fit_outcome(GOOD[:7], "iimm").warnings == ("Only 7 tasks, 5 degrees of freedom: take every number here lightly.",)
    assert fit_outcome(GOOD, "iimm").warnings == ()


def test_a_score_that_is_no_better_than_the_mean():
    useless = made_up([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], [0.1, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9, 0.1])
    assert fit_outcome(useless, "iimm").warnings == (
        "Left-out tasks are predicted no better by iimm than by the known tasks' average gain over zero-shot error.",
    )


def test_leave_one_out_without_a_line():
    fit = fit_outcome(made_up([0.1, 0.1, 0.1, 0.4], [0.1, 0.2, 0.3, 0.9]), "iimm")
    assert fit.leave_one_out is None
    assert fit.leave_one_out_accuracy is None
    assert fit.warnings[-1] == "The leave-one-out error is undefined: all points but the one at 0.4 have the same score."


def test_rows_without_a_number_are_left_out_and_named():
    known = [*GOOD, Outcome("clip", "full", "Unscored", 0.5, 0.6)]
    fit = fit_outcome(known, "iimm")
    assert (fit.line.n, fit.warnings) == (8, ("Left out of the fit, for want of iimm or gain over zero-shot error: Unscored.",))


def test_forgetting_without_enough_of_it():
    assert fit_all(GOOD, "iimm")[1] == ("The table has no mean_change_elsewhere, so forgetting is not predicted.",)
    two = made_up([0.1, 0.2, 0.3], [0.1, 0.2, 0.31], [-0.1, -0.2, None])
    assert "only 2 tasks with both iimm and mean change on other tasks" in fit_all(two, "iimm")[1][0]
    same = made_up([0.1, 0.2, 0.3], [0.1, 0.2, 0.31], [-0.1, -0.1, -0.1])
    assert "all outcomes are the same (-0.1)" in fit_all(same, "iimm")[1][0]


@pytest.mark.parametrize(
    ("known", "measure", "words"),
    [
        (GOOD[:2], "iimm", "only 2 tasks with both iimm and gain over zero-shot error; a fit needs at least 3"),
        (GOOD, "iimmm", "no score 'iimmm'; did you mean 'iimm'?"),
        (GOOD, "transrate", "no score 'transrate'; there is iimm, zero_shot"),
        (GOOD, "zero_shot", "all scores are the same (0.5)"),
        (made_up([0.1, 0.2, 0.3], [0.5, 0.5, 0.5]), "iimm", "all outcomes are the same (0.5)"),
    ],
)
def test_no_fit(known, measure, words):
    with pytest.raises(UserError) as raised:
        fit_all(known, measure)
    assert words in str(raised.value)


def test_a_new_task_from_its_embeddings(tmp_path, outcomes):
    task = new_task(write_embeddings(tmp_path / "FMoW_train", 0.44, 0.17), "iimm", outcomes)
    assert (task.name, task.score, task.zero_shot_accuracy) == ("FMoW", pytest.approx(0.44, abs=1e-6), 0.17)
    assert task.warnings == ()
    assert new_task(tmp_path / "FMoW_train.safetensors", "iimm", outcomes, zero_shot=0.3).zero_shot_accuracy == 0.3


def test_what_speaks_against_a_file(tmp_path, outcomes):
    path = write_embeddings(tmp_path / "x", 0.4, 0.5, dataset="DTD", model="siglip", tuning="lora", split="test")
    assert new_task(path, "iimm", outcomes).warnings == (
        "The embeddings are of the model 'siglip', the outcomes of 'clip'.",
        "The embeddings are of an encoder after 'lora', the fit is on scores before any tuning.",
        "DTD is one of the fitted tasks, so this is not a prediction of something unseen.",
        "The embeddings are of the split 'test', the fitted scores of 'train'.",
    )


def test_a_new_task_without_an_error_left(tmp_path, outcomes):
    path = write_embeddings(tmp_path / "x", 0.4, 1.0)
    with pytest.raises(UserError, match=r"zero-shot accuracy of '.*x\.safetensors' is 1"):
        new_task(path, "iimm", outcomes)


def test_zero_shot_accuracy_is_that_of_every_image_by_itself(tmp_path, outcomes):
    of = load_embeddings(write_embeddings(tmp_path / "x", 0.4, 0.5))
    rows = np.random.default_rng(0).standard_normal(of.image_embeddings.shape)
    images = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    path = save_embeddings(tmp_path / "x", replace(of, image_embeddings=images))
    answers = [max(range(2), key=lambda k, row=row: float(row @ of.text_embeddings[k])) for row in images]
    right = [answer == label for answer, label in zip(answers, of.labels, strict=True)]
    assert 0 < new_task(path, "iimm", outcomes).zero_shot_accuracy == np.mean(right) < 1
