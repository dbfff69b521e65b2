"""What merge.py does for methods that give a routed encoder: merge, and evaluate the encoder as it is in memory."""

from __future__ import annotations

import argparse
from dataclasses import replace

from common.errors import UserError
from merging.bench import Bench, open_bench
from merging.data import TOWER
from merging.data_command import encoder_pool, open_data, record_of_images, told
from merging.evaluate_command import show_and_write
from merging.inputs import Inputs
from merging.merge import checksums, record_of
from merging.method import Method
from merging.options import MergeOptions
from merging.output import check_no_input
from merging.report import Evaluated
from merging.weights import TensorWeights
from merging.wemoe.assemble import Routed
from merging.wemoe.merge import merge_routed
from merging.wemoe.method import options_for


def check_routed(args: argparse.Namespace, method: Method) -> None:
    """Refuse what a routed encoder does not go with, before a model is opened."""
    if args.out is None:
        raise UserError(f"--out is missing: {method.name} writes a checkpoint of its own form, FILE.safetensors.")
    if args.sweep:
        raise UserError(f"--sweep is over merges into one encoder, and {method.name} gives a routed one; leave --sweep out.")


def routed_as_asked(args: argparse.Namespace, inputs: Inputs, method: Method, options: MergeOptions) -> None:
    """Merge into a routed encoder, write it to --out, and with --evaluate evaluate it."""
    check_no_input(args.out, [*inputs.models, inputs.reference])
    chosen, pool, data = options_for(method.name, options), encoder_pool(args, inputs, method.name), open_data(args, inputs, method)
    inputs = replace(inputs, images=record_of_images(data, method))
    data.runtime.say(told(data, method))
    record = record_of(inputs, method, options, False, checksums(inputs))
    routed, entropies = merge_routed(pool, data, chosen, args.out, record=record, overwrite=args.overwrite)
    learnt = f"mean entropy {entropies[0]:.4f} to {entropies[-1]:.4f}" if entropies else "routers as drawn"
    data.runtime.say(f"{method.name}: {len(routed.merged)} tensors merged, {len(routed.routed)} routed, {learnt}: {args.out}")
    if args.evaluate:
        bench = open_bench(args, inputs)
        show_and_write(args, inputs, bench, method, [replace(evaluate_routed(bench, method.name, routed), details={"merge": record})])


def evaluate_routed(bench: Bench, name: str, routed: Routed) -> Evaluated:
    """The scores of the routed encoder; heads are those of the bench's encoder, whose text tower it has."""
    parameters = sum(tensor.numel() for key, tensor in routed.encoder.model.state_dict().items() if key.startswith(TOWER))
    scores = replace(bench, encoder=routed.encoder, names=()).run([TensorWeights(name, {})])[0]
    return Evaluated(name, scores, parameters, {})
