"""LoRA: the formula against explicit arithmetic, no drift, untouched base weights, folding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from common.errors import UserError
from models.encoder import Encoder
from models.lora import LowRank, add_lora, attention_outputs, fold_lora, folded_state_dict, lora_weights
from models.parts import attention_projections, image_tower, mlp_linears, named_blocks, text_tower, towers
from models.tunings import TuningOptions, apply_tuning, trained_parameters
from tests.models import small

RANK, SCALE = 3, 0.2


BUILD: dict[str, Callable[[], Encoder]] = {
    "clip": lambda: small.encoder(small.clip()),
    "coca": lambda: small.encoder(small.coca(), length=76),
    "eva02": lambda: small.encoder(small.eva02()),
    "siglip": lambda: small.encoder(small.siglip()),
}


@pytest.fixture
def encoder() -> Encoder:
    return BUILD["clip"]()


def _with_updates(encoder: Encoder, mlp: bool = False, targets: str = "q,v") -> Encoder:
    """LoRA whose B is not zero, as after some training."""
    apply_tuning(encoder, "lora", TuningOptions(rank=RANK, lora_scale=SCALE, lora_mlp=mlp, lora_targets=targets))
    generator = torch.Generator().manual_seed(5)
    for parameter in trained_parameters(encoder).values():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return encoder


@pytest.mark.parametrize("targets", ["q,v,mlp", "q,k,v,out,mlp", "k,out"])
@pytest.mark.parametrize("name", BUILD)
def test_the_encoder_computes_with_w_plus_scale_times_b_a(name: str, targets: str) -> None:
    """Against an encoder whose weights are overwritten with the sum, row range by row range."""
    tuned, plain = _with_updates(BUILD[name](), targets=targets), BUILD[name]()
    by_weight = {
        (name.rpartition(".")[0], parameter): module.parametrizations[parameter][0]
        for name, (module, parameter) in lora_weights(tuned).items()
    }
    count = 0
    for tower in towers(plain):
        mlps = [linear for block in named_blocks(tower).values() for linear in mlp_linears(block)]
        for projection in attention_projections(tower) + attention_outputs(tower) + mlps:
            if projection.role not in targets.split(","):
                continue
            update = by_weight[_name_of(plain, projection.module), projection.parameter]
            delta = update.lora_B[projection.role] @ update.lora_A[projection.role]
            projection.weight.data[projection.start : projection.stop] += SCALE * delta.detach()
            count += 1
    assert count == sum(len(update.rows) for update in by_weight.values())
    for ours, explicit, before in zip(small.embeddings(tuned), small.embeddings(plain), small.embeddings(BUILD[name]()), strict=True):
        torch.testing.assert_close(ours, explicit, atol=2e-6, rtol=1e-5)
        assert not torch.allclose(ours, before, atol=1e-3)


def _name_of(encoder: Encoder, module: nn.Module) -> str:
    return next(name for name, candidate in encoder.named_modules() if candidate is module)


def test_at_the_start_the_encoder_is_as_it_was_to_the_bit(encoder: Encoder) -> None:
    before = small.embeddings(encoder)
    apply_tuning(encoder, "lora", TuningOptions(lora_mlp=True))
    for left, right in zip(before, small.embeddings(encoder), strict=True):
        assert torch.equal(left, right)


def test_the_same_input_gives_the_same_output_for_ever(encoder: Encoder) -> None:
    """The released code added the update to the weights again in every pass."""
    _with_updates(encoder)
    images = small.pixels(encoder)
    first = small.embeddings(encoder)
    for _ in range(3):
        encoder.encode_image(images).sum().backward()  # passes with gradient, as in training, change nothing either
        for left, right in zip(first, small.embeddings(encoder), strict=True):
            assert torch.equal(left, right)


def test_training_never_writes_to_the_base_weights(encoder: Encoder) -> None:
    base = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    apply_tuning(encoder, "lora", TuningOptions(rank=RANK))
    trained = trained_parameters(encoder)
    optimizer = torch.optim.SGD(trained.values(), lr=1.0, weight_decay=0.1)
    before = small.embeddings(encoder)[0]
    for _ in range(2):
        optimizer.zero_grad()
        images, texts = encoder.encode_image(small.pixels(encoder)), encoder.encode_text(encoder.tokenize(small.PROMPTS))
        (images @ texts.T).diag().sum().backward()
        optimizer.step()
    assert not torch.equal(before, small.embeddings(encoder)[0])
    for name, tensor in encoder.model.state_dict().items():
        if "lora_" not in name:
            plain = name.replace("parametrizations.", "").removesuffix(".original")
            assert torch.equal(tensor, base[plain]), name
    assert all("lora_A" in name or "lora_B" in name for name in trained)


def test_the_fast_path_without_gradients_uses_the_update(encoder: Encoder) -> None:
    before = small.embeddings(encoder)[0]
    _with_updates(encoder)
    with_gradient = encoder.encode_image(small.pixels(encoder)).detach()
    torch.testing.assert_close(small.embeddings(encoder)[0], with_gradient, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(before, with_gradient, atol=1e-3)


def test_an_update_is_computed_once_in_a_pass(encoder: Encoder) -> None:
    """nn.MultiheadAttention reads its weight about five times."""
    _with_updates(encoder)
    calls: list[nn.Module] = []
    for module in encoder.image_tower.modules():
        if isinstance(module, LowRank):
            module.register_forward_hook(lambda module, _, __: calls.append(module))
    small.embeddings(encoder)
    assert len(calls) == len(set(map(id, calls))) == 3


@pytest.mark.parametrize("name", BUILD)
def test_every_attention_has_one_output(name: str) -> None:
    """As many as there are queries or, where a pooling attention's latent is the query, keys."""
    for tower in towers(BUILD[name]()):
        outputs = attention_outputs(tower)
        assert len(outputs) == sum(projection.role == "k" for projection in attention_projections(tower))
        assert len({id(output.module) for output in outputs}) == len(outputs)
        assert all(output.weight.shape[0] == output.stop for output in outputs)


def test_one_tower_can_be_updated_alone(encoder: Encoder) -> None:
    add_lora(encoder, RANK, SCALE, 0, tuned=(image_tower(encoder),))
    assert lora_weights(encoder) and all(name.startswith("model.visual.") for name in lora_weights(encoder))
    other = BUILD["clip"]()
    add_lora(other, RANK, SCALE, 0, tuned=(text_tower(other),))
    assert lora_weights(other) and not any(name.startswith("model.visual.") for name in lora_weights(other))


@pytest.mark.parametrize("name", BUILD)
def test_folding_keeps_outputs_and_gives_plain_names(name: str) -> None:
    encoder, names = _with_updates(BUILD[name](), targets="q,k,v,out,mlp"), BUILD[name]().model.state_dict().keys()
    before, folded = small.embeddings(encoder), folded_state_dict(encoder.model)
    assert folded.keys() == names
    fold_lora(encoder)
    assert encoder.model.state_dict().keys() == names
    assert not lora_weights(encoder) and not trained_parameters(encoder)
    assert not any(isinstance(module, LowRank) or type(module).__name__.startswith("Parametrized") for module in encoder.modules())
    for left, right in zip(before, small.embeddings(encoder), strict=True):
        assert torch.equal(left, right)
    for key, tensor in encoder.model.state_dict().items():
        assert torch.equal(tensor, folded[key]), key


def test_folding_a_copy_leaves_the_original(encoder: Encoder) -> None:
    """torch's own removal deletes a property of a class that copies share."""
    _with_updates(encoder)
    before = small.embeddings(encoder)
    clone = copy.deepcopy(encoder)
    fold_lora(clone)
    assert lora_weights(encoder)
    for embeddings in (small.embeddings(encoder), small.embeddings(clone)):
        assert all(torch.equal(left, right) for left, right in zip(before, embeddings, strict=True))
    fold_lora(encoder)
    assert all(torch.equal(left, right) for left, right in zip(before, small.embeddings(encoder), strict=True))


def _start(seed: int) -> dict[str, torch.Tensor]:
    encoder = BUILD["clip"]()
    add_lora(encoder, RANK, SCALE, seed, ("q", "v", "mlp"))
    return {name: tensor for name, tensor in encoder.state_dict().items() if "lora_" in name}


def test_the_start_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first, state = _start(0), torch.get_rng_state()
    torch.manual_seed(2)
    again, other = _start(0), _start(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_the_start_is_normal_with_deviation_a_fiftieth_and_zero() -> None:
    start = _start(0)
    drawn = torch.cat([tensor.flatten() for name, tensor in start.items() if "lora_A" in name])
    assert abs(drawn.std().item() - 0.02) < 5 * 0.02 / (2 * len(drawn)) ** 0.5
    assert abs(drawn.mean().item()) < 5 * 0.02 / len(drawn) ** 0.5
    assert all((tensor == 0).all() for name, tensor in start.items() if "lora_B" in name)


def test_lora_on_lora_is_a_programming_error(encoder: Encoder) -> None:
    add_lora(encoder, RANK, SCALE, 0)
    with pytest.raises(ValueError, match="fold"):
        add_lora(encoder, RANK, SCALE, 0)


def test_updates_follow_to_half_precision_compute(encoder: Encoder) -> None:
    """Under autocast the sum is taken in float32: an update far below a bfloat16 step of the weight is not lost in the weight."""
    apply_tuning(encoder, "lora", TuningOptions(rank=RANK))
    module, parameter = next(iter(lora_weights(encoder).values()))
    for name, value in trained_parameters(encoder).items():
        value.data.fill_(1e-3 if "lora_A" in name else 1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        updated = getattr(module, parameter)
    assert updated.dtype == torch.float32
    difference = updated - module.parametrizations[parameter].original
    torch.testing.assert_close(difference[: small.WIDTH].mean(), torch.tensor(SCALE * RANK * 1e-5), rtol=0.02, atol=0)


def test_no_tower_is_changed_when_one_has_no_place(tmp_path: Path) -> None:
    encoder = small.encoder(small.huggingface_text(tmp_path), vocabulary=100, length=20)
    with pytest.raises(UserError, match=r"The text tower of 'small' \(HFTextEncoder\)"):
        add_lora(encoder, RANK, SCALE, 0)
    assert not lora_weights(encoder)
