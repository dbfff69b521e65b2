"""The Encoder: unit vectors, logits, and its being always in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.encoder import Encoder
from tests.models import small

BUILD: dict[str, Callable[[], Encoder]] = {
    "clip": lambda: small.encoder(small.clip()),
    "coca": lambda: small.encoder(small.coca(), length=76),
    "siglip": lambda: small.encoder(small.siglip_text(), vocabulary=320, length=16),
    "eva02": lambda: small.encoder(small.eva02()),
    "resnet": lambda: small.encoder(small.resnet()),
}


@pytest.fixture
def clip() -> Encoder:
    return BUILD["clip"]()


@pytest.mark.parametrize("name", BUILD)
def test_embeddings_are_those_of_open_clip_at_unit_length(name: str) -> None:
    encoder = BUILD[name]()
    images, texts = small.embeddings(encoder)
    with torch.no_grad():
        expected_images = encoder.model.encode_image(small.pixels(encoder), normalize=True)
        expected_texts = encoder.model.encode_text(encoder._tokenizer(small.PROMPTS), normalize=True)
    torch.testing.assert_close(images, expected_images, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(texts, expected_texts, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3))
    assert images.shape == texts.shape == (3, encoder.embed_dim)


def test_an_image_does_not_depend_on_its_batch(clip: Encoder) -> None:
    images = small.pixels(clip, 5)
    with torch.no_grad():
        alone = torch.cat([clip.encode_image(image[None]) for image in images])
        torch.testing.assert_close(clip.encode_image(images), alone, atol=1e-6, rtol=1e-5)


def test_logits_are_scaled_cosines(clip: Encoder) -> None:
    images, texts = small.embeddings(clip)
    logits = clip.logits(images, texts)
    for row in range(3):
        for column in range(3):
            cosine = sum(x * y for x, y in zip(images[row].tolist(), texts[column].tolist(), strict=True))
            assert logits[row, column].item() == pytest.approx(clip.logit_scale.exp().item() * cosine, rel=1e-4, abs=1e-4)


def test_a_logit_bias_is_added(clip: Encoder) -> None:
    images, texts = small.embeddings(clip)
    before = clip.logits(images, texts)
    assert clip.logit_bias is None
    clip.model.logit_bias = nn.Parameter(torch.tensor(-10.0))
    torch.testing.assert_close(clip.logits(images, texts), before - 10)


def test_it_stays_in_evaluation_mode(clip: Encoder) -> None:
    nn.Sequential(clip).train()
    assert not any(module.training for module in clip.modules())


def test_batchnorm_keeps_its_statistics_in_a_pass_with_gradient() -> None:
    encoder = BUILD["resnet"]()
    encoder.train()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    encoder.requires_grad_(True)
    encoder.encode_image(small.pixels(encoder)).sum().backward()
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())


def test_an_adapters_output_is_brought_to_unit_length(clip: Encoder) -> None:
    images, texts = small.embeddings(clip)
    clip.image_adapter = nn.Linear(small.WIDTH, small.WIDTH)
    adapted, same = small.embeddings(clip)
    torch.testing.assert_close(adapted, F.normalize(clip.image_adapter(images), dim=-1))
    assert torch.equal(same, texts)
    assert torch.equal(clip.image_features(small.pixels(clip)), images)  # the features are from before the adapter


def test_half_precision_compute_still_gives_float32_unit_rows(clip: Encoder) -> None:
    exact, _ = small.embeddings(clip)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images, texts = small.embeddings(clip)
        logits = clip.logits(images, texts)
    assert images.dtype == texts.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(images, exact, atol=0.05, rtol=0)


def test_tokens_are_cut_to_the_longest_prompt(clip: Encoder) -> None:
    assert clip.tokenize(["a"]).shape == (1, 3)
    assert clip.tokenize(["a", "a cat on a mat"]).shape == (2, 7)
    assert BUILD["siglip"]().tokenize(["a"]).shape == (1, 16)


def test_sizes(clip: Encoder) -> None:
    assert (clip.embed_dim, clip.image_size, clip.device.type) == (32, 32, "cpu")
    assert BUILD["eva02"]().image_size == 32
