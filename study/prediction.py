"""From known outcomes and one new task: what fine-tuning would gain on it, and what it would forget.

"Given prior knowledge of performance on a few diverse tasks": a line from the score to the outcome is fitted to the tasks
already tried with one model and tuning, and read off at the new task's score. With few tasks the interval is wide, and the
warnings say when it says nothing. Source: Niss et al. (ICCV 2025), section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.errors import UserError, nearest
from study.new_task import NewTask
from study.outcomes import Outcome, measures_of
from study.regression import Float64, Line, UndefinedError, fit, leave_one_out_of_mean

GAIN, CHANGE = "gain", "mean_change_elsewhere"
WORDS = {GAIN: "gain over zero-shot error", "accuracy_after": "accuracy after", CHANGE: "mean change on other tasks"}
VALUES: dict[str, Callable[[Outcome], float | None]] = {GAIN: lambda of: of.gain, CHANGE: lambda of: of.mean_change_elsewhere}
LEAST_TASKS = 3  # a line takes two, the third is the first to show an error
FEW_TASKS = 8


@dataclass(frozen=True)
class Errors:
    """Mean absolute and root mean square error."""

    mean_absolute: float
    rms: float


@dataclass(frozen=True, eq=False)
class Fit:
    """The line from ``measure`` to ``outcome`` (gain or mean_change_elsewhere) over the tasks of one model and tuning.

    The leave-one-out residuals are None where they are not defined; ``why`` then says so.
    """

    measure: str
    outcome: str
    known: tuple[Outcome, ...]
    line: Line
    leave_one_out_residuals: Float64 | None
    warnings: tuple[str, ...]

    @property
    def leave_one_out(self) -> Errors | None:
        """The error on each task of the line through the others."""
        return _errors(self.leave_one_out_residuals)

    @property
    def leave_one_out_of_mean(self) -> Errors:
        """The error on each task of the mean of the others: what a score has to beat."""
        return _known_errors(leave_one_out_of_mean(self.line.y))

    @property
    def leave_one_out_accuracy(self) -> Errors | None:
        """Of a fit to gains: its leave-one-out error as accuracy, residual_i (1 - zero-shot accuracy_i)."""
        if self.leave_one_out_residuals is None or self.outcome != GAIN:
            return None
        return _errors(self.leave_one_out_residuals * [1 - of.zero_shot_accuracy for of in self.known])


@dataclass(frozen=True)
class Estimate:
    """A predicted value with its prediction interval; ``clipped`` when it left the possible range and was cut."""

    value: float
    low: float
    high: float
    clipped: bool = False


@dataclass(frozen=True)
class Prediction:
    """What fine-tuning would do to ``task``; ``mean_change_elsewhere`` is None when the table does not know it."""

    task: NewTask
    gain: Estimate
    accuracy_after: Estimate
    mean_change_elsewhere: Estimate | None
    warnings: tuple[str, ...]


def fit_outcome(outcomes: Sequence[Outcome], measure: str, outcome: str = GAIN) -> Fit:
    """The line from a measure to an outcome, over the rows that know both; UserError when there is no such line."""
    known = tuple(of for of in outcomes if of.score(measure) is not None and VALUES[outcome](of) is not None)
    if len(known) < LEAST_TASKS:
        raise UserError(f"{_tasks(len(known))} with both {measure} and {WORDS[outcome]}; a fit needs at least {LEAST_TASKS}.")
    try:
        line = fit(*np.asarray([(of.score(measure), VALUES[outcome](of)) for of in known], np.float64).T)
    except UndefinedError as error:
        raise UserError(f"No line from {measure} to {WORDS[outcome]} can be fitted: {error}.") from error
    left_out = tuple(of.task for of in outcomes if of not in known)
    return _checked(Fit(measure, outcome, known, line, None, _left_out(left_out, measure, outcome)))


def fit_all(outcomes: Sequence[Outcome], measure: str) -> tuple[dict[str, Fit], tuple[str, ...]]:
    """The fits to gain and, where the table has enough of it, to the change elsewhere; and why the second is missing."""
    check_measure(outcomes, measure)
    fits = {GAIN: fit_outcome(outcomes, measure)}
    if all(of.mean_change_elsewhere is None for of in outcomes):
        return fits, (f"The table has no {CHANGE}, so forgetting is not predicted.",)
    try:
        return {**fits, CHANGE: fit_outcome(outcomes, measure, CHANGE)}, ()
    except UserError as error:
        return fits, (f"Forgetting is not predicted: {error}",)


def check_measure(outcomes: Sequence[Outcome], measure: str) -> None:
    """UserError when no outcome has a score by ``measure``; says what there is, or the nearest name."""
    known = measures_of(outcomes)
    if measure in known:
        return
    guess = nearest(measure, known)
    hint = f"did you mean '{guess}'?" if guess else f"there is {', '.join(known)}; add it as a column, or name its table with --scores."
    raise UserError(f"The outcomes have no score '{measure}'; {hint}")


def predict(fits: dict[str, Fit], task: NewTask, level: float = 0.95) -> Prediction:
    """Read the lines off at the task's score; accuracy after = zero-shot + gain (1 - zero-shot), cut to [0, 1]."""
    gains = _read_off(fits[GAIN].line, task.score, level)
    change = _read_off(fits[CHANGE].line, task.score, level) if CHANGE in fits else None
    warnings = [*task.warnings, *_outside(fits[GAIN], task.score), *_doubtful(fits[GAIN], gains)]
    if change is not None:
        warnings += _doubtful(fits[CHANGE], change)
    return Prediction(task, gains, accuracy_from(gains, task.zero_shot_accuracy), change, tuple(warnings))


def accuracy_from(gains: Estimate, zero_shot: float) -> Estimate:
    """The accuracy after fine-tuning that a gain means, zero-shot + gain (1 - zero-shot), cut to [0, 1]."""
    ends = [zero_shot + value * (1 - zero_shot) for value in (gains.value, gains.low, gains.high)]
    value, low, high = (min(max(end, 0.0), 1.0) for end in ends)
    return Estimate(value, low, high, clipped=[value, low, high] != ends)


def _read_off(line: Line, score: float, level: float) -> Estimate:
    low, high = line.prediction_interval(score, level)
    return Estimate(float(line.at(score)), float(low), float(high))


def _outside(of: Fit, score: float) -> list[str]:
    """Says by how much a score lies outside the fitted ones: beyond them nothing says that the line goes on."""
    low, high = float(of.line.x.min()), float(of.line.x.max())
    if low <= score <= high:
        return []
    beyond, end = (low - score, f"below the lowest ({low:.4g})") if score < low else (score - high, f"above the highest ({high:.4g})")
    share = beyond / (high - low)
    return [f"{of.measure} {score:.4g} lies outside the fitted range: {beyond:.2g} {end}, {share:.0%} of the range; this extrapolates."]


def _doubtful(of: Fit, estimate: Estimate) -> list[str]:
    """Says when an interval tells no more than the table did before any fit, or the line what cannot be."""
    width, spread = estimate.high - estimate.low, float(np.ptp(of.line.y))
    warnings = []
    if of.outcome == GAIN and estimate.value > 1:
        warnings.append("A gain above 1 would be more than all errors gone: the straight line does not hold here.")
    if of.outcome == GAIN and estimate.low <= 0 and estimate.high >= 1:
        warnings.append("The interval of the gain holds everything from 0, nothing won, to 1, no error left: too wide to mean anything.")
    elif width >= spread:
        known = f"the known ones differ by {spread:.2g}"
        warnings.append(f"The interval of the {WORDS[of.outcome]} is {width:.2g} wide, {known}: too wide to mean anything.")
    return warnings


def _checked(of: Fit) -> Fit:
    """The fit with its leave-one-out residuals and what must be said about it."""
    warnings = [*of.warnings]
    if of.line.n < FEW_TASKS:
        freedom = of.line.degrees_of_freedom
        warnings.append(f"Only {of.line.n} tasks, {freedom} degree{'s' if freedom > 1 else ''} of freedom: take every number here lightly.")
    try:
        residuals = of.line.leave_one_out_residuals()
    except UndefinedError as error:
        return replace(of, warnings=(*warnings, f"{error}."))
    of = replace(of, leave_one_out_residuals=residuals)
    if _known_errors(residuals).mean_absolute >= of.leave_one_out_of_mean.mean_absolute:
        warnings.append(f"Left-out tasks are predicted no better by {of.measure} than by the known tasks' average {WORDS[of.outcome]}.")
    return replace(of, warnings=tuple(warnings))


def _left_out(tasks: Sequence[str], measure: str, outcome: str) -> tuple[str, ...]:
    if not tasks:
        return ()
    return (f"Left out of the fit, for want of {measure} or {WORDS[outcome]}: {', '.join(tasks)}.",)


def _errors(residuals: Float64 | None) -> Errors | None:
    return None if residuals is None else _known_errors(residuals)


def _known_errors(residuals: Float64) -> Errors:
    return Errors(float(np.abs(residuals).mean()), float(np.sqrt((residuals**2).mean())))


def _tasks(count: int) -> str:
    return f"There {'is' if count == 1 else 'are'} only {count} task{'' if count == 1 else 's'}"
