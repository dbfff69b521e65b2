"""Image towers from their patches on give what the whole tower gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from common.errors import UserError
from models.image_tower import ImageTower
from tests.models import small


def _clip(**vision: Any) -> Callable[[], nn.Module]:
    return lambda: open_clip.CLIP(embed_dim=small.WIDTH, vision_cfg={**small.VISION, **vision}, text_cfg=small.TEXT)


def _timm(**trunk: Any) -> Callable[[], nn.Module]:
    return lambda: small._with_trunk(VisionTransformer(**{**small.TRUNK, **trunk}))


def _eva(**trunk: Any) -> Callable[[], nn.Module]:
    return lambda: small._with_trunk(Eva(**{**small.TRUNK, **trunk}))


POOLER = {"attn_pooler_queries": 3, "attn_pooler_heads": 2}
TOWERS: dict[str, Callable[[], nn.Module]] = {
    "clip": small.clip,
    "average": _clip(pool_type="avg"),
    "norm after pooling": _clip(final_ln_after_pool=True),
    "average, norm after pooling": _clip(pool_type="avg", final_ln_after_pool=True),
    "no first norm, sines, layer scale": _clip(no_ln_pre=True, pos_embed_type="sin_cos_2d", ls_init_value=0.3),
    "patch dropout": _clip(patch_dropout=0.5),
    "other blocks": _clip(qk_norm=True, scale_fc=True),
    "coca": small.coca,
    "parallel": _clip(attentional_pool="parallel", **POOLER),
    "cascade": _clip(attentional_pool="cascade", width=small.WIDTH, **POOLER),
    "siglip": small.siglip,
    "slip": small.slip,
    "registers": _timm(reg_tokens=2, no_embed_class=True, pre_norm=True),
    "average of timm": _timm(global_pool="avg"),
    "dynamic size": _timm(dynamic_img_size=True),
    "eva02": small.eva02,
    "eva, dynamic size": _eva(use_rot_pos_emb=True, dynamic_img_size=True),
    "eva, mixed rotation": _eva(use_rot_pos_emb=True, rope_type="mixed"),
}


@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_patches_of_an_image_give_the_features_of_the_image(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = small.encoder(TOWERS[name]())
    tower, pixels = ImageTower(encoder), small.pixels(encoder)
    patches = tower.embed_patches(pixels)
    assert patches.shape == (3, tower.n_patches, tower.width)
    features = encoder.image_tower(pixels)
    features = features[0] if isinstance(features, tuple) else features
    torch.testing.assert_close(tower.encode_patches(patches), features, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_vit_b_32() -> None:
    encoder = small.vit_b_32()
    tower, pixels = ImageTower(encoder), small.pixels(encoder, 1)
    assert (tower.n_patches, tower.width) == (49, 768)
    torch.testing.assert_close(tower.encode_patches(tower.embed_patches(pixels)), encoder.image_tower(pixels), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("build", "kind"), [(small.resnet, "ModifiedResNet"), (small.convnext, "ConvNeXt")])
def test_a_tower_without_patches_says_so(build: Callable[[], nn.Module], kind: str) -> None:
    tower = ImageTower(small.encoder(build()))
    assert not tower.takes_patches
    for ask in (lambda: tower.n_patches, lambda: tower.width, lambda: tower.encode_patches(torch.zeros(1, 4, 32))):
        with pytest.raises(UserError, match=rf"image tower of 'small' \({kind}\)"):
            ask()


def test_a_timm_network_with_steps_of_its_own_is_not_taken_for_a_plain_one() -> None:
    class Changed(VisionTransformer):
        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward_features(x) + 1

    assert not ImageTower(small.encoder(small._with_trunk(Changed(**small.TRUNK)))).takes_patches
