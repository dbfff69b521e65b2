"""What oti.py and ovi.py do once their arguments are parsed."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.cli import tuning_flags
from common.errors import UserError
from common.stages import stage
from engine.embed import LoadOptions
from engine.results import check_recordable
from engine.runtime import Runtime, start
from inversion.arguments import inversion_options
from inversion.features import native_features
from inversion.items import Items, asked_items, count_cut
from inversion.job import Setting, check_precision, make_job
from inversion.optimise import InversionOptions
from inversion.published import pseudo_patches
from inversion.released_flags import chosen_model
from inversion.run import Job, Tally, batch_size_for, run_job
from models.selection import Selection, select_encoder


def run_command(kind: str, args: Namespace) -> None:
    """Invert what the command line asks for, and validate it where that is asked for too."""
    options = inversion_options(args)
    _check(kind, args, options)
    runtime = start(args.device, args.precision, args.seed)
    check_precision(runtime)
    with stage("data"):
        items = asked_items(kind, args)
    selection = select_encoder(chosen_model(args), args.model_path, tuning_flags(args))
    selection.encoder.to(runtime.device)
    job = _job(kind, runtime, selection, items, options, args)
    tally = run_job(runtime, job, args.items_per_batch or batch_size_for(kind, runtime.device), args.save_frequency, args.overwrite)
    _say_result(runtime, job.folder, tally)
    if args.validate:
        from inversion.validate import validate

        validate(runtime, selection, items, kind, job.hyperparameters["exp_name"], args)
    runtime.close()


def experiment_name(args: Namespace, selection: Selection) -> str:
    """The name of the inversion's folder: as typed, the stem of the configuration file, or the model."""
    if args.exp_name:
        return str(args.exp_name)
    return Path(args.config).stem if args.config else selection.label


def _check(kind: str, args: Namespace, options: InversionOptions) -> None:
    """All that can be told before anything is loaded."""
    _ = options.recorded  # refuses snapshots beyond the last step
    if args.validate:
        check_recordable(args.outfile)
    if args.max_skipped:
        raise UserError(
            "--max-skipped is not for inversions: an image that cannot be read cannot be searched for; replace it, and leave the flag out."
        )
    if kind == "ovi" and args.use_class_names and args.validate:
        raise UserError("--validate searches among texts, and class names are no data set for that; see test.py --class-features ovi.")


def _job(kind: str, runtime: Runtime, selection: Selection, items: Items, options: InversionOptions, args: Namespace) -> Job:
    source, load = selection.encoder.source, LoadOptions.of(args)
    published = pseudo_patches(f"{source.architecture}/{source.pretrained}") if kind == "ovi" else 1
    setting = Setting(kind, args.num_pseudo_tokens or published, args.template_sentence, options)
    targets = partial(_targets, runtime, selection, items, load, args.features)
    return make_job(runtime, selection, items, setting, load, args.outfolder, experiment_name(args, selection), targets)


def _targets(runtime: Runtime, selection: Selection, items: Items, load: LoadOptions, cache: Path) -> NDArray[np.float32]:
    """The native features [N, D] of the items, which their inversions are to meet."""
    if items.n_empty:
        runtime.say(f"{items.n_empty} of {len(items.whole)} texts are empty and left out")
    if items.whole.modality == "text" and runtime.is_main:
        _say_cut(runtime, selection, items)
    runtime.say(f"{items.name} {items.split} {items.side}: encoding {len(items.whole)} {items.whole.modality}s")
    return native_features(runtime, selection, items.whole, items.name, items.split, load, cache)[items.rows]


def _say_cut(runtime: Runtime, selection: Selection, items: Items) -> None:
    if cut := count_cut(selection.encoder, items.collection.texts):
        length = selection.encoder.text_tower.context_length
        runtime.say(f"{cut} of {len(items.collection)} texts fill the context of {length} tokens; what they say behind it is not seen")


def _say_result(runtime: Runtime, folder: Path, tally: Tally) -> None:
    if tally.items:
        n, seconds = tally.items, tally.seconds
        losses = f"mean loss {tally.first / n:.4f} first, {tally.last / n:.4f} last"
        runtime.say(f"{folder}: {n} items, {seconds:.1f} s, {n / seconds:.1f} items/s, {losses}")
