"""Measure embeddings files: IIMM and its two terms, gap, uniformity, and how well the labels can be told from the images.

    python get_metric_scores.py --embeddings embeddings/clip/EuroSAT_train.safetensors
    python get_metric_scores.py --embeddings embeddings/*/*.safetensors --metrics iimm gap --outpath metric_scores.csv
    python get_metric_scores.py --embeddings embeddings/clip/SUN397_train.safetensors --prop 0.1 --seed 3
    python get_metric_scores.py --embeddings embeddings/clip/DTD_train.safetensors --metrics gbc_spherical transrate --as-released
    python get_metric_scores.py --embeddings embeddings/clip/DTD_train.safetensors --metrics iimm hscore --bootstrap 1000

Rows are added to the table at --outpath; earlier rows stay, and a measurement that is already there is not repeated.
The names of the released IIMM code are accepted. In it the two terms are swapped relative to the words of the paper:
uniformity_image is wrong_label (the paper's inter-modal term), inter_images is image_image (the intra-modal term).

A measure is what its paper defines. With --as-released it is what the papers' released code gives, where that differs; the
column `variant` tells which of the two a row holds.

Standard error and 95 % interval say how far a score would move with other images of the same kind; texts stay as they are. They
are closed forms where there is one (column `interval`: jackknife); else --bootstrap N gives them from N resamples.

A data set that was embedded in parts is named as if it were one file. Measures that are sums over images are then taken with one
part in memory at a time; the others load all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.arguments import count
from common.cli import Parser, run
from common.errors import UserError, unknown_name
from common.files import ensure_folder, read_csv
from engine.embedding_parts import named_as_wholes, parts_at, place_of
from engine.embeddings import PartedEmbeddings, load_embeddings, read_metadata
from engine.scores import add_scores, provenance, sample_of, score
from metrics.metric import AS_DEFINED
from metrics.statistics import MetricError
from metrics.sums import OF_SUMS, SCATTERS
from metrics.table import BY_ANY_NAME, METRICS

DEFAULT = ("iimm", "image_image", "wrong_label", "alignment", "text_text", "gap", "uniformity_text")  # sums alone: seconds for any N
EVERY = "all"  # stands for every measure of the table


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.epilog = list_of_metrics()
    what = parser.add_argument_group("what is measured")
    what.add_argument("--embeddings", nargs="+", type=Path, required=True, metavar="FILE", help="files of get_embeddings.py, or CSV pairs")
    what.add_argument(
        "--metrics", nargs="+", default=[], metavar="NAME", help=f"measures, listed below, or '{EVERY}' (default: {' '.join(DEFAULT)})"
    )
    what.add_argument("--as-released", action="store_true", help="the number of the papers' released code where it is another one")
    what.add_argument(
        "--bootstrap", type=count, default=0, metavar="N", help="resamples for an interval where there is no closed form; 1000 is usual"
    )
    sample = parser.add_argument_group("on which images")
    sample.add_argument(
        "--prop", type=float, default=1.0, help="share of the images, drawn without replacement; smaller shares lie in larger"
    )
    sample.add_argument("--seed", type=int, default=0, help="of the draw: the same images in every file of the same length")
    result = parser.add_argument_group("result")
    result.add_argument("--outpath", type=Path, default=Path("metric_scores.csv"), help="table to which the rows are added")
    return parser.parse_args()


def list_of_metrics() -> str:
    """Every measure by family, and what the released code of some computes instead."""
    lines = []
    for family in dict.fromkeys(metric.family for metric in METRICS.values()):
        lines.append(f"{family} measures (and their released names):")
        for metric in (metric for metric in METRICS.values() if metric.family == family):
            names = ", ".join(dict.fromkeys([metric.name, *metric.released_names]))
            lines.append(f"  {names:30}{metric.description}; high: {metric.higher_is}")
    notes = [f"  {metric.name:30}{metric.released_note}" for metric in METRICS.values() if metric.as_released]
    return "\n".join([*lines, *(["as released:"] if notes else []), *notes])


def main() -> None:
    """Check everything, measure every file, then write."""
    arguments = parse_arguments()
    check(arguments)
    names, files = chosen_names(arguments.metrics), named_as_wholes(arguments.embeddings)
    rows = [row for file in files for row in measure(file, names, arguments)]
    new = add_scores(arguments.outpath, rows)
    show(rows)
    print(f"\nRows added to {arguments.outpath}: {new}; already there: {len(rows) - new}.")


def check(arguments: argparse.Namespace) -> None:
    """All that can be told before any number is computed: names, ranges, headers of all files, the table."""
    for name in arguments.metrics:
        if name not in BY_ANY_NAME and name != EVERY:
            raise unknown_name("metric", name, [*BY_ANY_NAME, EVERY])
    if not 0 < arguments.prop <= 1:
        raise UserError(f"--prop must lie above 0 and at most at 1, not {arguments.prop:g}.")
    if arguments.bootstrap == 1:
        raise UserError("--bootstrap must be 0 or at least 2, not 1: one resample has no spread.")
    if arguments.seed < 0:
        raise UserError(f"--seed must be 0 or more, not {arguments.seed}.")
    for file in named_as_wholes(arguments.embeddings):
        check_file(file)
    ensure_folder(arguments.outpath.parent)
    read_csv(arguments.outpath)


def check_file(file: Path) -> None:
    """Read the headers of a file or of all its parts; tell of the file of one part that the others are left out."""
    if parts_at(file):
        PartedEmbeddings(file)
    elif "part" in (metadata := read_metadata(file)):
        place = place_of(file, metadata)
        print(f"{file} is part {place.number} of {place.of} alone; the name without .part-... stands for all of them.")


def chosen_names(given: Sequence[str]) -> list[str]:
    """The measures that are meant, each once."""
    return list(dict.fromkeys(one for name in given or DEFAULT for one in (METRICS if name == EVERY else [name])))


def measure(file: Path, names: Sequence[str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per measure of one file; the sums that several need are made once."""
    parts = PartedEmbeddings(file) if parts_at(file) else None
    try:
        if parts is not None and part_by_part(names, arguments):
            metadata, counts, scores = measure_parts(parts, names, arguments)
        else:
            if parts is not None:
                print(f"{file}: some measures need all images at once; {parts.n_images} images of {len(parts.places)} parts are loaded.")
            metadata, counts, scores = measure_whole(file, names, arguments)
    except MetricError as error:
        raise UserError(f"'{file}' cannot be measured: {error}") from error
    common = provenance(metadata, **counts, proportion=arguments.prop, seed=arguments.seed, file=file)
    return [common | row for row in scores]


Measures = tuple[dict[str, str], dict[str, int], list[dict[str, Any]]]  # the metadata, N and C, the rows


def measure_whole(file: Path, names: Sequence[str], arguments: argparse.Namespace) -> Measures:
    """With all images in memory."""
    embeddings = load_embeddings(file)
    images = draw(len(embeddings.labels), arguments.prop, arguments.seed)
    sample = sample_of(embeddings, arguments.seed)
    if len(images) < len(sample):
        sample = sample.subset(images)
    scores = score(sample, names, as_released=arguments.as_released, bootstrap=arguments.bootstrap)
    return embeddings.metadata, {"n_images": len(images), "n_classes": len(embeddings.text_embeddings)}, scores


def part_by_part(names: Sequence[str], arguments: argparse.Namespace) -> bool:
    """Whether all measures are sums over images, of a size that does not grow with classes times dimensions squared."""
    metrics = [BY_ANY_NAME[name] for name in names]
    of_sums = all(metric.name in OF_SUMS and OF_SUMS[metric.name].step < SCATTERS for metric in metrics)
    return of_sums and not arguments.bootstrap and not (arguments.as_released and any(metric.as_released for metric in metrics))


def measure_parts(parts: PartedEmbeddings, names: Sequence[str], arguments: argparse.Namespace) -> Measures:
    """With one part in memory at a time."""
    from engine.parted_scores import score_parts

    images, classes, scores = score_parts(parts, names, lambda count: draw(count, arguments.prop, arguments.seed))
    return parts.metadata, {"n_images": images, "n_classes": classes}, scores


def draw(count: int, proportion: float, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A seeded share of ``count`` images without replacement, in order; at the same seed a smaller share lies in a larger."""
    size = round(proportion * count)
    return np.arange(count) if size == count else np.sort(np.random.default_rng(seed).permutation(count)[:size])


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print file, measure, score and interval in columns, and which scores are not those of the definition."""
    width, measure_width = (max(len(row[column]) for row in rows) for column in ("file", "measure"))
    print(f"{'file':{width}}  {'measure':{measure_width}}  {'score':>10}  {'stderr':>8}  95 % interval")
    for row in rows:
        line = f"{row['file']:{width}}  {row['measure']:{measure_width}}  {row['score']:10.6f}  {interval(row)}"
        print(f"{line}{'' if row['variant'] == AS_DEFINED else row['variant']}".rstrip())


def interval(row: dict[str, Any]) -> str:
    """Standard error and interval, as wide with numbers as without."""
    if row["stderr"] == "":
        return f"{'-':>8}  {'':25}"
    limits = f"[{row['low']:.6f}, {row['high']:.6f}]"
    return f"{row['stderr']:8.2g}  {limits:25}"


if __name__ == "__main__":
    run(main)
