"""What damaging files at random has found, one test for each defect."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from common.checksums import KEY, sealed, unsealed
from common.configs import read_config
from common.errors import LONGEST, UserError
from common.files import read_json, write_json
from datasets.downloads.entries import Download, Item
from datasets.downloads.unpack import TornArchive, unpack
from datasets.plain_pickle import read_plain_pickle
from datasets.registry import load_task
from datasets.sources.mat_files import read_mat
from datasets.sources.ucf101 import _actions
from engine.label_features import _read_array
from merging.sources import open_weights
from models.checkpoint import load_checkpoint
from models.loading import load_encoder
from models.tensors import read_metadata, write_safetensors
from models.zoo import resolve
from study.cells import FORMAT, read_record
from study.toml_lines import read_toml
from tests.datasets.sources.listed_copies import car_annotations
from tests.faults.damage import memory_limit
from tests.helpers import write_model

PATH = Path("x.safetensors")


def test_a_sentence_stays_on_its_line_and_is_no_book() -> None:
    assert str(UserError("'a\nb\x1b[31m\u2028' is not there.")) == r"'a\nb\x1b[31m\u2028' is not there."
    long = str(UserError(f"'x.csv' has the split '{'x' * 10**6}'; expected train."))
    assert len(long) < LONGEST + 10
    assert long.startswith("'x.csv' has the split 'xx")
    assert long.endswith("xx'; expected train.")


def test_metadata_come_back_with_the_checksum_of_the_tensors() -> None:
    metadata = {"scale": "0.2", "name": "é"}
    assert unsealed(PATH, sealed(metadata, "0" * 64)) == (metadata, "0" * 64)
    assert unsealed(PATH, {**metadata, KEY: "1" * 64}) == (metadata, "1" * 64)  # as earlier versions wrote it
    assert unsealed(PATH, metadata) == (metadata, None)  # as others write files


@pytest.mark.parametrize("change", [{"scale": "0.3"}, {"more": ""}, {KEY: "0"}, {KEY: f"{'0' * 64}+{'0' * 64}"}])
def test_changed_metadata_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"'x.safetensors' is damaged or was edited: its metadata"):
        unsealed(PATH, sealed({"scale": "0.2"}, "0" * 64) | change)


def test_a_damaged_key_of_the_checksum_is_no_file_from_elsewhere() -> None:
    whole = sealed({"scale": "0.2"}, "0" * 64)
    with pytest.raises(UserError, match="damaged"):
        unsealed(PATH, {"scale": "0.3", "tensors_sha257": whole[KEY]})


@pytest.mark.parametrize("at", [20, 60, 64, 65, 69, 100])
def test_a_key_of_the_checksum_that_took_a_piece_of_it_away_too(at: int) -> None:
    seal = sealed({"scale": "0.2"}, "0" * 64)[KEY]
    start, rest = seal[:at], seal[at:]
    with pytest.raises(UserError, match="damaged"):
        unsealed(PATH, {"scale": "0.3", f"tensors_sha25{rest}6": start})


def test_a_flipped_bit_in_a_hyper_parameter(tmp_path: Path) -> None:
    path = tmp_path / PATH
    write_safetensors(path, {"a": torch.ones(2)}, {"lora_scale": "0.2"})
    path.write_bytes(path.read_bytes().replace(b'"0.2"', b'"0.3"'))
    with pytest.raises(UserError, match=f"'{path}' is damaged"):
        read_metadata(path)


def test_a_pickle_that_asks_for_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(b"\x80\x02\x81.")
    with pytest.raises(UserError, match=f"'{path}'"):
        load_checkpoint(path, model="tiny")


@pytest.mark.parametrize("text", ["[" * 10**5, "9" * 5000])
def test_json_and_toml_without_end(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    (tmp_path / "x.toml").write_text(f"a = {text}")
    for read in (
        lambda: read_json(tmp_path / "x.json"),
        lambda: read_toml(tmp_path / "x.toml"),
        lambda: read_config(tmp_path / "x.toml", argparse.ArgumentParser()),
    ):
        with pytest.raises(UserError, match=r"x\.(json|toml)"):
            read()


def test_an_array_whose_header_is_no_python(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones((2, 3)))
    path.write_bytes(path.read_bytes().replace(b"'fortran_order'", b"[[[[[[[[[[[[[[["))
    with pytest.raises(UserError, match=f"'{path}' is not a readable .npy array"):
        _read_array(path)


def test_a_zip_archive_whose_member_begins_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/a.txt", "a")
    content = path.read_bytes()
    path.write_bytes(content[40:])
    items = (Item("mine/a.txt", "set/a.txt"),)
    with pytest.raises(TornArchive, match=f"'{path}' cannot be unpacked"):
        unpack(path, Download("http://x/a.zip", items), items, tmp_path / "data")


def test_an_action_without_words(tmp_path: Path) -> None:
    (tmp_path / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 x,x\n")
    with pytest.raises(UserError, match=r"'x,x' is no action in words"):
        _actions("UCF101", tmp_path / "classInd.txt")


def test_every_flipped_bit_of_a_matlab_file(tmp_path: Path) -> None:
    """One in sixty ended the process inside scipy."""
    path = tmp_path / "annotations.mat"
    car_annotations(path, ["a.jpg"], [1])
    whole = path.read_bytes()
    for bit in range(8 * 124, 8 * len(whole), 7):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            read_mat("Cars", path, "annotations")
        except UserError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("without", ["state", "error", "inputs_sha256", "results"])
def test_a_record_of_a_study_that_lacks_a_part_is_made_anew(tmp_path: Path, without: str) -> None:
    cell: Any = SimpleNamespace(path=lambda out: out / "x.json")
    record = {"format": FORMAT, "state": "done", "error": None, "inputs_sha256": "0", "results": {"top1": 0.5}}
    write_json(tmp_path / "x.json", record)
    assert read_record(cell, tmp_path) == record
    del record[without]
    write_json(tmp_path / "x.json", record)
    assert read_record(cell, tmp_path) is None


def test_a_configuration_with_a_strange_key(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["embed_diM"] = config["model_cfg"].pop("embed_dim")
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"Cannot load 'local-dir:"):
        load_encoder(f"local-dir:{folder}")


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p2147483647\n"])
def test_a_pickle_with_a_place_for_billions(put: bytes, tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(b"}" + put + b".")
    with memory_limit(), pytest.raises(UserError, match=r"batch' is no whole pickle of plain data \(place 2147483647\)"):
        read_plain_pickle(tmp_path / "batch")


@pytest.mark.parametrize("name", ["", ".", "a/b", "a\nb"])
def test_an_index_with_a_shard_of_a_strange_name(name: str, tmp_path: Path) -> None:
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"a": name}})
    with pytest.raises(UserError, match=r"index.json' names '.*' as a shard, which is no safetensors file"):
        open_weights(str(tmp_path / "model.safetensors.index.json"))


def test_a_name_too_long_for_a_file() -> None:
    with pytest.raises(UserError, match="Unknown model 'aaa"):
        resolve("a" * 300)


def test_a_name_that_no_folder_can_have() -> None:
    with pytest.raises(UserError, match="Unknown data set"):
        load_task("[" * 5000, "test")
