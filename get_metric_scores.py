"""Measure embeddings files: IIMM and its two terms, alignment, text similarity, modality gap, uniformity.

    python get_metric_scores.py --embeddings embeddings/clip/EuroSAT_train.safetensors
    python get_metric_scores.py --embeddings embeddings/*/*.safetensors --metrics iimm gap --outpath metric_scores.csv
    python get_metric_scores.py --embeddings embeddings/clip/SUN397_train.safetensors --prop 0.1 --seed 3

Rows are added to the table at --outpath; earlier rows stay, and a measurement that is already there is not repeated.
The names of the released IIMM code are accepted. In it the two terms are swapped relative to the words of the paper:
uniformity_image is wrong_label (the paper's inter-modal term), inter_images is image_image (the intra-modal term).
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.cli import Parser, run
from common.errors import UserError, unknown_name
from common.files import append_rows, ensure_folder, read_csv
from engine.embeddings import Embeddings, load_embeddings, read_metadata
from metrics.statistics import MetricError, statistics
from metrics.table import BY_ANY_NAME, METRICS

IDENTITY = (
    *("data", "model", "finetuning", "split", "proportion", "measure"),
    *("n_images", "n_classes", "seed", "fingerprint", "checkpoint_sha256", "templates", "precision"),
)  # what makes two rows the same measurement, if their scores agree too; the path of the file, seconds and NumPy's version do not
SAME_SCORE = 1e-12  # another processor or BLAS rounds differently in the last digits


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.epilog = "metrics (and their released names):\n" + "\n".join(
        f"  {', '.join(dict.fromkeys([name, *metric.released_names])):30}{metric.description}; high: {metric.higher_is}"
        for name, metric in METRICS.items()
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument("--embeddings", nargs="+", type=Path, required=True, metavar="FILE", help="files of get_embeddings.py, or CSV pairs")
    what.add_argument("--metrics", nargs="+", default=[], metavar="NAME", help="measures, listed below (default: all)")
    sample = parser.add_argument_group("on which images")
    sample.add_argument(
        "--prop", type=float, default=1.0, help="share of the images, drawn without replacement; smaller shares lie in larger"
    )
    sample.add_argument("--seed", type=int, default=0, help="of the draw: the same images in every file of the same length")
    result = parser.add_argument_group("result")
    result.add_argument("--outpath", type=Path, default=Path("metric_scores.csv"), help="table to which the rows are added")
    return parser.parse_args()


def main() -> None:
    """Check everything, measure every file, then write."""
    arguments = parse_arguments()
    check(arguments)
    names, files = list(dict.fromkeys(arguments.metrics or METRICS)), list(dict.fromkeys(arguments.embeddings))
    rows = [row for file in files for row in measure(file, names, arguments.prop, arguments.seed)]
    new = without_known(rows, read_csv(arguments.outpath))
    if new:
        append_rows(arguments.outpath, new)
    show(rows)
    print(f"\nRows added to {arguments.outpath}: {len(new)}; already there: {len(rows) - len(new)}.")


def check(arguments: argparse.Namespace) -> None:
    """All that can be told before any number is computed: names, ranges, headers of all files, the table."""
    for name in arguments.metrics:
        if name not in BY_ANY_NAME:
            raise unknown_name("metric", name, BY_ANY_NAME)
    if not 0 < arguments.prop <= 1:
        raise UserError(f"--prop must lie above 0 and at most at 1, not {arguments.prop:g}.")
    if arguments.seed < 0:
        raise UserError(f"--seed must be 0 or more, not {arguments.seed}.")
    for file in arguments.embeddings:
        read_metadata(file)
    ensure_folder(arguments.outpath.parent)
    read_csv(arguments.outpath)


def measure(file: Path, names: Sequence[str], proportion: float, seed: int) -> list[dict[str, Any]]:
    """One row per measure of one file; all come from one pass over its images."""
    embeddings = load_embeddings(file)
    images = draw(len(embeddings.labels), proportion, seed)
    common = provenance(file, embeddings, proportion, seed) | {"n_images": len(images)}
    try:
        return [common | scores for scores in score(embeddings, images, names)]
    except MetricError as error:
        raise UserError(f"'{file}' cannot be measured: {error}") from error


def draw(count: int, proportion: float, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A seeded share of ``count`` images without replacement, in order; at the same seed a smaller share lies in a larger."""
    size = round(proportion * count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:size])


def score(embeddings: Embeddings, images: np.ndarray[Any, np.dtype[np.int64]], names: Sequence[str]) -> Iterable[dict[str, Any]]:
    """Each measure's score and seconds; the pass that they share is counted in each, as if it were computed alone."""
    everything = len(images) == len(embeddings.labels)
    chosen = slice(None) if everything else images
    started = time.perf_counter()
    shared = statistics(embeddings.image_embeddings[chosen], embeddings.text_embeddings, embeddings.labels[chosen])
    shared_seconds = time.perf_counter() - started
    for name in names:
        started = time.perf_counter()
        value = BY_ANY_NAME[name].from_statistics(shared)
        yield {"measure": name, "score": value, "seconds": round(shared_seconds + time.perf_counter() - started, 6)}


def provenance(file: Path, embeddings: Embeddings, proportion: float, seed: int) -> dict[str, Any]:
    """What a row says about where its score comes from, in the order of the columns."""
    facts = embeddings.metadata
    return {
        **{"data": facts["dataset"], "model": facts["model"], "finetuning": facts["tuning"], "split": facts["split"]},
        **{"proportion": proportion, "measure": "", "score": ""},
        **{"n_images": 0, "n_classes": len(embeddings.text_embeddings), "seed": seed, "fingerprint": facts["fingerprint"]},
        **{"checkpoint_sha256": facts["checkpoint_sha256"], "templates": facts["templates"], "precision": facts["precision"]},
        **{"file": str(file), "seconds": 0.0, "numpy": np.__version__},
    }


def without_known(rows: Sequence[dict[str, Any]], table: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """The rows that are not yet in the table, each once."""
    known: dict[tuple[str, ...], list[str | float]] = defaultdict(list)
    for old in table:
        known[identity(old)].append(old.get("score", ""))
    new = []
    for row in rows:
        scores = known[identity(row)]
        if not any(same_score(row["score"], score) for score in scores):
            new.append(row)
            scores.append(row["score"])
    return new


def same_score(score: float, known: str | float) -> bool:
    """Whether a score of the table is this one."""
    try:
        return abs(score - float(known)) <= SAME_SCORE
    except ValueError:
        return False


def identity(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What two rows of the same measurement share; files that do not know their samples are told apart by their path."""
    columns = IDENTITY if row.get("fingerprint") else (*IDENTITY, "file")
    return tuple(str(row.get(column, "")) for column in columns)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print file, measure and score in columns."""
    width, measure_width = (max(len(row[column]) for row in rows) for column in ("file", "measure"))
    print(f"{'file':{width}}  {'measure':{measure_width}}  {'score':>10}")
    for row in rows:
        print(f"{row['file']:{width}}  {row['measure']:{measure_width}}  {row['score']:10.6f}")


if __name__ == "__main__":
    run(main)
