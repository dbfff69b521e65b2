"""Images inside parquet files, as the Hugging Face hub keeps them: a column of ``struct<bytes, path>``, or of plain binary.

Parquet is read a row group at a time, and the hub's row groups hold from a hundred to all of the images. For shuffled training
that is up to a gigabyte read and unpacked for one picture. So each file's images are copied once into an uncompressed Arrow file
(``DATA_DIR/image_cache``, see :mod:`datasets.image_cache`), as large as the images are, which is memory-mapped: any image is then
a copy of its bytes, in any order, and all processes share the pages. On 6000 images of 90 kB (512 MB) one row group took 5, 60
and 940 ms at 100, 1000 and 6000 rows; the copy takes 1 to 2 s once and then gives an image in 8 microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.files import slug
from datasets.image_cache import made_from
from datasets.parquet_table import damaged, open_parquet
from datasets.samples import EncodedSamples

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

ROWS = 128  # images that are copied at a time


@dataclass(frozen=True, eq=False)
class ParquetImages(EncodedSamples):
    """The rows of one or several parquet files, one file after the other. Sample ids are ``file name-row``.

    Of the Arrow files only the names are kept; each process maps those that it reads from.
    """

    files: tuple[str, ...]  # Arrow files
    prefixes: tuple[str, ...]  # of the sample ids, one per file
    ends: NDArray[np.int64]  # where each file's images end

    @classmethod
    def of(cls, parquets: Sequence[Path], column: str, data_dir: Path) -> ParquetImages:
        """The images in ``column`` of the files. Rows without an image are images that cannot be read."""
        rows = [open_parquet(path).metadata.num_rows for path in parquets]
        files = [made_from(path, data_dir, f"-{slug(column)}.arrow", partial(_copy_images, path, column)) for path in parquets]
        return cls(tuple(map(str, files)), tuple(path.stem for path in parquets), np.cumsum(rows, dtype=np.int64))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def _place(self, index: int) -> tuple[int, int]:
        """(file, row) of an image."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        file = int(np.searchsorted(self.ends, index, side="right"))
        return file, index - (int(self.ends[file - 1]) if file else 0)

    def read(self, index: int) -> bytes:
        """See :class:`~datasets.samples.EncodedSamples`."""
        file, row = self._place(index)
        return _mapped(self.files[file])[row].as_py()  # type: ignore[no-any-return]

    def sample_id(self, index: int) -> str:
        """The file's name and the row, e.g. ``train-00000-of-00002-000017``."""
        file, row = self._place(index)
        return f"{self.prefixes[file]}-{row:06d}"


@cache
def _mapped(path: str) -> pa.ChunkedArray:
    """The one column of an Arrow file; nothing is read before it is asked for."""
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(path)).read_all().column(0)


def _copy_images(parquet: Path, column: str, target: Path) -> None:
    import pyarrow as pa

    schema = pa.schema([(column, pa.large_binary())])
    with open_parquet(parquet) as file, pa.OSFile(str(target), "wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        for images in _batches(file, parquet, column):
            writer.write_batch(pa.record_batch([images], schema=schema))


def _batches(file: ParquetFile, parquet: Path, column: str) -> Iterator[pa.Array]:
    """The encoded images, some rows at a time; empty where there is none."""
    import pyarrow as pa
    from pyarrow import compute

    try:
        for batch in file.iter_batches(ROWS, columns=[column]):
            images = batch.column(0)
            if pa.types.is_struct(images.type):
                images = compute.struct_field(images, "bytes")  # unlike field(), knows of rows that are null as a whole
            yield images.cast(pa.large_binary()).fill_null(b"")
    except (pa.ArrowException, OSError) as error:
        raise damaged(parquet, error) from error
