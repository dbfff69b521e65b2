"""The cells of a plan's inversion: retrieval with native and projected features, and per inversion what is learnt and what it is for.

=====================  ============================================================================================================
unit                   cells
=====================  ============================================================================================================
MODEL_TASK_native      retrieval within the modality, also with each projection; zero-shot accuracy
MODEL_TASK_oti-rR-...  OTI of the query images; retrieval with them, alone and fused; zero-shot with them; histograms of cosines
MODEL_TASK_ovi-rR-...  OVI of the query texts and retrieval with them; or OVI of the class names, and zero-shot with them
=====================  ============================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from study.cells import Cell, Unit, short
from study.plan import Plan
from study.plan_inversion import ISO, MODALITY, OTI, OVI, InversionPlan, InversionSetting

QUERY, CLASSES = "query", "classes"  # the side of a data set that is inverted


def inversion_units(plan: Plan, model: str) -> Iterator[Unit]:
    """All units of one model's inversion; a data set's native results first."""
    if (of := plan.inversion) is None:
        return
    known = {*plan.tasks, *plan.eval_tasks}  # whose zero-shot accuracy has a cell already
    for task in dict.fromkeys((*of.image_tasks, *of.text_tasks, *of.zero_shot_tasks)):
        yield from _native(of, model, task, zero_shot=task in of.zero_shot_tasks and task not in known)
        for kind in _kinds(of, task):
            yield from (_inverted(of, model, task, setting) for setting in of.settings(kind, model))


def _kinds(of: InversionPlan, task: str) -> Iterator[str]:
    """Images are inverted by OTI; texts, and the class names of what is classified, by OVI."""
    if task not in of.text_tasks:
        yield OTI
    if task in (*of.text_tasks, *of.zero_shot_tasks):
        yield OVI


def _native(of: InversionPlan, model: str, task: str, zero_shot: bool) -> Iterator[Unit]:
    cells = [Cell("zero_shot", {"model": model, "task": task})] if zero_shot else []
    if task in (*of.image_tasks, *of.text_tasks):
        modality = MODALITY[OVI if task in of.text_tasks else OTI]
        key = {"model": model, "task": task, "query": modality, "gallery": modality}
        cells += [Cell("retrieve", key), *(Cell("retrieve", {**key, **more}) for more in _projections(of, model, modality))]
    if cells:
        yield Unit(f"{short(model)}_{short(task)}_native", tuple(cells))


def _projections(of: InversionPlan, model: str, modality: str) -> Iterator[dict[str, Any]]:
    """What is projected how; IsoCLIP only where it is known how much it drops."""
    for name in of.project:
        if name != ISO:
            yield {"project": name}
        elif dropped := of.iso(modality, model):
            yield {"project": name, "drop": list(dropped)}


def _inverted(of: InversionPlan, model: str, task: str, setting: InversionSetting) -> Unit:
    """What is learnt, and the cells that need it."""
    key = {"model": model, "task": task, "inversion": setting.values()}
    side = CLASSES if setting.kind == OVI and task not in of.text_tasks else QUERY
    cells = [Cell("invert", {**key, "side": side})]
    if side == QUERY and task in (*of.image_tasks, *of.text_tasks):
        cells += _retrievals(of, key, setting.kind)
    if side == QUERY and task in of.misalignment:
        cells.append(Cell("misalignment", key))
    if task in of.zero_shot_tasks:
        cells.append(Cell("inverted_zero_shot", key))
    name = f"{short(model)}_{short(task)}_{setting.kind}-r{setting.num_pseudo_tokens}_seed{setting.seed}"
    return Unit(name, tuple(cells))


def _retrievals(of: InversionPlan, key: Mapping[str, Any], kind: str) -> Iterator[Cell]:
    """Inverted queries among native ones of the gallery, alone and in a sum with the native queries."""
    sides = {"query": kind, "gallery": MODALITY[kind]}
    yield Cell("retrieve", {**key, **sides})
    for weight in of.fuse:
        yield Cell("retrieve", {**key, **sides, "fuse": weight})
