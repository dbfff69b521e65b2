"""All benchmarks, both ways of each in one run: a table, its results on file, and the README's speed section.

    python -m benchmarks                            # `make bench`
    python -m benchmarks --only few_shot metrics    # some of them
    python -m benchmarks --full                     # large sizes too, and the GPU
    python -m benchmarks --quick                    # small, to see that it works

The default takes a quarter of an hour on two quiet cores (with 16 GB of memory free; with less, the plain way of TIES is left out),
``--full`` an hour; the numbers of ``--quick`` mean nothing.

Results go to benchmarks/results/, under the name of the kind of machine: NAME.json with everything, NAME.md with the table. While
a run goes on, its finished rows are in NAME.partial.json. The README's table is that of the last whole run at the default size in
which nothing failed; ``--no-readme`` leaves it alone, on another machine for instance. One part with other sizes: python -m
benchmarks.few_shot --help.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, name_of
from benchmarks.results import Results, check_markers, renew
from benchmarks.rows import Row
from benchmarks.runs import DEFAULT, Bench, benches
from benchmarks.show import rows_of
from benchmarks.table import print_table
from common.cli import Parser, run
from common.files import slug

HERE = Path(__file__).parent
GPU = Bench("gpu", "")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(DEFAULT), metavar="NAME", help=", ".join(DEFAULT))
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick", help="small sizes; nothing is written without --folder")
    size.add_argument("--full", dest="size", action="store_const", const="full", help="the large sizes too, and the GPU")
    output = parser.add_argument_group("output")
    output.add_argument("--folder", type=Path, help="where results are written (default: benchmarks/results)")
    output.add_argument("--name", help="of the results (default: the kind of machine, and what is not of a whole default run)")
    output.add_argument(
        "--readme",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="renew the README's table (default: after a whole default run)",
    )
    parser.set_defaults(size="default")
    return parser.parse_args()


def main() -> int:
    """Run them, keep the rows, write the table; 1 if one failed."""
    args = parse_arguments()
    readme, whole = HERE.parent / "README.md", args.size == "default" and not args.only
    renewing = whole if args.readme is None else args.readme
    if renewing:
        check_markers(readme)
    results = results_for(args)
    try:
        for bench in benches(args.size, args.only) + [GPU] * (args.size == "full" and not args.only):
            print(f"\n{bench.command}")
            print_table(kept(results, bench))
    except (KeyboardInterrupt, SystemExit):
        where = f", kept in {results.path('.partial.json')}" if results.folder and results.done else ""
        print(f"\nbroken off after {len(results.done)} rows{where}")
        raise
    results.finish()
    if results.folder is not None:
        print(f"\nwritten: {results.path('.json')} and .md")
    if renewing and not results.failed:
        renew(readme, results.table())
        print(f"renewed: the speed section of {readme.name}")
    return int(results.failed)


def results_for(args: argparse.Namespace) -> Results:
    """Where this run's rows go."""
    found = machine()
    more = ([] if args.size == "default" else [args.size]) + (args.only or [])
    name = slug(args.name) if args.name else "-".join([name_of(found), *more])
    return Results(found, args.size, args.folder or (None if args.size == "quick" else HERE / "results"), name)


def kept(results: Results, bench: Bench) -> Iterator[Row]:
    """The rows of one benchmark, each written when it is there; what breaks it off is a row too, and the next one goes on."""
    try:
        for row in on_gpu(results.machine) if bench is GPU else rows(bench):
            results.add(bench, row)
            yield row
    except Exception as error:
        traceback.print_exc()
        row = Row(bench.command, "", failed=f"{type(error).__name__}: {error}")
        results.add(bench, row)
        yield row


def rows(bench: Bench) -> Iterator[Row]:
    """Those of a module."""
    module: Any = import_module(f"benchmarks.{bench.module}")
    return rows_of(module.parse_arguments(bench.words.split()), module.works)


def on_gpu(found: dict[str, Any]) -> Iterator[Row]:
    """The benchmark of the GPU in a process of its own, which prints its own table."""
    what = "embedding, training and inversion on a GPU"
    if not found["gpu"]:
        yield Row(what, "", agreement=f"no GPU here; where there is one: {GPU.command}")
        return
    status = subprocess.run([sys.executable, "-m", "benchmarks.gpu", "--overwrite"], cwd=HERE.parent, check=False).returncode
    yield Row(what, "", agreement="printed above", failed=f"it ended with status {status}" if status else "")


if __name__ == "__main__":
    run(main)
