"""What each kind of cell does: it calls the functions that the commands of the same names call, and gives its results as a mapping."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.files import ensure_folder, read_json
from datasets.registry import task_slug
from datasets.task import Task
from engine.embed import describe_run, embed_images, in_background
from engine.embeddings import Embeddings, load_embeddings, save_embeddings
from engine.evaluate import Evaluation, count_correct, evaluate
from engine.fit import FitOptions
from engine.scores import sample_of, score
from engine.training import RunFiles, TrainRequest, run_name, train
from metrics.statistics import MetricError
from models.checkpoint import checkpoint_sha256
from models.selection import model_slug
from models.tuning_options import TuningOptions, all_options_of
from study import inversion_work, merging_work
from study.cells import Cell, Unit, hash_of, products_of
from study.done import Done
from study.inputs import chosen_training
from study.materials import Materials
from study.quiet import fresh

HISTOGRAM_IMAGES = 2000  # drawn by seed 0 where there are more
HISTOGRAM_EDGES = np.linspace(-1, 1, 201)


def do(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    """Work on one cell; ``inputs`` are :func:`study.inputs.inputs_of` it."""
    return _WORK[cell.kind](cell, unit, materials, inputs)


def products_missing(cell: Cell, record: Mapping[str, Any], out: Path) -> bool:
    """Whether a finished cell's embeddings, checkpoint, pseudo-tokens or merged encoders are no longer there."""
    return any(not (out / file).exists() for file in products_of(cell, record))


def _zero_shot(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    task = materials.task(cell.key["task"], "test")
    classifier, text_seconds = materials.classifier(cell.key["model"], task)
    load = materials.load_options(task)
    evaluation = count_correct(materials.runtime, classifier, task, load)
    seconds = round(evaluation.seconds + text_seconds, 3)
    return Done({**_accuracies(evaluation), "seconds": seconds}, _told(evaluation), evaluation.n_images, load.batch_size)


def _accuracies(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "n_images": evaluation.n_images,
        "top1": evaluation.top1,
        "mean_per_class": evaluation.mean_per_class,
        "worst_group": evaluation.worst_group,
        "groups": evaluation.groups,
        "group_images": evaluation.group_images,
        "n_skipped": len(evaluation.skipped),
    }


def _told(evaluation: Evaluation) -> str:
    return f"top-1 {evaluation.top1:.3f} of {evaluation.n_images} images"


def _embed(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    model, task = cell.key["model"], materials.task(cell.key["task"], "train")
    embeddings = _embeddings(model, task, materials)
    file = Path("embeddings") / model_slug(model) / f"{task_slug(task.name)}_train.safetensors"
    save_embeddings(materials.out / file, embeddings)
    metadata, n = embeddings.metadata, len(embeddings.labels)
    results = {
        "file": file.as_posix(),
        "n_images": n,
        "n_classes": len(embeddings.text_embeddings),
        "n_skipped": int(metadata["n_skipped"]),
        "embedding_seconds": float(metadata["embedding_seconds"]),
        "text_seconds": float(metadata["text_seconds"]),
        "fingerprint": metadata["fingerprint"],
        "checkpoint_sha256": metadata["checkpoint_sha256"],
        "histograms": histograms(embeddings),
    }
    return Done(results, f"{n} images, {results['n_classes']} classes", n, int(metadata["batch_size"]))


def _embeddings(model: str, task: Task, materials: Materials) -> Embeddings:
    """As :func:`engine.embed.embed_task`, but with the class embeddings that the zero-shot test has made."""
    runtime, load = materials.runtime, materials.load_options(task)
    classifier, text_seconds = materials.classifier(model, task)
    selection = materials.selection(model)
    with in_background(lambda: task.fingerprint):
        images = embed_images(runtime, selection.encoder, task, load)
    texts = classifier.class_embeddings().detach().float().cpu().numpy()
    metadata = describe_run(runtime, selection, task, load, images.seconds, text_seconds, len(images.skipped))
    ids = [task.samples.sample_id(int(index)) for index in images.indices]
    try:
        return Embeddings(images.embeddings, texts, task.labels[images.indices], ids, metadata)
    except ValueError as error:  # no image could be read, or the weights have diverged
        raise UserError(f"'{model}' gives no embeddings of {task.name}: {error}.") from error


def histograms(embeddings: Embeddings) -> dict[str, Any]:
    """How cosines are distributed: of image pairs of the same and of different classes, of images with the right and wrong class texts."""
    chosen = np.random.default_rng(0).permutation(len(embeddings.labels))[:HISTOGRAM_IMAGES]
    images, labels = embeddings.image_embeddings[chosen], embeddings.labels[chosen]
    first, second = np.triu_indices(len(chosen), k=1)
    pairs, same = (images @ images.T)[first, second], labels[first] == labels[second]
    texts = images @ embeddings.text_embeddings.T
    right = labels[:, None] == np.arange(texts.shape[1])
    cosines = {
        "same_class": pairs[same],
        "different_class": pairs[~same],
        "image_text_right": texts[right],
        "image_text_wrong": texts[~right],
    }
    return {name: _counted(values) for name, values in cosines.items()}


def _counted(values: NDArray[np.float32]) -> dict[str, Any]:
    """The histogram without its empty ends."""
    counts, edges = np.histogram(values.clip(-1, 1), HISTOGRAM_EDGES)
    used = np.flatnonzero(counts)
    first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)
    return {"edges": edges[first : last + 1].round(6).tolist(), "counts": counts[first:last].tolist()}


def _measure(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    """From a sample of its own, so that its seconds do not depend on which measures were taken before it."""
    (embed,) = unit.of_kind("embed")
    file = materials.out / read_json(embed.path(materials.out))["results"]["file"]
    sample = sample_of(load_embeddings(file))
    try:
        (row,) = score(sample, [cell.key["measure"]])
    except MetricError as error:
        return Done({"error": str(error)}, f"undefined: {error}")
    if not math.isfinite(row["score"]):
        return Done({"error": f"the score is {row['score']}"}, f"undefined: {row['score']}")
    spread = {name: _finite(row[name]) for name in ("stderr", "low", "high")}
    results = {"score": float(row["score"]), **spread, "interval": row["interval"], "calculation_seconds": row["seconds"]}
    return Done(results, f"{results['score']:.6g}")


def _finite(cell: Any) -> float | None:
    """A number for JSON; none for the empty cell of a table."""
    return None if cell == "" or not math.isfinite(cell) else float(cell)


def _train(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    materials.drop_encoder()  # the training loads its own
    request = train_request(cell, materials, inputs)
    runtime = fresh(materials.runtime, cell.key["seed"])
    files = RunFiles.named(request.model_dir, run_name(request, runtime.precision, runtime.seed))
    if files.record.exists() and not files.best.exists():
        request = replace(request, resume=False, overwrite=True)  # someone made room
    train(runtime, request)
    files.last.unlink(missing_ok=True)  # only the best one is tested
    record = read_json(files.record)
    results = {
        "checkpoint": files.best.relative_to(materials.out).as_posix(),
        "checkpoint_sha256": checkpoint_sha256(files.best),
        "best_validation": record["best_val_accuracy"],
        "best_epoch": record["best_epoch"],
        "zero_shot_validation": record["val_accuracy_before"],  # of a new probe or adapter: that of what it was initialised with
        "epochs": [{"loss": epoch["loss"], "validation": epoch["val_accuracy"]} for epoch in record["epochs"]],
        "n_skipped": record["n_skipped"],
        "seconds": record["seconds"],
    }
    told = f"validation {results['best_validation']:.3f}"
    return Done(results, told, _images_seen(request, materials), request.load.batch_size, runtime.seed)


def _images_seen(request: TrainRequest, materials: Materials) -> int:
    """How many images went through the encoder in training, each as often as it did."""
    if request.fit.steps:
        return request.fit.steps * request.load.batch_size * request.accumulate
    return request.fit.epochs * len(materials.task(request.dataset, "train"))


def train_request(cell: Cell, materials: Materials, inputs: Mapping[str, Any]) -> TrainRequest:
    """What the cell asks of :func:`engine.training.train`.

    Its files lie in a folder of these inputs, so what is resumed is never a training of other weights or images.
    """
    key, values = cell.key, dict(cell.key["setting"])
    options = {name: values[name] for name in all_options_of(key["tuning"]) if name in values}
    names = ("epochs", "steps", "lr", "wd", "optimizer", "beta2", "schedule", "warmup", "clip_norm")
    fit = {name: values[name] for name in names if name in values}
    load = replace(materials.load_options(materials.task(key["task"], "train")), batch_size=values["batch_size"])
    folder = ensure_folder(materials.out / "ckpts" / f"{cell.name}-{hash_of(inputs)[:8]}")
    return TrainRequest(
        dataset=key["task"],
        model=key["model"],
        tuning=key["tuning"],
        options=TuningOptions(**options),
        fit=FitOptions(**fit, progress=load.progress),
        load=load,
        accumulate=values["accumulate"],
        augment=values["augment"],
        val_p=materials.plan.val_p,
        templates=materials.templates(key["task"]),
        data_dir=materials.plan.data_dir,
        model_dir=folder,
        resume=True,
    )


def _test(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    chosen, record = chosen_training(unit, materials.out)
    checkpoint = record["results"]["checkpoint"]
    selection = materials.selection(cell.key["model"], materials.out / checkpoint)
    task = materials.task(cell.key["eval_task"], "test")
    load = materials.load_options(task)
    evaluation = evaluate(materials.runtime, selection.encoder, task, load)
    results = {
        "chosen": dict(chosen.key["setting"]),
        "checkpoint": checkpoint,
        "validation": record["results"]["best_validation"],
        "settings": len(unit.of_kind("train")),
        **_accuracies(evaluation),
        "seconds": round(evaluation.seconds, 3),
    }
    told = f"{_told(evaluation)}, after {chosen.key['setting']['label']}"
    return Done(results, told, evaluation.n_images, load.batch_size, cell.key["seed"])


_WORK: Mapping[str, Callable[[Cell, Unit, Materials, Mapping[str, Any]], Done]] = {
    **{"zero_shot": _zero_shot, "embed": _embed, "measure": _measure, "train": _train, "test": _test},
    **{"invert": inversion_work.invert, "retrieve": inversion_work.retrieve, "misalignment": inversion_work.misalignment},
    **{"inverted_zero_shot": inversion_work.inverted_zero_shot, "single_test": merging_work.single_test},
    **{"merge": merging_work.merge_models, "merged_test": merging_work.merged_test},
}
