"""L-LoRA: the expansion against torch.func.jvp, gradients, what a checkpoint keeps, and its relation to LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import jvp

from models.checkpoint import base_sha256, load_checkpoint, make_header, save_checkpoint
from models.encoder import Encoder
from models.linearized import linearized_update
from models.loading import load_encoder
from models.lora import LowRank, fold_lora, folded_state_dict, lora_weights
from models.tensors import read_safetensors
from models.tunings import TuningOptions, apply_tuning, stored_parameters, trained_parameters
from tests.models import small

OUT, IN, RANK, SCALE = 7, 5, 3, 2.0
OPTIONS = TuningOptions(rank=RANK, lora_scale=SCALE, lora_targets="q,k,v,out,mlp")


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _factors(seed: int) -> tuple[Tensor, Tensor]:
    return _drawn(RANK, IN, seed=seed), _drawn(OUT, RANK, seed=seed + 1)


@pytest.mark.parametrize("at_zero", [True, False], ids=["as LoRA starts", "anywhere"])
def test_the_update_is_the_first_order_expansion_of_the_adapted_map(at_zero: bool) -> None:
    """f(x; p0) + JVP(p - p0), by forward-mode differentiation of the map itself."""
    weight, inputs, (a, b), (a0, b0) = _drawn(OUT, IN), _drawn(4, IN, seed=9), _factors(1), _factors(3)
    b0 = torch.zeros_like(b0) if at_zero else b0

    def adapted(a: Tensor, b: Tensor) -> Tensor:
        return inputs @ (weight + SCALE * (b @ a)).T

    value, tangent = jvp(adapted, (a0, b0), (a - a0, b - b0))
    torch.testing.assert_close(inputs @ (weight + SCALE * linearized_update(a, b, a0, b0)).T, value + tangent, rtol=0, atol=1e-12)
    if at_zero:  # what is left is LoRA with the first A
        torch.testing.assert_close(linearized_update(a, b, a0, b0), b @ a0, rtol=0, atol=0)


def test_a_has_neither_effect_nor_gradient_when_b_starts_at_zero() -> None:
    (a, b), (a0, b0) = _factors(1), _factors(3)
    a.requires_grad_(True)
    b.requires_grad_(True)
    linearized_update(a, b, a0, torch.zeros_like(b0)).square().sum().backward()
    assert a.grad is not None and not a.grad.any() and b.grad is not None and b.grad.all()


def _moved(encoder: Encoder, tuning: str = "l-lora") -> Encoder:
    """An encoder after some training."""
    apply_tuning(encoder, tuning, OPTIONS)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in sorted(trained_parameters(encoder).items()):
        if "lora_B" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return encoder


def test_the_encoder_is_linear_in_each_updated_weight() -> None:
    """Against the expansion around the start, with the start's A drawn as LoRA draws it."""
    encoder, start = _moved(small.encoder(small.clip())), small.encoder(small.clip())
    plain = start.model.state_dict()
    apply_tuning(start, "lora", OPTIONS)
    folded, firsts = folded_state_dict(encoder.model), _updates(start)
    for name, update in _updates(encoder).items():
        expected, first = plain[name].clone(), firsts[name]
        for role, (begin, end) in update.rows.items():
            a0, b0 = first.lora_A[role], first.lora_B[role]
            expected[begin:end] += SCALE * linearized_update(update.lora_A[role], update.lora_B[role], a0, b0).detach()
        assert torch.equal(folded[name], expected) and not torch.equal(folded[name], plain[name]), name


def _updates(encoder: Encoder) -> dict[str, LowRank]:
    return {name: module.parametrizations[parameter][0] for name, (module, parameter) in lora_weights(encoder.model).items()}


def test_b_trains_and_a_stays() -> None:
    encoder = small.encoder(small.clip())
    apply_tuning(encoder, "l-lora", OPTIONS)
    trained, stored = trained_parameters(encoder), stored_parameters(encoder)
    assert trained and all(".lora_B." in name for name in trained)
    assert stored.keys() == {name.replace("lora_B", kind) for name in trained for kind in ("lora_A", "lora_B")}
    before = {name: parameter.detach().clone() for name, parameter in stored.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.1, weight_decay=0.5)
    encoder.encode_image(small.pixels(encoder))[:, 0].sum().backward()
    optimizer.step()
    assert all(torch.equal(parameter, before[name]) for name, parameter in stored.items() if ".lora_A." in name)
    assert any(not torch.equal(parameter, before[name]) for name, parameter in trained.items())


def test_with_the_same_factors_it_is_lora() -> None:
    linearized, lora = _moved(small.encoder(small.clip())), _moved(small.encoder(small.clip()), "lora")
    for left, right in zip(small.embeddings(linearized), small.embeddings(lora), strict=True):
        assert torch.equal(left, right)


def test_a_checkpoint_holds_the_start_whatever_another_machine_would_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small.write_local_dir(tmp_path / "base")
    encoder = load_encoder(model)
    base = base_sha256(encoder)
    _moved(encoder)
    path = tmp_path / "l-lora.safetensors"
    save_checkpoint(path, encoder, make_header(encoder, "l-lora", OPTIONS, base))
    assert any(".lora_A." in name for name in read_safetensors(path)[0])
    real = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *shape, **how: 2 * real(*shape, **how))
    loaded, header = load_checkpoint(path)
    monkeypatch.undo()
    assert header.tuning == "l-lora" and trained_parameters(loaded).keys() == trained_parameters(encoder).keys()
    before = small.embeddings(encoder)
    fold_lora(loaded)
    assert all(torch.equal(left, right) for left, right in zip(before, small.embeddings(loaded), strict=True))
