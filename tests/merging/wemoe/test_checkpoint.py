"""Checkpoints of routed encoders: to the bit and back, and all that can be wrong with one."""

from dataclasses import replace

import pytest
import torch

from common.errors import UserError
from merging.wemoe.checkpoint import restore, save_routed
from models.checkpoint import read_header
from models.loading import load_encoder
from models.tensors import read_safetensors, write_safetensors
from models.tunings import trained_parameters
from tests.merging.wemoe.small import assembled, images

KINDS = {
    "dense": {},
    "released": {"router_layers": 1, "batch_reduce": True},
    "efficient": {"prune_ratio": 0.9, "shared_gate": True, "position_dim": 8, "gate_prune_ratio": 0.5},
}
LAYER = "visual.transformer.resblocks.0.mlp.c_fc.weight"


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def saved(request, small_model, tmp_path_factory):
    routed, _ = assembled(small_model, **request.param)
    path = tmp_path_factory.mktemp("routed") / "routed.safetensors"
    save_routed(path, routed, {"adapt_steps": 7})
    return path, routed


@pytest.fixture(scope="module")
def dense(small_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("dense") / "routed.safetensors"
    save_routed(path, assembled(small_model)[0])
    return path


def loaded(path):
    header = read_header(path)
    encoder = load_encoder(header.model)
    restore(path, encoder, header)
    return encoder


def rewritten(path, changed, target):
    """The file with ``changed`` tensors; None takes one away."""
    tensors, _ = read_safetensors(path)
    tensors = {name: tensor for name, tensor in {**tensors, **changed}.items() if tensor is not None}
    write_safetensors(target, tensors, read_header(path).to_metadata())
    return target


@torch.no_grad()
def test_what_is_loaded_is_what_was_saved(saved):
    path, routed = saved
    encoder = loaded(path)
    own, other = routed.encoder.model.state_dict(), encoder.model.state_dict()
    assert list(own) == list(other)
    assert all(torch.equal(own[name], other[name]) for name in own)
    pixels = images(routed)
    assert torch.equal(encoder.encode_image(pixels), routed.encoder.encode_image(pixels))
    assert list(trained_parameters(encoder)) == list(trained_parameters(routed.encoder))


def test_the_header_says_what_it_is(saved):
    path, routed = saved
    header = read_header(path)
    assert (header.tuning, header.model, header.base_sha256) == ("wemoe", routed.model, routed.base_sha256)
    assert header.options == {**routed.options.structure, "tasks": ["task0", "task1", "task2"]}
    assert header.settings == {"adapt_steps": 7}


def test_pruned_task_vectors_are_stored_as_bits_and_values(small_model, tmp_path):
    routed, pool = assembled(small_model, prune_ratio=0.9)
    save_routed(tmp_path / "sparse.safetensors", routed)
    tensors, _ = read_safetensors(tmp_path / "sparse.safetensors")
    for name in routed.routed:
        numbers = pool.task_vectors(name).numel()
        assert tensors[f"experts/{name}/mask"].nbytes == -(-numbers // 8)
        assert abs(tensors[f"experts/{name}/values"].numel() - numbers / 10) <= 3
        assert f"experts/{name}" not in tensors


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({f"experts/{LAYER}": None}, f"it lacks 'experts/{LAYER}'"),
        ({f"experts/{LAYER}": torch.zeros(2, 3)}, "is 2x3 float32; 3x128x32 float32 is expected"),
        ({"merged/visual.nothing": torch.zeros(1)}, "no place for 'visual.nothing'"),
        ({f"merged/{LAYER}": torch.zeros(128, 32)}, "no place for 'visual.transformer.resblocks.0.mlp.c_fc.weight'"),
        (
            {"router/visual.transformer.resblocks.1.mlp.router.last.bias": None},
            "lacks 'visual.transformer.resblocks.1.mlp.router.last.bias'",
        ),
        ({"other": torch.zeros(1)}, "no place for 'other'"),
    ],
    ids=["no-experts", "shape", "unknown", "mlp-among-merged", "no-router", "left-over"],
)
def test_tensors_that_do_not_fit_are_told(changed, told, dense, tmp_path):
    with pytest.raises(UserError, match=told):
        loaded(rewritten(dense, changed, tmp_path / "other.safetensors"))


def test_values_that_do_not_fit_their_mask_are_told(small_model, tmp_path):
    save_routed(tmp_path / "routed.safetensors", assembled(small_model, prune_ratio=0.9)[0])
    changed = {f"experts/{LAYER}/values": torch.zeros(3)}
    with pytest.raises(UserError, match="there are 3 values"):
        loaded(rewritten(tmp_path / "routed.safetensors", changed, tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    "options",
    [{}, {"tasks": []}, {"tasks": ["a"], "router_layers": 2}, {"tasks": "abc"}],
    ids=["nothing", "no-tasks", "others-lacking", "no-list"],
)
def test_a_damaged_header_is_told(options, dense):
    header = replace(read_header(dense), options=options)
    with pytest.raises(UserError, match=r"The header of .* is damaged"):
        restore(dense, load_encoder(header.model), header)
