"""A training run from its request to its checkpoints: tasks, encoder, tuning, names, fit, record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from common.files import ensure_folder, exact, remove_leftovers, write_json
from common.provenance import now, peak_memory_mib, versions
from common.stages import stage
from datasets.registry import load_task, task_slug
from datasets.task import Task
from engine.classifier import Classifier
from engine.embed import LoadOptions
from engine.fit import BETA2, Fit, FitFiles, FitOptions
from engine.inputs import FeatureInputs, Inputs, PixelInputs
from engine.loading import SkippedImages
from engine.order import EpochOrder
from engine.runtime import Runtime
from engine.signals import stopped_at_once
from engine.state import Progress
from engine.trackers import start_tracker
from models.augment import augmentation
from models.checkpoint import base_sha256, make_header, save_checkpoint
from models.encoder import Encoder
from models.loading import load_encoder
from models.selection import model_slug
from models.tunings import TuningOptions, apply_tuning, towers_are_frozen, trained_parameters, tuning_tag


@dataclass(frozen=True)
class TrainRequest:
    """Everything that decides a training run; the defaults are the published ones."""

    dataset: str
    model: str = "clip"
    tuning: str = "full"
    options: TuningOptions = field(default_factory=TuningOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    load: LoadOptions = field(default_factory=LoadOptions)
    accumulate: int = 1
    augment: str = "none"
    val_p: float = 0.1
    templates: tuple[str, ...] | None = None
    data_dir: Path = Path("data")
    model_dir: Path = Path("ckpts")
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class RunFiles:
    """The files of one run: best and last checkpoint, the record, and while it is unfinished its state."""

    name: str
    best: Path
    last: Path
    record: Path
    state: Path

    @classmethod
    def named(cls, folder: Path, name: str) -> RunFiles:
        """The files of the run called ``name``."""
        suffixes = ("best.safetensors", "last.safetensors", "run.json", "state.safetensors")
        return cls(name, *(folder / f"{name}_{suffix}" for suffix in suffixes))

    def existing(self) -> list[Path]:
        """Those that are there."""
        return [path for path in (self.best, self.last, self.record, self.state) if path.exists()]

    def remove_leftovers(self) -> None:
        """Remove what an attempt left that was killed while it wrote one of them."""
        for path in (self.best, self.last, self.record, self.state):
            remove_leftovers(path)


def run_name(request: TrainRequest, precision: str, seed: int) -> str:
    """The name of a run's files: what distinguishes it from any other run of a grid.

    Data set, model, tuning with its hyper-parameters, optimizer, learning rate, weight decay, batch size, epochs or steps,
    and seed are always there; what is seldom changed only where it is.
    """
    fit, load = request.fit, request.load
    length = f"steps{fit.steps}" if fit.steps else f"ep{fit.epochs}"
    always = f"{fit.optimizer}_lr{exact(fit.lr)}_wd{exact(fit.wd)}_bs{load.batch_size}_{length}_seed{seed}"
    seldom = {
        fit.schedule: fit.schedule != "constant",
        f"beta2-{exact(fit.beta2)}": fit.beta2 != BETA2,
        f"warmup{fit.warmup}": fit.warmup > 0,
        f"clip{exact(fit.clip_norm or 0.0)}": fit.clip_norm is not None,
        f"acc{request.accumulate}": request.accumulate > 1,
        precision: precision != "fp32",
        f"val{exact(request.val_p)}": request.val_p != 0.1,
        request.augment: request.augment != "none",
        "fulldecode": load.full_decode,
        f"prompts-{_short_hash(request.templates)}": request.templates is not None,
    }
    changed = [part for part, is_changed in seldom.items() if is_changed]
    parts = [task_slug(request.dataset), model_slug(request.model), tuning_tag(request.tuning, request.options), always, *changed]
    return "_".join(parts)


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:6]


def train(runtime: Runtime, request: TrainRequest) -> RunFiles:
    """Do a training run, or what is left of it; returns its files.

    Raises :class:`UserError` before any work when the run was done already or another one's state is in the way, and
    :class:`~common.errors.Interrupted` when a signal asks to stop.
    """
    files = RunFiles.named(ensure_folder(request.model_dir), run_name(request, runtime.precision, runtime.seed))
    if must_run(runtime, files, resume=request.resume, overwrite=request.overwrite):
        with stopped_at_once():
            _train(runtime, request, files)
    return files


def _train(runtime: Runtime, request: TrainRequest, files: RunFiles) -> None:
    request = replace(request, options=replace(request.options, seed=runtime.seed))  # one seed decides everything
    train_task, val_task = (_task(request, split) for split in ("train", "val"))
    encoder = load_encoder(request.model).to(runtime.device)
    with stage("model"):
        base = base_sha256(encoder)
    classifier = _tuned_classifier(runtime, request, encoder, train_task)
    settings = _settings(request, runtime, base, train_task, val_task)
    order = EpochOrder(len(train_task), request.load.batch_size, request.accumulate, runtime.rank, runtime.world, runtime.seed)
    inputs = _inputs(runtime, request, classifier, train_task, val_task, order)
    save = _saver(request, encoder, train_task, files, settings, base)
    fit = Fit(runtime, classifier, inputs, order, request.fit, FitFiles(files.state, save), settings)
    _announce(runtime, request, encoder, train_task, val_task)
    start_tracker(runtime, files.name, settings)
    if request.resume and files.state.exists():
        fit.resume()
        runtime.say(f"resuming at epoch {fit.progress.epoch + 1}, step {fit.progress.step + 1} of {order.steps}")
    _finish(runtime, files, fit.run(), settings)


def must_run(runtime: Runtime, files: RunFiles, *, resume: bool, overwrite: bool) -> bool:
    """Whether there is work to do; an earlier run's files are neither overwritten nor mixed with unasked."""
    existing = files.existing()
    if resume and files.record.exists():
        runtime.say(f"finished already: {files.best if files.best.exists() else files.last}")
        if runtime.is_main:
            files.state.unlink(missing_ok=True)  # there when the run was killed just before it was dropped
        return False
    if existing and not (resume or overwrite):
        raise UserError(f"'{existing[0]}' exists; continue that run with --resume, or start anew with --overwrite.")
    runtime.accelerator.wait_for_everyone()
    if runtime.is_main:
        files.remove_leftovers()
        for path in [] if resume else existing:
            path.unlink()
    return True


def _task(request: TrainRequest, split: str) -> Task:
    return load_task(request.dataset, split, data_dir=request.data_dir, val_p=request.val_p, templates=request.templates)


def _tuned_classifier(runtime: Runtime, request: TrainRequest, encoder: Encoder, task: Task) -> Classifier:
    """The classifier of the task after the tuning has been put on the encoder."""
    zero_shot = None
    if request.tuning == "probe" and request.options.probe_init == "text":
        with torch.no_grad():
            zero_shot = Classifier(encoder, task.prompts()).class_embeddings()
    apply_tuning(encoder, request.tuning, request.options, classnames=task.classnames, text_embeddings=zero_shot)
    encoder.to(runtime.device)
    with runtime.autocast():
        return Classifier(encoder, task.prompts()).to(runtime.device)


def _inputs(runtime: Runtime, request: TrainRequest, classifier: Classifier, train: Task, val: Task, order: EpochOrder) -> Inputs:
    if towers_are_frozen(classifier.encoder) and request.augment == "none":
        return FeatureInputs(runtime, classifier, train, val, order, request.load)
    transform = augmentation(request.augment, classifier.encoder)
    return PixelInputs(runtime, train, val, transform, order, request.load)


def _settings(request: TrainRequest, runtime: Runtime, base: str, train: Task, val: Task) -> dict[str, Any]:
    """What must be the same for a run to be continued, and what its checkpoints and record say of it."""
    fit = {key: value for key, value in asdict(request.fit).items() if key not in ("progress", "save_minutes")}
    return {
        "dataset": request.dataset,
        "model": request.model,
        "base_sha256": base,
        "tuning": request.tuning,
        **request.options.read_by(request.tuning),
        **fit,
        "epochs": None if request.fit.steps else request.fit.epochs,
        "batch_size": request.load.batch_size,
        "accumulate": request.accumulate,
        "augment": request.augment,
        "full_decode": request.load.full_decode,
        "val_p": request.val_p,
        "seed": runtime.seed,
        "precision": runtime.precision,
        "templates": list(train.templates),
        "train_listing": train.listing,
        "val_listing": val.listing,
    }


def _saver(
    request: TrainRequest, encoder: Encoder, task: Task, files: RunFiles, settings: dict[str, Any], base: str
) -> Callable[[str, int, float], None]:
    """A function that writes the ``best`` or ``last`` checkpoint."""

    header = make_header(
        encoder,
        request.tuning,
        request.options,
        base,
        task=request.dataset,
        split="train",
        classnames=task.classnames,
        templates=task.templates,
        settings=settings,
    )

    def save(kind: str, epoch: int, val_accuracy: float) -> None:
        path = files.best if kind == "best" else files.last
        save_checkpoint(path, encoder, replace(header, epoch=epoch, val_accuracy=val_accuracy))

    return save


def _announce(runtime: Runtime, request: TrainRequest, encoder: Encoder, train: Task, val: Task) -> None:
    count = sum(parameter.numel() for parameter in trained_parameters(encoder).values())
    runtime.say(
        f"{request.model}, {request.tuning}: training {count:,} parameters on {train.name} ({len(train)} images, {len(train.classnames)} "
        f"classes), validating on {len(val)}; {runtime.precision} on {runtime.device.type}"
    )


def _finish(runtime: Runtime, files: RunFiles, progress: Progress, settings: dict[str, Any]) -> None:
    """Write the record, which marks the run as finished, and drop the state that is of no more use."""
    if not runtime.is_main:
        return
    done = {
        "settings": settings,
        "val_accuracy_before": progress.before,
        "best_val_accuracy": progress.best_accuracy,
        "best_epoch": progress.best_epoch,
        "epochs": progress.history,
        "n_skipped": len(progress.unreadable),
        "seconds": round(progress.seconds, 3),
        "processes": runtime.world,
        "device": str(runtime.device),
        "peak_memory_mib": peak_memory_mib(),
        "created": now(),
        "versions": versions(),
    }
    skipped = SkippedImages()
    skipped.extend(progress.unreadable.items())
    skipped.write(files.record)
    write_json(files.record, done)
    files.state.unlink(missing_ok=True)
