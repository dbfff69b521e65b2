"""Images inside tar archives: the shards of WebDataset.

Files that stand one after the other and share their name up to the first dot of its last part are one sample: ``a/0017.jpg``,
``a/0017.cls``. The label is the text of ``.cls``, else the entry ``label`` of ``.json``; ``.txt`` is a caption and no label.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.image_cache import made_from
from datasets.samples import EncodedSamples

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")
Row = tuple[str, int, int, str]  # key, offset and size of the image, text of the label


@dataclass(frozen=True, eq=False)
class TarImages(EncodedSamples):
    """Images by their places in the shards: read by one seek, no archive is unpacked. Sample ids are ``shard/key``."""

    shards: tuple[str, ...]
    prefixes: tuple[str, ...]  # of the sample ids, one per shard
    ends: NDArray[np.int64]  # where each shard's samples end
    offsets: NDArray[np.int64]  # in the shard, in bytes
    sizes: NDArray[np.int64]
    keys: Any  # an Arrow array of text: one buffer, where a list would be a million objects

    def __len__(self) -> int:
        return len(self.offsets)

    def _shard(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return int(np.searchsorted(self.ends, index, side="right"))

    def read(self, index: int) -> bytes:
        """See :class:`~datasets.samples.EncodedSamples`."""
        with Path(self.shards[self._shard(index)]).open("rb") as stream:
            stream.seek(int(self.offsets[index]))
            data = stream.read(int(self.sizes[index]))
        if len(data) < self.sizes[index]:
            raise OSError("the shard has become shorter")
        return data

    def sample_id(self, index: int) -> str:
        """See :class:`~datasets.samples.Samples`."""
        return f"{self.prefixes[self._shard(index)]}/{self.keys[index].as_py()}"


def read_shards(shards: Sequence[Path], prefixes: Sequence[str], data_dir: Path) -> tuple[TarImages, NDArray[np.object_]]:
    """(samples, texts of the labels) of all shards. Each shard is looked through once; its index is kept in the image cache."""
    import pyarrow as pa
    from pyarrow import feather

    tables = [feather.read_table(made_from(shard, data_dir, "-tar.arrow", partial(_write_index, shard))) for shard in shards]
    index = pa.concat_tables(tables).combine_chunks()
    samples = TarImages(
        tuple(str(shard.absolute()) for shard in shards),
        tuple(prefixes),
        np.cumsum([table.num_rows for table in tables], dtype=np.int64),
        np.array(index.column("offset").to_numpy()),
        np.array(index.column("size").to_numpy()),
        pa.concat_arrays(index.column("key").chunks),
    )
    return samples, np.asarray(index.column("label").to_numpy(), dtype=object)


def _write_index(shard: Path, target: Path) -> None:
    import pyarrow as pa
    from pyarrow import feather

    columns = list(zip(*_rows(shard), strict=True))
    if not columns:
        raise UserError(f"'{shard}' holds no image; expected files such as KEY.jpg and KEY.cls.")
    schema = pa.schema({"key": pa.large_string(), "offset": pa.int64(), "size": pa.int64(), "label": pa.large_string()}.items())
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    feather.write_feather(pa.table(arrays, schema=schema), target)


def _rows(shard: Path) -> Iterator[Row]:
    """The samples of a shard, in its order."""
    seen: set[str] = set()
    with shard.open("rb") as stream:
        for key, members in groupby(_members(shard, stream), lambda member: _key_and_extension(member.name)[0]):
            if key in seen:
                raise UserError(f"'{shard}' holds the sample '{key}' twice; the files of a sample must stand one after the other.")
            seen.add(key)
            parts = {_key_and_extension(member.name)[1]: member for member in members}
            if row := _row(shard, stream, key, parts):
                yield row


def _row(shard: Path, stream: Any, key: str, parts: dict[str, tarfile.TarInfo]) -> Row | None:
    images = [parts[extension] for extension in EXTENSIONS if extension in parts]
    label = _label(shard, stream, key, parts)
    if not images and not label:
        return None  # notes of whoever made the shard
    if len(images) != 1 or not label:
        found = f"{len(images)} images" if len(images) != 1 else "no label"
        expected = f"expected one image and a label, '{key}.cls' or \"label\" in '{key}.json'"
        raise UserError(f"'{shard}' has {found} for the sample '{key}'; {expected}.")
    return key, images[0].offset_data, images[0].size, label


def _label(shard: Path, stream: Any, key: str, parts: dict[str, tarfile.TarInfo]) -> str:
    """The text of the label; empty without any."""
    try:
        if "cls" in parts:
            return _content(stream, parts["cls"]).strip()
        value = json.loads(_content(stream, parts["json"])).get("label") if "json" in parts else None
    except (ValueError, AttributeError) as error:
        raise UserError(f"The label of the sample '{key}' in '{shard}' is not readable ({error}).") from error
    return "" if value is None else str(int(value) if isinstance(value, bool) else value)


def _content(stream: Any, member: tarfile.TarInfo) -> str:
    stream.seek(member.offset_data)
    return stream.read(member.size).decode("utf-8")  # type: ignore[no-any-return]


def _key_and_extension(name: str) -> tuple[str, str]:
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def _members(shard: Path, stream: Any) -> Iterator[tarfile.TarInfo]:
    """The files in a shard. ``tarfile`` ends quietly where a header is damaged; the end must be a block of zeros instead."""
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps them all
                position = stream.tell()
                if member.isfile() and not _is_hidden(member.name):
                    yield member
                stream.seek(position)
            stream.seek(archive.offset)  # type: ignore[attr-defined]
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it has no end")
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"'{shard}' is cut off, damaged, or no uncompressed tar archive ({error}); fetch or unpack it again.") from error


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".") or "__MACOSX/" in name
