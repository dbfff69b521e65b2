"""Speed on a GPU: embedding from JPEG files against the bare forward pass, training by each tuning, OTI and OVI.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --parts embedding --models ViT-B-16/random ViT-L-14/random --num-workers 8 16
    python -m benchmarks.gpu --device cpu --models tiny --train-model tiny --images 16 --batch-size 8 --num-workers 0 --items 4 --steps 2

Weights are drawn, which does not matter for speed and needs no download. Files are drawn too: 500 x 375 pixels, about as large as
photographs; a thousand different ones under many names, so they come from memory and not from a disk. Each way of embedding is run in
turn with the others; the table shows medians, and names what limits: decoding, transfer or computing, whichever is slowest alone.
Writes RESULTS/gpu-DEVICE.md and .json. Without a GPU it runs only on --device cpu, as a trial of the script.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.arguments import PRECISIONS, count, positive_int
from common.cli import Parser, run
from common.errors import UserError
from models.tuning_options import TUNING_NAMES

if TYPE_CHECKING:
    from benchmarks.gpu_measures import Setting

MODELS = ("ViT-B-32-quickgelu/random", "ViT-B-16/random", "ViT-L-14/random", "ViT-B-16-SigLIP/random", "EVA02-B-16/random")
PARTS = ("embedding", "training", "inverting")
DIFFERENT = 1024  # drawn files; further ones are other names of these
CLASSES = "abcdefgh"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help="encoders that embed")
    parser.add_argument("--train-model", default="ViT-B-16/random", metavar="NAME", help="the one that is trained and inverted")
    parser.add_argument("--tunings", nargs="+", choices=TUNING_NAMES, default=TUNING_NAMES, help="how it is trained")
    parser.add_argument("--images", type=positive_int, default=16384, help="JPEG files that are embedded; a quarter of them train")
    parser.add_argument("--batch-size", type=positive_int, default=256, help="images per batch; in training half of it")
    parser.add_argument("--num-workers", nargs="+", type=count, default=sorted({4, 8, 16, cores}), help="processes that decode")
    parser.add_argument("--items", type=positive_int, metavar="N", help="inverted at a time (default: as oti.py and ovi.py do)")
    parser.add_argument("--steps", type=positive_int, default=10, help="steps of OTI and OVI that are timed")
    parser.add_argument("--repeats", type=positive_int, default=3, help="runs of each way")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a trial of the script")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the towers; auto is bf16 on GPUs that have it")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), metavar="FOLDER", help="where the tables go")
    parser.add_argument("--overwrite", action="store_true", help="replace tables that are there")
    return parser.parse_args()


def main() -> None:
    """Measure as the command line says."""
    args = parse_arguments()
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("No CUDA device is visible to torch, so there is no GPU to measure; --device cpu tries the script in miniature.")
    from benchmarks.machine import machine, name_of

    found = machine() if args.device == "cuda" else machine() | {"gpu": ""}
    target = args.results / f"gpu-{name_of(found)}.md"
    if target.exists() and not args.overwrite:
        raise UserError(f"'{target}' exists; --overwrite replaces it.")
    with tempfile.TemporaryDirectory() as folder:
        tables = measure(args, Path(folder))
    write(target, found, args, tables)
    print(f"written: {target}")


def measure(args: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table, which are printed as they come."""
    from benchmarks.gpu_measures import Setting
    from engine.runtime import start

    draw_files(folder / "test", args.images)
    draw_files(folder / "train", max(args.images // 4, 2 * len(CLASSES)))
    runtime = start(args.device, args.precision)
    setting = Setting(runtime, folder, args.batch_size, tuple(args.num_workers), args.repeats)
    tables: dict[str, list[dict[str, Any]]] = {}
    for part in args.parts:
        print(f"\n{part}, {runtime.precision} on {runtime.device.type}", flush=True)
        tables[part] = [shown(row) for row in ROWS[part](setting, args)]
    return tables


def draw_files(folder: Path, number: int) -> None:
    """``number`` JPEG files in as many classes as there are letters; those beyond :data:`DIFFERENT` are links to earlier ones."""
    from benchmarks.data import draw_photo

    for index in range(number):
        path = folder / CLASSES[index % len(CLASSES)] / f"{index:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if index < DIFFERENT:
            draw_photo(path, 500, 375, index)
        else:
            os.link(folder / CLASSES[index % DIFFERENT % len(CLASSES)] / f"{index % DIFFERENT:06}.jpg", path)


def embedding_rows(setting: Setting, args: argparse.Namespace) -> Any:
    """One for each encoder."""
    from benchmarks.gpu_measures import embedding

    return (embedding(setting, name) for name in args.models)


def training_rows(setting: Setting, args: argparse.Namespace) -> Any:
    """One for each tuning, with batches of half the size: gradients need more memory than embeddings."""
    from dataclasses import replace

    from benchmarks.gpu_measures import training

    half = replace(setting, batch_size=max(setting.batch_size // 2, 1))
    return (training(half, args.train_model, tuning) for tuning in args.tunings)


def inverting_rows(setting: Setting, args: argparse.Namespace) -> Any:
    """OTI and OVI."""
    from benchmarks.gpu_measures import inverting
    from inversion.run import batch_size_for

    device = setting.runtime.device
    return (inverting(setting, args.train_model, kind, args.items or batch_size_for(kind, device), args.steps) for kind in ("oti", "ovi"))


ROWS = {"embedding": embedding_rows, "training": training_rows, "inverting": inverting_rows}


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """The row itself, after it was printed."""
    print("  " + ", ".join(f"{key} {brief(value)}" for key, value in row.items()), flush=True)
    return row


def brief(value: Any) -> str:
    """A number with three digits, or more before the point; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def write(target: Path, found: dict[str, Any], args: argparse.Namespace, tables: dict[str, list[dict[str, Any]]]) -> None:
    """The tables for people, and all numbers for programs."""
    from benchmarks.machine import sentence
    from common.files import write_json, write_text

    of_run = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    write_json(target.with_suffix(".json"), {"machine": found, "arguments": of_run, "tables": tables})
    parts = [f"# Speed on {found['gpu'] or 'the processor, as a trial'}\n\n{sentence(found)}\n"]
    parts += [f"## {part}\n\n{markdown(rows)}" for part, rows in tables.items()]
    write_text(target, "\n".join(parts))


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([brief(row[head]) for head in heads] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    run(main)
