"""Which measure predicts outcomes, in both directions that people care about.

Across tasks for one model: how much will fine-tuning gain on this task (a magnitude, so R2 and tau)? Across models for one
task: which model should I take (an order, so tau only)? Zero-shot accuracy is among the measures, as the one that costs
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from study.agreement import Agreement, Bootstrap, agreement, in_order, percentile_interval, resampled_counts, resampled_r2
from study.outcomes import Outcome
from study.regression import Line, UndefinedError, fit

ACROSS_TASKS, ACROSS_MODELS = "across tasks", "across models"


@dataclass(frozen=True)
class Direction:
    """What is held fixed, what is compared, and which outcomes are looked at."""

    name: str
    points: str
    group: Callable[[Outcome], tuple[str, str]]
    outcomes: dict[str, Callable[[Outcome], float | None]]


DIRECTIONS = (
    Direction(
        ACROSS_TASKS,
        "tasks",
        lambda of: (of.model, of.tuning),
        {"gain": lambda of: of.gain, "mean_change_elsewhere": lambda of: of.mean_change_elsewhere},
    ),
    Direction(
        ACROSS_MODELS,
        "models",
        lambda of: (of.task, of.tuning),
        {"accuracy_after": lambda of: of.accuracy_after, "gain": lambda of: of.gain},
    ),
)


@dataclass(frozen=True)
class Resampling:
    """How the bootstrap is done."""

    resamples: int = 2000
    seed: int = 0
    level: float = 0.95


@dataclass(frozen=True)
class Relation:
    """The slope's sign, R2 and p-value of the line from a score to an outcome, with R2's bootstrap interval."""

    slope: float
    r2: float
    r2_interval: Bootstrap
    p: float


@dataclass(frozen=True)
class Compared:
    """One measure against one outcome within one group of points; ``undefined`` says why there are no numbers."""

    direction: str
    group: tuple[str, str]
    outcome: str
    measure: str
    n: int
    relation: Relation | None = None
    agreement: Agreement | None = None
    undefined: str = ""


def compare(outcomes: Sequence[Outcome], measures: Sequence[str], how: Resampling = Resampling()) -> list[Compared]:
    """Every measure against every outcome in every group of both directions; the best measure of a group first.

    Groups with fewer than two points are left out. No number depends on which other measures, groups or rows are listed.
    """
    return [
        compared
        for direction in DIRECTIONS
        for group, members in _groups(outcomes, direction)
        for outcome in direction.outcomes
        if any(direction.outcomes[outcome](of) is not None for of in members)
        for compared in sorted((_compare_one(direction, group, outcome, measure, members, how) for measure in measures), key=_worst_last)
    ]


def _groups(outcomes: Iterable[Outcome], direction: Direction) -> list[tuple[tuple[str, str], list[Outcome]]]:
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for of in outcomes:
        groups.setdefault(direction.group(of), []).append(of)
    return [(group, members) for group, members in groups.items() if len(members) > 1]


def _compare_one(
    direction: Direction, group: tuple[str, str], outcome: str, measure: str, members: Sequence[Outcome], how: Resampling
) -> Compared:
    pairs = [(of.score(measure), direction.outcomes[outcome](of)) for of in members]
    known = [(score, value) for score, value in pairs if score is not None and value is not None]
    x, y = [score for score, _ in known], [value for _, value in known]
    try:
        agrees = agreement(x, y, resamples=how.resamples, seed=how.seed, level=how.level)
        relation = _relation(fit(x, y), how) if direction.name == ACROSS_TASKS else None
    except UndefinedError as error:
        return Compared(direction.name, group, outcome, measure, len(known), undefined=str(error))
    return Compared(direction.name, group, outcome, measure, len(known), relation, agrees)


def _relation(line: Line, how: Resampling) -> Relation:
    x, y = in_order(line.x, line.y)
    interval = percentile_interval(resampled_r2(x, y, resampled_counts(line.n, how.resamples, how.seed)), how.level)
    return Relation(line.slope, line.r2, interval, line.p)


def _worst_last(of: Compared) -> tuple[float, str]:
    """By R2 where there is one, else by |tau|; those without numbers last."""
    if of.agreement is None:
        return 1.0, of.measure
    return -(of.relation.r2 if of.relation else abs(of.agreement.tau)), of.measure
