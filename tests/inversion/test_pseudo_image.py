"""OVI's side: an image's own patches give the image's embedding, and pseudo-patches are spread as published."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from inversion.pseudo_image import PseudoImage, spread
from models.encoder import Encoder
from models.image_tower import ImageTower
from models.loading import load_encoder
from tests.models import small

BUILDERS = {"clip": small.clip, "coca": small.coca, "siglip": small.siglip_both, "slip": small.slip, "eva02": small.eva02}


@functools.cache
def _encoder(name: str) -> Encoder:
    return load_encoder("tiny") if name == "tiny" else small.encoder(BUILDERS[name]())


def _drawn(tower: PseudoImage, batch: int = 3) -> Tensor:
    return 0.5 * torch.randn(batch, *tower.shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("n_patches", "n_pseudo", "counts"), [
    (49, 1, [49]), (256, 4, [64] * 4), (256, 2, [128] * 2), (196, 4, [49] * 4), (196, 1, [196]), (196, 2, [98] * 2),
    (49, 2, [25, 24]), (49, 4, [13, 12, 12, 12]), (5, 5, [1] * 5),
])  # fmt: skip
def test_the_published_spread(n_patches: int, n_pseudo: int, counts: list[int]) -> None:
    """Patch j gets pseudo-patch floor(j P / N): runs in the order of the patches."""
    index = spread(n_pseudo, n_patches)
    assert index.tolist() == [j * n_pseudo // n_patches for j in range(n_patches)]
    assert index.bincount().tolist() == counts


@pytest.mark.parametrize("name", [*BUILDERS, "tiny"])
@torch.no_grad()
def test_an_images_own_patches_give_its_embedding(name: str) -> None:
    encoder = _encoder(name)
    tower, pixels = ImageTower(encoder), small.pixels(encoder)
    pseudo = PseudoImage(encoder, tower.n_patches)
    torch.testing.assert_close(pseudo.features(tower.embed_patches(pixels)), encoder.encode_image(pixels), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["clip", "siglip"])
@torch.no_grad()
def test_few_pseudo_patches_are_many_equal_ones(name: str) -> None:
    encoder = _encoder(name)
    few, many = PseudoImage(encoder, 2), PseudoImage(encoder, 4)
    pseudo_tokens = _drawn(few)
    torch.testing.assert_close(few.features(pseudo_tokens), many.features(pseudo_tokens.repeat_interleave(2, dim=1)))


@pytest.mark.parametrize("name", [*BUILDERS, "tiny"])
def test_gradients_reach_every_pseudo_patch_and_nothing_else(name: str) -> None:
    tower = PseudoImage(_encoder(name), 3)
    pseudo_tokens = _drawn(tower).requires_grad_(True)
    tower.features(pseudo_tokens)[:, :5].sum().backward()
    assert pseudo_tokens.grad is not None and (pseudo_tokens.grad.norm(dim=2) > 0).all()
    assert all(parameter.grad is None for parameter in tower.encoder.parameters())


def test_a_batch_gives_what_its_items_give_alone() -> None:
    tower = PseudoImage(_encoder("clip"), 2)
    pseudo_tokens = _drawn(tower, 64)
    together = tower.features(pseudo_tokens)
    for item in range(0, 64, 9):
        torch.testing.assert_close(tower.features(pseudo_tokens[item : item + 1])[0], together[item], atol=1e-6, rtol=0)


def test_features_are_unit_rows_behind_the_adapter() -> None:
    encoder = small.encoder(small.clip())
    tower = PseudoImage(encoder)
    plain = tower.features(_drawn(tower))
    encoder.image_adapter = nn.Linear(small.WIDTH, small.WIDTH)
    torch.testing.assert_close(tower.features(_drawn(tower)), encoder.adapt_image(plain))
    torch.testing.assert_close(plain.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("name", ["clip", "eva02"])
def test_half_precision_stays_close_and_gives_float32(name: str) -> None:
    tower = PseudoImage(_encoder(name))
    expected = tower.features(_drawn(tower))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = tower.features(_drawn(tower))
    assert features.dtype == torch.float32
    assert F.cosine_similarity(features, expected).min() > 0.999


@pytest.mark.parametrize("n_tokens", [0, 5])
def test_as_many_pseudo_patches_as_patches_at_most(n_tokens: int) -> None:
    with pytest.raises(UserError, match=f"{n_tokens} pseudo-patches cannot fill the 4 patches of 'small'"):
        PseudoImage(_encoder("clip"), n_tokens)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("build", [small.clip, small.siglip, small.eva02])
def test_an_encoder_that_moved(build: type) -> None:
    encoder = small.encoder(build())
    tower = PseudoImage(encoder, 3)
    expected = tower.features(_drawn(tower))
    encoder.to("cuda")
    torch.testing.assert_close(tower.features(_drawn(tower).cuda()).cpu(), expected, atol=1e-4, rtol=0)
