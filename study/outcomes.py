"""Known outcomes: what fine-tuning did to tasks on which it has already been tried, beside the scores they had before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from common.errors import UserError, unknown_name

ZERO_SHOT = "zero_shot"  # every row knows its zero-shot accuracy, so it is at hand as the score that others must beat


@dataclass(frozen=True)
class Outcome:
    """What fine-tuning ``model`` by ``tuning`` on ``task`` did. Accuracies are shares in [0, 1].

    ``mean_change_elsewhere`` is the mean change of accuracy on other tasks (forgetting is negative), None where it is not
    known. ``scores`` maps measures to numbers, ``score_splits`` those that say so to the split they were computed on.
    Raises UserError for a zero-shot accuracy of 1.
    """

    model: str
    tuning: str
    task: str
    zero_shot_accuracy: float
    accuracy_after: float
    mean_change_elsewhere: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    score_splits: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        gain(self.zero_shot_accuracy, self.accuracy_after, ", ".join(self.key))

    @property
    def key(self) -> tuple[str, str, str]:
        """What a table has once: model, tuning and task."""
        return self.model, self.tuning, self.task

    @property
    def gain(self) -> float:
        """Gain over zero-shot error, see :func:`gain`."""
        return gain(self.zero_shot_accuracy, self.accuracy_after, self.task)

    def score(self, measure: str) -> float | None:
        """Its score by ``measure``, None where there is none; zero-shot accuracy is one."""
        return self.scores.get(measure, self.zero_shot_accuracy if measure == ZERO_SHOT else None)


def gain(zero_shot_accuracy: float, accuracy_after: float, of: str) -> float:
    """Gain over zero-shot error, (after - zero-shot) / (1 - zero-shot): 1 when all errors are gone, below 0 when there are more.

    Source: Niss et al. (ICCV 2025), section 4. Raises UserError, naming ``of``, for a zero-shot accuracy of 1.

    >>> round(gain(0.632, 0.750, "SUN397"), 3)
    0.321
    """
    if zero_shot_accuracy >= 1:
        raise UserError(f"The zero-shot accuracy of {of} is 1: no error is left, so a gain over it is not defined; leave it out.")
    return (accuracy_after - zero_shot_accuracy) / (1 - zero_shot_accuracy)


def measures_of(outcomes: Iterable[Outcome]) -> list[str]:
    """The measures of which at least one outcome has a score, in the table's order, then zero-shot accuracy."""
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.scores)
    return list(names | {ZERO_SHOT: None})


def combinations(outcomes: Iterable[Outcome]) -> list[tuple[str, str]]:
    """Every (model, tuning) that occurs, in the table's order."""
    return list(dict.fromkeys((outcome.model, outcome.tuning) for outcome in outcomes))


def matching(outcomes: Sequence[Outcome], model: str | None, tuning: str | None) -> list[Outcome]:
    """The outcomes of this model and this tuning, None meaning any; UserError when there is none."""
    for what, name in (("model", model), ("tuning", tuning)):
        known = {getattr(outcome, what) for outcome in outcomes}
        if name is not None and name not in known:
            raise unknown_name(f"{what} of the outcomes", name, known)
    chosen = [outcome for outcome in outcomes if model in (None, outcome.model) and tuning in (None, outcome.tuning)]
    if not chosen:
        raise UserError(f"No outcome is of --model '{model}' with --tuning '{tuning}'; there is {_listed(outcomes)}.")
    return chosen


def select(outcomes: Sequence[Outcome], model: str | None = None, tuning: str | None = None) -> list[Outcome]:
    """The outcomes of ONE model and tuning; UserError lists what there is when the arguments leave several, or none."""
    chosen = matching(outcomes, model, tuning)
    if len(combinations(chosen)) > 1:
        raise UserError(f"A fit is of one model and one tuning; choose one of these: {_listed(chosen)}.")
    return chosen


def _listed(outcomes: Iterable[Outcome]) -> str:
    return "; ".join(f"--model '{model}' --tuning '{tuning}'" for model, tuning in combinations(outcomes))
