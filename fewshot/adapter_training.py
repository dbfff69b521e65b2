"""A training of adapters from its request to its checkpoint: tasks, encoder, objective, names, loop, record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import ensure_folder, exact, slug, write_json
from common.provenance import now, peak_memory_mib, versions
from common.stages import stage
from datasets.registry import load_task, task_slug
from datasets.sources.open_images import listed_images
from datasets.task import Task, split_validation
from engine.embed import LoadOptions
from engine.loading import SkippedImages
from engine.runtime import Runtime
from engine.signals import stopped_at_once
from engine.trackers import start_tracker
from engine.training import RunFiles, must_run
from fewshot.adapter_loop import AdapterLoop, AdapterProgress, Keeping
from fewshot.adapter_options import AdapterFit
from fewshot.objective import Objective, Setting
from fewshot.objectives.table import OBJECTIVES
from models.checkpoint import base_sha256, make_header
from models.loading import load_encoder
from models.parallel_adapter import adapter_parameters
from models.selection import model_slug
from models.tensors import write_safetensors
from models.tunings import TuningOptions, apply_tuning, tuning_tag

TUNING = "parallel-adapter"


@dataclass(frozen=True)
class AdapterRequest:
    """Everything that decides a training of adapters.

    The training images are those of ``dataset``, or those that the table ``images_path`` lists, in the folder ``oi_root``.
    """

    dataset: str
    objective: str = "supervised"
    model: str = "clip"
    tuning: TuningOptions = field(default_factory=TuningOptions)
    fit: AdapterFit = field(default_factory=AdapterFit)
    options: Any = None  # the objective's own
    load: LoadOptions = field(default_factory=LoadOptions)
    images_path: Path | None = None
    oi_root: Path | None = None
    val_dataset: str | None = None
    val_p: float = 0.1
    data_dir: Path = Path("data")
    model_dir: Path = Path("ckpts")
    attempt: str = ""
    resume: bool = False
    overwrite: bool = False


def train_adapter(runtime: Runtime, request: AdapterRequest) -> Path:
    """Do a training of adapters, or what is left of it; returns the checkpoint that is kept.

    Raises :class:`UserError` before any work when the run was done already or another one's state is in the way, and
    :class:`~common.errors.Interrupted` when a signal asks to stop.
    """
    files = RunFiles.named(ensure_folder(request.model_dir), run_name(request, runtime))
    if must_run(runtime, files, resume=request.resume, overwrite=request.overwrite):
        with stopped_at_once():
            _train(runtime, request, files)
    return files.best if request.fit.keep == "overlap" else files.last


def run_name(request: AdapterRequest, runtime: Runtime) -> str:
    """The name of a run's files: what distinguishes it from others. What is seldom changed is there only where it is."""
    fit, load = request.fit, request.load
    always = f"{request.objective}_lr{exact(fit.lr)}_wd{exact(fit.wd)}_bs{fit.batch_size}_ep{fit.epochs}_seed{runtime.seed}"
    seldom = {
        fit.schedule: fit.schedule != "constant",
        f"warmup{fit.warmup}": fit.warmup > 0,
        runtime.precision: runtime.precision != "fp32",
        f"options-{_short_hash(request.options)}": request.options is not None and request.options != type(request.options)(),
        f"pixels-{fit.preprocess}": fit.preprocess != "own",
        f"val{exact(request.val_p)}": request.val_p != 0.1,
        f"val-{task_slug(request.val_dataset or '')}": request.val_dataset is not None,
        f"keep-{fit.keep}": fit.keep != "last",
        f"every{fit.validate_every}": fit.keep == "overlap" and fit.validate_every is not None,  # decides which are kept
        "fulldecode": load.full_decode,
        slug(request.attempt or "0"): bool(request.attempt),
    }
    parts = [_data_slug(request), model_slug(request.model), tuning_tag(TUNING, request.tuning), always]
    return "_".join([*parts, *(part for part, is_changed in seldom.items() if is_changed)])


def _data_slug(request: AdapterRequest) -> str:
    return task_slug(f"csv:{request.images_path}" if request.images_path else request.dataset)


def _short_hash(options: Any) -> str:
    return hashlib.sha256(json.dumps(asdict(options), sort_keys=True).encode()).hexdigest()[:6] if options is not None else ""


def tasks_of(request: AdapterRequest) -> tuple[Task, Task]:
    """The training images, and those on which the overlap is measured."""
    if request.images_path is not None:
        if request.oi_root is None:
            raise UserError("--images-path lists images by their ids; say with --oi-root in which folder they lie.")
        train, val = split_validation(listed_images("OpenImages", request.images_path, request.oi_root), request.val_p)
    else:
        train, val = (load_task(request.dataset, split, data_dir=request.data_dir, val_p=request.val_p) for split in ("train", "val"))
    if request.val_dataset is not None:
        val = load_task(request.val_dataset, "val", data_dir=request.data_dir, val_p=request.val_p)
    return train, val


def _train(runtime: Runtime, request: AdapterRequest, files: RunFiles) -> None:
    train, val = tasks_of(request)
    tuning = replace(request.tuning, seed=runtime.seed)  # one seed decides everything
    encoder = load_encoder(request.model).to(runtime.device)
    with stage("model"):
        base = base_sha256(encoder)
    apply_tuning(encoder, TUNING, tuning)
    objective = OBJECTIVES[request.objective].make(Setting(runtime, encoder.to(runtime.device), train, request.fit, request.options))
    settings = _settings(request, runtime, base, train, val, objective)
    keeping = Keeping(files.state, _saver(request, objective, tuning, files, settings, base))
    loop = AdapterLoop(objective, val, request.fit, request.load, keeping, settings)
    _announce(runtime, request, objective, train, val)
    start_tracker(runtime, files.name, settings)
    if request.resume and files.state.exists():
        loop.resume()
        runtime.say(f"resuming at epoch {loop.progress.epoch + 1}, step {loop.progress.step + 1} of {loop.per_epoch}")
    _finish(runtime, files, loop.run(), settings)


def _settings(request: AdapterRequest, runtime: Runtime, base: str, train: Task, val: Task, objective: Objective) -> dict[str, Any]:
    """What must be the same for a run to be continued, and what its checkpoint and record say of it."""
    fit = {key: value for key, value in asdict(request.fit).items() if key not in ("progress", "save_minutes")}
    return {
        "objective": request.objective,
        **objective.settings(),
        "dataset": str(request.images_path or request.dataset),
        "val_dataset": val.name,
        "model": request.model,
        "base_sha256": base,
        "tuning": TUNING,
        **request.tuning.read_by(TUNING),
        **fit,
        "full_decode": request.load.full_decode,
        "val_p": request.val_p,
        "seed": runtime.seed,
        "precision": runtime.precision,
        "train_listing": train.listing,
        "val_listing": val.listing,
    }


def _saver(
    request: AdapterRequest, objective: Objective, tuning: TuningOptions, files: RunFiles, settings: dict[str, Any], base: str
) -> Callable[[str, int, int, Mapping[str, float]], None]:
    """A function that writes the adapters that are kept, and nothing else, as the ``best`` or the ``last`` checkpoint."""
    task = objective.task
    names = {"task": settings["dataset"], "split": "train", "classnames": task.classnames, "templates": task.templates}
    header = make_header(objective.encoder, TUNING, tuning, base, **names)

    def save(kind: str, epoch: int, step: int, measures: Mapping[str, float]) -> None:
        described = replace(header, epoch=epoch, settings={**settings, "step": step, "validation": dict(measures)})
        path = files.best if kind == "best" else files.last
        write_safetensors(path, adapter_parameters(objective.kept), described.to_metadata())

    return save


def _announce(runtime: Runtime, request: AdapterRequest, objective: Objective, train: Task, val: Task) -> None:
    adapters = sum(parameter.numel() for parameter in adapter_parameters(objective.encoder).values())
    others = sum(parameter.numel() for parameter in objective.parameters().values()) - adapters
    beside = f" and {others:,} beside them" if others else ""
    runtime.say(
        f"{request.model}, {request.objective}: training {adapters:,} parameters of adapters{beside} on {train.name} ({len(train)} images, "
        f"{len(train.classnames)} classes), measuring {len(val)} of {val.name}; {runtime.precision} on {runtime.device.type}"
    )


def _finish(runtime: Runtime, files: RunFiles, progress: AdapterProgress, settings: dict[str, Any]) -> None:
    """Write the record, which marks the run as finished, and drop the state that is of no more use."""
    if not runtime.is_main:
        return
    skipped = SkippedImages()
    skipped.extend(progress.unreadable.items())
    skipped.write(files.record)
    done = {
        "settings": settings,
        "before": progress.before,
        "history": progress.history,
        "best_overlap": progress.best_overlap,
        "best_step": progress.best_step,
        "n_skipped": len(progress.unreadable),
        "seconds": round(progress.seconds, 3),
        "processes": runtime.world,
        "device": str(runtime.device),
        "peak_memory_mib": peak_memory_mib(),
        "created": now(),
        "versions": versions(),
    }
    write_json(files.record, done)
    files.state.unlink(missing_ok=True)
