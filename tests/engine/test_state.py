"""The state of an unfinished run comes back bit for bit, or is refused in one sentence."""

import json
import re

import pytest
import torch
from torch import nn

from common.errors import UserError
from engine.fit import OPTIMIZERS
from engine.state import Progress, load_state, save_state
from models.tensors import read_safetensors, write_safetensors

SETTINGS = {"dataset": "Digits", "lr": 1e-3, "templates": ["a {c}"]}
PROGRESS = Progress(epoch=2, step=3, loss_sum=0.1 + 0.2, best_accuracy=0.5, best_epoch=1, before=0.25, unreadable={"a.png": "empty"})


def training(optimizer, steps):
    """Two parameters after some optimizer steps; one has never had a gradient."""
    torch.manual_seed(0)
    parameters = {name: nn.Parameter(torch.randn(3, 2)) for name in ("tower/weight", "bias")}
    made = OPTIMIZERS[optimizer](list(parameters.values()), 0.1, 0.01)
    for _ in range(steps):
        (parameters["tower/weight"] ** 3).sum().backward()
        made.step()
        made.zero_grad()
    return parameters, made


def save(path, optimizer="AdamW", steps=3, settings=SETTINGS):
    parameters, made = training(optimizer, steps)
    save_state(path, parameters, made, None, PROGRESS, settings)
    return parameters, made


def load(path, optimizer="AdamW", settings=SETTINGS):
    parameters, made = training(optimizer, 0)
    return load_state(path, parameters, made, None, settings), parameters, made


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_was_saved_comes_back_and_goes_on_as_if_nothing_had_been(tmp_path, optimizer):
    path = tmp_path / "state.safetensors"
    save(path, optimizer)
    progress, parameters, made = load(path, optimizer)
    assert progress == PROGRESS
    (parameters["tower/weight"] ** 3).sum().backward()
    made.step()
    uninterrupted, _ = training(optimizer, 4)
    for name, parameter in parameters.items():
        assert torch.equal(parameter, uninterrupted[name])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_state_before_the_first_step(tmp_path, optimizer):
    save(tmp_path / "s.safetensors", optimizer, steps=0)
    _, _, made = load(tmp_path / "s.safetensors", optimizer)
    assert len(made.state) == 0


def test_the_learning_rate_is_not_taken_from_the_state(tmp_path):
    """It is a function of the step (engine.schedule); the groups stay those of the new optimizer."""
    path = tmp_path / "s.safetensors"
    save(path)
    parameters = training("AdamW", 0)[0]
    made = OPTIMIZERS["AdamW"](list(parameters.values()), 0.7, 0.01)
    load_state(path, parameters, made, None, SETTINGS)
    assert made.param_groups[0]["lr"] == 0.7


class Scaler:
    """Stands in for the gradient scaler of fp16, which needs a GPU."""

    def __init__(self, scale):
        self.scale = scale

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]


def test_the_gradient_scaler_comes_back(tmp_path):
    parameters, made = training("SGD", 1)
    save_state(tmp_path / "s.safetensors", parameters, made, Scaler(1024.0), PROGRESS, SETTINGS)
    scaler = Scaler(1.0)
    load_state(tmp_path / "s.safetensors", parameters, made, scaler, SETTINGS)
    assert scaler.scale == 1024.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lr": 1e-4}, "lr = 0.001, not 0.0001"),
        ({"dataset": "DTD"}, "dataset = Digits, not DTD"),
        ({"templates": ["b {c}"]}, "templates = "),
        ({"new": 1}, "new = None, not 1"),
    ],
)
def test_a_state_of_other_settings_is_refused(tmp_path, change, told):
    save(tmp_path / "s.safetensors")
    with pytest.raises(UserError, match=re.escape(f"s.safetensors' belongs to a run with {told}")):
        load(tmp_path / "s.safetensors", settings={**SETTINGS, **change})


def test_a_state_of_other_parameters_is_refused(tmp_path):
    save(tmp_path / "s.safetensors")
    parameters = {"other": nn.Parameter(torch.zeros(3, 2))}
    with pytest.raises(UserError, match="holds other parameters than this run trains"):
        load_state(tmp_path / "s.safetensors", parameters, torch.optim.SGD(parameters.values()), None, SETTINGS)


def test_a_file_of_another_kind_is_refused(tmp_path):
    write_safetensors(tmp_path / "s.safetensors", {"a": torch.zeros(2)})
    with pytest.raises(UserError, match="is not the state of a training run of this version"):
        load(tmp_path / "s.safetensors")


def test_any_damaged_byte_is_found(tmp_path):
    """Bytes all over the file, of the header and of the tensors, each flipped in its lowest bit; and the file cut short."""
    path = tmp_path / "s.safetensors"
    save(path)
    whole = path.read_bytes()
    for position in [*range(0, len(whole), 37), len(whole) - 1]:
        if whole[position] == ord(" "):
            continue  # between header and tensors there may be spaces, which say nothing
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"s\.safetensors'"):
            load(path)
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"s\.safetensors'"):
            load(path)


def test_an_edited_header_is_found(tmp_path):
    path = tmp_path / "s.safetensors"
    save(path)
    tensors, metadata = read_safetensors(path)
    edited = json.loads(metadata["progress"]) | {"best_accuracy": 1.0}
    write_safetensors(path, tensors, metadata | {"progress": json.dumps(edited)})
    with pytest.raises(UserError, match="is damaged or was edited"):
        load(path)
