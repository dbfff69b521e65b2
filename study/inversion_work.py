"""What the cells of inversion do, with the functions that oti.py, ovi.py, retrieval.py and test.py call too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.files import read_json
from inversion.baselines import Projection
from inversion.histograms import Similarities
from inversion.job import Setting, check_precision, make_job
from inversion.misalignment import similarities
from inversion.optimise import InversionOptions
from inversion.pseudo_tokens import load_pseudo_tokens
from inversion.retrieval_figures import class_features
from inversion.retrieve import Retrieval, evaluate_sides
from inversion.run import Job, batch_size_for, run_job
from inversion.sides import Side, of_step
from inversion.zero_shot import evaluate_inverted
from study.cells import Cell, Unit, hash_of
from study.done import Done
from study.inversion_inputs import inverted_items
from study.inversion_results import main_score
from study.materials import Materials
from study.plan_inversion import OTI
from study.quiet import quiet

PRODUCTS = Path("inversion")  # below the study's folder


def invert(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    """Learn what is not yet learnt of the items; a killed cell goes on with the items that are left."""
    runtime, kind = quiet(materials.runtime), cell.key["inversion"]["kind"]
    check_precision(runtime)
    job = _job(cell, materials, inputs)
    tally = run_job(runtime, job, batch_size := batch_size_for(kind, runtime.device))
    learnt = load_pseudo_tokens(job.folder)
    accounts = [read_json(path) for path in sorted(job.folder.glob("run-*.json"))]
    seconds, timed = (sum(account[name] for account in accounts) for name in ("seconds", "items"))  # of the runs that were not killed
    losses = learnt.losses.mean(axis=0, dtype=np.float64).tolist()
    results = {
        "folder": job.folder.relative_to(materials.out).as_posix(),
        "exp_name": job.hyperparameters["exp_name"],
        "n_items": len(learnt.names),
        "steps": list(learnt.steps),
        "losses": losses,
        "curve": [round(float(loss), 6) for loss in learnt.curve],
        "seconds": round(seconds, 3),
        "seconds_per_item": seconds / timed if timed else None,
    }
    return Done(results, f"{len(learnt.names)} items, loss {losses[-1]:.3f}", tally.items, batch_size, cell.key["inversion"]["seed"])


def _job(cell: Cell, materials: Materials, inputs: Mapping[str, Any]) -> Job:
    """Its files lie in a folder of these inputs and this precision, so what is gone on with is never another inversion."""
    of, items = cell.key["inversion"], inverted_items(cell, materials)
    runtime, features = materials.runtime, materials.features(cell.key["model"], cell.key["task"])
    options = InversionOptions(of["steps"], of["lr"], of["weight_decay"], of["seed"], tuple(of["snapshots"]))
    setting = Setting(of["kind"], of["num_pseudo_tokens"], of["template"], options)
    exp_name = f"{cell.name}-{hash_of({**inputs, 'precision': runtime.precision, 'decode': features.load.decode})[:8]}"
    targets = partial(features.native, items.collection, items.name, items.split)
    return make_job(runtime, features.selection, items, setting, features.load, materials.out / PRODUCTS, exp_name, targets)


def retrieve(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    """Rank the gallery for every query; of inverted queries alone also as they were after the steps before the last."""
    learnt = learnt_by(unit, materials.out) if cell.key.get("inversion") else None
    found = _search(cell, materials, learnt)
    scores = _percentages(found)
    results: dict[str, Any] = {
        "scores": scores,
        "n_queries": found.n_queries,
        "n_gallery": found.n_gallery,
        "without_positives": found.without_positives,
        "seconds": round(found.seconds, 3),
    }
    if learnt and "fuse" not in cell.key:
        earlier = [{"step": step, "scores": _percentages(_search(cell, materials, learnt, step))} for step in learnt["steps"][:-1]]
        results["at_steps"] = [*earlier, {"step": learnt["steps"][-1], "scores": scores}]
    told = f"{'mAP' if 'mAP' in scores else 'easy mAP'} {main_score(scores):.1f} %"
    return Done(results, f"{told}, {found.n_queries} queries, {found.n_gallery} in the gallery")


def _search(cell: Cell, materials: Materials, learnt: Mapping[str, Any] | None, step: int | None = None) -> Retrieval:
    """With what was learnt after ``step`` steps, or in the end; with native features where nothing was."""
    key, task = cell.key, materials.retrieval(cell.key["task"])
    query = Side(key["query"], learnt["exp_name"] if learnt else None, step, materials.out / PRODUCTS)
    projection = Projection(key["project"], *key.get("drop", ())) if "project" in key else None
    features = materials.features(key["model"], key["task"])
    return evaluate_sides(features, task, query, Side(key["gallery"]), fuse=key.get("fuse"), projection=projection)


def _percentages(found: Retrieval) -> dict[str, float]:
    return {name: 100 * value for name, value in found.scores.items()}


def learnt_by(unit: Unit, out: Path) -> dict[str, Any]:
    """The results of the unit's inversion."""
    (cell,) = unit.of_kind("invert")
    return dict(read_json(cell.path(out))["results"])


def misalignment(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    """Histograms of cosines of the queries, their classes' texts and their inversions; and how these move with the steps."""
    task, features = materials.retrieval(cell.key["task"]), materials.features(cell.key["model"], cell.key["task"])
    learnt = load_pseudo_tokens(materials.out / learnt_by(unit, materials.out)["folder"])
    native, texts = features.native(task.query, task.name, task.split), class_features(features, task.query)
    labels, rows = task.query.labels, learnt.rows_for(task.query)
    device = materials.runtime.device if materials.runtime.device.type != "mps" else "cpu"  # which has no float64
    every = [similarities(native, labels, texts, of_step(learnt, step)[rows], device=device) for step in learnt.steps]
    at_steps = [{"step": step, **_moved(of)} for step, of in zip(learnt.steps, every, strict=True)]
    told = ", ".join(f"{side.replace('_', '-')} {every[-1].overlap(side):.3f}" for side in every[-1].sides)
    return Done({**every[-1].as_record(), "at_steps": at_steps}, f"overlap {told}", seed=cell.key["inversion"]["seed"])


def _moved(of: Similarities) -> dict[str, Any]:
    return {"means": {name: histogram.mean for name, histogram in of.histograms.items()}, "gaps": dict(of.gaps)}


def inverted_zero_shot(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    """Inverted images among the native class texts, or native images among inverted class names."""
    task, load = materials.task(cell.key["task"], "test"), materials.features(cell.key["model"], cell.key["task"]).load
    side = Side(cell.key["inversion"]["kind"], learnt_by(unit, materials.out)["exp_name"], outfolder=materials.out / PRODUCTS)
    images, classes = (side, Side("text")) if side.type == OTI else (Side("image"), side)
    found = evaluate_inverted(quiet(materials.runtime), materials.selection(cell.key["model"]), task, load, images, classes)
    results = {"n_images": found.n_images, "top1": found.top1, "mean_per_class": found.mean_per_class, "seconds": round(found.seconds, 3)}
    n_images = found.n_images if images.type == "image" else 0
    return Done(results, f"top-1 {found.top1:.3f} of {found.n_images} images", n_images, load.batch_size, cell.key["inversion"]["seed"])
