"""Reproduce a paper's table or figure: run what a plan says, collect, fit, draw, and write the report.

    python reproduce.py plans/demo.toml                          # in minutes on a laptop; so does plans/inversion_tiny.toml
    python reproduce.py plans/iimm_peft.toml --dry-run           # what there is to do, how long it may take
    python reproduce.py plans/iimm_peft.toml --shard 1/4         # a quarter of the work, e.g. on one of four GPUs
    python reproduce.py plans/iimm_peft.toml --executor slurm    # each unit of work as a job of an array
    python reproduce.py plans/iimm_peft.toml --report-only       # the report of what is done so far

A plan is expanded into cells (a zero-shot test, an embedding, a measure, a training, a test of the best training; an inversion, a
retrieval, a zero-shot test with inverted features; a merge and its tests), each with a JSON file of its own in OUT/cells. What is
finished is not done again, unless what it was made from has changed: weights, images, prompts, or the code of a measure. What fails
is recorded with its error and the rest goes on; the exit status is then 1. Stopped or killed at any moment, the same command goes on
where it was, in the middle of a training, an inversion or a merge too. Several processes may work on one OUT. The report is
OUT/report.html and OUT/report.md, with figures and tables beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.arguments import add_run_arguments, positive_int
from common.cli import Parser, run
from common.errors import UserError
from common.files import ensure_folder, write_text

if TYPE_CHECKING:
    from study.cells import Unit
    from study.executors import SlurmOptions
    from study.plan import Plan
    from study.run import RunOptions


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("plan", type=Path, metavar="PLAN", help="TOML file, see plans/")
    parser.add_argument("--out", type=Path, help="folder of the study (default: studies/ and the plan's name)")

    which = parser.add_argument_group("which part of it")
    which.add_argument("--dry-run", action="store_true", help="list the cells with their states, and what is left in time and disk")
    which.add_argument("--only", metavar="GLOB", help="cells, or whole units of them, of these names, and what these need")
    which.add_argument("--shard", type=shard, metavar="I/N", help="the I-th of N parts of the work")
    which.add_argument("--retry-failed", action="store_true", help="try again what failed earlier")
    which.add_argument("--report-only", action="store_true", help="run nothing; report what is there")

    where = parser.add_argument_group("where it runs")
    where.add_argument(
        "--executor",
        choices=("local", "slurm", "debug"),
        default="local",
        help="this process, or an array of SLURM jobs; debug: such jobs, but in this process, to try a plan before it is submitted",
    )
    where.add_argument("--partition", help="slurm: the partition (default: the cluster's own)")
    where.add_argument("--minutes", type=positive_int, default=240, help="slurm: time limit of a job; what is left then is queued again")
    where.add_argument("--gpus", type=int, choices=(0, 1), default=1, help="slurm: GPUs of a job, which is one process")
    where.add_argument("--cpus", type=positive_int, default=8, help="slurm: cores of a job")
    where.add_argument("--memory-gb", type=positive_int, default=32, help="slurm: memory of a job")
    where.add_argument("--parallel", type=positive_int, default=64, help="slurm: jobs that run at the same time")
    where.add_argument("--sbatch", action="append", default=[], metavar="NAME=VALUE", help="slurm: a further option of sbatch; repeatable")
    where.add_argument("--wait", action="store_true", help="slurm: wait for the jobs, then write the report")
    add_run_arguments(parser)
    return parser.parse_args()


def shard(text: str) -> tuple[int, int]:
    """``2/4`` as (2, 4)."""
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise argparse.ArgumentTypeError(f"'{text}' is not I/N with I from 1 to N, such as 1/4")
    return int(first), int(second)


def main() -> int:
    """Run the study as the command line says."""
    args = parse_arguments()
    from study.cells import select
    from study.expansion import expand
    from study.plan_file import read_plan

    plan = read_plan(args.plan)
    check(args)
    out = args.out or Path("studies") / plan.path.stem
    everything = expand(plan)
    units = select(everything, args.only, args.shard)
    if args.dry_run:
        return dry_run(units, plan, out, args)
    if not args.report_only:
        write_text(ensure_folder(out) / "plan.toml", args.plan.read_text(encoding="utf-8"))
        execute(units, plan, out, args)
    status = sum_up(units, out, args.retry_failed)
    if args.report_only or nothing_left(everything, out):
        report(plan, out)
    return status


def check(args: argparse.Namespace) -> None:
    """Refuse flags that would mean nothing."""
    if args.seed:
        raise UserError(f"The seeds of a study are in its plan; leave --seed out and change 'seeds' in '{args.plan}'.")
    if args.dry_run and args.report_only:
        raise UserError("--dry-run lists what would be run, --report-only runs nothing; give one of them.")


def run_options(args: argparse.Namespace) -> RunOptions:
    """How cells are worked on."""
    from engine.embed import LoadOptions
    from study.run import RunOptions

    return RunOptions(LoadOptions.of(args), args.device, args.precision, args.retry_failed)


def slurm_options(args: argparse.Namespace) -> SlurmOptions:
    """What every job asks the cluster for."""
    from study.executors import SlurmOptions

    for text in args.sbatch:
        if "=" not in text:
            raise UserError(f"--sbatch {text}: write NAME=VALUE, e.g. --sbatch account=vision.")
    named = dict(text.lstrip("-").split("=", 1) for text in args.sbatch)
    return SlurmOptions(args.partition, args.minutes, args.gpus, args.cpus, args.memory_gb, args.parallel, named, args.wait)


def dry_run(units: Sequence[Unit], plan: Plan, out: Path, args: argparse.Namespace) -> int:
    """List the cells; nothing is run."""
    from study.estimate import describe, states

    print(describe(states(units, plan, out, run_options(args)), out, args.retry_failed))
    return 0


def execute(units: Sequence[Unit], plan: Plan, out: Path, args: argparse.Namespace) -> None:
    """Do what is left of the units, here or on the cluster."""
    from study.executors import run_local, run_slurm

    if args.executor != "local":
        run_slurm(units, plan, out, run_options(args), slurm_options(args), args.executor)
    else:
        run_local(units, plan, out, run_options(args))


def sum_up(units: Sequence[Unit], out: Path, retried: bool) -> int:
    """Say how far the units are and what failed; the exit status."""
    from study.run import counts, failures

    of = counts(units, out)
    failed = failures(units, out)
    print(f"\n{of['done']} of {of.total()} cells are done, {len(failed)} failed, {of['to do']} are to do.", flush=True)
    for cell, error in failed:
        print(f"  failed: {cell}: {error}", file=sys.stderr)
    if failed and not retried:
        print("--retry-failed tries them again; their files in 'cells' have the whole story.", file=sys.stderr)
    return int(bool(failed))


def nothing_left(units: Sequence[Unit], out: Path) -> bool:
    """Whether every cell of the plan was worked on; if not, a report would be of a part, and is made on request."""
    from study.run import counts

    left = counts(units, out)["to do"]
    if left:
        print(f"{left} cells of the plan are still to do, so there is no report yet; --report-only writes one of what is done.")
    return not left


def report(plan: Plan, out: Path) -> None:
    """Collect the cells, fit, draw and write the report; say where it is and its main numbers."""
    from study.analysis import analyse, headline
    from study.collect import collect
    from study.inversion_results import inversion_headline, score_tables
    from study.study_figures import draw_all
    from study.study_report import write_report

    collected = collect(plan, out)
    analysis = analyse(collected, plan)
    figures = draw_all(analysis, collected, plan, out / "figures")
    paths = write_report(plan, collected, analysis, figures, out)
    numbers = [*headline(analysis), *inversion_headline(score_tables(collected, plan))]
    print("", *numbers, "", *(f"report: {path}" for path in paths), sep="\n")


if __name__ == "__main__":
    run(main)
