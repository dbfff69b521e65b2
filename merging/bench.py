"""The bench: an encoder, the tasks that models are evaluated on, and how; loaded once, for any number of models."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.provenance import now, versions
from datasets.task import Task
from engine.embed import LoadOptions, in_background
from engine.runtime import Runtime, start
from merging.candidates import Place
from merging.evaluate import Scores, evaluate, tower_names
from merging.heads import Heads
from merging.inputs import Inputs
from merging.sources.naming import PROJECTIONS
from merging.task_names import load_tasks
from merging.weights import Weights
from models.encoder import Encoder
from models.loading import load_encoder

FORMAT = "clipscope-report/1"


@dataclass(frozen=True)
class Bench:
    """What :func:`open_bench` loads. ``names`` are the tensors of the encoder that models have their own of."""

    runtime: Runtime
    encoder: Encoder
    tasks: Mapping[str, Task]
    heads: Heads
    options: LoadOptions
    names: Sequence[str]
    resident: int

    @property
    def place(self) -> Place:
        """Where models are kept."""
        return Place(self.encoder, self.names, self.runtime.device, self.resident)

    @cached_property
    def parameters(self) -> int:
        """How many parameters a model has of its own, without the projection: 87,456,000 for a ViT-B/32's image tower."""
        own = set(self.names).difference(PROJECTIONS)
        return sum(parameter.numel() for name, parameter in self.encoder.model.named_parameters() if name in own)

    def run(self, models: Sequence[Weights]) -> list[dict[str, Scores]]:
        """The scores of each model by task: every model on every task, the images of a task read once."""
        by_task = {key: self.on_task(key, models) for key in self.tasks}
        return [{key: scores[number] for key, scores in by_task.items()} for number in range(len(models))]

    def run_own(self, models: Sequence[Weights]) -> dict[str, Scores]:
        """The scores by task where every task has a model of its own, which :func:`model_of` finds by its name."""
        own = {key: model_of(key, models) for key in self.tasks}
        return {key: self.on_task(key, [model])[0] for key, model in own.items()}

    def on_task(self, key: str, models: Sequence[Weights]) -> list[Scores]:
        """The scores of the models on one task."""
        task, began = self.tasks[key], time.perf_counter()
        with in_background(lambda: task.fingerprint):
            head = self.heads.of(task, keep=self.runtime.is_main)
            scores = evaluate(self.runtime, self.encoder, models, self.names, task, head, self.options)
        count = f"{len(models)} encoder{'s' * (len(models) != 1)}"
        self.runtime.say(f"{key}: {scores[0].total} images, {count}, {time.perf_counter() - began:.1f} s")
        return scores

    def described(self) -> dict[str, Any]:
        """What reports say of the run."""
        return {
            "format": FORMAT,
            "encoder": self.encoder.source.name,
            "text_side_sha256": self.heads.text_side,
            "precision": self.runtime.precision,
            "device": self.runtime.device.type,
            "batch_size": self.options.batch_size,
            "decode": self.options.decode,
            "created": now(),
            "versions": versions(),
        }


def open_bench(args: argparse.Namespace, inputs: Inputs) -> Bench:
    """The tasks and the encoder that the flags ask for."""
    tasks = load_tasks(args, args.evaluate, args.eval_split)
    runtime = start(args.device or "auto", args.precision, args.seed or 0)
    encoder = load_encoder(args.encoder or encoder_name(inputs)).to(runtime.device)
    names = tower_names(encoder, both=args.towers == "both")
    return Bench(runtime, encoder, tasks, Heads(encoder, args.heads), LoadOptions.of(args), names, args.resident)


def encoder_name(inputs: Inputs) -> str:
    """The encoder that the models are of: the base, or what a checkpoint was tuned from."""
    from models.huggingface import is_huggingface_clip

    source = inputs.reference
    if source.header is not None:
        return source.header.model
    if source.folder is not None and is_huggingface_clip(source.folder):
        return source.spelled
    raise UserError(
        f"'{source.name}' ({source.kind}) has no text tower and no preprocessing to be evaluated with; name with --encoder the model "
        "that has, e.g. openai/clip-vit-base-patch32."
    )


def model_of(task: str, models: Sequence[Weights]) -> Weights:
    """The model of a task: that of its name, or the only one whose name ends in it, as ``clip-vit-base-patch32_sun397`` does.

    Of own data, ``imagefolder:photos/birds``, the name is ``birds``.
    """
    name = Path(task.partition(":")[2]).name or task
    exact = [model for model in models if model.name in (task, name)]
    found = exact or [model for model in models if model.name.endswith((f"_{name}", f"-{name}"))]
    if len(found) != 1:
        count = f"{len(found)}" if found else "None"
        raise UserError(f"{count} of the {len(models)} models can be told to be that of '{task}'; name it: --models {name}=SOURCE.")
    return found[0]
