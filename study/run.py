"""Run the units of a study: what is done stays, what fails is recorded and the rest goes on, what is stopped goes on next time."""

from __future__ import annotations

import fcntl
import os
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from common.errors import Interrupted, UserError
from common.files import ensure_folder, write_json
from common.provenance import now, peak_memory_mib, versions
from study.cells import CHANGED, DONE, FAILED, FORMAT, TO_DO, Cell, Unit, hash_of, needs, read_record, state_of
from study.plan import Plan

if TYPE_CHECKING:
    from engine.embed import LoadOptions
    from engine.runtime import Runtime
    from study.done import Done
    from study.materials import Materials


@dataclass(frozen=True)
class RunOptions:
    """How cells are worked on; none of it decides what is computed."""

    load: LoadOptions
    device: str = "auto"
    precision: str = "auto"
    retry_failed: bool = False


@dataclass
class Progress:
    """Counts the cells of a run, and tells one line for each that was worked on."""

    total: int
    seen: int = 0
    busy: list[Unit] = field(default_factory=list)  # which another process is at work on

    def tell(self, cell: Cell, outcome: str, seconds: float) -> None:
        """One line."""
        print(f"[{self.seen}/{self.total}] {cell}: {outcome}, {seconds:.0f} s", flush=True)


def run_units(units: Sequence[Unit], plan: Plan, out: Path, options: RunOptions) -> None:
    """Work on what is not done, unit after unit; those at which another process is at work last, once it has finished with them."""
    from engine.signals import stopped_at_once

    materials = start_materials(plan, out, options)
    progress = Progress(sum(len(unit.cells) for unit in units))
    try:
        with stopped_at_once():
            for unit in units:
                _run_unclaimed(unit, materials, options, progress, wait=False)
            for unit in progress.busy:
                _run_unclaimed(unit, materials, options, progress, wait=True)
    except Interrupted as stopped:
        reason = str(stopped).split(";")[0]
        raise Interrupted(f"{reason}; all finished cells are kept, run the same command again to go on.") from stopped


def run_unit(unit: Unit, plan: Plan, out: Path, options: RunOptions) -> None:
    """Work on what is not done of one unit, as a job of its own; waits where another process is at it."""
    _run_unclaimed(unit, start_materials(plan, out, options), options, Progress(len(unit.cells)), wait=True)


def start_materials(plan: Plan, out: Path, options: RunOptions) -> Materials:
    """What the cells of this process are made from; a study's cells run in single processes."""
    from engine.runtime import start
    from study.materials import Materials

    runtime = start(options.device, options.precision)
    if runtime.world > 1:
        raise UserError("A study shares out whole cells: start one process for each GPU, with --shard 1/2 and so on, not one torchrun.")
    return Materials(plan, out, runtime, options.load)


def _run_unclaimed(unit: Unit, materials: Materials, options: RunOptions, progress: Progress, wait: bool) -> None:
    with _claimed(materials.out, unit, wait) as mine:
        if mine:
            _run_cells(unit, materials, options, progress)
        else:
            progress.busy.append(unit)


@contextmanager
def _claimed(out: Path, unit: Unit, wait: bool) -> Iterator[bool]:
    """Whether no other process works on the unit; none will while the block runs. A killed process keeps no claim."""
    handle = os.open(ensure_folder(out / "cells") / f".{unit.name}.lock", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        yield _locked(handle, wait)
    finally:
        os.close(handle)


def _locked(handle: int, wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _run_cells(unit: Unit, materials: Materials, options: RunOptions, progress: Progress) -> None:
    from engine.signals import heed

    for cell in unit.cells:
        progress.seen += 1
        look = look_at(cell, unit, materials)
        if look.state in (TO_DO, CHANGED) or (look.state == FAILED and options.retry_failed):
            _run_cell(cell, unit, materials, look, progress)
            heed()


class Look(NamedTuple):
    """The state of a cell, and its inputs or what keeps them from being known."""

    state: str  # done, failed, to do or changed
    inputs: dict[str, Any] = {}  # noqa: RUF012 (never written to)
    error: Exception | None = None


def look_at(cell: Cell, unit: Unit, materials: Materials) -> Look:
    """How a cell stands. One that is finished, but whose embeddings or checkpoint are gone, is to do where a later one needs them."""
    from study.inputs import inputs_of
    from study.work import products_missing

    record = read_record(cell, materials.out)
    try:
        inputs = inputs_of(cell, unit, materials)
    except Interrupted:
        raise
    except Exception as error:
        return Look(state_of(record, None), error=error)
    state = state_of(record, inputs)
    if record is not None and state == DONE and products_missing(cell, record, materials.out):
        users = [later for later in unit.cells if needs(later, cell)]
        state = DONE if all(look_at(user, unit, materials).state == DONE for user in users) else TO_DO
    return Look(state, inputs)


def _run_cell(cell: Cell, unit: Unit, materials: Materials, look: Look, progress: Progress) -> None:
    """Work on one cell and write its file, whether it succeeds or fails."""
    from study.work import do

    started, done, error = time.perf_counter(), None, ""
    try:
        if look.error:
            raise look.error
        done = do(cell, unit, materials, look.inputs)
    except Interrupted:
        raise
    except Exception as problem:
        error = _reason(problem)
    seconds = time.perf_counter() - started
    write_json(cell.path(materials.out), _record(cell, look.inputs, done, error, materials.runtime, seconds))
    progress.tell(cell, done.told if done else f"FAILED: {_last_line(error)}", seconds)


def _record(cell: Cell, inputs: Mapping[str, Any], done: Done | None, error: str, runtime: Runtime, seconds: float) -> dict[str, Any]:
    """What the cell's file says."""
    provenance = {
        "versions": versions(),
        "seed": done.seed if done else None,
        "precision": runtime.precision,
        "device": str(runtime.device),
        "batch_size": done.batch_size if done else None,
        "seconds": round(seconds, 3),
        "images_per_second": round(done.n_images / seconds, 2) if done and done.n_images else None,
        "peak_memory_mib": peak_memory_mib(),
        "created": now(),
    }
    return {
        "format": FORMAT,
        "kind": cell.kind,
        "key": dict(cell.key),
        "state": DONE if done else FAILED,
        "error": error,
        "inputs": dict(inputs),
        "inputs_sha256": hash_of(inputs),
        "results": done.results if done else {},
        "provenance": provenance,
    }


def _reason(error: Exception) -> str:
    """One sentence for what a user can mend, the traceback for a defect."""
    if isinstance(error, UserError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":
        return "The model and a batch do not fit into memory; make batch_size in the plan, or --bs, smaller."
    return "".join(traceback.format_exception(error))


def _last_line(error: str) -> str:
    return error.strip().splitlines()[-1]


def failures(units: Sequence[Unit], out: Path) -> list[tuple[Cell, str]]:
    """The cells that have failed, each with the last line of why."""
    records = [(cell, read_record(cell, out)) for unit in units for cell in unit.cells]
    return [(cell, _last_line(record["error"])) for cell, record in records if record is not None and record["state"] == FAILED]


def counts(units: Sequence[Unit], out: Path) -> Counter[str]:
    """How many cells have a result, have failed, or have not been worked on, by their files alone."""
    return Counter(state_of(read_record(cell, out), None) for unit in units for cell in unit.cells)
