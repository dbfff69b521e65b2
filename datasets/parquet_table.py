"""Parquet files as tables: which columns hold images and labels, and what the labels are called.

Files written by Hugging Face's ``datasets`` say it in the schema's metadata, key ``huggingface``, as JSON: ``info.features`` has
``{"_type": "Image"}`` for images and ``{"_type": "ClassLabel", "names": [...]}`` for labels. Other files are understood by the types
and names of their columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

IMAGE_NAMES = ("image", "img", "jpg", "png", "webp")  # in this order where several columns hold images
LABEL_NAMES = ("label", "labels", "fine_label", "cls")


def damaged(path: Path, error: Exception) -> UserError:
    """The error for a parquet file that cannot be read."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(" .")
    return UserError(f"'{path}' is not a readable parquet file ({reason}); fetch or write it again.")


def open_parquet(path: Path) -> ParquetFile:
    """The file with its footer read; a :class:`UserError` when it is missing or damaged."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except FileNotFoundError as error:
        raise UserError(f"No such file: '{path}'.") from error
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def _read_column(paths: Sequence[Path], column: str) -> pa.ChunkedArray:
    """One column of several files, one after the other."""
    import pyarrow as pa

    parts = []
    for path in paths:
        try:
            parts += open_parquet(path).read(columns=[column]).column(0).chunks
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from error
    return pa.chunked_array(parts)


def features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face's metadata say of each column; empty without any."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """The names of a column of type ClassLabel."""
    feature = features(schema).get(column)
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return tuple(map(str, names)) if names else None


def image_column(schema: pa.Schema) -> str | None:
    """The column of encoded images: by the metadata, else by its type; None when there is none, or no telling which."""
    holding = [field.name for field in schema if _holds_images(field.type)]
    marked = [name for name in holding if _is_type(schema, name, "Image")]
    return _chosen(marked or holding, IMAGE_NAMES)


def label_column(schema: pa.Schema) -> str | None:
    """The column of labels: by its name, else the only one of type ClassLabel."""
    named = next((name for name in LABEL_NAMES if name in schema.names), None)
    return named or _chosen([name for name in schema.names if class_names(schema, name)], ())


def _chosen(names: Sequence[str], preferred: Iterable[str]) -> str | None:
    return names[0] if len(names) == 1 else next((name for name in preferred if name in names), None)


def _is_type(schema: pa.Schema, column: str, kind: str) -> bool:
    feature = features(schema).get(column)
    return isinstance(feature, dict) and feature.get("_type") == kind


def _holds_images(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        kind = kind.field(place).type if place >= 0 else kind
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def read_texts(paths: Sequence[Path], name: str) -> NDArray[np.object_]:
    """A column of whole numbers, truth values (as ``0`` and ``1``) or text as text; what is missing is empty."""
    import pyarrow as pa

    column = _read_column(paths, name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if not any(suits(column.type) for suits in (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)):
        raise UserError(f"The column '{name}' of '{paths[0]}' is of the type {column.type}; expected whole numbers or texts.")
    texts: NDArray[np.object_] = np.asarray(column.cast(pa.large_string()).fill_null("").to_numpy(), dtype=object)
    return texts
