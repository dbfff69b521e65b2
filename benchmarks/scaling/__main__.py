"""How time and memory grow with images, classes, dimensions, models, cells: the measured part of docs/scaling.md.

    python -m benchmarks.scaling            # minutes on two cores; renews docs/scaling.md and docs/pictures/scaling.png
    python -m benchmarks.scaling --quick    # small sizes, a minute, to see that all of it runs; writes nothing

Each point has a process of its own, with one thread. Time is the least of some runs, of the processor, since that is what counts on
a machine that others use too; the exponent a of time ~ size^a is fitted to it by least squares on logarithms. Fixed costs make it
smaller than that of large sizes. Memory is what a process takes beside what it held before, its libraries and the data.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.work import cores
from common.arguments import positive_int
from common.cli import Parser, run

ROOT = Path(__file__).parents[2]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes; writes nothing")
    parser.add_argument("--jobs", type=positive_int, default=cores(), help="points that are measured at the same time")
    parser.add_argument("--folder", type=Path, help="where 2 GB are drawn, and deleted at the end (default: the system's)")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "scaling.md", help="the page whose tables are renewed")
    return parser.parse_args()


def main() -> None:
    """Measure, print, draw, and renew the page."""
    args = parse_arguments()
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # for the processes that are to start
    from benchmarks.machine import machine, sentence
    from benchmarks.scaling.growth import grown
    from benchmarks.scaling.series import every_series
    from benchmarks.scaling.tables import header, line, renew

    every = []
    print(header())
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for each in grown(every_series(Path(folder), args.quick), args.jobs):
            print(line(each), flush=True)
            every.append(each)
    if not args.quick:
        from benchmarks.scaling.figure import draw

        draw(every, args.document.parent / "pictures" / "scaling.png")
        renew(args.document, every, sentence(machine()))
        print(f"\n{args.document} is renewed.")


if __name__ == "__main__":
    run(main)
