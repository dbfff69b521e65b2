"""Towers at other sizes: positions as released, bitwise the stored ones at the own size, every kind of vision transformer."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from common.errors import UserError
from fewshot.dino.positions import image_size, interpolated, patch_size
from models.parallel_adapter import add_parallel_adapters
from tests.models import small

KINDS = ("clip", "custom_text", "coca", "siglip", "slip", "eva02")


def stored(count: int, width: int = 5) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0))


def test_at_the_own_grid_they_are_the_stored_ones() -> None:
    positions = stored(1 + 14 * 14)
    assert torch.equal(interpolated(positions, (14, 14), (14, 14)), positions)


@pytest.mark.parametrize("tokens", [0, 1, 2])
def test_interpolation_as_released(tokens: int) -> None:
    """ViT-B/16 and crops of 96 pixels: 6 of 14 patches by the factor 6.1 / 14."""
    positions = stored(tokens + 14 * 14)
    found = interpolated(positions, (14, 14), (6, 6))
    patches = positions[tokens:].reshape(1, 14, 14, 5).permute(0, 3, 1, 2)
    expected = F.interpolate(patches, scale_factor=((96 / 16 + 0.1) / 14, (96 / 16 + 0.1) / 14), mode="bicubic")
    torch.testing.assert_close(found[tokens:], expected.permute(0, 2, 3, 1).reshape(36, 5))
    assert torch.equal(found[:tokens], positions[:tokens])


@pytest.mark.parametrize("old", [(2, 3), (7, 7), (14, 14), (16, 16), (24, 24), (37, 20)])
def test_every_grid_comes_out(old: tuple[int, int]) -> None:
    for new in ((1, 1), (2, 5), (7, 7), (30, 41)):
        assert len(interpolated(stored(1 + old[0] * old[1]), old, new)) == 1 + new[0] * new[1]


def test_constant_positions_stay_constant() -> None:
    found = interpolated(torch.full((1 + 49, 3), 0.7), (7, 7), (3, 4))
    torch.testing.assert_close(found, torch.full((13, 3), 0.7))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_at_another_size_and_back(kind: str) -> None:
    encoder = small.encoder(getattr(small, kind)())
    add_parallel_adapters(encoder, bottleneck=4)
    native, names = small.pixels(encoder), [name for name, _ in encoder.named_parameters()]
    other = torch.randn(2, 3, 48, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before = encoder.raw_image_features(native)
        with image_size(encoder, 48, 16):
            features = encoder.raw_image_features(other)
            turned = encoder.raw_image_features(other.flip(2))
        assert features.shape == (2, before.shape[1])
        assert not torch.allclose(features, turned)  # positions have an effect
        assert torch.equal(encoder.raw_image_features(native), before)
    assert [name for name, _ in encoder.named_parameters()] == names


@pytest.mark.parametrize("kind", ["clip", "siglip", "slip", "eva02"])
def test_the_positions_that_a_tower_has_inside_are_those_interpolated(kind: str) -> None:
    encoder = small.encoder(getattr(small, kind)())
    trunk = getattr(encoder.image_tower, "trunk", encoder.image_tower)
    name = "positional_embedding" if kind == "clip" else "pos_embed"
    positions = getattr(trunk, name).detach().clone()
    flat = positions if kind == "clip" else positions[0]
    with image_size(encoder, 48, 64):
        inside = getattr(trunk, name)
        torch.testing.assert_close(inside if kind == "clip" else inside[0], interpolated(flat, (2, 2), (3, 4)))
        assert not inside.requires_grad
    assert torch.equal(getattr(trunk, name), positions)


def test_rotary_positions_are_those_of_the_other_grid() -> None:
    encoder = small.encoder(small.eva02())
    rope = encoder.image_tower.trunk.rope  # type: ignore[union-attr]
    before = rope.get_embed().clone()
    with image_size(encoder, 48, 16):
        assert rope.get_embed().shape[0] == 3
    assert torch.equal(rope.get_embed(), before)


@pytest.mark.parametrize("kind", ["slip", "eva02"])
def test_a_tower_of_dynamic_sizes_has_the_same_positions(kind: str) -> None:
    """It would make them itself, in another way."""
    encoder = small.encoder(getattr(small, kind)())
    trunk = encoder.image_tower.trunk
    more = {"qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True, "use_rot_pos_emb": True}
    dynamic = type(trunk)(**small.TRUNK, **(more if kind == "eva02" else {}), dynamic_img_size=True).eval()
    dynamic.load_state_dict(trunk.state_dict())
    pixels, native = torch.randn(2, 3, 48, 16, generator=torch.Generator().manual_seed(3)), small.pixels(encoder)
    with torch.no_grad():
        with image_size(encoder, 48, 16):
            fixed = encoder.raw_image_features(pixels)
        own = encoder.raw_image_features(native)
        encoder.image_tower.trunk = dynamic
        with image_size(encoder, 48, 16):
            torch.testing.assert_close(encoder.raw_image_features(pixels), fixed)
        torch.testing.assert_close(encoder.raw_image_features(native), own)


def test_an_error_inside_leaves_no_trace() -> None:
    encoder = small.encoder(small.clip())
    positions = encoder.image_tower.positional_embedding
    with pytest.raises(KeyError), image_size(encoder, 48, 48):
        raise KeyError
    assert encoder.image_tower.positional_embedding is positions


def test_patches() -> None:
    assert patch_size(small.encoder(small.clip())) == (16, 16)
    assert patch_size(small.encoder(small.siglip())) == (16, 16)
    with pytest.raises(ValueError, match="40 x 32 are not whole patches"), image_size(small.encoder(small.clip()), 40, 32):
        pass


def test_a_tower_without_patches_is_refused() -> None:
    with pytest.raises(UserError, match="takes images of its own size only; use --local-crops-number 0"):
        patch_size(small.encoder(small.resnet()))
