"""Embeddings in parts: a data set cut into N runs of its order, each a file of its own, that are read as one.

``NAME.part-00003-of-00016.safetensors`` is an embeddings file of its samples (its ``fingerprint`` is theirs), with two things more:
the header's ``part``, which says where in the data set it belongs and which of its images could not be read, and the tensor
``sample_digests`` uint8 [n, 32], the hash of each sample's content. From digests, ids and labels of all parts follows the fingerprint
of the whole, the one that an undivided run writes, without any image being read again.

Part k of N holds the samples from floor(n (k - 1) / N) up to floor(n k / N) of n, so sizes differ by at most one and depend on
nothing else. That parts belong together is told by what made them and by ``listing``, the hash of all n ids and labels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.fingerprint import DIGEST_BYTES, Fingerprint

PART = "part"  # the header's key
NAME = re.compile(r"(?P<stem>.+)\.part-(?P<number>\d+)-of-(?P<of>\d+)\.safetensors", re.DOTALL)
NUMBERS_TOLD = 20  # of missing parts; of more, only how many
SAME = {  # what all parts have in common, and its name
    **{"checkpoint_sha256": "weights", "tuning": "tuning", "dataset": "data set", "split": "split", "classnames": "class names"},
    **{"templates": "prompts", "precision": "precision", "decode": "decoding"},
}


class UnreadableSample(NamedTuple):
    """A sample without embedding: its position in the whole data set, id and label, and why it could not be read."""

    position: int
    sample_id: str
    label: int
    reason: str


@dataclass(frozen=True)
class Place:
    """Part ``number``, counted from 1, ``of`` so many, of ``whole`` samples whose ids and labels have the hash ``listing``."""

    number: int
    of: int
    whole: int
    listing: str
    unreadable: tuple[UnreadableSample, ...] = ()

    @property
    def samples(self) -> range:
        """Which samples of the whole are in it, the unreadable ones included."""
        return range(self.whole * (self.number - 1) // self.of, self.whole * self.number // self.of)

    @property
    def n_images(self) -> int:
        """How many of them have an embedding."""
        return len(self.samples) - len(self.unreadable)

    def metadata(self) -> dict[str, str]:
        """For the header of the part's file."""
        extent = {"first_index": self.samples.start, "n_samples": len(self.samples)}  # follows from the rest; for other readers
        return {PART: json.dumps(asdict(self) | extent)}


def part_path(main: Path, number: int, of: int) -> Path:
    """The file of part ``number`` of the embeddings called ``main`` (``NAME.safetensors``)."""
    return main.with_name(f"{main.stem}.part-{number:05d}-of-{of:05d}.safetensors")


def whole_path(path: Path) -> Path | None:
    """The name of the whole, of which the file is a part; None where its name is not that of a part."""
    name = NAME.fullmatch(path.name)
    return path.with_name(f"{name['stem']}.safetensors") if name else None


def parts_at(path: Path) -> list[Path]:
    """The parts that ``path`` stands for, by number; none where the file itself is there."""
    return [] if path.exists() else parts_beside(path)


def is_there(path: Path) -> bool:
    """Whether ``path`` can be read, as a file or as parts, of which some may be missing."""
    return path.exists() or bool(parts_beside(path))


def parts_beside(path: Path) -> list[Path]:
    """The parts of the embeddings called ``path``, by number."""
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        return []
    names = ((NAME.fullmatch(found.name), found) for found in path.parent.iterdir())
    return [found for _, found in sorted((int(name["number"]), found) for name, found in names if name and name["stem"] == path.stem)]


def named_as_wholes(files: Sequence[Path]) -> list[Path]:
    """The files, each once; several parts of one data set, as ``*`` names them, stand for all of it. One part is that part alone."""
    wholes = [whole_path(file) for file in dict.fromkeys(files)]
    named = (whole if whole and wholes.count(whole) > 1 else file for file, whole in zip(dict.fromkeys(files), wholes, strict=True))
    return list(dict.fromkeys(named))


def check_names(main: Path, parts: Sequence[Path]) -> None:
    """A :class:`UserError` unless by their names the ``parts`` are 1 to N of one N."""
    names = [NAME.fullmatch(path.name) for path in parts]
    numbers, totals = [int(name["number"]) for name in names if name], sorted({int(name["of"]) for name in names if name})
    if len(totals) > 1:
        raise UserError(
            f"Beside '{main}' there are parts of {totals[0]} and parts of {totals[1]}; they do not belong together, delete those of one."
        )
    missing = sorted({*range(1, totals[0] + 1)} - {*numbers})
    if missing:
        told = " ".join(map(str, missing[:NUMBERS_TOLD]))
        only = f" --part {told}" if len(missing) <= NUMBERS_TOLD else ""
        lost = f"part {told} is" if len(missing) == 1 else f"{len(missing)} parts are"
        raise UserError(
            f"'{main}' is in {totals[0]} parts, of which {lost} missing; "
            f"run the get_embeddings.py command that made the others with --parts {totals[0]}{only}."
        )


def place_of(path: Path, metadata: Mapping[str, str]) -> Place:
    """What the header of a part says; a :class:`UserError` where it says nothing or something else than the file's name."""
    try:
        facts = json.loads(metadata[PART])
        lost = tuple(UnreadableSample(int(position), str(name), int(label), str(why)) for position, name, label, why in facts["unreadable"])
        place = Place(int(facts["number"]), int(facts["of"]), int(facts["whole"]), str(facts["listing"]), lost)
        if not (1 <= place.number <= place.of <= place.whole and all(one.position in place.samples for one in lost)):
            raise ValueError("there is no such place")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' does not say which part of a data set it is; make it again with --overwrite.") from error
    name = NAME.fullmatch(path.name)
    if name is not None and (int(name["number"]), int(name["of"])) != (place.number, place.of):
        raise UserError(f"'{path}' says of itself that it is part {place.number} of {place.of}; it was renamed or copied, make it again.")
    return place


def check_one_run(headers: Mapping[Path, Mapping[str, str]]) -> list[Place]:
    """Where the parts belong; a :class:`UserError` names the first that was not made from what the one before all others was."""
    places = [place_of(path, metadata) for path, metadata in headers.items()]
    (first, facts), *others = headers.items()
    for (path, metadata), place in zip(others, places[1:], strict=True):
        differing = [name for key, name in SAME.items() if metadata.get(key) != facts.get(key)]
        if (place.whole, place.listing) != (places[0].whole, places[0].listing):
            differing.append("images (their number, ids, order or labels)")
        if differing:
            raise UserError(
                f"'{path}' and '{first.name}' are of different {' and '.join(differing)}; make one of them again with --overwrite."
            )
    return places


class WholeFingerprint:
    """The fingerprint of the whole from its parts, which are added in order."""

    def __init__(self) -> None:
        self._whole = Fingerprint()

    def add(
        self, path: Path, metadata: Mapping[str, str], ids: Sequence[str], labels: NDArray[np.int64], digests: NDArray[np.uint8] | None
    ) -> None:
        """Add a part; a :class:`UserError` when what it holds does not have the fingerprint that its header names."""
        place, own = place_of(path, metadata), Fingerprint()
        whole = digests is not None and (digests.dtype, digests.shape) == (np.uint8, (len(place.samples), DIGEST_BYTES))
        if digests is None or not whole or not len(ids) == len(labels) == place.n_images:
            raise UserError(f"'{path}' lacks sample ids or digests of its {len(place.samples)} samples; make it again with --overwrite.")
        for (name, label), digest in zip(_all_samples(place, ids, labels), digests, strict=True):
            own.add(name, label, digest.tobytes())
            self._whole.add(name, label, digest.tobytes())
        if own.hexdigest() != metadata.get("fingerprint"):
            raise UserError(f"'{path}' is damaged or was edited: its samples do not have its fingerprint; make it again with --overwrite.")

    def hexdigest(self) -> str:
        """As ``Task.fingerprint`` of the undivided data set."""
        return self._whole.hexdigest()


def _all_samples(place: Place, ids: Sequence[str], labels: NDArray[np.int64]) -> Iterator[tuple[str, int]]:
    """Id and label of every sample of a part, those that have no embedding at their places."""
    lost = {one.position: (one.sample_id, one.label) for one in place.unreadable}
    read = zip(ids, labels.tolist(), strict=True)
    for position in place.samples:
        yield lost[position] if position in lost else next(read)


def metadata_of_whole(headers: Sequence[Mapping[str, str]], places: Sequence[Place], fingerprint: str) -> dict[str, str]:
    """The header of an undivided run: facts of the first part, sums of seconds and unreadable images; ``parts`` is new."""
    whole = {key: value for key, value in headers[0].items() if key != PART}
    return whole | {
        "fingerprint": fingerprint,
        "created": max(metadata.get("created", "") for metadata in headers),
        "embedding_seconds": f"{sum(_seconds(metadata) for metadata in headers):.3f}",
        "n_skipped": str(sum(len(place.unreadable) for place in places)),
        "parts": str(len(headers)),
    }


def _seconds(metadata: Mapping[str, str]) -> float:
    try:
        return float(metadata.get("embedding_seconds") or "nan")
    except ValueError:
        return float("nan")
