"""The sections that say how the results came about: the plan, what failed or is missing, versions, devices, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json
from study.collected import Collected
from study.plan import Plan
from study.plan_inversion import InversionPlan
from study.plan_merging import MergingPlan
from study.report.document import Block, Code, Column, Line, Table

SUMMED = ("seconds", "images_per_second", "peak_memory_mib", "created")  # differ from cell to cell, so are told in one number


def plan_blocks(plan: Plan) -> list[Block]:
    """The plan as it was read, and the file itself."""
    said = {
        **_said(plan),
        **(_said_of_tunings(plan) if plan.tasks else {}),
        **(_said_of_inversion(plan.inversion, plan.models) if plan.inversion else {}),
        **(_said_of_merging(plan.merging, plan) if plan.merging else {}),
    }
    rows = [Line((name, ", ".join(values) if isinstance(values, tuple) else values)) for name, values in said.items()]
    for of in plan.tunings:
        settings = ", ".join(dict.fromkeys(setting.label for setting in of.grid))
        rows.append(Line((f"tuning {of.name}", f"{of.tuning}, {len(of.grid)} setting{'s' * (len(of.grid) != 1)}: {settings}")))
    blocks: list[Block] = [Table((Column("what"), Column("value")), rows)]
    if plan.path.is_file():
        blocks.append(Code(plan.path.read_text(encoding="utf-8", errors="replace")))
    return blocks


def _said(plan: Plan) -> dict[str, Any]:
    return {"file": str(plan.path), "models": plan.models, "prompts": plan.prompts or "each data set's own"}


def _said_of_tunings(plan: Plan) -> dict[str, Any]:
    return {
        "tasks trained on and measured": plan.tasks,
        "tasks tested on": plan.eval_tasks,
        "models tuned other than fully": plan.tuned_models,
        "seeds": tuple(map(str, plan.seeds)),
        "measures": plan.measures,
        "predictor": plan.predictor,
        "components": plan.components,
        "kept for validation": f"{plan.val_p:g} of the training split",
    }


def _said_of_inversion(of: InversionPlan, models: Sequence[str]) -> dict[str, Any]:
    said: dict[str, Any] = {
        "images searched by images": of.image_tasks,
        "texts searched by texts": of.text_tasks,
        "classified with inverted features": of.zero_shot_tasks,
        "histograms of cosines": of.misalignment,
        "projections": of.project,
        "fused": tuple(f"{weight:g} inverted, {1 - weight:g} native" for weight in of.fuse),
        "seeds of inversion": tuple(map(str, of.seeds)),
    }
    for shared in (of.oti, of.ovi):
        words = f"{shared.steps} steps of AdamW, lr {shared.lr:g}, weight decay {shared.weight_decay:g}, template '{shared.template}'"
        said[shared.kind] = words
        for model in models:
            counts = dict.fromkeys(str(setting.num_pseudo_tokens) for setting in of.settings(shared.kind, model))
            said[f"{shared.kind}, pseudo-tokens of {model}"] = tuple(counts)
    return {name: value for name, value in said.items() if value}


def _said_of_merging(of: MergingPlan, plan: Plan) -> dict[str, Any]:
    said: dict[str, Any] = {
        "tasks merged": tuple(_with_data_set(task, name) for task, name in of.tasks.items()),
        "unseen tasks": tuple(_with_data_set(task, name) for task, name in of.eval_tasks.items()),
        "corruptions": of.corruptions,
        **{f"fine-tunes of {model}": source for model, source in of.fine_tunes.items()},
        "seeds of merging": tuple(map(str, plan.seeds)),
    }
    if of.train is not None:
        values = ", ".join(f"{name} {value}" for name, value in of.train.values(of.tuning).items() if value is not None)
        said["fine-tunes, trained here"] = f"{of.tuning}: {values}"
    return {name: value for name, value in said.items() if value}


def _with_data_set(task: str, name: str) -> str:
    return task if task == name else f"{task} ({name})"


def unfinished_blocks(collected: Collected) -> list[Block]:
    """Failed cells with their errors and missing ones, in tables of their own; nothing where all is done."""
    blocks: list[Block] = []
    if collected.failed:
        rows = [Line((row["kind"], row["name"], _last_line(row["error"])), (row["cell"],)) for row in collected.failed]
        blocks.append(Table((Column("kind"), Column("cell"), Column("error")), rows, "failed", f"{len(rows)} failed"))
    if collected.missing:
        rows = [Line((name,)) for name in collected.missing]
        blocks.append(Table((Column("cell"),), rows, "missing", f"{len(rows)} not done yet"))
    return blocks


def _last_line(error: str) -> str:
    """What went wrong; a traceback's lines before it are in the cell's file."""
    return (error.strip().splitlines() or [""])[-1]


def provenance_blocks(collected: Collected, out: Path) -> list[Block]:
    """What the cells say of versions, devices and settings, each with how many cells say so; and their seconds."""
    found = list(_provenances(collected, out))
    facts = Counter(fact for _, provenance in found for fact in _facts(provenance))
    rows = [Line((name, value, count)) for (name, value), count in sorted(facts.items())]
    kinds: dict[str, list[float]] = {}
    for kind, provenance in found:
        kinds.setdefault(kind, []).append(float(provenance.get("seconds") or 0.0))
    times = [Line((kind, len(seconds), sum(seconds), max(seconds))) for kind, seconds in kinds.items()]
    created = sorted(str(provenance["created"]) for _, provenance in found if provenance.get("created"))
    if created:
        rows += [Line(("first cell", created[0], None)), Line(("last cell", created[-1], None))]
    columns = (Column("kind"), Column("cells", "d"), Column("seconds in all", ".4g"), Column("longest", ".3g"))
    return [
        Table((Column("what"), Column("value"), Column("cells", "d")), rows, "provenance"),
        Table(columns, times, "seconds", "Seconds that the cells took, by kind"),
    ]


def _provenances(collected: Collected, out: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in dict.fromkeys(row["cell"] for row in collected.rows):
        try:
            record = read_json(out / name)
        except UserError:
            continue  # taken away since it was collected: the tables stand, of its making nothing is known
        yield str(record.get("kind", "")), record.get("provenance") or {}


def _facts(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in provenance.items():
        if isinstance(value, Mapping) and name not in SUMMED:
            yield from ((f"{name}: {part}", str(of)) for part, of in value.items())
        elif name not in SUMMED and value is not None:
            yield name, str(value)
