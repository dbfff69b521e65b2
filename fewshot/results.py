"""What a run leaves behind: one JSON per finished classifier and test set, and what is collected from them.

``OUT/cells/DATASET/METHOD_Kshots_seedS[_on_TEST]-HASH.json`` holds one result. The hash is that of all that decides it, which the file
also holds, so a file that is there is work that need not be done again, and results of other settings lie beside it. Tables are
made anew from the files at the end of each run: ``OUT/cells.csv``, one row per file, and ``OUT/accuracy.csv``, means over seeds.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from common.errors import UserError
from common.files import read_json, slug, write_text
from datasets.registry import task_slug

FORMAT = "clipscope-few-shot/1"
ARROW = " -> "  # from the data set that was learnt from to another that was tested on
ROW = (
    *("dataset", "test", "method", "shots", "seed", "accuracy", "correct", "n_test", "mean_per_class"),
    *("val_correct", "n_val", "val_split", "n_cache", "model", "adapter", "views", "order", "val_shots"),
    *("search", "grid", "as_released", "fit_seconds", "precision", "created"),
)
Result = dict[str, Any]


@dataclass(frozen=True)
class Mean:
    """The accuracies of one method, data set and number of shots over seeds; the deviation is that of a sample, with n - 1."""

    mean: float
    deviation: float | None
    n: int

    @classmethod
    def of(cls, accuracies: Sequence[float]) -> Mean:
        """Of at least one; of one there is no deviation."""
        return cls(fmean(accuracies), stdev(accuracies) if len(accuracies) > 1 else None, len(accuracies))

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f}" + ("" if self.deviation is None else f" ±{100 * self.deviation:.1f}")


def cell_path(out: Path, inputs: Mapping[str, Any]) -> Path:
    """The file of the result that ``inputs`` decide, whether it is there or not."""
    mark = hashlib.sha256(json.dumps([FORMAT, inputs], sort_keys=True).encode()).hexdigest()[:12]
    tested = "" if inputs["test"] == inputs["dataset"] else f"_on_{task_slug(inputs['test'])}"
    name = f"{slug(inputs['method'])}_{inputs['shots']}shots_seed{inputs['seed']}{tested}-{mark}.json"
    return out / "cells" / task_slug(inputs["dataset"]) / name


def finished(path: Path, inputs: Mapping[str, Any]) -> Result | None:
    """The result in the file, None where there is none of these inputs: then it is made anew."""
    if not path.is_file():
        return None
    try:
        result = read_json(path)
    except UserError:
        return None
    same = isinstance(result, dict) and result.get("inputs") == json.loads(json.dumps(inputs))
    return result if same else None


def all_results(out: Path) -> list[Result]:
    """Every result below ``out``, of this run and of earlier ones, in the order of the files' names."""
    return [read_json(path) for path in sorted((out / "cells").rglob("*.json"))]


def write_cells_table(out: Path, results: Iterable[Result]) -> None:
    """``cells.csv``: one row per result, hyper-parameters as JSON in one column."""
    rows = [{name: _cell(result[name]) for name in ROW} | _settings(result) for result in results]
    write_table(out / "cells.csv", rows)


def means(results: Iterable[Result]) -> dict[tuple[str, str, int], Mean]:
    """{(test set, method, shots): mean over seeds} of the results of one setting. Zero-shot classification has 0 shots."""
    grouped: dict[tuple[str, str, int], list[float]] = {}
    for result in results:
        grouped.setdefault((tested(result), result["method"], result["shots"]), []).append(result["accuracy"])
    return {key: Mean.of(values) for key, values in grouped.items()}


def tested(result: Result) -> str:
    """What a result is of: the data set, or ``ImageNet -> ImageNetV2``."""
    dataset, test = result["dataset"], result["test"]
    return dataset if dataset == test else f"{dataset}{ARROW}{test}"


def write_accuracy_table(out: Path, of: Mapping[tuple[str, str, int], Mean]) -> None:
    """``accuracy.csv``: mean and deviation over seeds, as fractions."""
    rows = [
        {"dataset": dataset, "method": method, "shots": shots, "mean": mean.mean, "deviation": _cell(mean.deviation), "n_seeds": mean.n}
        for (dataset, method, shots), mean in of.items()
    ]
    write_table(out / "accuracy.csv", rows)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A CSV table made anew, atomic; without rows none is written."""
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _cell(value: Any) -> Any:
    return "" if value is None else value


def _settings(result: Result) -> dict[str, str]:
    return {"hyperparameters": json.dumps(result["hyperparameters"])}
