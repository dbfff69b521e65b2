"""What to mind when reading a study's numbers of merging. One sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from study.collected import Collected
from study.merging_results import TRANSDUCTIVE, MergingTable, curves
from study.plan import Plan
from study.plan_merging import HUB


def merging_notes(collected: Collected, plan: Plan, tables: Sequence[MergingTable]) -> list[str]:
    """All notes, each once."""
    if plan.merging is None or not tables:
        return []
    notes = (
        *_best(tables),
        *_transductive(tables),
        *_unseen(tables),
        *_lacking(tables),
        *_scalings(tables),
        *_corruptions(plan),
        *_seeds(collected, plan),
    )
    return list(dict.fromkeys(notes))


def _best(tables: Sequence[MergingTable]) -> Iterator[str]:
    if any(len(table.merges) > 1 for table in tables):
        yield "The best merges are picked by the very accuracies that are told of them: the best of many looks better than it is."


def _transductive(tables: Sequence[MergingTable]) -> Iterator[str]:
    if any(TRANSDUCTIVE in table.by_need() for table in tables):
        yield (
            "Merges marked * adapted, without labels, to the very test images that they are scored on: they do not compare with the "
            "others, and what they would give on further images is not known."
        )


def _unseen(tables: Sequence[MergingTable]) -> Iterator[str]:
    if any(encoder.per_model and table.plan.eval_tasks for table in tables for encoder in table.merges):
        yield "Merges marked † have an encoder for each merged task, so there is none for tasks that were not merged."


def _lacking(tables: Sequence[MergingTable]) -> Iterator[str]:
    for table in tables:
        for encoder in table.encoders:
            lacking = [task for task in table.plan.tasks if table.score(encoder, task) is None]
            if lacking and len(lacking) < len(table.plan.tasks):
                yield f"{table.model}, {encoder.label}: no average is given, for nothing is known yet of {', '.join(lacking)}."


def _scalings(tables: Sequence[MergingTable]) -> Iterator[str]:
    if any(curves(table) for table in tables):
        yield (
            "The best scaling of a curve is seen on the test images: whoever chooses by it must not report its accuracy as what is to be "
            "expected elsewhere."
        )


def _corruptions(plan: Plan) -> Iterator[str]:
    kinds = plan.merging.corruptions if plan.merging else ()
    if any((kind.startswith("pixelate") and kind.endswith("-cifar")) or kind == f"{HUB}pixelate" for kind in kinds):
        yield (
            "Pixelate makes pictures of 32 x 32 of whatever size there was, as it was published; of large photographs little is left, so "
            "these columns say next to nothing of merging."
        )


def _seeds(collected: Collected, plan: Plan) -> Iterator[str]:
    if collected.merged_tests and len(plan.seeds) == 1:
        yield "Merges that draw something (DARE, all that look at images) were made with one seed: how much is chance is not known."
