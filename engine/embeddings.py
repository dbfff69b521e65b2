"""The embeddings file: unit image vectors, text vectors, labels, sample ids, and how all of it came about.

``NAME.safetensors`` holds the tensors ``image_embeddings`` float32 [N, D], ``text_embeddings`` float32 [C, D] and
``labels`` int64 [N]; its header holds the metadata, all strings (see :data:`KEYS`). Sample ids stand one per line in
``NAME.ids.txt``. The CSV pair of the released IIMM code (:mod:`engine.embeddings_csv`) is written on request, with its
metadata in a JSON sidecar, and read as well, from that code too. No torch here: reading starts fast.

Large data sets are embedded in parts (:mod:`engine.embedding_parts`): where ``NAME.safetensors`` is not there but its parts are,
:func:`load_embeddings` reads them as one, and :class:`PartedEmbeddings` one after the other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from common.checksums import KEY, sealed, unsealed
from common.errors import CannotWrite, UserError
from common.files import read_json, replacing, write_json
from common.provenance import now, versions
from common.stages import staged
from engine.embedding_parts import WholeFingerprint, check_names, check_one_run, metadata_of_whole, parts_at, parts_beside
from engine.embeddings_csv import IMAGE_PART, Pair, pair_paths, read_pair, write_pair

FORMAT = "clipscope-embeddings/1"
KEYS = (
    *("format", "model", "tuning", "checkpoint_sha256", "dataset", "split", "fingerprint"),
    *("classnames", "templates", "precision", "created", "versions"),
)
TENSORS = {"image_embeddings": "F32", "text_embeddings": "F32", "labels": "I64"}
DIGESTS = "sample_digests"  # uint8 [n, 32], of a part only
READ_AT_ONCE = 1 << 24  # bytes
UNTUNED = "none"  # the ``tuning`` of an encoder as it was published
# Checksums are added on writing, verified and taken out on reading: neither format would notice a flipped bit.
TENSORS_SHA256, IDS_SHA256 = KEY, "ids_sha256"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One task seen by one encoder. ``sample_ids`` is empty where they are not known; ``metadata`` has :data:`KEYS`.

    Of a part of a data set ``sample_digests`` uint8 [n, 32] are the hashes of all its samples, those that could not be read included.

    Raises ValueError when the arrays are not float32 [N, D], float32 [C, D] and int64 [N] with labels in ``range(C)``, or
    hold a value that is not finite.
    """

    image_embeddings: NDArray[np.float32]
    text_embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    sample_ids: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    sample_digests: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        _check_matrix("image_embeddings", self.image_embeddings)
        _check_matrix("text_embeddings", self.text_embeddings)
        if self.image_embeddings.shape[1] != self.text_embeddings.shape[1]:
            widths = f"{self.image_embeddings.shape[1]} dimensions, text_embeddings {self.text_embeddings.shape[1]}"
            raise ValueError(f"image_embeddings have {widths}")
        _check_labels(self.labels, len(self.image_embeddings), len(self.text_embeddings))
        _check_count("sample ids", self.sample_ids, len(self.labels), "image")
        _check_count("class names", self.classnames, len(self.text_embeddings), "class")

    @property
    def classnames(self) -> list[str]:
        """The names of the C classes; empty where they are not known."""
        return _json_list(self.metadata, "classnames")

    @property
    def templates(self) -> list[str]:
        """The prompt templates; empty where they are not known."""
        return _json_list(self.metadata, "templates")


def describe(
    *,
    model: str,
    dataset: str,
    split: str,
    classnames: Sequence[str],
    templates: Sequence[str],
    tuning: str = UNTUNED,
    checkpoint_sha256: str = "",
    fingerprint: str = "",
    precision: str = "fp32",
    **extra: str,
) -> dict[str, str]:
    """The metadata of new embeddings: these facts, the format, the time and the versions of what computes."""
    return {
        "format": FORMAT,
        "model": model,
        "tuning": tuning,
        "checkpoint_sha256": checkpoint_sha256,
        "dataset": dataset,
        "split": split,
        "fingerprint": fingerprint,
        "classnames": json.dumps(list(classnames), ensure_ascii=False),
        "templates": json.dumps(list(templates), ensure_ascii=False),
        "precision": precision,
        "created": now(),
        "versions": json.dumps(versions()),
        **extra,
    }


@staged("write")
def save_embeddings(path: Path, embeddings: Embeddings, format: Literal["safetensors", "csv"] = "safetensors") -> Path:
    """Write ``embeddings`` and return the path of the main file (of a CSV pair, the image file).

    ``path`` may be given without a suffix or with that of the other format. Each file is replaced atomically, the main
    file last. Raises ValueError when a key of :data:`KEYS` is missing, UserError when a file cannot be written.
    """
    missing = [key for key in KEYS if key not in embeddings.metadata]
    if missing:
        raise ValueError(f"metadata without {', '.join(missing)}; make it with describe()")
    main = embeddings_path(path, format)
    tensors = {name: np.ascontiguousarray(getattr(embeddings, name)) for name in TENSORS}
    metadata = {**embeddings.metadata, "format": FORMAT, IDS_SHA256: _write_ids(_ids_path(main), embeddings.sample_ids)}
    metadata = sealed(metadata, _sha256_of_tensors(tensors))
    if format == "csv":
        write_json(pair_paths(main)[2], metadata)
        write_pair(main, Pair(**tensors, classnames=embeddings.classnames or _numbers(len(embeddings.text_embeddings))))
    else:
        digests = {} if embeddings.sample_digests is None else {DIGESTS: embeddings.sample_digests}
        _write_safetensors(main, tensors | digests, metadata)
    return main


def load_embeddings(path: Path) -> Embeddings:
    """Read an embeddings file of either format; a UserError in one sentence names the file that is not one.

    Where there is no such file, but its parts, they are read as one; the file of one part is read as that part alone.
    A CSV pair without our metadata sidecar may hold rows of any length, since the released code wrote those of some
    models as they came: they are normalised, and the metadata then has ``normalised`` = ``when read``.
    """
    if parts_at(path):
        return PartedEmbeddings(path).load()
    if _is_csv(path):
        path = pair_paths(path)[0]
        tensors, metadata = _read_pair(path)
    else:
        tensors, metadata = _read_safetensors(path)
    expected, ids_sha256 = metadata.pop(TENSORS_SHA256, None), metadata.pop(IDS_SHA256, None)
    try:
        embeddings = Embeddings(**tensors, sample_ids=_read_ids(_ids_path(path), ids_sha256), metadata=metadata)
    except ValueError as error:
        raise UserError(f"'{path}' is not a valid embeddings file: {error}.") from error
    if expected is not None and expected != _sha256_of_tensors({name: tensors[name] for name in TENSORS}):
        raise UserError(
            f"'{path}' is damaged or was edited: its numbers do not have the checksum that was written with them; make it again."
        )
    return embeddings


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata alone; of a safetensors file only the header is read, which also tells a truncated file.

    Of a data set in parts it is that of the whole, whose fingerprint takes the ids, labels and digests of all parts.

    Raises UserError as :func:`load_embeddings` does, less what only the numbers can tell. What the name of a file of the
    released code does not tell is ``""``.
    """
    if parts_at(path):
        return PartedEmbeddings(path).read_metadata()
    metadata = _pair_metadata(pair_paths(path)[0]) if _is_csv(path) else _read_safetensors(path, ())[1]
    return {key: value for key, value in metadata.items() if key not in (TENSORS_SHA256, IDS_SHA256)}


class PartedEmbeddings:
    """The parts of the embeddings called ``path``, read one after the other; raises UserError unless all are there.

    In memory are at most two of them, the one before and the one that is read. ``metadata`` is that of an undivided run; it is
    known when all parts have been read.
    """

    def __init__(self, path: Path) -> None:
        parts = parts_beside(path)
        if not parts:
            raise UserError(f"No such file: '{path}'.")
        check_names(path, parts)
        self.headers = {part: read_metadata(part) for part in parts}
        self.places = check_one_run(self.headers)
        self.metadata: dict[str, str] = {}

    @property
    def n_images(self) -> int:
        """N, of all parts."""
        return sum(place.n_images for place in self.places)

    def __iter__(self) -> Iterator[Embeddings]:
        """Every part, checked."""
        fingerprint, shape = WholeFingerprint(), None
        for path in self.headers:
            part = load_embeddings(path)
            fingerprint.add(path, part.metadata, part.sample_ids, part.labels, part.sample_digests)
            shape = shape or part.text_embeddings.shape
            if part.text_embeddings.shape != shape:
                raise UserError(f"'{path}' has text embeddings of another shape than the parts before it; make it again with --overwrite.")
            yield part
        self.metadata = metadata_of_whole([*self.headers.values()], self.places, fingerprint.hexdigest())

    def load(self) -> Embeddings:
        """All parts as one; needs the memory of the whole and of one part."""
        images, texts, labels, ids = np.empty((0, 0), np.float32), None, np.empty(self.n_images, np.int64), list[str]()
        for part in self:
            if texts is None:
                images, texts = np.empty((self.n_images, part.image_embeddings.shape[1]), np.float32), part.text_embeddings
            rows = slice(len(ids), len(ids) + len(part.labels))
            images[rows], labels[rows] = part.image_embeddings, part.labels
            ids += part.sample_ids
        assert texts is not None
        return Embeddings(images, texts, labels, ids, self.metadata)

    def read_metadata(self) -> dict[str, str]:
        """:attr:`metadata` without reading the embeddings."""
        fingerprint = WholeFingerprint()
        for path, metadata in self.headers.items():
            tensors, header = _read_safetensors(path, ("labels", DIGESTS))
            ids = _read_ids(_ids_path(path), header.get(IDS_SHA256))
            fingerprint.add(path, metadata, ids, tensors["labels"], tensors.get(DIGESTS))
        return metadata_of_whole([*self.headers.values()], self.places, fingerprint.hexdigest())


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def embeddings_path(path: Path, format: str) -> Path:
    """The main file for ``path`` without or with a suffix: ``NAME.safetensors``, or the image file of a CSV pair."""
    stem = path.with_suffix("") if path.suffix in (".safetensors", ".csv") else path
    if format == "safetensors":
        return stem.with_name(f"{stem.name}.safetensors")
    return stem.with_name(f"{stem.name if IMAGE_PART in stem.name else f'{stem.name}_{IMAGE_PART}'}.csv")


def _write_safetensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: dict[str, str]) -> None:
    with replacing(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata)
        except SafetensorError as error:  # a full disk arrives as this, not as an OSError
            raise CannotWrite(f"Cannot write '{path}': {error}.") from error


def _read_safetensors(path: Path, names: Collection[str] = (*TENSORS, DIGESTS)) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    _check_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = _unsealed(path, file.metadata() or {})
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            _check_header(path, metadata, types)
            return {name: _tensor(file, name) for name in names if name in types}, metadata
    except (SafetensorError, OSError) as error:
        raise UserError(f"'{path}' is not a whole safetensors file ({error}); it is truncated or damaged, make it again.") from error


def _tensor(file: Any, name: str) -> NDArray[Any]:
    """A tensor, some rows at a time: read at once, it would be in memory twice for a moment."""
    rows = file.get_slice(name)
    shape = rows.get_shape()
    if not shape or not shape[0]:
        return np.asarray(file.get_tensor(name))
    first = rows[:1]
    step = max(1, READ_AT_ONCE // max(1, first.nbytes))
    whole = np.empty(shape, first.dtype)
    for start in range(0, shape[0], step):
        whole[start : start + step] = rows[start : min(start + step, shape[0])]
    return whole


def _unsealed(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata, once they are those that were written, with the checksum of the tensors alone."""
    rest, expected = unsealed(path, metadata)
    return rest if expected is None else {**rest, TENSORS_SHA256: expected}


def _check_header(path: Path, metadata: Mapping[str, str], types: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        found = f"has the format '{metadata['format']}'" if metadata.get("format") else "does not say its format"
        raise UserError(f"'{path}' {found}; expected an embeddings file of format '{FORMAT}', as get_embeddings.py writes.")
    for name, expected in TENSORS.items():
        if name not in types:
            raise UserError(f"'{path}' has no tensor '{name}'; it is not a whole embeddings file.")
        if types[name] != expected:
            raise UserError(f"'{path}' has '{name}' as {types[name]}; expected {expected}.")


def _read_pair(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    metadata = _pair_metadata(path)
    pair = read_pair(path)
    tensors: dict[str, NDArray[Any]] = {name: getattr(pair, name) for name in TENSORS}
    if TENSORS_SHA256 not in metadata:
        metadata["classnames"] = json.dumps(pair.classnames, ensure_ascii=False)
        for name in ("image_embeddings", "text_embeddings"):
            tensors[name], changed = _unit_rows(tensors[name])
            metadata |= {"normalised": "when read"} if changed else {}
    return tensors, metadata


def _pair_metadata(path: Path) -> dict[str, str]:
    """From the JSON sidecar; of a pair of the released code, from its name ``MODEL_DATASET_image_embeddings[_zs].csv``."""
    image_path, text_path, sidecar = pair_paths(path)
    _check_file(image_path)
    _check_file(text_path)
    if sidecar.exists():
        metadata = read_json(sidecar)
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise UserError(f"'{sidecar}' is not the metadata of embeddings: expected a JSON object of strings.")
        _check_header(sidecar, metadata, TENSORS)
        return _unsealed(sidecar, metadata)
    name, _, end = image_path.stem.rpartition(IMAGE_PART)
    model, underscore, dataset = name.rstrip("_").partition("_")
    known = {"format": FORMAT, "model": model if underscore else "", "dataset": dataset or model, "tuning": UNTUNED if end == "_zs" else ""}
    return {**dict.fromkeys(KEYS, ""), **known}


def _unit_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], bool]:
    """The rows at length 1, and whether any was not so (to 0.001, the tolerance of the measures)."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all() or (np.abs(lengths - 1) <= 1e-3).all():
        return rows, False
    return (rows / lengths).astype(np.float32), True


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"'{path}' is a folder; expected an embeddings file." if path.is_dir() else f"No such file: '{path}'.")


def _ids_path(main: Path) -> Path:
    return main.with_suffix(".ids.txt")


def _write_ids(path: Path, sample_ids: Sequence[str]) -> str:
    """One id per line, line ends within an id escaped; returns the SHA-256 of the file, '' when no id is known."""
    if not sample_ids:
        path.unlink(missing_ok=True)
        return ""
    lines = (name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") for name in sample_ids)
    content = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _read_ids(path: Path, expected: str | None) -> list[str]:
    """The ids of a sidecar, none when there is no such file; ``expected`` is the SHA-256 that the main file knows."""
    if not path.exists():
        return []
    content = path.read_bytes()
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise UserError(f"The sample ids in '{path}' are not those of the embeddings beside it; make both again.")
    lines = content.decode(errors="surrogateescape").split("\n")[:-1]
    if b"\\" not in content:
        return lines
    escapes = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
    return [re.sub(r"\\[\\nr]", lambda match: escapes[match[0]], line) for line in lines]


def _sha256_of_tensors(tensors: Mapping[str, NDArray[Any]]) -> str:
    """The same digest as ``models.tensors.sha256_of_tensors``, without torch."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(json.dumps([name, f"torch.{array.dtype}", list(array.shape)]).encode() + b"\n")
        digest.update(array.view(np.uint8).data)
    return digest.hexdigest()


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _json_list(metadata: Mapping[str, str], key: str) -> list[str]:
    try:
        values = json.loads(metadata.get(key) or "[]")
    except json.JSONDecodeError as error:
        raise ValueError(f"its {key} are not JSON") from error
    if not isinstance(values, list):
        raise ValueError(f"its {key} are not a JSON list")
    return [str(value) for value in values]


def _check_matrix(name: str, rows: NDArray[Any]) -> None:
    if rows.dtype != np.float32 or rows.ndim != 2 or not rows.size:
        raise ValueError(f"{name} is {rows.dtype} of shape {list(rows.shape)}, expected float32 with two dimensions and at least one row")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} has a value that is not finite in row {int(np.argmin(np.isfinite(rows).all(axis=1)))}")


def _check_labels(labels: NDArray[Any], count: int, classes: int) -> None:
    if labels.dtype != np.int64 or labels.shape != (count,):
        raise ValueError(f"labels is {labels.dtype} of shape {list(labels.shape)}, expected int64 of shape [{count}]")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise ValueError(f"image {wrong[0]} has the label {labels[wrong[0]]}, expected one in 0..{classes - 1}")


def _check_count(what: str, values: Sequence[str], count: int, each: str) -> None:
    if values and len(values) != count:
        raise ValueError(f"it has {len(values)} {what}, expected {count}, one for each {each}")
