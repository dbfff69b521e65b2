"""Invert a whole collection, batch after batch, into a folder of shards; in several processes, and in several goes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common import stages
from common.errors import Interrupted, UserError
from common.files import write_json
from common.provenance import now, peak_memory_mib, versions
from datasets.retrieval.collection import Collection
from engine.runtime import Runtime
from engine.signals import stopped_at_once
from inversion.optimise import InversionOptions, Inverted, Tower, invert
from inversion.pseudo_tokens import FORMAT, HYPERPARAMETERS, count_done, indices_done, read_hyperparameters, save_shard, shards_of

BATCH_SIZES = {"oti": {"cuda": 4096, "cpu": 256}, "ovi": {"cuda": 512, "cpu": 64}}  # by default, per kind and device
NOT_COMPARED = ("model", "checkpoint", "created", "versions")  # names and circumstances; the weights' hash is what counts
WORDS = {  # for values that say nothing to a reader
    "checkpoint_sha256": "with other weights",
    "fingerprint": "of other items",
    "preprocess": "of images that were preprocessed in another way",
}


@dataclass(frozen=True, eq=False)
class Job:
    """A collection to be inverted into ``folder``.

    ``targets`` gives the unit features float32 [N, D] that are to be met; it is called, by every process, only when something is
    left to do. ``hyperparameters`` are all that decides the result: a folder made with others is not added to.
    """

    folder: Path
    collection: Collection
    tower: Tower
    targets: Callable[[], NDArray[np.float32]]
    options: InversionOptions
    hyperparameters: dict[str, Any]


@dataclass
class Tally:
    """What was done: items, the sums of their losses before the first and after the last step, and the seconds it took."""

    items: int = 0
    first: float = 0.0
    last: float = 0.0
    seconds: float = 0.0

    def add(self, inverted: Inverted) -> None:
        """Count the items of one batch in."""
        n = len(inverted.losses)
        self.items += n
        self.first += n * float(inverted.curve[0])
        self.last += float(inverted.losses[:, -1].double().sum())


def batch_size_for(kind: str, device: torch.device) -> int:
    """How many items are optimised at a time by default."""
    return BATCH_SIZES[kind]["cuda" if device.type == "cuda" else "cpu"]


def run_job(runtime: Runtime, job: Job, batch_size: int, save_frequency: int = 1, overwrite: bool = False) -> Tally:
    """Invert what is not yet in the job's folder, in shards of ``save_frequency`` batches of ``batch_size`` items.

    Processes share what is left to do. Raises :class:`UserError` when the folder was made with other hyper-parameters, unless
    ``overwrite``; :class:`Interrupted` when a signal asks to stop: finished shards are kept, and the same command goes on.
    """
    settled = _settle(runtime, job, overwrite)
    done = indices_done(job.folder)
    left = [index for index in range(len(job.collection)) if index not in done]
    if not left:
        runtime.say(f"kept {job.folder}: {len(done)} items (--overwrite makes them anew)")
        return Tally()
    if done:
        runtime.say(f"{job.folder}: {len(done)} of {len(job.collection)} items are there, going on")
    targets = torch.from_numpy(job.targets())
    runtime.accelerator.wait_for_everyone()  # whoever is ready first must not write what others then count as done
    started = time.perf_counter()
    with _stopping(job):
        tally = _invert_share(runtime, job, targets, left[runtime.rank :: runtime.world], batch_size, save_frequency, settled)
        total = _together(runtime, tally)
    total.seconds = time.perf_counter() - started
    if runtime.is_main:
        write_json(job.folder / f"run-{left[0]:07d}.json", _account(runtime, job, total, batch_size))
    return total


def _settle(runtime: Runtime, job: Job, overwrite: bool) -> dict[str, Any]:
    """The folder's hyper-parameters: those on disk where they agree, else the job's, written before anything else."""
    is_there = (job.folder / HYPERPARAMETERS).is_file()
    if is_there and not overwrite:
        _check_same(job.folder, read_hyperparameters(job.folder), job.hyperparameters)
    if not is_there and not overwrite and shards_of(job.folder):
        raise UserError(
            f"'{job.folder}' holds pseudo-tokens without their {HYPERPARAMETERS}; put it back, or make them anew with --overwrite."
        )
    runtime.accelerator.wait_for_everyone()  # none looks any more
    if runtime.is_main and (overwrite or not is_there):
        for path in (*shards_of(job.folder), *job.folder.glob("run-*.json")):
            path.unlink()  # before the hyper-parameters, which say until then what is left of the old ones
        write_json(job.folder / HYPERPARAMETERS, {"format": FORMAT, **job.hyperparameters, "created": now(), "versions": versions()})
    runtime.accelerator.wait_for_everyone()
    return read_hyperparameters(job.folder)


def _check_same(folder: Path, kept: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for key, value in json.loads(json.dumps(asked)).items():
        if key not in NOT_COMPARED and kept.get(key) != value:
            how = WORDS.get(key, f"with {key} {kept.get(key)}, not {value}")
            raise UserError(f"'{folder}' was made {how}; give this one another --exp-name, or make it anew with --overwrite.")


def _invert_share(
    runtime: Runtime, job: Job, targets: Tensor, share: list[int], batch_size: int, save_frequency: int, settled: Mapping[str, Any]
) -> Tally:
    """Invert this process's items, and write each shard as it is finished."""
    tally, started = Tally(), time.perf_counter()
    pad_to = min(batch_size, len(share)) if job.options.compile else 0
    for indices in _chunks(share, batch_size * save_frequency):
        parts = [_invert_batch(runtime, job, targets, batch, pad_to) for batch in _chunks(indices, batch_size)]
        for part in parts:
            tally.add(part)
        stages.count("items inverted", len(indices))
        save_shard(job.folder, job.collection, indices, _joined(parts), settled)
        tally.seconds = time.perf_counter() - started
        runtime.say(_progress(tally, len(share), runtime.world))
    return tally


def _invert_batch(runtime: Runtime, job: Job, targets: Tensor, batch: list[int], pad_to: int) -> Inverted:
    """Invert these items; where they do not fit the memory of the device, one half after the other, with the same result."""
    names = [job.collection.items.sample_id(index) for index in batch]
    try:
        return invert(job.tower, targets[batch].to(runtime.device), names, job.options, runtime.autocast, pad_to)
    except torch.OutOfMemoryError as error:
        if len(batch) == 1:
            raise UserError("Not even one item at a time fits the memory of the device; use --precision bf16 or another device.") from error
    half = -(-len(batch) // 2)  # the exception is gone here, and with it what it held in memory
    runtime.say(f"  {len(batch)} items at a time do not fit the memory of the device; --batch-size {half} is tried")
    return _joined([_invert_batch(runtime, job, targets, part, min(pad_to, half)) for part in _chunks(batch, half)])


def _joined(parts: Sequence[Inverted]) -> Inverted:
    """Several batches as one; their curves are averaged over the items."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {
        each.name: torch.cat([getattr(part, each.name) for part in parts]) for each in fields(Inverted) if each.name != "steps"
    }
    sizes = torch.tensor([len(part.losses) for part in parts], dtype=torch.float32)
    curves = torch.stack([part.curve for part in parts])
    return Inverted(**{**joined, "steps": parts[0].steps, "curve": sizes @ curves / sizes.sum()})


def _chunks(values: list[int], size: int) -> Iterator[list[int]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _progress(tally: Tally, n: int, world: int) -> str:
    """How far this process is, in one line."""
    left = tally.seconds / tally.items * (n - tally.items)
    among = f" of the first of {world} processes" if world > 1 else ""
    rate, loss = tally.items / tally.seconds, tally.last / tally.items
    return f"  {tally.items} of {n} items{among}, {rate:.1f} items/s, mean final loss {loss:.4f}, {_clock(left)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _together(runtime: Runtime, tally: Tally) -> Tally:
    """The sum over all processes; they wait for one another here."""
    every: list[Tally] = runtime.gather_objects([tally])
    return Tally(sum(each.items for each in every), sum(each.first for each in every), sum(each.last for each in every))


def _account(runtime: Runtime, job: Job, total: Tally, batch_size: int) -> dict[str, Any]:
    """What the JSON of one run says."""
    return {
        "items": total.items,
        "seconds": round(total.seconds, 3),
        "items_per_second": round(total.items / total.seconds, 2),
        "mean_loss_first": total.first / total.items,
        "mean_loss_last": total.last / total.items,
        "batch_size": batch_size,
        "compile": job.options.compile,
        "device": str(runtime.device),
        "processes": runtime.world,
        "peak_memory_mib": peak_memory_mib(),
        "created": now(),
        "versions": versions(),
    }


@contextmanager
def _stopping(job: Job) -> Iterator[None]:
    """SIGTERM and SIGUSR1 end the block at once; what is not in a shard by then is lost."""
    try:
        with stopped_at_once():
            yield
    except Interrupted as stopped:
        done = count_done(job.folder)
        why = str(stopped).split(";")[0]
        raise Interrupted(f"{why}; {done} of {len(job.collection)} items are saved, the same command goes on with the others.") from None
