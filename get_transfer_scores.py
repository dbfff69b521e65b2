"""Which encoder for my data? Transferability scores of several encoders on one data set, with their uncertainty and cost.

    python get_transfer_scores.py --dataset Digits --eval-models tiny ckpts/RUN_best.safetensors --metrics iimm hscore logme
    python get_transfer_scores.py --dataset EuroSAT --eval-models clip siglip coca eva02 --metrics iimm gbc_diagonal transrate
    python get_transfer_scores.py --dataset imagefolder:photos --eval-models tiny --metrics emms --label-encoders clip

Scores are taken on the training split less its validation part. Saved embeddings serve when their images, split, prompts and weights
are those that are asked for; others are made and saved. Rows are added to RESULTS_DIR/DATASET_transfer_scores.csv, earlier
ones stay; a model or measure that fails is reported in its row and the rest go on: the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.arguments import add_data_arguments, add_run_arguments, count
from common.cli import Parser, run
from common.errors import UserError, unknown_name
from common.files import append_rows, check_appendable, ensure_folder
from datasets.arguments import add_corruption_arguments, asked_name, load_asked

if TYPE_CHECKING:
    from engine.transfer import EmbeddingsFile, Measured, TransferRequest


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what is scored")
    what.add_argument("--dataset", required=True, help="a data set's name, or imagefolder:PATH")
    what.add_argument("--eval-models", nargs="+", required=True, metavar="MODEL", help="encoders, or checkpoints of fine-tuned ones")
    what.add_argument("--metrics", nargs="+", required=True, metavar="NAME", help="measures; an unknown name lists them")
    what.add_argument("--as-released", action="store_true", help="the released codes' numbers where they differ from the definitions")
    what.add_argument("--bootstrap", type=count, default=0, help="resamples for intervals where there is no closed form; 0: none there")
    emms = parser.add_argument_group("label embeddings for emms (default: the encoder's own)")
    emms.add_argument("--label-encoders", nargs="+", default=[], metavar="MODEL", help="encoders whose text towers give further ones")
    emms.add_argument("--label-features", nargs="+", default=[], type=Path, metavar="FILE", help=".npy [C, d], or embeddings files")
    where = parser.add_argument_group("where")
    where.add_argument("--embeddings-dir", type=Path, default=Path("embeddings"), help="folder of the embeddings files")
    where.add_argument("--results-dir", type=Path, default=Path("results"), help="folder of the table")
    add_data_arguments(parser, val_p=0.1)
    add_corruption_arguments(parser)
    add_run_arguments(parser)
    return parser.parse_args()


def main() -> int:
    """Score every model, adding its rows as soon as it is done; 1 when a score is missing."""
    args = parse_arguments()
    from datasets.registry import task_slug

    table = args.results_dir / f"{task_slug(asked_name(args, args.dataset))}_transfer_scores.csv"
    check(args, table)
    from engine.runtime import start
    from engine.transfer import embeddings_files, measure, ncti_comparison

    runtime = start(args.device, args.precision, args.seed)
    request = make_request(args, runtime)
    files = embeddings_files(runtime, list(dict.fromkeys(args.eval_models)), request)
    runtime.close()
    if not runtime.is_main:
        return 0
    measured = []
    for file in files:
        measured.append(measure(file, request))
        append_rows(table, measured[-1].rows)
        show(file, measured[-1].rows)
    if comparison := ncti_comparison(measured):
        print(f"\n{comparison}")
    print(f"\nThe rows are in {table}.")
    return missing(measured)


def check(args: argparse.Namespace, table: Path) -> None:
    """All that can be told before anything is loaded: names, flags that contradict each other, places to write to."""
    from metrics.table import BY_ANY_NAME

    for name in args.metrics:
        if name not in BY_ANY_NAME:
            raise unknown_name("metric", name, BY_ANY_NAME)
    if args.bootstrap == 1:
        raise UserError("--bootstrap must be 0 or at least 2, not 1: one resample has no spread.")
    if (args.label_encoders or args.label_features) and "emms" not in args.metrics:
        raise UserError("--label-encoders and --label-features are for emms, which is not among --metrics.")
    check_appendable(table)
    ensure_folder(args.embeddings_dir)


def missing(measured: list[Measured]) -> int:
    """The exit status, after saying on stderr how many scores are missing."""
    errors = [bool(row["error"]) for one in measured for row in one.rows]
    if any(errors):
        print(f"get_transfer_scores.py: {sum(errors)} of {len(errors)} scores are missing; their rows say why.", file=sys.stderr)
    return int(any(errors))


def make_request(args: argparse.Namespace, runtime: Any) -> TransferRequest:
    """What the command line asks for."""
    from engine.embed import LoadOptions
    from engine.label_features import text_features
    from engine.transfer import TransferRequest

    task = load_asked(args, args.dataset, "train")
    return TransferRequest(
        task,
        tuple(dict.fromkeys(args.metrics)),
        args.embeddings_dir,
        LoadOptions.of(args),
        as_released=args.as_released,
        bootstrap=args.bootstrap,
        seed=args.seed,
        text_features=text_features(runtime, task, args.label_encoders, args.label_features),
    )


def show(file: EmbeddingsFile, rows: list[dict[str, Any]]) -> None:
    """One line per measure: score and interval, or what went wrong; and what it cost, embedding included."""
    print(f"\n{file.model}{f' (embeddings found: {file.path})' if file.found else ''}")
    if rows[0]["embedding_seconds"] == "":  # the model itself failed
        print(f"  {rows[0]['error']}")
        return
    print(f"  {'metric':<20} {'score':>12} {'stderr':>9} {'95 % interval':>26} {'calculation s':>14} {'with embedding s':>17}")
    for row in rows:
        told = f"  {row['metric']:<20} "
        print(told + (row["error"] or f"{row['score']:>12.6g} {_spread(row)} {_costs(row)}"))


def _spread(row: dict[str, Any]) -> str:
    if row["stderr"] == "":
        return f"{'-':>9} {'-':>26}"
    interval = f"[{row['low']:.6g}, {row['high']:.6g}]"
    return f"{row['stderr']:>9.2g} {interval:>26}"


def _costs(row: dict[str, Any]) -> str:
    return f"{row['calculation_seconds']:>14.4f} {row['calculation_seconds'] + row['embedding_seconds']:>17.3f}"


if __name__ == "__main__":
    run(main)
