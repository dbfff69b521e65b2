"""What to mind when reading a study's numbers of inversion. One sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from study.collected import Collected
from study.inversion_results import ScoreTable, curves
from study.plan import Plan
from study.plan_inversion import ISO, MODALITY


def inversion_notes(collected: Collected, plan: Plan, tables: Sequence[ScoreTable]) -> list[str]:
    """All notes, each once."""
    notes = (
        *_means(tables),
        *_without_iso(plan),
        *_unscored(collected),
        *_best_steps(collected, plan),
        *_seeds(collected, plan),
    )
    return list(dict.fromkeys(notes))


def _means(tables: Sequence[ScoreTable]) -> Iterator[str]:
    for table in tables:
        if lacking := [task for task in table.tasks if task not in table.common]:
            yield (
                f"{table.model}, {table.experiment}: the means are over {len(table.common)} of {len(table.tasks)} data sets, since not "
                f"every method is known of {', '.join(lacking)}."
            )


def _without_iso(plan: Plan) -> Iterator[str]:
    if plan.inversion is None or ISO not in plan.inversion.project:
        return
    asked = {"image": plan.inversion.image_tasks, "text": plan.inversion.text_tasks}
    for modality in (modality for modality in MODALITY.values() if asked[modality]):
        if unknown := [model for model in plan.models if plan.inversion.iso(modality, model) is None]:
            yield f"How many directions IsoCLIP drops of the {modality}s of {', '.join(unknown)} is not published, so it is not run there."


def _unscored(collected: Collected) -> Iterator[str]:
    for row in collected.retrievals:
        for protocol, count in (row["without_positives"] or {}).items():
            if count:
                name = f"{row['task']}, {protocol}" if protocol else row["task"]
                yield f"{name}: {count} of {row['n_queries']} queries have nothing to be found in the gallery and are in no mean."


def _best_steps(collected: Collected, plan: Plan) -> Iterator[str]:
    if curves(collected, plan):
        yield (
            "The best step of a curve is seen on the queries that are scored: whoever chooses a number of steps by it must not report "
            "its mAP as what is to be expected elsewhere."
        )


def _seeds(collected: Collected, plan: Plan) -> Iterator[str]:
    if collected.inversions and plan.inversion is not None and len(plan.inversion.seeds) == 1:
        yield "Pseudo-tokens started from one seed: how much of a difference is chance is not known."
