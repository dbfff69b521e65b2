"""LoRA folders folded into plain weights, against the layers that they stand for; and folders that are not whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.func import jvp

from common.errors import UserError
from merging.sources import open_weights
from merging.sources.naming import to_open_clip
from merging.sources.source import Source
from merging.weights import TensorWeights
from tests.merging import hugging_face as hf

R, ALPHA = 3, 6
Q, FC1 = "encoder.layers.0.self_attn.q_proj", "encoder.layers.1.mlp.fc1"
CONFIG = {"peft_type": "LORA", "r": R, "lora_alpha": ALPHA, "target_modules": ["q_proj", "fc1"]}
SHAPES = {Q: (16, 16), FC1: (24, 16)}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def lora(shapes: dict[str, tuple[int, ...]], rank: int = R) -> hf.Tensors:
    """A and B of every module."""
    return {
        f"{module}.lora_{letter}.weight": draw(*shape, seed=number)
        for number, (module, (rows, columns)) in enumerate(shapes.items())
        for letter, shape in (("A", (rank, columns)), ("B", (rows, rank)))
    }


def write(folder: Path, tensors: hf.Tensors, prefix: str = "base_model.model.", name: str = "adapter_model", **config: Any) -> str:
    folder.mkdir()
    save_file({prefix + key: tensor for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return str(folder)


def base(spelling: int | None = None) -> TensorWeights:
    """A whole CLIP, or its vision tower in one of the spellings."""
    return TensorWeights("base", hf.clip(0) if spelling is None else hf.vision(hf.clip(0), spelling))


def difference(source: Source, over: TensorWeights) -> hf.Tensors:
    """What was added to each weight that is not the base's any more, by canonical names."""
    found = {name: source.read(name) - over.read(name) for name in over.specs}
    assert source.specs == over.specs
    return {name.removeprefix("vision_model."): moved for name, moved in found.items() if moved.any()}


@pytest.mark.parametrize("spelling", [4, 5, None])
@pytest.mark.parametrize("prefix", ["base_model.model.", "base_model.model.vision_model."])
def test_a_lora_is_added_to_the_vision_tower(tmp_path: Path, spelling: int | None, prefix: str) -> None:
    update, over = lora(SHAPES), base(spelling)
    moved = difference(open_weights(write(tmp_path / "x", update, prefix), over), over)
    assert set(moved) == {f"{module}.weight" for module in SHAPES}
    for module in SHAPES:
        expected = ALPHA / R * update[f"{module}.lora_B.weight"] @ update[f"{module}.lora_A.weight"]
        torch.testing.assert_close(moved[f"{module}.weight"], expected, rtol=0, atol=1e-5)


def test_a_lora_goes_under_the_names_of_open_clip(tmp_path: Path) -> None:
    update, over = lora({Q: (16, 16)}), base()
    under = TensorWeights("open", {name: to_open_clip(over).read(name) for name in to_open_clip(over).specs})
    moved = difference(open_weights(write(tmp_path / "x", update), under), under)
    (packed,) = moved.values()
    assert set(moved) == {"visual.transformer.resblocks.0.attn.in_proj_weight"}
    expected = ALPHA / R * update[f"{Q}.lora_B.weight"] @ update[f"{Q}.lora_A.weight"]
    torch.testing.assert_close(packed[:16], expected, rtol=0, atol=1e-5)
    assert not packed[16:].any()


SCALES: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "rank stabilised": ({"use_rslora": True}, {Q: ALPHA / R**0.5, FC1: ALPHA / R**0.5}),
    "patterns of alpha": ({"alpha_pattern": {"fc1": 30, "layers.0.self_attn.k_proj": 90}}, {Q: ALPHA / R, FC1: 30 / R}),
    "patterns of the whole name": ({"alpha_pattern": {r"encoder\.layers\.\d\.mlp\.fc1": 30}}, {Q: ALPHA / R, FC1: 30 / R}),
}


@pytest.mark.parametrize("how", SCALES)
def test_scales_are_those_of_the_configuration(tmp_path: Path, how: str) -> None:
    config, scales = SCALES[how]
    update, over = lora(SHAPES), base()
    moved = difference(open_weights(write(tmp_path / "x", update, **config), over), over)
    for module, scale in scales.items():
        expected = scale * update[f"{module}.lora_B.weight"] @ update[f"{module}.lora_A.weight"]
        torch.testing.assert_close(moved[f"{module}.weight"], expected, rtol=0, atol=1e-5)


def test_patterns_of_the_rank(tmp_path: Path) -> None:
    update, over = lora({Q: (16, 16)}) | lora({FC1: (24, 16)}, rank=5), base()
    moved = difference(open_weights(write(tmp_path / "x", update, rank_pattern={"fc1": 5}), over), over)
    expected = ALPHA / 5 * update[f"{FC1}.lora_B.weight"] @ update[f"{FC1}.lora_A.weight"]
    torch.testing.assert_close(moved[f"{FC1}.weight"], expected, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match=rf"The LoRA of '{FC1}' in '.*y' is 5x16 float32, and adapter_config.json says rank 3"):
        open_weights(write(tmp_path / "y", update), over)


def test_transposed_weights_and_convolutions(tmp_path: Path) -> None:
    over = TensorWeights("gpt", {"h.c_attn.weight": draw(4, 12), "conv.weight": draw(6, 3, 2, 2)})
    update = lora({"h.c_attn": (12, 4)})
    moved = difference(open_weights(write(tmp_path / "x", update, fan_in_fan_out=True), over), over)
    expected = ALPHA / R * (update["h.c_attn.lora_B.weight"] @ update["h.c_attn.lora_A.weight"]).T
    torch.testing.assert_close(moved["h.c_attn.weight"], expected, rtol=0, atol=1e-5)

    a, b, images = draw(R, 3, 2, 2), draw(6, R, 1, 1), draw(2, 3, 8, 8)
    folder = write(tmp_path / "y", {"conv.lora_A.weight": a, "conv.lora_B.weight": b})
    folded = torch.conv2d(images, open_weights(folder, over).read("conv.weight"))
    layers = torch.conv2d(images, over.read("conv.weight")) + ALPHA / R * torch.conv2d(torch.conv2d(images, a), b)
    torch.testing.assert_close(folded, layers, rtol=1e-5, atol=1e-4)


def test_biases_and_modules_that_the_adapter_stores_take_the_place_of_the_bases(tmp_path: Path) -> None:
    stored = {f"{Q}.base_layer.bias": draw(16), "post_layernorm.bias": draw(16, seed=1)}
    over = base()
    source = open_weights(write(tmp_path / "x", lora(SHAPES) | stored), over)
    assert torch.equal(source.read(f"vision_model.{Q}.bias"), stored[f"{Q}.base_layer.bias"])
    assert torch.equal(source.read("vision_model.post_layernorm.bias"), stored["post_layernorm.bias"])


def test_the_dtype_stays_the_bases(tmp_path: Path) -> None:
    over = TensorWeights("half", {"q.weight": draw(16, 16).half()})
    update = lora({"q": (16, 16)})
    folded = open_weights(write(tmp_path / "x", update), over).read("q.weight")
    expected = over.read("q.weight").float() + ALPHA / R * update["q.lora_B.weight"] @ update["q.lora_A.weight"]
    assert torch.equal(folded, expected.half())


def linearised(module: str, a: Tensor, b: Tensor, a0: Tensor, b0: Tensor, weight: Tensor, inner: str = "") -> hf.Tensors:
    """The keys of one linearised LoRA layer with a bias."""
    stored = {"weight": weight, "bias": weight[:, 0]}
    values = [*stored.values(), a0, b0]
    own = {f"{module}.model.{inner}{name}": tensor.clone() for name, tensor in stored.items()}
    trained = {f"{module}.model.lora_A.default.weight": a, f"{module}.model.lora_B.default.weight": b}
    return own | trained | {f"{module}.params0_values.{index}": value.clone() for index, value in enumerate(values)}


@pytest.mark.parametrize("inner", ["", "base_layer."])
def test_a_linearised_lora_is_its_taylor_model(tmp_path: Path, inner: str) -> None:
    a, b, a0, b0 = draw(R, 16), draw(16, R), draw(R, 16, seed=5), draw(16, R, seed=7)
    over, images = base(), draw(10, 16)
    weight = over.read(f"vision_model.{Q}.weight")
    source = open_weights(write(tmp_path / "x", linearised(Q, a, b, a0, b0, weight, inner), name="linearized_adapter_model"), over)

    def layer(a: Tensor, b: Tensor) -> Tensor:
        return images @ (weight + ALPHA / R * b @ a).T

    value, tangent = jvp(layer, (a0, b0), (a - a0, b - b0))
    torch.testing.assert_close(images @ source.read(f"vision_model.{Q}.weight").T, value + tangent, rtol=1e-5, atol=1e-4)
    assert torch.equal(source.read(f"vision_model.{Q}.bias"), weight[:, 0])


def test_a_linearised_lora_that_began_at_zero_does_not_use_the_trained_a(tmp_path: Path) -> None:
    a, b, a0 = draw(R, 16), draw(16, R), draw(R, 16, seed=5)
    over = base()
    keys = linearised(Q, a, b, a0, torch.zeros(16, R), over.read(f"vision_model.{Q}.weight"))
    keys[f"{Q}.model.bias"] = over.read(f"vision_model.{Q}.bias")
    moved = difference(open_weights(write(tmp_path / "x", keys, name="linearized_adapter_model"), over), over)
    torch.testing.assert_close(moved[f"{Q}.weight"], ALPHA / R * b @ a0, rtol=0, atol=1e-5)


def incomplete() -> hf.Tensors:
    return {name: tensor for name, tensor in lora(SHAPES).items() if name != f"{Q}.lora_B.weight"}


REFUSED: dict[str, tuple[hf.Tensors, dict[str, Any], str]] = {
    "matches nothing": (lora({"layers.9.q": (16, 16)}), {}, r"updates 'layers.9.q.weight', which the base 'base' has not"),
    "no B": (incomplete(), {}, f"is not whole: '{Q}' has no lora_B"),
    "no lora": ({"post_layernorm.bias": draw(16)}, {}, "holds no LoRA"),
    "another shape": (lora({Q: (8, 16)}), {}, rf"updates 'vision_model.{Q}.weight' as 8x16, which is 16x16 float32 in the base"),
    "another kind": (lora(SHAPES), {"peft_type": "IA3"}, "is not that of a LoRA"),
    "DoRA": (lora(SHAPES), {"use_dora": True}, "holds a DoRA"),
    "no rank": (lora(SHAPES), {"r": None}, "gives no r"),
    "no alpha": (lora(SHAPES), {"lora_alpha": 0}, "gives no lora_alpha"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_cannot_be_folded_is_told(tmp_path: Path, how: str) -> None:
    tensors, config, words = REFUSED[how]
    with pytest.raises(UserError, match=words):
        open_weights(write(tmp_path / "x", tensors, **config), base())


def test_a_linearised_lora_without_its_start_is_told(tmp_path: Path) -> None:
    keys = linearised(Q, draw(R, 16), draw(16, R), draw(R, 16), draw(16, R), draw(16, 16))
    trained = {name: tensor for name, tensor in keys.items() if "params0" not in name}
    with pytest.raises(UserError, match=f"'{Q}' lacks the A and B that it was linearised around"):
        open_weights(write(tmp_path / "x", trained, name="linearized_adapter_model"), base())


def test_a_lora_needs_a_base_and_a_configuration(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", lora(SHAPES))
    with pytest.raises(UserError, match=r"holds a LoRA, which is an update of a model; name that one with --base"):
        open_weights(folder)
    (tmp_path / "x" / "adapter_config.json").unlink()
    with pytest.raises(UserError, match=r"No such file: '.*adapter_config.json'"):
        open_weights(folder, base())
