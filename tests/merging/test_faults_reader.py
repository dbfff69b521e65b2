"""Bytes at random, and whole files damaged at random: refused in one sentence, or read as the safetensors library reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load, save

from common.errors import UserError
from merging.stream import DTYPES, TensorFile, spec_of, write_tensors

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).view(2, 3),
    "b": torch.ones(3, dtype=torch.float16),
    "c": torch.tensor(7, dtype=torch.int64),
    "d": torch.zeros(0, 4),
}
WHOLE = save(TENSORS, {"format": "pt"})
HEADER = 8 + int.from_bytes(WHOLE[:8], "little")


def check(folder: Path, content: bytes) -> bool:
    """Read a file; whether it was accepted. What is accepted, the safetensors library must read to the same bits, and we can write."""
    path = folder / "x.safetensors"
    path.write_bytes(content)
    try:
        file = TensorFile(path)
        found = {name: file.read(name) for name in file.specs}
    except UserError as error:
        assert str(path) in str(error)
        assert "truncated or damaged" in str(error) or "PyTorch pickle" in str(error)
        return False
    expected = load(content)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert spec_of(found[name]) == spec_of(tensor)
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
    write_tensors(folder / "again.safetensors", found, file.metadata)
    assert TensorFile(folder / "again.safetensors").specs == file.specs
    return True


def raw(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


numbers = st.one_of(st.integers(-1, 12), st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**30, 1.5, True, None, "2"]))
values = st.recursive(
    st.one_of(numbers, st.text(max_size=3), st.sampled_from([float("nan"), float("inf"), "\ud800"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
metadata = st.one_of(values, st.sampled_from([0, False, "", [], {}, {"a": "\ud800"}, {"\ud800": "a"}, {"a": 1}]))
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from([*DTYPES, "F4", "f32"]), values),
        "shape": st.one_of(st.lists(numbers, max_size=4), values),
        "data_offsets": st.one_of(st.lists(numbers, min_size=1, max_size=3), values),
        "more": values,
    },
)
names = st.one_of(st.text(max_size=4), st.sampled_from(["__metadata__", "\ud800", "\n", "a" * 300]))


@seed(0)
@MANY
@given(content=st.binary(max_size=120))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    check(tmp_path, content)


@seed(1)
@MANY
@given(metadata=metadata)
def test_any_metadata(tmp_path: Path, metadata: Any) -> None:
    check(tmp_path, raw({"__metadata__": metadata}, b""))


@seed(5)
@MANY
@given(header=st.one_of(values, st.dictionaries(names, st.one_of(entries, values), max_size=3)), data=st.binary(max_size=24))
def test_any_header(tmp_path: Path, header: Any, data: bytes) -> None:
    check(tmp_path, raw(header, data))


@seed(2)
@MANY
@given(changes=st.lists(st.tuples(st.integers(0, HEADER - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_bytes_of_the_header_changed(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE)
    for place, value in changes:
        content[place] = value
    check(tmp_path, bytes(content))


@seed(3)
@MANY
@given(start=st.integers(0, len(WHOLE)), length=st.integers(1, 40), put=st.binary(max_size=8))
def test_pieces_lost_and_put_in(tmp_path: Path, start: int, length: int, put: bytes) -> None:
    check(tmp_path, WHOLE[:start] + put + WHOLE[start + length :])


@seed(4)
@MANY
@given(shape=st.lists(st.sampled_from([0, 1, 2, 3, 2**31, 2**32, 2**62, 2**63, 2**64]), max_size=5), dtype=st.sampled_from(["F32", "U8"]))
def test_shapes_of_any_size(tmp_path: Path, shape: list[int], dtype: str) -> None:
    check(tmp_path, raw({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}}, b""))


def test_every_flipped_bit_of_the_header(tmp_path: Path) -> None:
    """A flip that is accepted can only be in a name, in the metadata, or turn a dtype or shape into another of the same size."""
    accepted = 0
    for place in range(0, 8 * HEADER, 5):
        content = bytearray(WHOLE)
        content[place // 8] ^= 1 << place % 8
        accepted += check(tmp_path, bytes(content))
    assert 0 < accepted < 8 * HEADER // 10


def test_every_length(tmp_path: Path) -> None:
    assert [length for length in range(len(WHOLE) + 1) if check(tmp_path, WHOLE[:length])] == [len(WHOLE)]


def test_the_library_refuses_what_is_refused_here_for_its_shape() -> None:
    with pytest.raises(SafetensorError):
        load(raw({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 0]}}, b""))
