"""What merge.py does for methods that look at images: the encoder and the tasks, and the pool under the encoder's names."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from common.errors import UserError
from datasets.task import Task
from engine.embed import LoadOptions
from engine.runtime import start
from merging.bench import encoder_name
from merging.candidates import merged
from merging.data import LazyHeads, MergeData
from merging.data_arguments import EXAMPLES, split_of, tasks_of
from merging.evaluate import as_encoder_names
from merging.inputs import Inputs, chooser, optional_in, without_untouched_projection
from merging.method import MergeTensor, Method
from merging.options import MergeOptions
from merging.resuming import states_of
from merging.sources import under
from merging.sources.naming import is_huggingface, is_open_clip, to_open_clip
from merging.task_names import expand, load_tasks
from merging.weights import Pool, Weights, make_pool
from models.loading import load_encoder


def with_images(args: argparse.Namespace, inputs: Inputs, method: Method, options: MergeOptions) -> tuple[Inputs, Method]:
    """The method started with images of every model's task, and the inputs with a record of these.

    Where it merges by a file of what was learnt before, no image is needed. Says which images are looked at.
    """
    if method.start_with_data is None:
        return inputs, method
    started = Started(args, inputs, method, options)
    if options.weights_file is None:
        inputs = replace(inputs, images=record_of_images(started.data, method))
        print(told(started.data, method), flush=True)
        if method.transductive and not started.states:
            print(f"{method.name}: no --out, --save-weights or --report tells a place for its state; once stopped, it begins anew.")
    return inputs, replace(method, start=started.start)


class Started:
    """A data-aware method whose ``start`` is as those of other methods: from a pool under the base's names to tensors of these names.

    ``data`` are images that are loaded already; None loads those that the flags ask for.
    """

    def __init__(
        self, args: argparse.Namespace, inputs: Inputs, method: Method, options: MergeOptions, data: MergeData | None = None
    ) -> None:
        self.args, self.inputs, self.method = args, inputs, method
        self.states = states_of(args, method, options)
        self.pool = encoder_pool(args, inputs, method.name)
        if data is not None:
            self.data = data

    @cached_property
    def data(self) -> MergeData:
        """The images; loaded once."""
        return open_data(self.args, self.inputs, self.method)

    def start(self, pool: Pool, options: MergeOptions) -> MergeTensor:
        """As :attr:`Method.start`."""
        if options.weights_file is not None:
            merge = self.method.start(self.pool, options)
        else:
            assert self.method.start_with_data is not None
            merge = self.method.start_with_data(self.pool, options, replace(self.data, state=self.states.get(options)))
        if self.pool.merged == pool.merged:
            return merge
        renamed = under(merged(self.method.name, self.pool, merge), self.inputs.reference)
        return renamed.read


def encoder_pool(args: argparse.Namespace, inputs: Inputs, method: str) -> Pool:
    """The pool under open_clip's names, whatever those of the base are. UserError for models that are no CLIPs."""
    reference = _in_open_clip(inputs.reference, method)
    if args.only and is_huggingface(inputs.reference.specs):
        raise UserError(f"--only does not go with {method} and a Hugging Face base, since it merges under other names; leave it out.")
    base = None if inputs.base is None else reference
    models = [under(model, reference) for model in inputs.models]
    return without_untouched_projection(make_pool(base, models, chooser(reference, args.towers, args.only), optional_in(reference)))


def _in_open_clip(reference: Weights, method: str) -> Weights:
    if is_huggingface(reference.specs):
        return to_open_clip(reference)
    if is_open_clip(reference.specs):
        return reference
    raise UserError(f"{method} looks at images, which takes an image encoder, and '{reference.name}' is none.")


def open_data(args: argparse.Namespace, inputs: Inputs, method: Method) -> MergeData:
    """The encoder that the flags ask for, and the images of every model's task. Seeded by --seed."""
    words, split = tasks_of(args.tasks, inputs.models, method.name), split_of(args, method)
    tasks = {model: _load(args, word, split, method) for model, word in words.items()}
    runtime = start(args.device or "auto", args.precision, args.seed or 0)
    encoder = load_encoder(args.encoder or encoder_name(inputs)).to(runtime.device)
    as_encoder_names(encoder, inputs.reference)  # which refuses another architecture
    heads = LazyHeads(encoder, tasks, args.heads)
    return MergeData(runtime, encoder, tasks, heads, LoadOptions.of(args), examples=args.examples or EXAMPLES, seed=args.seed or 0)


def _load(args: argparse.Namespace, word: str, split: str, method: Method) -> Task:
    """One task. The corruption that the flags ask for is of the images that are tested on, and so of those that are adapted to."""
    if len(named := expand([word])) != 1:
        raise UserError(f"'{word}' are {len(named)} tasks; --tasks takes one for each model.")
    clean = {} if method.transductive else dict.fromkeys(("corruption", "severity", "corruption_style"))
    return next(iter(load_tasks(argparse.Namespace(**{**vars(args), **clean}), [word], split).values()))


def record_of_images(data: MergeData, method: Method) -> dict[str, Any]:
    """What reports and headers say of the images."""
    tasks: Mapping[str, Any] = {
        model: {"task": task.name, "split": task.split, "images": len(task), "fingerprint": task.fingerprint}
        for model, task in data.tasks.items()
    }
    examples = {} if method.transductive else {"examples": data.examples}
    return {"transductive": is_transductive(data, method), **examples, "seed": data.seed, "tasks": tasks}


def is_transductive(data: MergeData, method: Method) -> bool:
    """Whether the merge has seen images that it may be tested on."""
    return method.transductive and any(task.split == "test" for task in data.tasks.values())


def told(data: MergeData, method: Method) -> str:
    """A sentence on the images."""
    tasks = ", ".join(dict.fromkeys(task.name for task in data.tasks.values()))
    split = next(iter(data.tasks.values())).split
    if not method.transductive:
        return f"{method.name}: looks at up to {data.examples} {split} images each of {tasks}."
    kind = "transductive: uses" if is_transductive(data, method) else "uses"
    return f"{method.name}: {kind} unlabelled {split} images of {tasks}."
