"""The files of an inversion: what was learnt for every item of a collection, and how.

::

    OUTFOLDER/{oti|ovi}/EXP_NAME/{DATASET}_{SPLIT}_{query|gallery|classes}/
        hyperparameters.json          everything that decides the result, and of how many items it is to be
        items-0000000.safetensors     a shard: the items of one or more batches, named by the least of their numbers
        items-0004096.safetensors

A shard holds ``pseudo_tokens`` float32 [n, S, K, width], ``features`` float32 [n, S, D], ``losses`` float32 [n, S], ``curve``
float32 [steps], ``stopped`` int64 [n], ``indices`` int64 [n] and ``digests`` uint8 [n, 32]; its header the items' names, the S
recorded steps and the hyper-parameters. A shard is written when it is finished, so a killed run leaves whole ones. Items are
known again by name and content, never by position.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from common.files import read_json, slug
from datasets.registry import task_slug
from datasets.retrieval.collection import Collection
from inversion.optimise import Inverted
from inversion.published import LEARNING_RATE, SEED, STEPS, TEMPLATE, WEIGHT_DECAY
from models.tensors import read_metadata, read_safetensors, write_safetensors

FORMAT = "clipscope-pseudo-tokens/1"
HYPERPARAMETERS = "hyperparameters.json"
OUTFOLDER = Path("pseudo_tokens")  # by default
TENSORS = ("pseudo_tokens", "features", "losses", "curve", "stopped", "indices", "digests")


@dataclass(frozen=True, eq=False)
class PseudoTokens:
    """The inversion of a whole collection: N items, S recorded steps, the last of which is the final one, in the collection's order.

    ``features`` are unit float32 [N, S, D], of the other modality's encoder; ``losses`` [N, S] are 1 - cosine to the target;
    ``curve`` [steps] is the mean loss over the items before each step; ``digests`` uint8 [N, 32] are the items' contents.
    """

    names: list[str]
    digests: NDArray[np.uint8]
    pseudo_tokens: Tensor
    features: NDArray[np.float32]
    losses: NDArray[np.float32]
    curve: NDArray[np.float32]
    steps: tuple[int, ...]
    hyperparameters: dict[str, Any]

    def rows_for(self, collection: Collection) -> NDArray[np.int64]:
        """Each item's row, int64 [len(collection)]; a :class:`UserError` when any is absent, or was made of other content."""
        row_of = {name: row for row, name in enumerate(self.names)}
        rows = np.fromiter((row_of.get(name, -1) for name in collection.ids), np.int64, len(collection))
        absent = np.flatnonzero(rows < 0)
        changed = np.flatnonzero((rows >= 0) & (self.digests[rows] != collection.digests).any(axis=1))
        if len(absent) or len(changed):
            raise self._others(collection, absent, changed)
        return rows

    def _others(self, collection: Collection, absent: NDArray[np.int64], changed: NDArray[np.int64]) -> UserError:
        of, n = self.hyperparameters, len(collection)
        made = f"{of['kind'].upper()} of {of['dataset']}, {of['split']}, {of['side']}"
        empty = [row for row in absent if collection.modality == "text" and not collection.texts[row].strip()]
        if len(empty) == len(absent) + len(changed):
            how = "empty and cannot be inverted; take them out of the data, or use native features"
            return UserError(f"{made}: {len(empty)} of {n} texts (e.g. '{collection.ids[empty[0]]}') are {how}.")
        wrong = [
            f"{len(found)} of {n} items {what} (e.g. '{collection.ids[found[0]]}')"
            for found, what in ((absent, "were not inverted"), (changed, "have other content than what was inverted"))
            if len(found)
        ]
        return UserError(f"{made}: {' and '.join(wrong)}; invert these data with '{command(of)} --overwrite'.")


def inversion_folder(outfolder: Path, kind: str, exp_name: str, dataset: str, split: str, side: str) -> Path:
    """Where an inversion lies; ``kind`` is ``oti`` or ``ovi``, ``side`` is ``query``, ``gallery`` or ``classes``."""
    return outfolder / kind / slug(exp_name) / f"{task_slug(dataset)}_{split}_{side}"


def command(hyperparameters: Mapping[str, Any], outfolder: Path = OUTFOLDER) -> str:
    """The command that makes, or goes on with, these pseudo-tokens: what is known of them and is not as it is by default."""
    of, kind = hyperparameters, hyperparameters["kind"]
    side = ["--use-class-names"] if of["side"] == "classes" else ["--side", of["side"]]
    words = ["python", f"{kind}.py", "--dataset-name", of["dataset"], "--split", of["split"], *side, "--exp-name", of["exp_name"]]
    model = "checkpoint" if of.get("checkpoint") else "model"
    for key, flag, default in ((model, f"--model-{'path' if model == 'checkpoint' else 'name'}", None), *_flags(kind, of["side"])):
        if of.get(key, default) != default:
            words += [flag, of[key]]
    words += ["--snapshots", *of["snapshots"]] if of.get("snapshots") else []
    words += [word for key, value in (of.get("early_stop") or {}).items() if value is not None for word in (_flag(key), value)]
    words += ["--outfolder", outfolder] if outfolder != OUTFOLDER else []
    return shlex.join(map(str, words))


def _flags(kind: str, side: str) -> Iterator[tuple[str, str, object]]:
    """Key, flag and default of the hyper-parameters that take one value."""
    yield "num_pseudo_tokens", "--num-pseudo-tokens", 1 if kind == "oti" else None  # of OVI the model decides
    yield "steps", f"--{kind}-steps", STEPS[kind]
    yield "template", "--template-sentence", TEMPLATE if kind == "oti" or side == "classes" else "{}"
    for key, default in (("learning_rate", LEARNING_RATE), ("weight_decay", WEIGHT_DECAY), ("seed", SEED)):
        yield key, _flag(key), default


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def save_shard(
    folder: Path, collection: Collection, indices: Sequence[int], inverted: Inverted, hyperparameters: Mapping[str, Any]
) -> Path:
    """Write what was learnt for the items at ``indices`` of ``collection``; atomic, with a checksum. Returns its path."""
    path = folder / f"items-{min(indices):07d}.safetensors"
    tensors = {
        "pseudo_tokens": inverted.pseudo_tokens,
        "features": inverted.features,
        "losses": inverted.losses,
        "curve": inverted.curve,
        "stopped": inverted.stopped,
        "indices": torch.tensor(indices, dtype=torch.int64),
        "digests": torch.from_numpy(collection.digests[list(indices)]),
    }
    header = {
        "format": FORMAT,
        "names": json.dumps([collection.items.sample_id(index) for index in indices], ensure_ascii=False),
        "steps": json.dumps(inverted.steps),
        "hyperparameters": json.dumps(hyperparameters, ensure_ascii=False),
    }
    write_safetensors(path, tensors, header)
    return path


def read_hyperparameters(folder: Path) -> dict[str, Any]:
    """What decided the pseudo-tokens in ``folder``; a :class:`UserError` when there are none, or the file is damaged."""
    path = folder / HYPERPARAMETERS
    if not path.is_file():
        raise UserError(f"No pseudo-tokens in '{folder}'; make them with oti.py (of images) or ovi.py (of texts), or check --exp-name.")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"'{path}' is not of {FORMAT}; make these pseudo-tokens anew with --overwrite.")
    return content


def shards_of(folder: Path) -> list[Path]:
    """The finished shards in ``folder``, by name."""
    return sorted(folder.glob("items-*.safetensors"))


def indices_done(folder: Path) -> set[int]:
    """The numbers of the items that the finished shards in ``folder`` hold; each is read whole, so a damaged one is found now."""
    of = read_hyperparameters(folder)
    return {index for path in shards_of(folder) for index in _of_one_run(path, of)[0]["indices"].tolist()}


def count_done(folder: Path) -> int:
    """How many items the finished shards in ``folder`` hold, by their headers alone."""
    return sum(len(json.loads(read_metadata(path)["names"])) for path in shards_of(folder))


def load_pseudo_tokens(folder: Path) -> PseudoTokens:
    """All shards in ``folder``, as one. Raises :class:`UserError` when there are none, some are missing or damaged, or they disagree."""
    hyperparameters = read_hyperparameters(folder)
    shards = [_of_one_run(path, hyperparameters) for path in shards_of(folder)]
    found, expected = sum(len(tensors["indices"]) for tensors, _ in shards), int(hyperparameters["n_items"])
    if not shards or found < expected:
        raise UserError(f"'{folder}' holds {found} of {expected} items; finish it with '{command(hyperparameters, _outfolder(folder))}'.")
    joined = {name: torch.cat([tensors[name] for tensors, _ in shards]) for name in TENSORS if name != "curve"}
    indices = joined["indices"].numpy()
    _refuse_duplicates(folder, indices)
    order = np.argsort(indices)
    names = [name for _, header in shards for name in json.loads(header["names"])]
    return PseudoTokens(
        [names[row] for row in order],
        joined["digests"].numpy()[order],
        joined["pseudo_tokens"][torch.from_numpy(order)],
        joined["features"].numpy()[order],
        joined["losses"].numpy()[order],
        _mean_curve([tensors for tensors, _ in shards]),
        tuple(json.loads(shards[0][1]["steps"])),
        hyperparameters,
    )


def _outfolder(folder: Path) -> Path:
    """The folder of all inversions that ``folder`` lies in, as :func:`inversion_folder` made it."""
    return folder.parents[2] if len(folder.parents) > 2 else OUTFOLDER


def _refuse_duplicates(folder: Path, indices: NDArray[np.int64]) -> None:
    values, counts = np.unique(indices, return_counts=True)
    if (counts > 1).any():
        number = values[counts > 1][0]
        raise UserError(
            f"'{folder}' holds {(counts > 1).sum()} items in two shards (e.g. item {number}), as two runs at a time would leave; "
            "make it anew with --overwrite."
        )


def _mean_curve(shards: Sequence[Mapping[str, Tensor]]) -> NDArray[np.float32]:
    """The mean over all items of the loss before each step, from the shards' own means."""
    curves = np.stack([tensors["curve"].double().numpy() for tensors in shards])
    sizes = [len(tensors["indices"]) for tensors in shards]
    return np.average(curves, axis=0, weights=sizes).astype(np.float32)  # type: ignore[no-any-return]


def _of_one_run(path: Path, hyperparameters: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors, header = _read_shard(path)
    if json.loads(header["hyperparameters"]) != hyperparameters:
        raise UserError(
            f"'{path}' was made with other hyper-parameters than '{HYPERPARAMETERS}' beside it says; delete it and invert again."
        )
    return tensors, header


def _read_shard(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        tensors, header = read_safetensors(path)
    except UserError as error:
        raise UserError(
            f"{str(error).split(';')[0].rstrip('.')}; delete it and run the inversion again, which makes its items anew."
        ) from error
    if header.get("format") != FORMAT or not tensors.keys() >= set(TENSORS):
        raise UserError(f"'{path}' is not a shard of {FORMAT}; delete it and run the inversion again, which makes its items anew.")
    return tensors, header
