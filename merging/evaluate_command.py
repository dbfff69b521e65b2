"""What merge.py does for --evaluate and --sweep: evaluate models or merges, print a table, write the report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from common.errors import UserError, unknown_name
from engine.loading import SkippedImages
from merging import published
from merging.bench import Bench, open_bench
from merging.candidates import merged, of_points
from merging.evaluate_arguments import check_flags
from merging.inputs import Inputs
from merging.merge import checksums, described, record_of, targets_of
from merging.method import Method
from merging.options import MergeOptions
from merging.report import Evaluated, check_report, counts_table, make_report, table, write_reports
from merging.sources import open_weights
from merging.sweep import grid
from merging.task_names import asked_names
from merging.weights import Weights


def check_evaluation(args: argparse.Namespace, method: Method | None, options: MergeOptions) -> None:
    """All that can be told before a model is opened: names, flags without a meaning, a report that exists."""
    check_flags(args, method)
    tasks = asked_names(args, args.evaluate)
    for task in asked_names(args, args.seen):
        if task not in tasks:
            raise unknown_name("task in --seen, which are among those of --evaluate,", task, tasks)
    if args.report is not None:
        check_report(args.report, args.overwrite)
    if args.sweep and method is not None:
        grid(args.sweep, options, method)


def evaluate_as_asked(args: argparse.Namespace, inputs: Inputs, method: Method | None, options: MergeOptions) -> None:
    """Evaluate the models, or with a ``method`` their merge: the written files where --out says so, else in memory."""
    bench = open_bench(args, inputs)
    if method is None:
        evaluated = _single_models(args, inputs, bench)
    else:
        models = bench.place.put(_merges(args, inputs, method, options))
        scores = bench.run_own(models) if args.per_model else bench.run(models)[0]
        record = record_of(inputs, method, options, args.per_model, checksums(inputs))
        evaluated = [Evaluated(method.name, scores, bench.parameters, {"merge": record})]
    show_and_write(args, inputs, bench, method, evaluated)


def show_and_write(args: argparse.Namespace, inputs: Inputs, bench: Bench, method: Method | None, evaluated: Sequence[Evaluated]) -> None:
    """Print the table, write the report, and end the run."""
    _show(args, inputs, bench, method, evaluated)
    _write(args, bench, evaluated, as_list=len(evaluated) > 1)
    bench.runtime.close()


def sweep_as_asked(args: argparse.Namespace, inputs: Inputs, method: Method, options: MergeOptions) -> MergeOptions:
    """Evaluate the merges of a sweep in one pass over the images; the options of the best by the average accuracy, the first of equals."""
    if args.out is not None:
        targets_of(inputs, method, args.out, per_model=False, overwrite=args.overwrite)  # which refuses a file that exists, before the work
    points, bench = grid(args.sweep, options, method), open_bench(args, inputs)
    results, sha256 = bench.run(of_points(inputs, method, points, bench.place)), checksums(inputs)
    records = [record_of(inputs, method, point.options, False, sha256) for point in points]
    evaluated = [
        Evaluated(point.label, scores, bench.parameters, {"sweep": point.swept, "merge": record})
        for point, scores, record in zip(points, results, records, strict=True)
    ]
    best = max(range(len(points)), key=lambda number: evaluated[number].average)
    evaluated = [replace(one, details={**one.details, "best": number == best}) for number, one in enumerate(evaluated)]
    _show(args, inputs, bench, method, evaluated)
    bench.runtime.say(_chosen(args, bench, evaluated[best]))
    _write(args, bench, evaluated, as_list=True)
    bench.runtime.close()
    return points[best].options


def _single_models(args: argparse.Namespace, inputs: Inputs, bench: Bench) -> list[Evaluated]:
    if args.include_base and inputs.base is None:
        raise UserError("--include-base: there is no base; name it with --base.")
    sources = [*([inputs.base] if args.include_base and inputs.base else []), *inputs.models]
    results, sha256 = bench.run(bench.place.put(sources)), checksums(inputs)
    return [
        Evaluated(source.name, scores, bench.parameters, {"model": described(source, sha256)})
        for source, scores in zip(sources, results, strict=True)
    ]


def _merges(args: argparse.Namespace, inputs: Inputs, method: Method, options: MergeOptions) -> list[Weights]:
    """The merge, or that of each model, as it was written, or made when it is read."""
    names = [model.name for model in inputs.models] if args.per_model else [method.name]
    if args.out is not None:
        written = targets_of(inputs, method, args.out, args.per_model, overwrite=True)
        return [open_weights(str(target.shown), inputs.reference, name) for target, name in zip(written, names, strict=True)]
    if not args.per_model:
        return [merged(method.name, inputs.pool, method.start(inputs.pool, options))]
    assert method.per_model is not None
    merge = method.per_model(inputs.pool, options)
    return [merged(name, inputs.pool, partial(merge, number)) for number, name in enumerate(names)]


def _show(args: argparse.Namespace, inputs: Inputs, bench: Bench, method: Method | None, evaluated: Sequence[Evaluated]) -> None:
    """Print the accuracies: of one encoder with counts, a line a task; of several a line each."""
    printed = _published(args, inputs, bench, method, evaluated) if args.published else {}
    seen = list(asked_names(args, args.seen))
    bench.runtime.say()
    if len(evaluated) == 1:
        name, numbers = next(iter(printed.items()), ("", None))
        bench.runtime.say(f"{evaluated[0].name}" + (f" (published: {name})" if numbers else ""))
        bench.runtime.say(counts_table(evaluated[0], seen, numbers))
    else:
        columns = list(evaluated[0].accuracies(seen))
        rows: dict[str, Any] = {one.name: one.accuracies(seen) for one in evaluated}
        bench.runtime.say(table(rows | {f"published: {name}": numbers for name, numbers in printed.items()}, columns))
    if args.published:
        bench.runtime.say(f"Published: {published.facts()['source']}." if printed else "Nothing was published of these encoders and tasks.")


def _published(
    args: argparse.Namespace, inputs: Inputs, bench: Bench, method: Method | None, evaluated: Sequence[Evaluated]
) -> dict[str, dict[str, float]]:
    """{what it is: {task: accuracy}} of what was printed of the same merge, or of the same models."""
    tasks, parameters = list(bench.tasks), bench.parameters
    if method is not None:
        found = published.of_method(method.name, parameters, len(inputs.models), tasks, list(asked_names(args, args.seen)))
        return dict([found]) if found else {}
    base = inputs.base.name if inputs.base else None
    names = {one.name: published.PRETRAINED if one.name == base else one.name for one in evaluated}
    of_models = {own: published.of_model(name, parameters, tasks) for own, name in names.items()}
    return {own: numbers for own, numbers in of_models.items() if numbers}


def _chosen(args: argparse.Namespace, bench: Bench, best: Evaluated) -> str:
    """Which merge is best, and how far that may be trusted."""
    told = f"Best on the {args.eval_split} images: {best.name}, average {100 * best.average:.1f}."
    if args.eval_split == "test":
        return f"{told} It was chosen on the images that it is tested on, which is optimistic; --eval-split val chooses on others."
    if args.eval_split == "val" and any("@hub" in task.name for task in bench.tasks.values()):
        return f"{told} The val images of the hub's sets are part of what the released checkpoints were trained on, which is optimistic."
    return told


def _write(args: argparse.Namespace, bench: Bench, evaluated: Sequence[Evaluated], *, as_list: bool) -> None:
    """The report, and beside it the images that could not be read."""
    if args.report is None or not bench.runtime.is_main:
        return
    seen, run = list(asked_names(args, args.seen)), bench.described()
    write_reports(args.report, [make_report(one, bench.tasks, seen, run) for one in evaluated], as_list=as_list)
    skipped = SkippedImages()
    for scores in evaluated[0].scores.values():
        skipped.extend(scores.skipped.entries)
    skipped.write(args.report)
    bench.runtime.say(f"report: {args.report}")
