"""Time and memory of merging encoders of ViT-B/32's size, against the way of released code: whole models, and all that is computed of them.

    python -m benchmarks.merging                                              # 9 x 350 MB in a temporary folder, minutes on two cores
    python -m benchmarks.merging --methods fisher regmean regmean_plus_plus --models 4          # those that look at images
    python -m benchmarks.merging --methods tsv_m iso_c --layers 1             # those that take singular values: long at 12 layers
    python -m benchmarks.merging --methods iso_cts tall_mask --ours-only

The encoders are random: a base, and models around it; so are the images and the zero-shot heads. `copy` reads all files and writes one:
no merge can take less. The agreement is the greatest difference of a merged weight.

fisher and regmean_plus_plus run with as_released here, so that both ways compute the same; fisher_by_image is the method's own default.
WUDI takes 4 of the published 400 steps. Of DARE the two ways draw other entries, so their results are not compared. The plain way finds
its images preprocessed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.memory import available_mib
from benchmarks.merging_files import Problem, data_of, draw, write_seen
from benchmarks.merging_plain import ITERATIONS, RELEASED, Seen
from benchmarks.work import Way, Work, add_measuring_arguments, said
from common.arguments import positive_int
from common.cli import Parser

METHODS = ("copy", "simple_average", "task_arithmetic", "ties")
LOOK = ("fisher", "fisher_by_image", "regmean", "regmean_plus_plus")  # at images
AS_RELEASED = ("fisher", "regmean_plus_plus")
OUR_LIBRARIES = ("merging.inputs", "merging.merge", "merging.table")
TO_LOOK = ("open_clip", "merging.data_command", "merging.fisher_information", "merging.layers", "merging.regression")
PLAIN_TO_LOOK = ("transformers.models.clip.modeling_clip",)
TOLERANCES = {  # of a weight; decompositions and inverses are in float32 in the plain way
    **dict.fromkeys(("tsv_m", "iso_c", "wudi", "fisher"), 1e-5),
    **dict.fromkeys(("regmean", "regmean_plus_plus"), 1e-3),  # at this size the inverse is good to 1e-4; in float64 ours is met to 2e-7
}


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--models", type=positive_int, default=8, help="K, how many are merged")
    parser.add_argument("--layers", type=positive_int, default=12, help="transformer layers of an encoder")
    parser.add_argument("--images", type=positive_int, default=64, help="of each task, for methods that look at some")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), metavar="NAME", help="of merge.py that need no labels; fisher_by_image; and copy"
    )
    parser.add_argument("--ours-only", action="store_true", help="leave the released way out; its TIES takes 16 GB of memory")
    parser.add_argument("--folder", type=Path, help="where the files are written, and deleted at the end (default: the system's)")
    add_measuring_arguments(parser)
    return parser.parse_args(words)


def works(args: argparse.Namespace) -> Iterator[Work]:
    """A row for each method, while the encoders are there."""
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        problem = Problem(draw(folder, args.models, args.layers), folder / "merged.safetensors", args.layers, args.images)
        if set(args.methods) & set(LOOK):
            write_seen(problem)
        for method in args.methods:
            yield row(problem, method, args.repeats, compared=method in RELEASED and not args.ours_only)


def needed_mib(problem: Problem, method: str) -> int:
    """About what the plain way takes: TIES some five copies of all models at once, others less than two."""
    return (5 * len(problem.files) + 1 if method == "ties" else 2 * len(problem.files)) * (problem.files[0].stat().st_size >> 20)


def row(problem: Problem, method: str, repeats: int, compared: bool) -> Work:
    """One method; both ways only where there is the memory for it."""
    free, needed = available_mib(), needed_mib(problem, method)
    short = compared and free is not None and free < needed
    compared = compared and not short
    layers = f"{problem.layers} layer{'s' * (problem.layers > 1)}"
    name = "read all files, write one" if method == "copy" else f"merge by `{method}`"
    seen = f", {problem.images} images each" if method in LOOK else ""
    plain = partial(released, replace(problem, out=problem.out.with_name("released.safetensors")), method) if compared else None
    ours = partial(copied, problem) if method == "copy" else partial(streamed, problem, method)
    title = f"{name}: K = {len(problem.names)} of ViT-B/32's width, {layers}{seen}"
    against = "whole models" if compared else f"whole models: left out, the {needed:,} MiB it takes are not free" if short else ""
    return Work(title, against, plain, ours, partial(agreement, method), repeats, first_counts=True)


def copied(problem: Problem) -> Way:
    """Every file read once, and one written."""
    from merging.stream import TensorFile, TensorWriter

    def way() -> None:
        files = [TensorFile(file) for file in problem.files]
        with TensorWriter(problem.out, files[0].specs) as writer:
            for name in files[0].specs:
                for file in files:
                    tensor = file.read(name)
                writer.write(name, tensor)

    return way


def streamed(problem: Problem, method: str) -> Way:
    """The package's way, checks and checksums included; gives the file."""
    for library in (*OUR_LIBRARIES, *(TO_LOOK if method in LOOK else ())):
        import_module(library)  # before the clock starts
    from merging.inputs import open_inputs
    from merging.merge import merge
    from merging.options import MergeOptions
    from merging.table import METHODS as TABLE

    def way() -> Path:
        problem.out.unlink(missing_ok=True)
        inputs = open_inputs(str(problem.files[0]), [str(file) for file in problem.files[1:]])
        chosen, options = TABLE[method.removesuffix("_by_image")], MergeOptions(as_released=method in AS_RELEASED, iterations=ITERATIONS)
        merge(inputs, with_images(problem, chosen, inputs) if method in LOOK else chosen, options, problem.out)
        return problem.out

    return way


def with_images(problem: Problem, method: Any, inputs: Any) -> Any:
    """The method started with images, between the names of Hugging Face that files have and those of the encoder."""
    from merging.candidates import merged
    from merging.data_command import encoder_pool
    from merging.sources import under

    pool = encoder_pool(argparse.Namespace(towers=None, only=[]), inputs, method.name)

    def start(_: Any, options: Any) -> Any:
        return under(merged(method.name, pool, method.start_with_data(pool, options, data_of(problem))), inputs.reference).read

    return replace(method, start=start)


def released(problem: Problem, method: str) -> Way:
    """Whole state dicts, as released code merges them; gives the file."""
    from safetensors.torch import load_file, save_file

    for library in PLAIN_TO_LOOK if method in LOOK else ():
        import_module(library)

    def way() -> Path:
        base, *models = (load_file(file) for file in problem.files)
        seen = [Seen(problem, name) for name in problem.names] if method in LOOK else []
        save_file(RELEASED[method](base, models, *([seen] if seen else [])), problem.out)
        return problem.out

    return way


def agreement(method: str, plain: Path | None, ours: Path | None) -> str:
    """How far the merged weights are apart."""
    if plain is None or ours is None:
        return ""
    if method.startswith("dare"):
        return "other draws"
    return said(TOLERANCES.get(method, 1e-6), "weights", difference(ours, plain))


def difference(one: Path, other: Path) -> float:
    """The greatest difference between two results."""
    from merging.stream import TensorFile

    first, second = TensorFile(one), TensorFile(other)
    assert first.specs == {name: second.specs[name] for name in first.specs}
    return max(float((first.read(name) - second.read(name)).abs().max()) for name in first.specs)


if __name__ == "__main__":
    from benchmarks.show import main

    main(parse_arguments, works)
