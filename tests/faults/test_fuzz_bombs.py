"""Small inputs that claim to be huge: refused in little memory and time, each in a process that may have only so much."""

from __future__ import annotations

import gzip
import io
import json
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests.faults.scale import count, times
from tests.helpers import QUIET, ROOT

MEMORY = 8 << 30  # of addresses, of which torch's libraries take a good part
SECONDS = 60


def png(side: int) -> bytes:
    """A PNG header of ``side`` x ``side`` pixels, and hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def jpeg(side: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">2H", side, side)
    return bytes(content)


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((3, 2)))
    return stream.getvalue().replace(b"(3, 2)", b"(3000000000, 2)")


def tensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    return struct.pack("<Q", len(header)) + header


BOMBS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "png": ("x.png", lambda: png(50_000), "from datasets.image_files import ImageFiles as I; I.of(Path('.'), [b'x.png']).image(0)"),
    "jpeg": ("x.jpg", lambda: jpeg(65_000), "from datasets.image_files import ImageFiles as I; I.of(Path('.'), [b'x.jpg']).image(0, 224)"),
    "npy": ("x.npy", npy, "from engine.label_features import _read_array as r; r(Path('x.npy'))"),
    "gzipped idx": (
        "x.gz",
        lambda: gzip.compress(bytes((0, 0, 8, 3)) + struct.pack(">3I", 4_000_000, 28, 28) + bytes(10_000_000)),
        "from datasets.sources.idx import read_idx as r; r(Path('x.gz'), 3)",
    ),
    "nested json": ("x.json", lambda: b"[" * 10_000_000, "from common.files import read_json as r; r(Path('x.json'))"),
    "long number": ("x.json", lambda: b"9" * 10_000_000, "from common.files import read_json as r; r(Path('x.json'))"),
    "nested toml": ("x.toml", lambda: b"a = " + b"[" * 100_000, "from study.toml_lines import read_toml as r; r(Path('x.toml'))"),
    "csv cell": ("x.csv", lambda: b"a,b\n" + b"x" * 10_000_000 + b",1\n", "from common.files import read_csv as r; r(Path('x.csv'))"),
    "safetensors": ("x.safetensors", tensors, "from models.tensors import read_safetensors as r; r(Path('x.safetensors'))"),
    "safetensors stream": ("x.safetensors", tensors, "from merging.stream import TensorFile as r; r(Path('x.safetensors'))"),
    "header of a safetensors file": (
        "x.safetensors",
        lambda: struct.pack("<Q", 1 << 62) + save({"a": np.ones(2)})[8:],
        "from models.tensors import read_metadata as r; r(Path('x.safetensors'))",
    ),
    "pickle": (
        "x",
        lambda: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40),
        "from datasets.plain_pickle import read_plain_pickle as r; r(Path('x'))",
    ),
}
CODE = """
import sys; sys.path.insert(0, {root!r})
from pathlib import Path
from common.errors import UserError
from datasets.samples import UnreadableImage
try:
    {read}
except (UserError, UnreadableImage) as error:
    print(str(error)[:300]); sys.exit(2)
"""


SLOW = ("npy", "safetensors", "safetensors stream", "header of a safetensors file")  # to start: they import torch


@pytest.mark.parametrize("kind", [kind for kind in BOMBS if kind not in SLOW[: times(3, 0)]])
def test_bombs_are_refused(kind: str, tmp_path: Path) -> None:
    name, content, read = BOMBS[kind]
    (tmp_path / name).write_bytes(content())
    code = CODE.format(root=str(ROOT), read=read.replace("; ", "\n    "))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=QUIET | {"PATH": ""}, preexec_fn=limit, timeout=SECONDS, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr[-2000:]
    assert name.split(".")[0] in ended.stdout
    assert "Traceback" not in ended.stderr
    count("damaged inputs")
