"""The state of unfinished learning, kept in a file from which the same command goes on as if it had never stopped.

It holds all that the next step depends on: what is learnt and its moments, the losses so far, the random generator, and how far the
rows of images have come. So the result is the same to the bit, on the same device with the same number of threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from common.errors import Interrupted, UserError
from common.files import remove_leftovers, slug
from engine.signals import StopRequest
from engine.state import FORMAT, Progress, load_state, save_state
from merging.method import Method
from merging.options import MergeOptions
from merging.sweep import grid
from models.tensors import read_metadata

if TYPE_CHECKING:
    from merging.data import MergeData

SECONDS = 60.0  # from one save to the next,
SAVE_COST = 20  # and at least so many times as long as a save takes: masks and their moments are as large as three encoders
SUFFIX = ".state.safetensors"
STAGES = ("", "mask")  # of learning; each has a file of its own


@dataclass(frozen=True)
class StateFile:
    """Where a command keeps its state. That of another command is an error, or with ``overwrite`` is replaced."""

    path: Path
    overwrite: bool = False

    @classmethod
    def beside(cls, output: Path, overwrite: bool, label: str = "") -> StateFile:
        """``merged.state.safetensors`` for the output ``merged.safetensors``, ``merged.json`` or ``merged/``."""
        stem = output.stem if output.suffix in (".safetensors", ".json") else output.name
        return cls(output.with_name(f"{stem}{label and f'.{slug(label)}'}{SUFFIX}"), overwrite)

    def of_stage(self, stage: str) -> StateFile:
        """The file of one of several stages of learning; the last has none in its name."""
        return replace(self, path=self.path.with_name(self.path.name.removesuffix(SUFFIX) + f"{stage and f'.{stage}'}{SUFFIX}"))

    def remove(self) -> None:
        """Remove the states of all stages, and what a killed process has left of them."""
        for path in (self.of_stage(stage).path for stage in STAGES):
            if is_state(path):
                path.unlink()
            remove_leftovers(path)


def states_of(args: argparse.Namespace, method: Method | None, options: MergeOptions) -> dict[MergeOptions, StateFile]:
    """The file that each merge of a command keeps its state in, one for each point of a sweep.

    It lies beside --out, else beside --save-weights or --report. There is none where nothing is learnt or none of these is given.
    """
    place = args.out or options.save_weights or args.report
    if method is None or not method.transductive or method.routed or options.weights_file is not None or place is None:
        return {}
    labels = {point.options: point.label for point in grid(args.sweep, options, method)} if args.sweep else {options: ""}
    return {of: StateFile.beside(Path(place), args.overwrite, label) for of, label in labels.items()}


class Batches:
    """The endless rows of batches of some models' images, and how far they have come."""

    def __init__(self, data: MergeData, models: Iterable[str], batch_size: int) -> None:
        self._data, self._batch_size = data, batch_size
        self._rows = {model: data.endless(model, batch_size) for model in models}

    @property
    def models(self) -> tuple[str, ...]:
        """Whose images they are."""
        return tuple(self._rows)

    def next(self, model: str) -> Tensor:
        """The next images of a model's task: pixels [b, 3, S, S]."""
        return next(self._rows[model])

    def positions(self) -> dict[str, int]:
        """The number of each row's next batch."""
        return {model: self._data.passed.get(model, 0) for model in self._rows}

    def put(self, positions: Mapping[str, int]) -> None:
        """Go on with the batches of these numbers."""
        self._rows = {model: self._data.endless(model, self._batch_size, positions[model]) for model in self._rows}
        self._data.passed.update(positions)


@dataclass(frozen=True)
class Keeper:
    """What the loops of one learning have in common: the file, what decides the result, and the images."""

    file: StateFile
    settings: Mapping[str, Any]
    batches: Batches
    say: Callable[[str], None]

    def loop(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator | None = None,
        stage: str = "",
    ) -> Loop:
        """A loop over these parameters, put where an earlier run was stopped; ``generator`` is what else it draws by."""
        return Loop(self, parameters, optimizer, generator, self.file.of_stage(stage))


class Loop:
    """Steps of an optimizer whose state is saved every now and then, and when a signal asks to stop.

    Raises :class:`UserError` when the file is there and holds the state of another command, or is damaged.
    """

    def __init__(
        self,
        keeper: Keeper,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator | None,
        file: StateFile,
    ) -> None:
        self.keeper, self.parameters, self.optimizer, self.generator, self.file = keeper, parameters, optimizer, generator, file
        self.progress, self._saved, self._at, self._cost = Progress(), 0, time.monotonic(), 0.0
        if file.path.exists():
            self._go_on()

    @property
    def losses(self) -> list[float]:
        """Those of the steps so far."""
        return [entry["loss"] for entry in self.progress.history]

    def after_step(self, loss: float, stop: StopRequest) -> None:
        """Note a step; raises :class:`Interrupted` once the state is saved when a signal has asked to stop."""
        self.progress.step += 1
        self.progress.history.append({"loss": loss})
        if stop or time.monotonic() - self._at >= max(SECONDS, SAVE_COST * self._cost):
            self.save()
        if stop:
            raise Interrupted(f"Stopped by {stop.name} in step {self.progress.step}; the same command goes on from '{self.file.path}'.")

    def save(self) -> None:
        """Write the state, unless it is written already."""
        if self._saved == self.progress.step:
            return
        began = time.monotonic()
        save_state(self.file.path, self.parameters, self.optimizer, self, self.progress, self.keeper.settings)
        self._saved, self._at = self.progress.step, time.monotonic()
        self._cost = self._at - began

    def state_dict(self) -> dict[str, Any]:
        """What is drawn, for the place that a state has for a gradient scaler, which learning in float32 has not."""
        generator = {} if self.generator is None else {"generator": bytes(self.generator.get_state().tolist()).hex()}
        return {"batches": self.keeper.batches.positions(), **generator}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        self.keeper.batches.put(state["batches"])
        if self.generator is not None:
            self.generator.set_state(torch.tensor(list(bytes.fromhex(state["generator"])), dtype=torch.uint8))

    def _go_on(self) -> None:
        path = self.file.path
        try:
            self.progress = load_state(path, self.parameters, self.optimizer, self, self.keeper.settings)
        except UserError:
            if not (self.file.overwrite and is_state(path)):
                raise
            self.keeper.say(f"'{path}' is the state of another run; it is replaced, since --overwrite was given.")
        else:
            self._saved = self.progress.step
            self.keeper.say(f"Going on after step {self.progress.step} from '{path}'.")


def is_state(path: Path) -> bool:
    """Whether the file is there and holds a state, so that a user's own file of that name is never removed."""
    try:
        return path.is_file() and read_metadata(path).get("format") == FORMAT
    except UserError:
        return False
