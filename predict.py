"""Predict what fine-tuning would gain and forget on a new task, from the tasks on which it has been tried.

    python predict.py --outcomes outcomes.csv --embeddings embeddings/clip/FMoW_train.safetensors --plot fmow.pdf
    python predict.py --outcomes outcomes.csv --scores metric_scores.csv --model clip --tuning full --measure iimm
    python predict.py --outcomes outcomes.csv --scores metric_scores.csv --compare
    python predict.py --outcomes outcomes.csv --compare iimm gap zero_shot --bootstrap 10000 --outfile compared.json

--outcomes is a CSV table with a row for each model, tuning and task: model, tuning, task, zero_shot_accuracy, accuracy_after
(shares in [0, 1]), mean_change_elsewhere (may be empty), and a column for each measure (or the columns measure, score). The
scores may also come from the table of get_metric_scores.py. Gain is over zero-shot error: (after - zero-shot) / (1 - zero-shot).

A straight line from score to gain, and one to the change on other tasks, is fitted to the tasks of one model and tuning and
read off for each embeddings file, with prediction interval and leave-one-out error. --compare asks which measure does this
best: across tasks for each model, and across models for each task.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.arguments import count, positive_int, proportion
from common.cli import Parser, run
from common.errors import UserError
from common.files import ensure_folder

if TYPE_CHECKING:
    from study.outcomes import Outcome


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    known = parser.add_argument_group("what is known")
    known.add_argument("--outcomes", type=Path, required=True, metavar="FILE", help="table of known outcomes")
    known.add_argument("--scores", type=Path, metavar="FILE", help="table of get_metric_scores.py, where the outcomes have no scores")
    known.add_argument("--split", metavar="NAME", help="which rows of --scores, when it has scores on several splits")
    known.add_argument("--model", metavar="NAME", help="whose outcomes to use, when the table has several models")
    known.add_argument("--tuning", metavar="NAME", help="which tuning's outcomes to use, when the table has several")

    new = parser.add_argument_group("what is predicted")
    new.add_argument("--embeddings", nargs="+", type=Path, default=[], metavar="FILE", help="zero-shot embeddings of each new task")
    new.add_argument("--measure", default="iimm", metavar="NAME", help="the score that the line is fitted to")
    new.add_argument(
        "--zero-shot-accuracy", type=float, metavar="X", help="of the new task, in [0, 1) (default: counted on its embeddings)"
    )

    compare = parser.add_argument_group("which measure predicts best")
    compare.add_argument("--compare", nargs="*", metavar="MEASURE", help="compare these measures; without names, all that have scores")
    compare.add_argument("--bootstrap", type=positive_int, default=2000, metavar="N", help="resamples for the intervals of R2 and tau")
    compare.add_argument("--seed", type=count, default=0, help="of the resamples")

    result = parser.add_argument_group("result")
    result.add_argument("--confidence", type=proportion, default=0.95, metavar="P", help="of all intervals")
    result.add_argument("--plot", type=Path, metavar="FILE", help="write the scatter plot with line and intervals, .png or .pdf")
    result.add_argument("--outfile", type=Path, metavar="FILE", help="write all numbers as JSON")
    result.add_argument("--overwrite", action="store_true", help="replace --plot and --outfile where they exist")
    return parser.parse_args()


def main() -> None:
    """Read the tables, fit, predict, compare; print, plot and write."""
    args = parse_arguments()
    check(args)
    from study.outcomes import matching, select
    from study.outcomes_table import joined, read_outcomes, read_scores

    outcomes = read_outcomes(args.outcomes)
    if args.scores is not None:
        outcomes = joined(outcomes, read_scores(args.scores, args.split), args.scores)
    outcomes = matching(outcomes, args.model, args.tuning)
    result: dict[str, Any] = {}
    if args.compare is None or args.embeddings or args.plot:
        result |= fit_and_predict(args, select(outcomes, args.model, args.tuning))
    if args.compare is not None:
        result |= compare_measures(args, outcomes)
    if args.outfile is not None:
        write(args, result)


def check(args: argparse.Namespace) -> None:
    """All that can be told before anything is read: names, ranges, files in the way, flags that need another."""
    for path in (args.plot, args.outfile):
        if path is not None and path.is_dir():
            raise UserError(f"'{path}' is a folder; name a file.")
        if path is not None and path.exists() and not args.overwrite:
            raise UserError(f"'{path}' exists; name another file, or replace it with --overwrite.")
        if path is not None:
            ensure_folder(path.parent)
    if args.plot is not None and args.plot.suffix.lower() not in (".png", ".pdf"):
        raise UserError(f"--plot '{args.plot}' ends in neither .png nor .pdf.")
    if args.split is not None and args.scores is None:
        raise UserError("--split chooses among the rows of --scores, which is not given.")
    check_zero_shot(args.zero_shot_accuracy, len(args.embeddings))


def check_zero_shot(accuracy: float | None, files: int) -> None:
    """The zero-shot accuracy that the user gives belongs to one new task and leaves it an error to gain over."""
    if accuracy is None:
        return
    if files != 1:
        raise UserError(f"--zero-shot-accuracy is of one new task, but --embeddings has {files} files; leave it out to have it counted.")
    if not 0 <= accuracy < 1:
        hint = "; if it is per cent, divide by 100" if 1 < accuracy <= 100 else ""
        raise UserError(f"--zero-shot-accuracy must lie in [0, 1), not {accuracy:g}{hint}.")


def fit_and_predict(args: argparse.Namespace, outcomes: list[Outcome]) -> dict[str, Any]:
    """Fit the lines, read them off at the new tasks, print and plot."""
    from dataclasses import asdict

    from metrics.table import BY_ANY_NAME
    from study.new_task import new_task
    from study.outcomes_table import canonical
    from study.prediction import fit_all, predict
    from study.prediction_report import fit_lines, fit_record, prediction_lines

    measure = canonical(args.measure)
    fits, remarks = fit_all(outcomes, measure)
    if args.embeddings and measure not in BY_ANY_NAME:
        raise UserError(
            f"'{measure}' is not a measure of clipscope, so --embeddings cannot be scored by it; see get_metric_scores.py --help."
        )
    tasks = [new_task(file, measure, outcomes, args.zero_shot_accuracy) for file in args.embeddings]
    predictions = [predict(fits, task, args.confidence) for task in tasks]
    blocks = [fit_lines(fit) for fit in fits.values()] + [list(remarks)]
    blocks += [prediction_lines(prediction, measure, args.confidence) for prediction in predictions]
    print("\n\n".join("\n".join(block) for block in blocks if block))
    if args.plot is not None:
        from study.figures import plot_prediction

        plot_prediction(args.plot, fits, predictions, args.confidence)
        print(f"\nPlot: {args.plot}")
    return {
        **{"model": outcomes[0].model, "tuning": outcomes[0].tuning, "measure": measure},
        "fits": {name: fit_record(fit) for name, fit in fits.items()},
        "remarks": list(remarks),
        "predictions": [asdict(prediction) for prediction in predictions],
    }


def compare_measures(args: argparse.Namespace, outcomes: list[Outcome]) -> dict[str, Any]:
    """Compare the measures in both directions and print the tables."""
    from dataclasses import asdict

    from study.comparison import Resampling, compare
    from study.comparison_report import comparison_lines
    from study.outcomes import measures_of
    from study.outcomes_table import canonical
    from study.prediction import check_measure

    measures = list(dict.fromkeys(canonical(name) for name in args.compare)) or measures_of(outcomes)
    for measure in measures:
        check_measure(outcomes, measure)
    rows = compare(outcomes, measures, Resampling(args.bootstrap, args.seed, args.confidence))
    print("\n".join(comparison_lines(rows, args.confidence)))
    return {"comparison": [asdict(row) for row in rows]}


def write(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """All numbers, what was asked, and the versions that computed them."""
    from common.files import write_json
    from common.provenance import now, versions

    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    asked["embeddings"] = [str(file) for file in args.embeddings]
    write_json(args.outfile, {**result, "arguments": asked, "created": now(), "versions": versions(("numpy", "scipy", "matplotlib"))})
    print(f"\nNumbers: {args.outfile}")


if __name__ == "__main__":
    run(main)
