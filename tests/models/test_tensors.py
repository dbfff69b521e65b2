"""Safetensors files: round trip, atomicity, and one test per way in which a file can be wrong."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from models.tensors import read_metadata, read_safetensors, sha256_of_tensors, write_safetensors


def _tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "matrix": torch.randn(7, 5, generator=generator),
        "half": torch.randn(3, generator=generator).to(torch.bfloat16),
        "scalar": torch.tensor(2.5),
        "labels": torch.arange(4),
        "flags": torch.tensor([True, False]),
        "none": torch.empty(0, 3),
    }


def _assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype and torch.equal(tensor, right[name]), name


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "weights.safetensors"
    metadata = {"model": "tiny", "templates": '["a photo of a {}."]', "dash": "–"}
    write_safetensors(path, _tensors(), metadata)
    tensors, read = read_safetensors(path)
    _assert_equal(tensors, _tensors())
    assert read == metadata == read_metadata(path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # no temporary file stays


def test_other_programs_can_read_the_file(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", _tensors())
    _assert_equal(load_file(tmp_path / "a.safetensors"), _tensors())


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    save_file(_tensors(), tmp_path / "a.safetensors")
    tensors, metadata = read_safetensors(tmp_path / "a.safetensors")
    _assert_equal(tensors, _tensors())
    assert metadata == {}


def test_strided_and_shared_tensors_are_written(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"base": base, "again": base, "transposed": base.t(), "row": base[1], "rows": base[:2], "column": base[:, 0]}
    write_safetensors(tmp_path / "a.safetensors", tensors)
    _assert_equal(read_safetensors(tmp_path / "a.safetensors")[0], tensors)


def test_parameters_are_written_without_their_gradient(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"weight": torch.nn.Parameter(torch.ones(3))})
    assert not read_safetensors(tmp_path / "a.safetensors")[0]["weight"].requires_grad


def test_changing_a_tensor_that_was_read_leaves_the_file(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", _tensors())
    read_safetensors(tmp_path / "a.safetensors")[0]["matrix"].zero_()
    _assert_equal(read_safetensors(tmp_path / "a.safetensors")[0], _tensors())


def test_a_tensor_stays_what_it_was_when_its_file_is_replaced(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", _tensors())
    tensors, _ = read_safetensors(tmp_path / "a.safetensors")
    write_safetensors(tmp_path / "a.safetensors", {"matrix": torch.zeros(7, 5)})
    _assert_equal(tensors, _tensors())


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", _tensors())
    with pytest.raises(TypeError):
        write_safetensors(tmp_path / "a.safetensors", _tensors(), {"epoch": 3})  # type: ignore[dict-item]
    _assert_equal(read_safetensors(tmp_path / "a.safetensors")[0], _tensors())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


# sha256_of_tensors


def test_hash_golden_value() -> None:
    """Spelled out by hand: the JSON line of name, type and shape, then the bytes, in sorted order of names."""
    tensors = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[7]], dtype=torch.uint8)}
    by_hand = b'["a", "torch.uint8", [1, 1]]\n\x07["b", "torch.float32", [2]]\n\x00\x00\x80\x3f\x00\x00\x00\x40'
    assert sha256_of_tensors(tensors) == hashlib.sha256(by_hand).hexdigest()


def test_hash_does_not_depend_on_order_or_strides() -> None:
    tensors = _tensors()
    strided = {name: tensors[name] for name in reversed(tensors)} | {"matrix": tensors["matrix"].t().contiguous().t()}
    assert not strided["matrix"].is_contiguous()
    assert sha256_of_tensors(strided) == sha256_of_tensors(tensors)


@pytest.mark.parametrize("change", ["value", "name", "dtype", "shape", "sign of zero"])
def test_hash_depends_on(change: str) -> None:
    before = {"a": torch.zeros(2, 3)}
    after = {
        "value": {"a": torch.zeros(2, 3).index_fill(0, torch.tensor(1), 1e-30)},
        "name": {"b": torch.zeros(2, 3)},
        "dtype": {"a": torch.zeros(2, 3, dtype=torch.int32)},
        "shape": {"a": torch.zeros(3, 2)},
        "sign of zero": {"a": -torch.zeros(2, 3)},
    }
    assert sha256_of_tensors(after[change]) != sha256_of_tensors(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_hash_and_file_do_not_depend_on_the_device(tmp_path: Path) -> None:
    there = {name: tensor.cuda() for name, tensor in _tensors().items()}
    assert sha256_of_tensors(there) == sha256_of_tensors(_tensors())
    write_safetensors(tmp_path / "a.safetensors", there)
    _assert_equal(read_safetensors(tmp_path / "a.safetensors")[0], _tensors())


# Ways to be wrong


def _refused(path: Path, *words: str) -> None:
    for read in (read_safetensors, read_metadata):
        with pytest.raises(UserError) as caught:
            read(path)
        message = str(caught.value)
        assert path.name in message and "\n" not in message
        assert all(word in message for word in words), message


@pytest.mark.parametrize("kept", [0, 4, 8, 60, -1])
def test_truncated_file(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, _tensors())
    path.write_bytes(path.read_bytes()[:kept])
    _refused(path, "truncated or damaged")


def test_garbage_header(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, _tensors())
    data = bytearray(path.read_bytes())
    data[8:40] = b"\xff" * 32
    path.write_bytes(data)
    _refused(path, "truncated or damaged")


@pytest.mark.parametrize("place", [-1, -70])
def test_flipped_bit_in_the_data(tmp_path: Path, place: int) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, _tensors())
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"weights\.safetensors.*checksum"):
        read_safetensors(path)


def test_no_flipped_bit_changes_a_tensor_unnoticed(tmp_path: Path) -> None:
    """Whatever bit is flipped, the tensors are the original ones (the flip hit the metadata) or there is a UserError.

    Every third bit is tried, which touches each byte at least twice.
    """
    path = tmp_path / "weights.safetensors"
    original = {"a": torch.tensor([1.0, -2.0])}
    write_safetensors(path, original, {"model": "tiny"})
    data = path.read_bytes()
    refused = 0
    for bit in range(0, 8 * len(data), 3):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            _assert_equal(read_safetensors(path)[0], original)
        except UserError:
            refused += 1
    assert refused >= 2 * (8 + 8)  # in the length before the header and in the data behind it


def test_pickle(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    torch.save(_tensors(), path)
    _refused(path, "pickle", "save_file")


def test_missing_file(tmp_path: Path) -> None:
    _refused(tmp_path / "weights.safetensors", "No such file")


def test_folder(tmp_path: Path) -> None:
    _refused(tmp_path, "is a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, _tensors())
    path.chmod(0)
    _refused(path, "Cannot read", "Permission denied")


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Cannot create the output folder"):
        write_safetensors(tmp_path / "file" / "a.safetensors", _tensors())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="not writable"):
        write_safetensors(tmp_path / "a.safetensors", _tensors())


def test_full_disk(tmp_path: Path) -> None:
    """The process's limit of file sizes stands in for a disk's end."""
    import resource
    import signal

    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with pytest.raises(UserError, match=r"Cannot write '.*big\.safetensors'"):
            write_safetensors(tmp_path / "big.safetensors", {"a": torch.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
