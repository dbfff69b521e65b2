"""Safetensors files tensor by tensor, against the safetensors library in both directions, and every way to be damaged."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.checksums import sealed
from common.errors import UserError
from merging.stream import DTYPES, Spec, TensorFile, TensorWriter, sha256_of, spec_of
from models.tensors import read_safetensors, sha256_of_tensors

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WRITABLE = [dtype for dtype in DTYPES.values() if dtype not in (torch.uint16, torch.uint32, torch.uint64)]


@st.composite
def models(draw: st.DrawFn) -> dict[str, Tensor]:
    """Tensors of any dtype and shape, empty ones and scalars too, whose bits are drawn."""
    names = draw(st.lists(st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"), unique=True, max_size=6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return {name: _tensor(draw, generator) for name in names}


def _tensor(draw: st.DrawFn, generator: torch.Generator) -> Tensor:
    spec = Spec(tuple(draw(st.lists(st.integers(0, 4), max_size=3))), draw(st.sampled_from(WRITABLE)))
    limit = 2 if spec.dtype == torch.bool else 256
    drawn = torch.randint(limit, (spec.nbytes,), dtype=torch.uint8, generator=generator)
    return drawn.view(spec.dtype).reshape(spec.shape)


def same(one: Tensor, other: Tensor) -> bool:
    """Equal to the bit, NaN included."""
    return spec_of(one) == spec_of(other) and torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, backwards: bool = False) -> None:
    with TensorWriter(path, {name: spec_of(tensor) for name, tensor in tensors.items()}, metadata) as writer:
        for name in reversed(tensors) if backwards else tensors:
            writer.write(name, tensors[name])


@FEW
@given(tensors=models(), metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_what_safetensors_writes_is_read(tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata or None)
    file = TensorFile(path)
    assert file.metadata == metadata
    assert file.specs == {name: spec_of(tensor) for name, tensor in tensors.items()}
    assert all(same(file.read(name), tensor) for name, tensor in tensors.items())


@FEW
@given(tensors=models(), metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), backwards=st.booleans())
def test_what_is_written_safetensors_reads(tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], backwards: bool) -> None:
    path = tmp_path / "x.safetensors"
    write(path, tensors, metadata, backwards)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == sealed(metadata, sha256_of_tensors(tensors))
    found = load_file(path)
    assert found.keys() == tensors.keys()
    assert all(same(found[name], tensor) for name, tensor in tensors.items())
    assert read_safetensors(path)[1] == metadata


@FEW
@given(data=st.data())
def test_a_part_is_a_piece_of_the_flattened_tensor(tmp_path: Path, data: st.DataObject) -> None:
    tensors = {"before": torch.arange(3.0), "x": torch.arange(24.0).view(2, 3, 4).bfloat16()}
    save_file(tensors, tmp_path / "x.safetensors")
    start, stop = sorted(data.draw(st.tuples(st.integers(0, 24), st.integers(0, 24))))
    assert torch.equal(TensorFile(tmp_path / "x.safetensors").read("x", slice(start, stop)), tensors["x"].reshape(-1)[start:stop])


@FEW
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_header_is_one_sentence_or_changes_only_what_it_says(tmp_path: Path, place: int, bit: int) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.randn(3), "b": torch.ones(2, 2, dtype=torch.int32)}, path, {"format": "pt"})
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[place % header] ^= 1 << bit
    path.write_bytes(content)
    try:
        file = TensorFile(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert sum(spec.nbytes for spec in file.specs.values()) == 28
        assert [file.read(name).shape for name in file.specs] == [spec.shape for spec in file.specs.values()]


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of this header, whatever it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), begin: int = 0, end: int = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


DAMAGED = {
    "empty": (b"", "longer than the file"),
    "too short": (b"\x01\x02", "longer than the file"),
    "long header": (raw({}, length=99), "longer than the file"),
    "endless header": (raw(b"{}" + b" " * 50, length=2**63), "longer than the file"),
    "no JSON": (raw(b"{nonsense"), "Expecting"),
    "no UTF-8": (raw(b'{"\xff": 1}'), "utf-8"),
    "deep JSON": (raw(b"[" * 100_000), "recursion"),
    "no object": (raw([1, 2]), "not a JSON object"),
    "metadata of numbers": (raw({"__metadata__": {"a": 1}}), "does not hold strings"),
    "metadata of a list": (raw({"__metadata__": ["a"]}), "does not hold strings"),
    "no dtype": (raw({"a": {"shape": [2], "data_offsets": [0, 8]}}), "'a' lacks its dtype"),
    "no entry": (raw({"a": 3}), "'a' lacks its dtype"),
    "unknown dtype": (raw({"a": entry("F33")}, bytes(8)), "unknown dtype 'F33'"),
    "dtype of a list": (raw({"a": entry(["F32"])}, bytes(8)), "unknown dtype"),
    "negative shape": (raw({"a": entry(shape=[-2])}, bytes(8)), "not whole numbers"),
    "fractional shape": (raw({"a": entry(shape=[2.0])}, bytes(8)), "not whole numbers"),
    "shape of words": (raw({"a": entry(shape="2")}, bytes(8)), "not whole numbers"),
    "boolean shape": (raw({"a": entry(shape=[True, 2])}, bytes(8)), "not whole numbers"),
    "wrong size": (raw({"a": entry(end=12)}, bytes(12)), "offsets of 'a'"),
    "a hole": (raw({"a": entry(), "b": entry(begin=12, end=20)}, bytes(20)), "offsets of 'b'"),
    "an overlap": (raw({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)), "offsets of 'b'"),
    "backwards": (raw({"a": entry(begin=8, end=0)}, bytes(8)), "offsets of 'a'"),
    "truncated data": (raw({"a": entry()}, bytes(7)), "7 bytes of data, not 8"),
    "more data": (raw({"a": entry()}, bytes(9)), "9 bytes of data, not 8"),
    "a name twice": (raw(b'{"a": {}, "a": {}}'), "twice"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_one_sentence(tmp_path: Path, damage: str) -> None:
    content, words = DAMAGED[damage]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is not a whole safetensors file \(.*\); it is truncated or damaged") as caught:
        TensorFile(path)
    assert words in str(caught.value)


def test_absent_files_folders_and_pickles_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No such file: '.*absent.safetensors'"):
        TensorFile(tmp_path / "absent.safetensors")
    with pytest.raises(UserError, match="is a folder; expected a safetensors file"):
        TensorFile(tmp_path)
    torch.save({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="is a PyTorch pickle, not a safetensors file"):
        TensorFile(tmp_path / "x.safetensors")


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(100)}, path)
    file = TensorFile(path)
    os.truncate(path, 200)
    with pytest.raises(UserError, match=r"Cannot read 'a' in '.*': the file has become shorter"):
        file.read("a")


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"earlier")
    with pytest.raises(KeyboardInterrupt), TensorWriter(path, {"a": Spec((2,), torch.float32)}) as writer:
        writer.write("a", torch.ones(2))
        raise KeyboardInterrupt
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("x.safetensors", b"earlier")]


def test_every_tensor_must_come_once_and_as_announced(tmp_path: Path) -> None:
    specs = {"a": Spec((2,), torch.float32), "b": Spec((), torch.int64)}
    with pytest.raises(ValueError, match="'b' and 0 more were never written"), TensorWriter(tmp_path / "x", specs) as writer:
        writer.write("a", torch.ones(2))
    with pytest.raises(ValueError, match="'a' is 2 float32 and comes once"), TensorWriter(tmp_path / "x", specs) as writer:
        writer.write("a", torch.ones(2).double())
    with pytest.raises(ValueError, match="comes once"), TensorWriter(tmp_path / "x", specs) as writer:
        writer.write("a", torch.ones(2))
        writer.write("a", torch.ones(2))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_the_first_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError, match=r"Cannot write '.*x': No space left on device\."):
        TensorWriter(tmp_path / "x", {"a": Spec((2,), torch.float32)}).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.posix_fallocate")
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with pytest.raises(UserError, match=r"Cannot write '.*x': File too large\."):
            write(tmp_path / "x", {"a": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_tensors_are_aligned_for_readers_that_map_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write(path, {"bytes": torch.ones(3, dtype=torch.uint8), "half": torch.ones(3).half(), "wide": torch.ones(3).double()})
    header = int.from_bytes(path.read_bytes()[:8], "little")
    assert header % 8 == 0
    assert list(TensorFile(path).specs) == ["wide", "half", "bytes"]


def test_the_checksum_tells_a_changed_tensor(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write(path, {"a": torch.ones(5)})
    assert TensorFile(path).checksum == sha256_of(TensorFile(path))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x40")
    assert TensorFile(path).checksum != sha256_of(TensorFile(path))
