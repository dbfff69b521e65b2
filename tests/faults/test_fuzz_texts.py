"""Damaged tables, JSON and TOML: refused in one sentence, or read as what can be vouched for."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.configs import read_config
from common.files import append_rows, read_csv, read_json, write_json
from engine.embeddings import Embeddings, describe, load_embeddings, save_embeddings
from engine.embeddings_csv import pair_paths
from engine.label_features import _read_array
from fewshot.results import finished
from merging.sources import open_weights
from models.huggingface.config import model_config
from models.loading import load_encoder
from study.cells import FORMAT, read_record
from study.expansion import expand
from study.outcomes_table import read_outcomes, read_scores
from study.plan_file import read_plan
from tests.faults.damage import Reader, attack, files_in
from tests.faults.scale import times
from tests.helpers import ROOT, write_model
from tests.merging import hugging_face as hf


def anything(value: Any) -> None:
    """What has neither checksum nor form of its own can only be whole as text."""
    json.dumps(value, default=str).encode()


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


# --- tables ---------------------------------------------------------------------------------------------------------


def table(folder: Path) -> Reader:
    append_rows(folder / "results.csv", [{"model": "clip", "task": "a, b", "score": "0.5"}, {"model": 'x"y', "task": "é", "score": "1"}])

    def check(rows: list[dict[str, str]]) -> None:
        assert len({tuple(row) for row in rows}) <= 1
        assert all(isinstance(cell, str) for row in rows for cell in row.values())

    return Reader(files_in(folder), lambda at: read_csv(at / "results.csv"), check)


def table_to_add_to(folder: Path) -> Reader:
    """Rows that were there are there afterwards."""
    append_rows(folder / "results.csv", [{"model": "clip", "score": "0.5"}, {"model": "x\ny", "score": "1"}])

    def read(at: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        before = read_csv(at / "results.csv")
        append_rows(at / "results.csv", [{"model": "new", "score": "0.25"}])
        return before, read_csv(at / "results.csv")

    def check(found: tuple[list[dict[str, str]], list[dict[str, str]]]) -> None:
        before, after = found
        assert len(after) == len(before) + 1
        assert all(old.items() <= new.items() for old, new in zip(before, after, strict=False))

    return Reader(files_in(folder), read, check)


def outcomes(folder: Path) -> Reader:
    head = "model,tuning,task,zero_shot_accuracy,accuracy_after,iimm,mean_change_elsewhere"
    put(folder, "outcomes.csv", f"{head}\nclip,full,A,0.5,0.8,0.4,-0.05\nclip,lora,A,0.5,0.9,nan,-0.1\nclip,full,B,0.25,0.75,0.2,\n")

    def check(found: list[Any]) -> None:
        for each in found:
            assert 0 <= each.zero_shot_accuracy < 1
            assert all(math.isfinite(score) for score in each.scores.values())
            assert math.isfinite(each.gain)

    return Reader(files_in(folder), lambda at: read_outcomes(at / "outcomes.csv"), check)


def scores(folder: Path) -> Reader:
    put(folder, "scores.csv", "measure,score,model,finetuning,data,split\niimm,0.3,clip,none,A,train\nIIMM,0.4,clip,none,B,train\n")

    def check(found: dict[Any, dict[str, Any]]) -> None:
        assert all(math.isfinite(known.score) for of in found.values() for known in of.values())

    return Reader(files_in(folder), lambda at: read_scores(at / "scores.csv"), check)


def _pair(folder: Path) -> Path:
    rows = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    metadata = describe(model="clip", dataset="Pets", split="train", classnames=["cat", "dog"], templates=["a photo of a {c}"])
    return save_embeddings(folder / "x", Embeddings(rows[:5], rows[5:], np.arange(5) % 2, list("abcde"), metadata), "csv")


def pair(folder: Path) -> Reader:
    """With the sidecar, whose checksum tells a changed digit."""
    name = _pair(folder).name
    whole = load_embeddings(folder / name)

    def check(found: Embeddings) -> None:
        assert np.array_equal(found.image_embeddings, whole.image_embeddings)
        assert np.array_equal(found.text_embeddings, whole.text_embeddings)
        assert (found.labels == whole.labels).all()

    return Reader(files_in(folder), lambda at: load_embeddings(at / name), check)


def released_pair(folder: Path) -> Reader:
    """Without a sidecar a digit is as good as another."""
    name = _pair(folder).name
    pair_paths(folder / name)[2].unlink()
    (folder / name).with_suffix(".ids.txt").unlink()

    def check(found: Embeddings) -> None:
        assert np.isfinite(found.image_embeddings).all()
        assert np.isfinite(found.text_embeddings).all()
        assert ((found.labels >= 0) & (found.labels < len(found.text_embeddings))).all()
        assert len(found.labels) == len(found.image_embeddings)

    return Reader(files_in(folder), lambda at: load_embeddings(at / name), check)


def array(folder: Path) -> Reader:
    np.save(folder / "features.npy", np.random.default_rng(0).standard_normal((3, 2)))

    def check(found: Any) -> None:
        assert np.isfinite(found).all()

    return Reader(files_in(folder), lambda at: _read_array(at / "features.npy"), check)


# --- JSON -----------------------------------------------------------------------------------------------------------


def plain_json(folder: Path) -> Reader:
    write_json(folder / "x.json", {"a": [1, 2.5, None, True], "b": {"c": "text é"}})
    return Reader(files_in(folder), lambda at: read_json(at / "x.json"), lambda _: None)


def cell_of_a_study(folder: Path) -> Reader:
    """A record that is damaged is done anew."""
    put(folder, "plan.toml", PLAN)
    cell = expand(read_plan(folder / "plan.toml"))[0].cells[0]
    (folder / "plan.toml").unlink()
    record = {"format": FORMAT, "state": "done", "error": None, "inputs_sha256": "0" * 64, "results": {"top1": 0.5}, "provenance": {}}
    path = cell.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)

    def check(found: Any) -> None:
        assert found is None or {"state", "inputs_sha256", "results"} <= found.keys()
        anything(found)

    return Reader(files_in(folder), lambda at: read_record(cell, at), check)


def cell_of_few_shots(folder: Path) -> Reader:
    write_json(folder / "x.json", {"inputs": {"seed": 1}, "accuracy": 0.5})
    return Reader(files_in(folder), lambda at: finished(at / "x.json", {"seed": 1}), anything)


def hugging_face_config(folder: Path) -> Reader:
    write_json(folder / "config.json", hf.CONFIG)

    def check(config: dict[str, Any]) -> None:
        assert config["embed_dim"] > 0
        assert config["vision_cfg"]["layers"] > 0

    return Reader(files_in(folder), model_config, check, names=("config.json",))


def lora(folder: Path) -> Reader:
    module = "encoder.layers.0.self_attn.q_proj"
    tensors = {f"base_model.model.{module}.lora_A.weight": torch.ones(2, 16), f"base_model.model.{module}.lora_B.weight": torch.ones(16, 2)}
    save_file(tensors, folder / "adapter_model.safetensors")
    write_json(folder / "adapter_config.json", {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"q_proj": 2}})
    return _updates(folder, ("adapter_config.json",))


def _updates(folder: Path, damage: tuple[str, ...]) -> Reader:
    from merging.weights import TensorWeights

    base = TensorWeights("base", hf.vision(hf.clip(0)))

    def read(at: Path) -> Any:
        weights = open_weights(str(at), base).weights
        return {name: weights.read(name) for name in weights.specs}

    def check(found: dict[str, torch.Tensor]) -> None:
        assert all(tensor.isfinite().all() for tensor in found.values() if tensor.is_floating_point())

    return Reader(files_in(folder), read, check, damage, names=("adapter", "LoRA", "DoRA", "tmp"))


def index(folder: Path) -> Reader:
    places = {"a.w": "model-1-of-2.safetensors", "a.b": "model-2-of-2.safetensors"}
    for name, file in places.items():
        save_file({name: torch.ones(2)}, folder / file)
    write_json(folder / "model.safetensors.index.json", {"weight_map": places})

    def read(at: Path) -> Any:
        weights = open_weights(str(at / "model.safetensors.index.json")).weights
        return {name: weights.read(name) for name in weights.specs}

    def check(found: dict[str, torch.Tensor]) -> None:
        assert found.keys() == places.keys()

    return Reader(files_in(folder), read, check, ("model.safetensors.index.json",), names=("model-", "index", "No such file"))


# --- TOML -----------------------------------------------------------------------------------------------------------

PLAN = """title = "A small one"
models = ["tiny"]
tasks = ["Digits",
         "Shapes-Color"]
seeds = [0, 7]
measures = ["iimm"] # of the paper
val_p = 0.2

[training]
epochs = 2
optimizer = "AdamW"
lr = [1e-3, 1e-4]

[tunings.small_lora]
tuning = "lora"
rank = [2, 4]
"""


def plan(folder: Path) -> Reader:
    put(folder, "plan.toml", PLAN)
    return Reader(files_in(folder), lambda at: [unit.name for unit in expand(read_plan(at / "plan.toml"))], anything)


def merging_plan(folder: Path) -> Reader:
    put(folder, "plan.toml", (ROOT / "plans" / "merging_tiny.toml").read_text(encoding="utf-8"))
    return Reader(files_in(folder), lambda at: [unit.name for unit in expand(read_plan(at / "plan.toml"))], anything)


def preset(folder: Path) -> Reader:
    put(folder, "preset.toml", 'model_name = "clip"\nsteps = 150\nlr = 2e-2\nplain = true\nnames = ["a", "b"]\n')
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model-name")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--names", nargs="+", choices=["a", "b"])
    return Reader(files_in(folder), lambda at: {of.dest: value for of, value in read_config(at / "preset.toml", parser).items()}, anything)


KINDS = [table, table_to_add_to, outcomes, scores, pair, released_pair, array, plain_json, cell_of_a_study, cell_of_few_shots]
KINDS += [hugging_face_config, lora, index, plan, merging_plan, preset]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_damaged_texts(kind: Callable[[Path], Reader], tmp_path: Path) -> None:
    attack(kind(tmp_path), times(30, 800))


def test_damaged_model_folder(tmp_path: Path) -> None:
    """The configuration of an open_clip model, which open_clip itself reads."""
    folder = write_model(tmp_path / "model")
    config = folder / "open_clip_config.json"
    reader = Reader(
        files_in(folder), lambda at: load_encoder(f"local-dir:{at}"), lambda _: None, (config.name,), names=("local-dir:", config.name)
    )
    attack(reader, times(6, 60))
