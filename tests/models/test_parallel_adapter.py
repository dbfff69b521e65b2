"""Parallel adapters: identity at the start, the formula, off is the stock encoder to the bit, one pass for both, files, dropout."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from models.checkpoint import base_sha256, load_checkpoint, make_header, save_checkpoint
from models.encoder import Encoder
from models.image_tower import ImageTower
from models.loading import load_encoder
from models.parallel_adapter import (
    ParallelAdapter,
    adapted_and_original,
    add_parallel_adapters,
    dropout_of,
    keyed_dropout,
    parallel_adapters,
    without_adapters,
)
from models.tensors import read_safetensors
from models.tunings import TuningOptions, apply_tuning
from tests.models import small


def post_norm() -> nn.Module:
    """The image tower of EVA02-CLIP E/14: LayerNorms behind attention and MLP."""
    return small._with_trunk(Eva(**small.TRUNK, use_post_norm=True, use_rot_pos_emb=True))


TOWERS: dict[str, Callable[[], Encoder]] = {
    "clip": lambda: small.encoder(small.clip()),
    "coca": lambda: small.encoder(small.coca(), length=76),
    "siglip": lambda: small.encoder(small.siglip()),
    "slip": lambda: small.encoder(small.slip()),
    "eva02": lambda: small.encoder(small.eva02()),
    "eva with norms behind": lambda: small.encoder(post_norm()),
}


@pytest.fixture(params=TOWERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return TOWERS[request.param]()


@pytest.fixture
def clip() -> Encoder:
    return TOWERS["clip"]()


def adapted(encoder: Encoder, noise: float = 0.2, **options: float) -> Encoder:
    """``encoder`` with adapters that do something."""
    add_parallel_adapters(encoder, **{"bottleneck": 8, "scale": 0.5, **options})  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(3)
    for adapter in parallel_adapters(encoder).values():
        for parameter in adapter.parameters():
            parameter.data += noise * torch.randn(parameter.shape, generator=generator)
    return encoder


def raw(encoder: Encoder) -> Tensor:
    with torch.no_grad():
        return encoder.raw_image_features(small.pixels(encoder))


def test_the_published_count_of_parameters() -> None:
    """ViT-B/16: 12 blocks of 768 x 64 + 64 + 64 x 768 + 768 = 99,136."""
    encoder = small.encoder(small.full_size("ViT-B-16-quickgelu"), noise=0)
    apply_tuning(encoder, "parallel-adapter", TuningOptions())
    counts = [sum(parameter.numel() for parameter in adapter.parameters()) for adapter in parallel_adapters(encoder).values()]
    assert counts == [99_136] * 12
    assert sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad) == 1_189_632


def test_the_encoder_starts_as_it_was_to_the_bit(encoder: Encoder) -> None:
    before = raw(encoder)
    add_parallel_adapters(encoder)
    assert torch.equal(raw(encoder), before)
    for adapter in parallel_adapters(encoder).values():
        width = adapter.down.in_features
        assert 0.8 / width**0.5 < adapter.down.weight.abs().max() <= 1 / width**0.5


def test_off_is_the_encoder_without_adapters_to_the_bit(encoder: Encoder) -> None:
    before = raw(encoder)
    adapted(encoder)
    with_adapters = raw(encoder)
    assert (with_adapters - before).abs().max() > 1e-3
    with without_adapters(encoder):
        assert torch.equal(raw(encoder), before)
    assert torch.equal(raw(encoder), with_adapters)


def test_one_pass_gives_both(encoder: Encoder) -> None:
    before = raw(encoder)
    both = adapted(encoder), raw(encoder)
    with torch.no_grad():
        with_adapters, without = adapted_and_original(encoder, small.pixels(encoder))
    for found, expected in ((with_adapters, both[1]), (without, before)):
        torch.testing.assert_close(found / expected.norm(dim=1, keepdim=True), F.normalize(expected), rtol=0, atol=1e-6)
    assert torch.equal(raw(encoder), both[1])  # it leaves nothing behind


def test_the_formula_in_open_clips_blocks(clip: Encoder) -> None:
    """A block written out, with the published order: the adapter sees the stream before the second LayerNorm."""
    adapted(clip)
    block = clip.image_tower.transformer.resblocks[1]  # type: ignore[union-attr,index]
    x = torch.randn(2, 5, small.WIDTH, generator=torch.Generator().manual_seed(4))
    adapter = block.parallel_adapter  # type: ignore[union-attr]
    after = x + block.attention(block.ln_1(x))  # type: ignore[union-attr,operator]
    update = F.relu(after @ adapter.down.weight.T + adapter.down.bias) @ adapter.up.weight.T + adapter.up.bias
    expected = after + block.mlp(block.ln_2(after)) + 0.5 * update  # type: ignore[union-attr,operator]
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-6)


def test_the_formula_in_blocks_with_norms_behind() -> None:
    encoder = adapted(TOWERS["eva with norms behind"]())
    block = encoder.image_tower.trunk.blocks[0]  # type: ignore[union-attr,index]
    x = torch.randn(2, 5, small.WIDTH, generator=torch.Generator().manual_seed(4))
    after = x + block.norm1(block.attn(x))
    torch.testing.assert_close(block(x), after + block.norm2(block.mlp(after)) + block.parallel_adapter(after), rtol=0, atol=1e-6)


def test_what_goes_around_blocks_meets_the_adapters(clip: Encoder) -> None:
    """The image tower from its patches on has a way of its own through plain blocks."""
    adapted(clip)
    tower, pixels = ImageTower(clip), small.pixels(clip)
    with torch.no_grad():
        torch.testing.assert_close(tower.encode_patches(tower.embed_patches(pixels)), raw(clip), rtol=0, atol=1e-5)


def test_a_deep_copy_has_adapters_of_its_own(encoder: Encoder) -> None:
    adapted(encoder)
    before, twin = raw(encoder), copy.deepcopy(encoder)
    assert torch.equal(raw(twin), before)
    for adapter in parallel_adapters(twin).values():
        adapter.up.weight.data += 1
    assert torch.equal(raw(encoder), before)
    with without_adapters(encoder):
        assert not torch.equal(raw(twin), before)  # the copy is switched by itself, and sees its own weights


def test_inference_mode_and_half_precision(clip: Encoder) -> None:
    before, pixels = raw(adapted(clip)), small.pixels(clip)
    with torch.inference_mode():
        assert torch.equal(clip.raw_image_features(pixels), before)
        with torch.autocast("cpu", torch.bfloat16):
            found, _ = adapted_and_original(clip, pixels)
    assert F.cosine_similarity(found.float(), before).min() > 0.999


def test_gradients_reach_the_adapters_through_one_pass_for_both(clip: Encoder) -> None:
    apply_tuning(clip, "parallel-adapter", TuningOptions(bottleneck=8))
    with_adapters, without = adapted_and_original(clip, small.pixels(clip))
    (with_adapters - without).sum().backward()
    assert all(adapter.up.weight.grad is not None and adapter.up.weight.grad.any() for adapter in parallel_adapters(clip).values())


@pytest.mark.parametrize("build", [small.resnet, small.convnext])
def test_convolutional_towers_are_told_of_and_stay_as_they_are(build: Callable[[], nn.Module]) -> None:
    encoder = small.encoder(build())
    with pytest.raises(UserError, match=r"no blocks of a plain vision transformer, so 'parallel-adapter' has no place there; use one of"):
        apply_tuning(encoder, "parallel-adapter", TuningOptions())
    assert not parallel_adapters(encoder)


def test_adapters_are_added_once(clip: Encoder) -> None:
    with pytest.raises(ValueError, match="no parallel adapters"):
        adapted_and_original(clip, small.pixels(clip))
    add_parallel_adapters(clip)
    with pytest.raises(ValueError, match="already"):
        add_parallel_adapters(clip)


def test_the_seed_decides_the_start() -> None:
    first, again, other = (TOWERS["clip"]() for _ in range(3))
    for encoder, seed in ((first, 1), (again, 1), (other, 2)):
        add_parallel_adapters(encoder, seed=seed)
    weights = [[adapter.down.weight for adapter in parallel_adapters(encoder).values()] for encoder in (first, again, other)]
    assert all(torch.equal(one, two) for one, two in zip(weights[0], weights[1], strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(weights[0], weights[2], strict=True))
    assert not torch.equal(weights[0][0], weights[0][1])


def test_a_checkpoint_holds_the_adapters_alone(tmp_path: Path) -> None:
    model = small.write_local_dir(tmp_path / "model")
    encoder, options = load_encoder(model), TuningOptions(bottleneck=8, adapter_scale=0.2, adapter_dropout=0.0, seed=5)
    base = base_sha256(encoder)
    apply_tuning(encoder, "parallel-adapter", options)
    for adapter in parallel_adapters(encoder).values():
        adapter.up.weight.data += 0.1
    save_checkpoint(tmp_path / "a.safetensors", encoder, make_header(encoder, "parallel-adapter", options, base))
    stored = read_safetensors(tmp_path / "a.safetensors")[0]
    assert len(stored) == 4 * small.VISION["layers"] and all(".parallel_adapter." in name for name in stored)  # type: ignore[operator]
    loaded, header = load_checkpoint(tmp_path / "a.safetensors")
    assert dict(header.options) == {"bottleneck": 8, "adapter_scale": 0.2, "adapter_dropout": 0.0}
    assert torch.equal(raw(loaded), raw(encoder))
    with without_adapters(loaded):
        assert torch.equal(raw(loaded), raw(load_encoder(model)))


# --- dropout ---------------------------------------------------------------------------------------------------------


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    factors = keyed_dropout(torch.arange(2000), (50, 8), 0.1)
    assert factors.shape == (2000, 50, 8)
    assert factors.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert (factors == 0).float().mean().item() == pytest.approx(0.1, abs=0.001)
    assert (factors == 0).float().mean(dim=0).max().item() < 0.14 and (factors == 0).float().mean(dim=(1, 2)).max().item() < 0.17
    together = ((factors[1:] == 0) & (factors[:-1] == 0)).float().mean().item()
    assert together == pytest.approx(0.01, abs=0.001)  # neighbouring keys have nothing in common


def test_dropout_of_an_image_depends_on_its_key_alone(clip: Encoder) -> None:
    adapted(clip, dropout=0.5)
    pixels, keys = small.pixels(clip), torch.tensor([7, 8, 9])
    plain = raw(clip)
    with torch.no_grad(), dropout_of(clip, keys):
        whole = clip.raw_image_features(pixels)
    with torch.no_grad(), dropout_of(clip, keys[1:]):
        torch.testing.assert_close(clip.raw_image_features(pixels[1:]), whole[1:], rtol=0, atol=1e-6)
    with torch.no_grad(), dropout_of(clip, keys + 1):
        assert not torch.allclose(clip.raw_image_features(pixels), whole)
    assert not torch.allclose(whole, plain) and torch.equal(raw(clip), plain)


def test_the_formula_of_dropout() -> None:
    adapter = ParallelAdapter(6, 4, 2.0, 0.25, torch.Generator().manual_seed(0))
    nn.init.normal_(adapter.up.weight, generator=torch.Generator().manual_seed(1))
    x, adapter.keys = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(2)), torch.tensor([1, 2, 3])
    hidden = F.relu(adapter.down(x)) * keyed_dropout(adapter.keys, (5, 4), 0.25)
    torch.testing.assert_close(adapter(x), 2 * (hidden @ adapter.up.weight.T))


def test_splitmix64_has_its_published_outputs() -> None:
    """The first outputs of the generator with seed 1234567, of the reference implementation (rosettacode.org, Splitmix64)."""
    from models.parallel_adapter import _GOLDEN, _mixed

    states = torch.tensor([1234567]) + torch.arange(1, 4) * _GOLDEN
    assert [value % 2**64 for value in _mixed(states).tolist()] == [6457827717110365317, 3203168211198807973, 9817491932198370423]
