"""All numbers of a study's report: lines, agreements, forgetting, gains, costs, and what to mind when reading them.

The statistics are those of study.regression, study.agreement, study.prediction and study.comparison; here they are only
applied to every model, tuning and measure of a plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from common.errors import UserError
from study.collected import Collected
from study.comparison import ACROSS_TASKS, Compared, Resampling, compare
from study.costs import MeasureCost, TrainingCost, measure_costs, training_costs
from study.forgetting import ForgettingMatrix, forgetting_matrices
from study.gains import GainRow, gain_rows, outcomes_of, scores_of
from study.notes import notes_of
from study.outcomes import ZERO_SHOT, Outcome
from study.plan import Plan
from study.prediction import CHANGE, GAIN, Fit, fit_outcome


@dataclass(frozen=True, eq=False)
class StudyFit:
    """The line from a measure to an outcome over the tasks of one model and tuning, or why there is none.

    ``fit`` has the tasks (``known``, in the order of ``line.x`` and ``line.y``), the ``line`` (slope, intercept, r2, p, n,
    confidence_band(x), prediction_interval(x)), the leave-one-task-out errors (``leave_one_out``, ``leave_one_out_of_mean``,
    ``leave_one_out_accuracy``) and ``warnings``.
    """

    model: str
    tuning: str
    measure: str
    outcome: str  # "gain" or "mean_change_elsewhere"; study.prediction.WORDS has them in words
    fit: Fit | None = None
    undefined: str = ""  # why there is no fit, in one sentence


@dataclass(frozen=True, eq=False)
class Analysis:
    """The numbers of a report. Lists are in the plan's order and may be empty: a study need not train, nor be finished."""

    predictor: str  # measure of the main fits
    level: float  # of every interval and band, 0.95
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    measures: tuple[str, ...]  # all that were compared, zero-shot accuracy last
    tunings: Mapping[str, str]  # the plan's name of a tuning -> what it is (full, lora, ...)
    combinations: tuple[tuple[str, str], ...]  # (model, tuning) as planned, whether or not anything of it is known
    outcomes: list[Outcome] = field(default_factory=list)  # the points of all fits
    fits: list[StudyFit] = field(default_factory=list)  # predictor -> gain and -> mean_change_elsewhere, of every combination
    components: list[StudyFit] = field(default_factory=list)  # the same of every component of the plan
    compared: list[Compared] = field(default_factory=list)  # all measures, in both directions; see :meth:`taus`
    forgetting: list[ForgettingMatrix] = field(default_factory=list)
    gains: list[GainRow] = field(default_factory=list)
    costs: list[MeasureCost] = field(default_factory=list)
    training_costs: list[TrainingCost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # sentences: small n, what is missing, what was left out

    def fit(self, model: str, tuning: str, measure: str | None = None, outcome: str = GAIN) -> StudyFit | None:
        """The fit of a measure (default: the predictor), None where the study has no such one."""
        wanted = (model, tuning, measure or self.predictor, outcome)
        found = (of for of in (*self.fits, *self.components) if (of.model, of.tuning, of.measure, of.outcome) == wanted)
        return next(found, None)

    def taus(self, model: str, tuning: str, outcome: str = GAIN) -> list[Compared]:
        """Every measure against the outcome across the tasks of one model and tuning, in the order of ``measures``.

        ``agreement`` has tau, weighted_tau and their intervals, ``relation`` slope, r2 and p; both are None where ``undefined``
        says why.
        """
        wanted = (ACROSS_TASKS, (model, tuning), outcome)
        found = {of.measure: of for of in self.compared if (of.direction, of.group, of.outcome) == wanted}
        return [found[measure] for measure in self.measures if measure in found]


def analyse(collected: Collected, plan: Plan, level: float = 0.95) -> Analysis:
    """Everything that the collected cells allow, with a note for what they do not."""
    matrices = forgetting_matrices(collected)
    gains = gain_rows(collected, matrices)
    known = outcomes_of(gains, scores_of(collected))
    combinations = tuple((model, tuning.name) for model in plan.models for tuning in plan.tunings_of(model))
    measures = (*(name for name in plan.measures if name != ZERO_SHOT), ZERO_SHOT)
    fits = _fits(known, combinations, [plan.predictor])
    compared = _compared(known, measures, level)
    return Analysis(
        *(plan.predictor, level, plan.models, plan.tasks, measures),
        tunings={tuning.name: tuning.tuning for tuning in plan.tunings},
        combinations=combinations,
        outcomes=known,
        fits=fits,
        components=_fits(known, combinations, plan.components),
        compared=compared,
        forgetting=matrices,
        gains=gains,
        costs=measure_costs(collected),
        training_costs=training_costs(collected, plan),
        notes=notes_of(collected, plan, gains, matrices, [of.fit for of in fits if of.fit is not None], compared),
    )


def _fits(known: Sequence[Outcome], combinations: Iterable[tuple[str, str]], measures: Iterable[str]) -> list[StudyFit]:
    """Every measure to both outcomes, of every combination."""
    points = {pair: [of for of in known if (of.model, of.tuning) == pair] for pair in combinations}
    return [_fit(of, *pair, measure, outcome) for measure in measures for outcome in (GAIN, CHANGE) for pair, of in points.items()]


def _fit(known: Sequence[Outcome], model: str, tuning: str, measure: str, outcome: str) -> StudyFit:
    try:
        return StudyFit(model, tuning, measure, outcome, fit_outcome(known, measure, outcome))
    except UserError as error:
        return StudyFit(model, tuning, measure, outcome, undefined=str(error))


def _compared(known: Sequence[Outcome], measures: Sequence[str], level: float) -> list[Compared]:
    """All comparisons, without the orders of models where there are too few models for any."""
    rows = compare(known, measures, Resampling(level=level))
    ordered = {(row.direction, row.outcome) for row in rows if row.agreement is not None}
    return [row for row in rows if row.direction == ACROSS_TASKS or (row.direction, row.outcome) in ordered]


def headline(analysis: Analysis) -> list[str]:
    """The main numbers, a line for each model and tuning: R2, p, leave-one-task-out error and tau of the predictor."""
    return [_headline(analysis, of) for of in analysis.fits if of.outcome == GAIN]


def _headline(analysis: Analysis, of: StudyFit) -> str:
    name = f"{of.model}, {of.tuning}: gain ~ {of.measure}"
    if of.fit is None:
        return f"{name}: {of.undefined}"
    line, error, mean = of.fit.line, of.fit.leave_one_out, of.fit.leave_one_out_of_mean
    tau = next((row.agreement for row in analysis.taus(of.model, of.tuning) if row.measure == of.measure), None)
    parts = [f"slope {line.slope:.2f}", f"R2 {line.r2:.2f}", f"p {line.p:.2g}"]
    if error is not None:
        parts.append(f"left-out error {error.mean_absolute:.3f} ({mean.mean_absolute:.3f} from the mean alone)")
    if tau is not None:
        low, high = tau.tau_interval.low, tau.tau_interval.high
        parts.append(f"tau {tau.tau:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else ""))
    return f"{name}: {', '.join(parts)} (n = {line.n})"
