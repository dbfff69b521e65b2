"""What to mind when reading a study's numbers: few points, seeds, what is missing, what was left out. One sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scipy import stats

from study.choices import notes_on_choices
from study.collected import Collected
from study.comparison import Compared
from study.forgetting import ForgettingMatrix
from study.gains import GainRow
from study.outcomes import ZERO_SHOT
from study.plan import Plan
from study.prediction import Fit


def notes_of(
    collected: Collected,
    plan: Plan,
    gains: Sequence[GainRow],
    matrices: Sequence[ForgettingMatrix],
    fits: Sequence[Fit],
    compared: Sequence[Compared],
) -> list[str]:
    """All notes, the ones that concern most numbers first; each sentence once."""
    notes = (
        *_unfinished(collected),
        *_few_points(fits),
        *_many_measures(plan, fits),
        *_perfect_orders(compared),
        *_seeds(plan, gains),
        *_zero_shot(gains),
        *_elsewhere(matrices, gains),
        *_probes(plan),
        *_undefined_scores(collected),
        *_skipped_images(collected),
        *notes_on_choices(collected, plan, gains),
    )
    return list(dict.fromkeys(notes))


def _unfinished(collected: Collected) -> Iterator[str]:
    missing, failed = len(collected.missing), len(collected.failed)
    if missing:
        yield f"The study is not finished: {_count(missing, 'cell is', 'cells are')} not done yet; what depends on them is left out."
    if failed:
        yield f"{_count(failed, 'cell', 'cells')} failed and what depends on them is left out; the errors are listed."


def _few_points(fits: Sequence[Fit]) -> Iterator[str]:
    """Of every number of tasks that a fit has: how far the few points let a number move."""
    for n in sorted({of.line.n for of in fits}):
        freedom, swap = n - 2, 4 / (n * (n - 1))
        reach = float(stats.t.ppf(0.975, freedom))
        yield (
            f"Fits over n = {n} tasks have {_count(freedom, 'degree', 'degrees')} of freedom: 95 % intervals reach {reach:.1f} standard "
            f"errors to each side, and one pair of tasks that swaps places moves Kendall's tau by {swap:.3f}."
        )


def _many_measures(plan: Plan, fits: Sequence[Fit]) -> Iterator[str]:
    others = len(set(plan.measures) - {plan.predictor, ZERO_SHOT})
    if fits and others > 1:
        yield f"{others + 2} measures are compared on the same few tasks: the one that comes out best looks better than it is."


def _perfect_orders(compared: Sequence[Compared]) -> Iterator[str]:
    if any(of.agreement is not None and abs(of.agreement.tau) == 1 for of in compared):
        yield "Tau intervals of [1, 1] and [-1, -1] are no certainty: whoever resamples a perfect order gets perfect orders only."


def _seeds(plan: Plan, gains: Sequence[GainRow]) -> Iterator[str]:
    if gains and len(plan.seeds) == 1:
        yield "There is one seed: how much chance there is in a training run is not known."
    for row in gains:
        if len(row.runs) < len(plan.seeds):
            known = ", ".join(str(run.seed) for run in row.runs)
            yield f"{row.name}: only {len(row.runs)} of {len(plan.seeds)} seeds ({known}) are in the means."


def _zero_shot(gains: Sequence[GainRow]) -> Iterator[str]:
    for row in gains:
        if row.zero_shot_accuracy is None:
            yield f"{row.name}: left out of all fits, for its zero-shot accuracy is not known."
        elif row.gain is None:
            yield f"{row.name}: left out of all fits, for zero-shot accuracy is 1 and no error is left that could be gained over."


def _elsewhere(matrices: Sequence[ForgettingMatrix], gains: Sequence[GainRow]) -> Iterator[str]:
    for of in matrices:
        name = f"{of.model}, {of.tuning}"
        known = [row for row in gains if (row.model, row.tuning) == (of.model, of.tuning)]
        if 0 < len(of.unknown) < len(of.evaluated_on):
            yield f"{name}: the mean change on other tasks is without {', '.join(of.unknown)}, of which none is known."
        lacking = [row.task for row in known if row.mean_change_elsewhere is None]
        if lacking and len(lacking) < len(known):
            yield f"{name}: not all other tasks are tested after training on {', '.join(lacking)}, so that mean change is not given."


def _probes(plan: Plan) -> Iterator[str]:
    for tuning in plan.tunings:
        if tuning.tuning == "probe":
            yield f"{tuning.name}: a probe tells only those classes apart that it was trained on, so there is no forgetting to measure."


def _undefined_scores(collected: Collected) -> Iterator[str]:
    for row in collected.scores:
        if row["score"] is None:
            yield f"{row['measure']} is not defined for {row['model']} on {row['task']}: {row['error']}"


def _skipped_images(collected: Collected) -> Iterator[str]:
    for split, rows in (("training", collected.embeds), ("test", collected.zero_shot)):
        for row in rows:
            if row["n_skipped"]:
                yield f"{_count(row['n_skipped'], f'{split} image', f'{split} images')} of {row['task']} could not be read: left out."


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
