"""Merge fine-tuned encoders into one; evaluate encoders and merges; or look at task vectors.

    python merge.py --list
    python merge.py --method task_arithmetic --base tiny --models a.safetensors b.safetensors --out merged.safetensors
    python merge.py --method ties --base openai/clip-vit-base-patch32 --models tanganke/clip-vit-base-patch32_{sun397,dtd} --out merged
    python merge.py --method task_arithmetic --scaling -0.5 --base tiny --models a.safetensors --out forgot.safetensors
    python merge.py --method regmean --base tiny --models a.safetensors b.safetensors --tasks Digits Shapes-Kind --out merged.safetensors
    python merge.py --method task_arithmetic --base tiny --models a.safetensors b.safetensors --evaluate Digits Shapes-Kind \\
        --sweep scaling=0.1:1.0:0.1 --out best.safetensors
    python merge.py --base tiny --models a.safetensors b.safetensors --evaluate Digits Shapes-Kind
    python merge.py --base tiny --models a.safetensors b.safetensors --cosine cosine.csv --norms norms.csv --count

Models are safetensors files (of anything), Hugging Face folders and hub ids, checkpoints of clipscope, LoRA and L-LoRA folders of PEFT,
and names of models, mixed freely. Most methods need no data and work tensor by tensor, in little memory; the others look at images of
every model's task. The result has the base's form: with a base like tiny it is a checkpoint that every command takes as --model-path.
Of a CLIP only the vision encoder is merged, all else is the base's, unless --towers both.
Methods that learn (adamerging, concrete, wemoe) keep their state beside --out, else beside --save-weights or --report, until all is
written: stopped in any way, the same command goes on from there, to the same result.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from common.cli import Parser, run
from common.errors import UserError, unknown_name
from merging.arguments import add_merge_arguments, flag_of, options_of
from merging.data_arguments import add_data_aware_arguments, check_data_flags
from merging.evaluate_arguments import add_evaluation_arguments, check_flags

if TYPE_CHECKING:
    from collections.abc import Mapping

    from merging.inputs import Inputs
    from merging.method import Method
    from merging.options import MergeOptions
    from merging.resuming import StateFile


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    add_merge_arguments(parser)
    add_data_aware_arguments(parser)
    add_evaluation_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Look and merge as the command line says."""
    args = parse_arguments()
    if args.list:
        return list_methods()
    method, options = choose_method(args)
    check(args, method, options)
    from merging.inputs import open_inputs

    inputs = open_inputs(args.base, args.models, args.towers, args.only)
    for remark in inputs.remarks:
        print(f"merge.py: {remark}", file=sys.stderr)
    look(args, inputs)
    if method is not None and method.routed:
        from merging.wemoe.command import routed_as_asked

        return routed_as_asked(args, inputs, method, options)
    states: Mapping[MergeOptions, StateFile] = {}
    if method is not None and method.start_with_data is not None:
        from merging.data_command import with_images
        from merging.resuming import states_of

        states = states_of(args, method, options)
        inputs, method = with_images(args, inputs, method, options)
    merge_and_evaluate(args, inputs, method, options)
    for state in states.values():
        state.remove()


def check(args: argparse.Namespace, method: Method | None, options: MergeOptions) -> None:
    """All that can be told before a model is opened."""
    check_looks(args)
    check_flags(args, method)
    check_data_flags(args, method)
    if method is not None and method.routed:
        from merging.wemoe.command import check_routed

        check_routed(args, method)
    if args.evaluate:
        from merging.evaluate_command import check_evaluation

        check_evaluation(args, method, options)


def merge_and_evaluate(args: argparse.Namespace, inputs: Inputs, method: Method | None, options: MergeOptions) -> None:
    """Sweep, write and evaluate, whichever is asked for; what is written is the best of a sweep."""
    if method is not None and args.sweep:
        from merging.evaluate_command import sweep_as_asked

        options = sweep_as_asked(args, inputs, method, options)
    if method is not None and args.out is not None:
        merge_asked(args, inputs, method, options)
    if args.evaluate and not args.sweep:
        from merging.evaluate_command import evaluate_as_asked

        evaluate_as_asked(args, inputs, method, options)


def list_methods() -> None:
    """One paragraph for each method."""
    from merging.table import METHODS

    for method in METHODS.values():
        print(f"{method.name:<22} {method.description}")
        reads = ", ".join(map(flag_of, method.reads)) or "none"
        print(f"{'':<22} {method.paper}; data: {method.data}; options: {reads}")


def choose_method(args: argparse.Namespace) -> tuple[Method | None, MergeOptions]:
    """The method that is asked for, if one is, and its options; all that can be told before a model is opened is told here."""
    from merging.table import METHODS

    if args.method is None:
        options = options_of(args, "looking at models", (), images=bool(args.evaluate))
        if args.out or args.per_model:
            raise UserError("--out and --per-model are for merging; name a --method (--list shows them).")
        if not (args.cosine or args.norms or args.count or args.evaluate):
            raise UserError("Nothing to do: name a --method (--list shows them), or --evaluate, --cosine, --norms or --count.")
    elif args.method not in METHODS:
        raise unknown_name("method", args.method, METHODS)
    else:
        method = METHODS[args.method]
        options = options_of(args, method.name, method.reads, images=bool(args.evaluate) or method.data != "none")
        if args.out is None and not args.evaluate:
            raise UserError("--out is missing; name the file of the merged model, or --evaluate it.")
    if not args.models:
        raise UserError("--models is missing; name the models, e.g. --models a.safetensors b.safetensors.")
    return METHODS.get(args.method), options


def check_looks(args: argparse.Namespace) -> None:
    """Refuse, before the work, files that are no CSV tables or exist."""
    for flag, path in (("--cosine", args.cosine), ("--norms", args.norms)):
        if path is not None and path.suffix != ".csv":
            raise UserError(f"{flag} '{path}' does not end in .csv.")
        if path is not None and path.exists() and not args.overwrite:
            raise UserError(f"'{path}' exists; --overwrite replaces it.")


def look(args: argparse.Namespace, inputs: Inputs) -> None:
    """The analyses that are asked for."""
    from common.files import write_text
    from merging import analysis

    names = [model.name for model in inputs.models]
    if (args.cosine or args.norms) and inputs.base is None:
        raise UserError("--cosine and --norms are of task vectors, which need a base; name it with --base.")
    if args.count:
        print(analysis.counts(inputs))
    if args.cosine:
        similarities = analysis.cosine_similarities(inputs.pool)
        write_text(args.cosine, analysis.cosine_csv(names, similarities))
        for suffix in (".pdf", ".png"):
            analysis.draw_cosine(args.cosine.with_suffix(suffix), names, similarities)
        print(f"cosine similarities: {args.cosine}")
    if args.norms:
        write_text(args.norms, analysis.norms_csv(names, analysis.norms(inputs.pool)))
        print(f"norms: {args.norms}")


def merge_asked(args: argparse.Namespace, inputs: Inputs, method: Method, options: MergeOptions) -> None:
    """Merge, and say what it took."""
    from common.provenance import peak_memory_mib
    from merging.merge import merge

    merged = merge(inputs, method, options, args.out, per_model=args.per_model, overwrite=args.overwrite)
    where = args.out if len(merged.paths) == 1 else f"{len(merged.paths)} in {args.out}"
    print(
        f"{method.name}: {merged.tensors} tensors merged, {merged.nbytes / 1e6:.1f} MB written in {merged.seconds:.1f} s, "
        f"peak memory {peak_memory_mib()['process']} MiB: {where}"
    )


if __name__ == "__main__":
    run(main)
