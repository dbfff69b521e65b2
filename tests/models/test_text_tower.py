"""Text towers: what is cut away changes nothing, and the result is that of open_clip's own code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from common.errors import UserError
from models.encoder import Encoder
from models.text_tower import TextTower
from tests.models import small

PROMPTS = [*small.PROMPTS, "wow! what a photo!", "!", "a"]  # '!' is token 0, which is also the padding


def _tokens(length: int) -> Tensor:
    return SimpleTokenizer(context_length=length)(PROMPTS)


def _eos() -> nn.Module:
    """A tower that reads the feature of the first token that equals ``eos_id``."""
    return small.custom_text(pool_type="eos", eos_id=49407)


CAUSAL: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "clip": (small.clip, 77),
    "eva02": (small.custom_text, 77),
    "eos": (_eos, 77),
    "coca": (small.coca, 76),
}


def _model(name: str) -> nn.Module:
    build, length = CAUSAL[name]
    return small.encoder(build(), length=length).model


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_trimmed_is_full_is_open_clip(name: str) -> None:
    model, tokens = _model(name), _tokens(CAUSAL[name][1])
    tower = TextTower(model)
    trimmed = tower.trim(tokens)
    assert trimmed.shape[1] < 30 < tokens.shape[1]
    expected = model.encode_text(tokens, normalize=False)
    torch.testing.assert_close(tower.encode(tokens), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(tower.encode(trimmed), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_a_prompt_alone_is_the_prompt_in_a_batch(name: str) -> None:
    tower, tokens = TextTower(_model(name)), _tokens(CAUSAL[name][1])
    together = tower.encode(tower.trim(tokens))
    for row, feature in zip(tokens, together, strict=True):
        torch.testing.assert_close(tower.encode(tower.trim(row[None]))[0], feature, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["clip", "eva02", "eos"])
def test_one_column_less_would_be_wrong(name: str) -> None:
    """The cut is right behind the last end-of-text token, not somewhere after it."""
    tower, tokens = TextTower(_model(name)), _tokens(77)
    trimmed = tower.trim(tokens)
    assert (trimmed[:, -1] == 49407).any()
    assert torch.equal(tower.end_of_text(trimmed), (tokens == 49407).int().argmax(dim=1))


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_a_full_context_stays_whole(name: str) -> None:
    build, length = CAUSAL[name]
    model = small.encoder(build(), length=length).model
    tokens = SimpleTokenizer(context_length=length)(["word " * 100, "a cat"])
    tower = TextTower(model)
    assert torch.equal(tower.trim(tokens), tokens)
    torch.testing.assert_close(tower.encode(tokens), model.encode_text(tokens, normalize=False), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_embeddings_of_the_tokens_give_the_features_of_the_tokens(name: str) -> None:
    tower, tokens = TextTower(_model(name)), _tokens(CAUSAL[name][1])
    trimmed = tower.trim(tokens)
    assert torch.equal(tower.encode_embeddings(tower.embed(trimmed), trimmed), tower.encode(trimmed))


def _padding_mask() -> nn.Module:
    """Attends in both directions, but not to padding."""
    model = small.custom_text(no_causal_mask=True)
    model.text.use_pad_mask = True
    return model


SEQUENCES: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    **{name: (build, small.VOCABULARY, length) for name, (build, length) in CAUSAL.items()},
    "siglip": (small.siglip_text, 320, 16),
    "first": (lambda: small.custom_text(pool_type="first"), small.VOCABULARY, 77),
    "last": (lambda: small.custom_text(pool_type="last"), small.VOCABULARY, 77),
    "padding mask": (_padding_mask, small.VOCABULARY, 77),
}


@pytest.mark.parametrize("name", SEQUENCES)
@torch.no_grad()
def test_blocks_fed_with_the_sequence_give_the_feature(name: str) -> None:
    build, vocabulary, length = SEQUENCES[name]
    encoder = small.encoder(build(), vocabulary, length)
    tower = encoder.text_tower
    for prompt in ("a cat", "wow! what"):
        tokens = encoder._tokenizer([prompt])
        expected = encoder.model.encode_text(tokens, normalize=False)
        for cut in (tokens, tower.trim(tokens)):
            sequence = tower.sequence(cut)
            x = tower.module.transformer((sequence.embeddings + sequence.positions)[None], attn_mask=sequence.mask)
            torch.testing.assert_close(tower.head(x[:, sequence.pooled]), expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_padding_mask_is_heeded() -> None:
    encoder = small.encoder(_padding_mask())
    tokens = encoder._tokenizer(small.PROMPTS)
    torch.testing.assert_close(encoder.text_tower.encode(tokens), encoder.model.encode_text(tokens, normalize=False), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_what_gives_no_sequence_says_so(tmp_path: Path) -> None:
    for model in (small.huggingface_text(tmp_path), small.custom_text(pool_type="none")):
        tower = TextTower(model)
        with pytest.raises(UserError, match=f"kind {type(tower.module).__name__} shows neither"):
            tower.sequence(torch.ones(1, 5, dtype=torch.int64))


def test_gradients_reach_a_pseudo_token() -> None:
    tower, tokens = TextTower(_model("clip")), TextTower(_model("clip")).trim(_tokens(77))
    embeddings = tower.embed(tokens).detach().requires_grad_(True)
    features = tower.encode_embeddings(embeddings, tokens)
    features.sum().backward()
    assert embeddings.grad is not None and embeddings.grad[:, 1].abs().sum() > 0


@torch.no_grad()
def test_a_tower_that_sees_both_ways_keeps_its_padding() -> None:
    encoder = small.encoder(small.siglip_text(), vocabulary=320, length=16)
    tokens = encoder._tokenizer(["a cat", "dog"])
    tower = encoder.text_tower
    assert not tower.is_causal and tower.trim(tokens) is tokens
    expected = encoder.model.encode_text(tokens, normalize=False)
    torch.testing.assert_close(tower.encode(tokens), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(tower.encode_embeddings(tower.embed(tokens), tokens), expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_huggingface_tower_runs_as_it_is(tmp_path: Path) -> None:
    encoder = small.encoder(small.huggingface_text(tmp_path), vocabulary=100, length=20)
    tokens = encoder._tokenizer(["a cat", "dog"])
    assert encoder.text_tower.trim(tokens) is tokens
    tower = encoder.text_tower
    torch.testing.assert_close(tower.encode(tokens), encoder.model.encode_text(tokens, normalize=False))
    torch.testing.assert_close(tower.encode_embeddings(tower.embed(tokens), tokens), tower.encode(tokens))


@pytest.mark.parametrize("architecture", ["ViT-B-32-quickgelu", "coca_ViT-B-32", "EVA02-B-16", "ViT-B-16-SigLIP", "PE-Core-B-16"])
@torch.no_grad()
def test_the_small_towers_are_made_as_the_published_ones(architecture: str) -> None:
    """What decides between the paths above, read from open_clip's own configurations: they must not change unnoticed."""
    config = open_clip.get_model_config(architecture)["text_cfg"]
    form = {key: config.get(key) for key in ("no_causal_mask", "embed_cls", "pool_type", "proj_bias") if config.get(key)}
    expected = {
        "coca_ViT-B-32": {"embed_cls": True},
        "ViT-B-16-SigLIP": {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    }
    assert form == expected.get(architecture, {})


def test_the_tower_of_an_encoder_is_a_view() -> None:
    encoder: Encoder = small.encoder(small.custom_text())
    assert encoder.text_tower.module is encoder.model.text
    assert small.encoder(small.clip()).text_tower.context_length == 77
