"""What is left of a study: the state of every cell, and how long and how much disk the rest will take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.cells import DONE, FAILED, KINDS, TO_DO, Cell, Unit, products_of, read_record
from study.plan import Plan
from study.run import RunOptions, look_at, start_materials

if TYPE_CHECKING:
    from study.materials import Materials

# Seconds and bytes of a cell of which no other of its kind is done: a ViT-B/32 and a data set of 20,000 images on one GPU.
GUESSED_SECONDS = {
    **{"zero_shot": 30.0, "embed": 60.0, "measure": 2.0, "train": 900.0, "test": 30.0},
    **{"retrieve": 20.0, "misalignment": 20.0, "inverted_zero_shot": 5.0},
    **{"single_test": 30.0, "merge": 60.0, "merged_test": 30.0},
}
GUESSED_BYTES = {
    **{"zero_shot": 3e3, "embed": 40e6, "measure": 2e3, "train": 5e6, "test": 3e3},
    **{"invert": 50e6, "retrieve": 5e6, "misalignment": 50e3, "inverted_zero_shot": 3e3},
    **{"single_test": 3e3, "merge": 350e6, "merged_test": 3e3},
}
GUESSED_WHOLE = 605e6  # checkpoint of the tuning "full"
GUESSED_DATA = 300.0  # seconds of a merge that looks at images, beside
GUESSED_ADAPT = 0.1  # ... those of a step and task of one that adapts to them
GUESSED_STEP = {("oti", "query"): 0.4, ("ovi", "query"): 1.0, ("ovi", "classes"): 0.05}  # seconds of all items, by what is inverted
TINY_SHARE = 0.02  # of all this, for the tiny model and its thousand images on two CPU cores
TOLD = """Times are of one process; shards and jobs share them out. Guesses are for a ViT-B/32, 20,000 images and one GPU, and a
fiftieth of that for the tiny model."""

Group = tuple[Any, ...]


@dataclass
class Known:
    """Seconds and bytes of the done cells, by kind, model and tuning, and by kind alone."""

    seconds: dict[Group, list[float]] = field(default_factory=lambda: defaultdict(list))
    bytes: dict[Group, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, cell: Cell, record: dict[str, Any], out: Path) -> None:
        """Learn from a done cell."""
        size = sum(_size_of(out / product) for product in products_of(cell, record))
        for group in _groups(cell):
            self.seconds[group].append(record["results"].get("seconds") or record["provenance"]["seconds"])
            self.bytes[group].append(size + cell.path(out).stat().st_size)

    def of(self, cell: Cell) -> tuple[float, float, bool]:
        """(seconds, bytes, whether these are a guess) of a cell to do: the mean of the done ones that are most like it."""
        for group in _groups(cell):
            if group in self.seconds:
                return _mean(self.seconds[group]), _mean(self.bytes[group]), False
        size = (GUESSED_WHOLE if cell.key.get("tuning") == "full" else GUESSED_BYTES[cell.kind]) * _encoders(cell)
        share = TINY_SHARE if cell.key["model"] == "tiny" else 1.0
        return share * _guessed_seconds(cell), share * size, True


def _guessed_seconds(cell: Cell) -> float:
    """Of an inversion and of what adapts by the steps that they take."""
    if merge := cell.key.get("merge") if cell.kind == "merge" else None:
        steps = sum(merge["options"].get(name) or 0 for name in ("adapt_steps", "mask_steps"))
        data = GUESSED_DATA if {"examples", "adapt_steps"} & merge["options"].keys() else 0.0
        return GUESSED_SECONDS["merge"] + data + GUESSED_ADAPT * steps * len(merge["tasks"])
    if cell.kind != "invert":
        return GUESSED_SECONDS[cell.kind]
    of = cell.key["inversion"]
    return GUESSED_STEP[of["kind"], cell.key["side"]] * float(of["steps"])


def _encoders(cell: Cell) -> int:
    """How many a merge writes."""
    merge = cell.key.get("merge", {}) if cell.kind == "merge" else {}
    return len(merge["tasks"]) if merge.get("per_model") else 1


def _groups(cell: Cell) -> tuple[Group, ...]:
    """What a cell is like, the narrowest first."""
    key, of = cell.key, cell.key.get("inversion", {})
    inverted = (key.get("side"), of.get("kind"))
    method = key["merge"]["method"] if cell.kind == "merge" else None
    narrow = (cell.kind, key["model"], key.get("tuning_name"), key.get("measure"), *inverted, of.get("num_pseudo_tokens"), method)
    return narrow, (cell.kind, key.get("tuning"), *inverted, method)


def _size_of(product: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    files = product.rglob("*") if product.is_dir() else [product]
    return sum(file.stat().st_size for file in files if file.is_file())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def states(units: Sequence[Unit], plan: Plan, out: Path, options: RunOptions) -> list[tuple[Cell, str]]:
    """The state of every cell. Models and images are looked at only where there is a result that they may have outdated."""
    materials: Materials | None = None
    found: list[tuple[Cell, str]] = []
    for unit in units:
        for cell in unit.cells:
            if read_record(cell, out) is None:
                found.append((cell, TO_DO))
            else:
                materials = materials or start_materials(plan, out, options)
                found.append((cell, look_at(cell, unit, materials).state))
    return found


def describe(found: Sequence[tuple[Cell, str]], out: Path, retry_failed: bool = False) -> str:
    """The list of the cells with their states, and the estimate of what is left."""
    lines = [f"{state:<8} {cell.kind}/{cell.name}" for cell, state in found]
    totals = ", ".join(f"{sum(each == state for _, each in found)} {state}" for state in (DONE, FAILED, TO_DO, "changed"))
    return "\n".join([*lines, "", f"{len(found)} cells: {totals}.", *_estimate(found, out, retry_failed)])


def _estimate(found: Sequence[tuple[Cell, str]], out: Path, retry_failed: bool) -> list[str]:
    known = Known()
    for cell, _ in found:
        record = read_record(cell, out)
        if record is not None and record["state"] == DONE:
            known.add(cell, record, out)
    left = [cell for cell, state in found if state not in (DONE, *(() if retry_failed else (FAILED,)))]
    if not left:
        failed = any(state == FAILED for _, state in found)
        return ["Nothing is left to do." + " --retry-failed tries failed cells again." * (failed and not retry_failed)]
    lines = [f"{'left':<18} {'cells':>6} {'time':>10} {'disk':>10}   estimated from"]
    for kind in KINDS:
        of_kind = [known.of(cell) for cell in left if cell.kind == kind]
        if of_kind:
            lines.append(_row(kind, of_kind))
    return [*lines, _row("all", [known.of(cell) for cell in left]), TOLD]


def _row(name: str, estimates: Sequence[tuple[float, float, bool]]) -> str:
    seconds, size, guessed = (sum(column) for column in zip(*estimates, strict=True))
    basis = "done cells of the kind" if not guessed else f"a guess for {guessed:.0f} of them"
    return f"{name:<18} {len(estimates):>6} {_time(seconds):>10} {_size(size):>10}   {basis}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(size: float) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
