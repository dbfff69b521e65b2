"""OTI's side: pseudo-tokens that are a word's embedding give the word's features, and every form gives the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from inversion.pseudo_text import Form, PseudoText
from models.encoder import Encoder
from models.loading import load_encoder
from tests.models import small

BYTE_PAIRS, LETTERS = (small.VOCABULARY, 77), (320, 16)


def _eos() -> nn.Module:
    return small.custom_text(pool_type="eos", eos_id=49407)


def _last() -> nn.Module:
    """Causal, but read at the last position: nothing can be cut, the prefix can be cached."""
    return small.custom_text(pool_type="last")


def _layer_scale() -> nn.Module:
    return small.custom_text(ls_init_value=0.5)


def _other_blocks() -> nn.Module:
    return small.custom_text(scale_attn=True, qk_norm=True)


def _padding_mask() -> nn.Module:
    """Attends in both directions, but not to padding: what is masked is left out although the tower is not causal."""
    model = small.custom_text(no_causal_mask=True)
    model.text.use_pad_mask = True
    return model


SHAPES: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "clip": (small.clip, *BYTE_PAIRS),
    "eva02": (small.custom_text, *BYTE_PAIRS),
    "eos": (_eos, *BYTE_PAIRS),
    "last": (_last, *BYTE_PAIRS),
    "layer scale": (_layer_scale, *BYTE_PAIRS),
    "other blocks": (_other_blocks, *BYTE_PAIRS),
    "padding mask": (_padding_mask, *BYTE_PAIRS),
    "slip": (small.slip, *BYTE_PAIRS),
    "coca": (small.coca, small.VOCABULARY, 76),
    "siglip": (small.siglip_both, *LETTERS),
}
CAUSAL = [name for name in SHAPES if name not in ("siglip", "padding mask")]


@functools.cache
def _encoder(name: str) -> Encoder:
    if name == "tiny":
        return load_encoder("tiny")
    if name == "ViT-B/32":
        return small.vit_b_32()
    build, vocabulary, length = SHAPES[name]
    return small.encoder(build(), vocabulary, length)


def _drawn(tower: PseudoText, batch: int = 3) -> Tensor:
    scale = tower.encoder.text_tower.module.token_embedding.weight.std() if tower.encoder.text_tower.is_open_clip else 0.02
    return scale * torch.randn(batch, *tower.shape, generator=torch.Generator().manual_seed(3))


def _features_and_gradient(tower: PseudoText, pseudo_tokens: Tensor) -> tuple[Tensor, Tensor]:
    pseudo_tokens = pseudo_tokens.clone().requires_grad_(True)
    features = tower.features(pseudo_tokens)
    target = F.normalize(torch.randn(features.shape, generator=torch.Generator().manual_seed(4)), dim=-1)
    (gradient,) = torch.autograd.grad((1 - (features * target).sum(dim=1)).sum(), pseudo_tokens)
    return features.detach(), gradient


def _assert_same(tower: PseudoText, other: PseudoText, batch: int = 3) -> None:
    pseudo_tokens = _drawn(tower, batch)
    features, gradient = _features_and_gradient(tower, pseudo_tokens)
    expected, expected_gradient = _features_and_gradient(other, pseudo_tokens)
    assert gradient.abs().max() > 0
    assert (features - expected).abs().max() < 1e-6
    assert (gradient - expected_gradient).norm() < 5e-6 * expected_gradient.norm()  # rounding of twelve layers, there and back


@pytest.mark.parametrize("form", ["full", "cut", "cached"])
@pytest.mark.parametrize(("n_tokens", "template", "tokens", "slots", "end"), [
    (1, "a photo of {}", [49406, 320, 1125, 539, 1950, 49407], [4], 5),
    (3, "a photo of {c}", [49406, 320, 1125, 539, 1950, 1950, 1950, 49407], [4, 5, 6], 7),
    (1, "A photo of {}.", [49406, 320, 1125, 539, 1950, 269, 49407], [4], 6),
])  # fmt: skip
def test_the_published_tokens(form: Form, n_tokens: int, template: str, tokens: list[int], slots: list[int], end: int) -> None:
    """Ids of the released code's sentence (specification of the paper's protocol: the pound sign is 1950, a full stop 269)."""
    tower = PseudoText(_encoder("clip"), template, n_tokens, form)
    assert tower._tokens[0].tolist() == tokens + [0] * (77 - len(tokens))
    assert (tower.slots, tower.end, tower.shape) == (slots, end, (n_tokens, small.WIDTH))


@pytest.mark.parametrize("name", [*SHAPES, "tiny"])
@torch.no_grad()
def test_a_words_own_embedding_gives_the_words_features(name: str) -> None:
    encoder = _encoder(name)
    words, template = (["q", "w"], "of {} a") if name == "siglip" else (["cat", "dog"], "a photo of a {}, up close.")
    tower = PseudoText(encoder, template)
    tokens = encoder._tokenizer([template.replace("{}", word) for word in words])
    embeddings = encoder.text_tower.embed(tokens)[:, tower.slots]
    torch.testing.assert_close(tower.features(embeddings), encoder.encode_text(tokens), atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_embeddings_of_several_words_give_their_features() -> None:
    encoder = _encoder("clip")
    tower = PseudoText(encoder, "{} on a mat", 3)
    tokens = encoder.tokenize(["big black cat on a mat"])
    torch.testing.assert_close(tower.features(encoder.text_tower.embed(tokens)[:, 1:4]), encoder.encode_text(tokens), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("n_tokens", "template"), [(1, "a photo of {}"), (3, "{} seen, from above.")])
@pytest.mark.parametrize("name", [*CAUSAL, "tiny"])
def test_cut_is_cached_is_full(name: str, n_tokens: int, template: str) -> None:
    full, cut, cached = (PseudoText(_encoder(name), template, n_tokens, form) for form in ("full", "cut", "cached"))
    _assert_same(cut, full)
    _assert_same(cached, full)


@pytest.mark.parametrize("n_tokens", [1, 3])
@pytest.mark.parametrize("name", ["siglip", "padding mask"])
def test_cached_is_full_in_a_tower_that_sees_both_ways(name: str, n_tokens: int) -> None:
    _assert_same(PseudoText(_encoder(name), "of {} a", n_tokens), PseudoText(_encoder(name), "of {} a", n_tokens, "full"))


def test_vit_b_32() -> None:
    full, cut, cached = (PseudoText(_encoder("ViT-B/32"), n_tokens=2, form=form) for form in ("full", "cut", "cached"))
    _assert_same(cut, full, batch=1)
    _assert_same(cached, full, batch=1)


def test_what_is_computed_in_every_step() -> None:
    """The whole point: two positions for the published sentence, all of them where each sees every other."""
    assert PseudoText(_encoder("clip"))._live == [4, 5]
    assert PseudoText(_encoder("clip"), form="cut")._live == [0, 1, 2, 3, 4, 5]
    assert PseudoText(_encoder("clip"), "a {}, maybe", 2)._live == [2, 3, 4, 5, 6]
    assert PseudoText(_encoder("coca"))._live == [4, 5, 6, 76]  # the first padding token counts, see TextTower.trim
    assert PseudoText(_encoder("siglip"), "a {}")._live == list(range(16))
    assert PseudoText(_encoder("padding mask"))._live == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["clip", "coca", "siglip"])
def test_a_batch_gives_what_its_items_give_alone(name: str) -> None:
    tower = PseudoText(_encoder(name), "a {}", 2)
    pseudo_tokens = _drawn(tower, 64)
    features, gradient = _features_and_gradient(tower, pseudo_tokens)
    for item in range(0, 64, 9):
        torch.testing.assert_close(tower.features(pseudo_tokens[item : item + 1])[0], features[item], atol=1e-6, rtol=0)
    assert gradient.flatten(1).norm(dim=1).min() > 0


def test_features_are_unit_rows_behind_the_adapter() -> None:
    encoder = small.encoder(small.clip())
    tower = PseudoText(encoder)
    plain = tower.features(_drawn(tower))
    encoder.text_adapter = nn.Linear(small.WIDTH, small.WIDTH)
    adapted = tower.features(_drawn(tower))
    torch.testing.assert_close(adapted, encoder.adapt_text(plain))
    torch.testing.assert_close(adapted.norm(dim=1), torch.ones(3))


def test_nothing_is_tokenised_or_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = small.encoder(small.clip())
    tower = PseudoText(encoder)
    tower.features(_drawn(tower))
    monkeypatch.setattr(encoder, "_tokenizer", None)
    monkeypatch.setattr(type(encoder.text_tower), "sequence", None)
    tower.features(_drawn(tower))


def test_a_first_call_in_inference_mode_leaves_gradients_possible() -> None:
    tower = PseudoText(_encoder("clip"))
    with torch.inference_mode():
        tower.features(_drawn(tower))
    _assert_same(tower, PseudoText(_encoder("clip"), form="full"))


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_half_precision_stays_close_and_gives_float32(name: str) -> None:
    tower = PseudoText(_encoder(name), "a {}")
    pseudo_tokens = _drawn(tower)
    expected = tower.features(pseudo_tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, gradient = _features_and_gradient(tower, pseudo_tokens)
    assert features.dtype == gradient.dtype == torch.float32
    assert (features * expected).sum(dim=1).min() > 0.999
    torch.testing.assert_close(tower.features(pseudo_tokens), expected)


def test_only_the_pseudo_tokens_get_gradients() -> None:
    encoder = _encoder("clip")
    tower = PseudoText(encoder)
    pseudo_tokens = _drawn(tower).requires_grad_(True)
    tower.features(pseudo_tokens).sum().backward()
    assert pseudo_tokens.grad is not None
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_letters_stand_side_by_side_where_spaces_are_tokens() -> None:
    tower = PseudoText(_encoder("siglip"), "a {}!", 3)
    assert tower.slots == [2, 3, 4]


def test_a_huggingface_tower_runs_in_full(tmp_path: Path) -> None:
    encoder = small.encoder(small.huggingface_text(tmp_path), vocabulary=100, length=20)
    tower = PseudoText(encoder, "of {} a")
    assert tower.form == "full"
    tokens = encoder._tokenizer(["of q a"])
    embeddings = encoder.text_tower.embed(tokens)[:, tower.slots]
    torch.testing.assert_close(tower.features(embeddings), encoder.encode_text(tokens), atol=1e-6, rtol=0)
    assert _features_and_gradient(tower, _drawn(tower))[1].abs().sum() > 0
    with pytest.raises(UserError, match="cannot be cut"):
        PseudoText(encoder, "of {} a", form="cut")


def test_siglip_refuses_truncation() -> None:
    with pytest.raises(UserError, match="padding and cannot be cut; use the form 'cached'"):
        PseudoText(_encoder("siglip"), "a {}", form="cut")


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{} and {c}"])
def test_a_template_must_mark_one_place(template: str) -> None:
    with pytest.raises(UserError, match="exactly once"):
        PseudoText(_encoder("clip"), template)


def test_no_pseudo_tokens_at_all() -> None:
    with pytest.raises(UserError, match="at least 1"):
        PseudoText(_encoder("clip"), n_tokens=0)


@pytest.mark.parametrize(("name", "longest"), [("clip", 75), ("siglip", 16)])
def test_a_sentence_may_fill_the_context_but_no_more(name: str, longest: int) -> None:
    assert len(PseudoText(_encoder(name), "{}", longest).slots) == longest
    with pytest.raises(UserError, match="does not fit the context of"):
        PseudoText(_encoder(name), "{}", longest + 1)


def test_text_behind_the_place_is_not_dropped_unseen() -> None:
    with pytest.raises(UserError, match="does not fit the context of 77 tokens"):
        PseudoText(_encoder("clip"), "{}" + " word" * 75)


def test_a_tokenizer_without_any_placeholder() -> None:
    encoder = small.encoder(small.clip())
    bytewise = encoder._tokenizer
    encoder._tokenizer = lambda prompts: bytewise([f"{prompt} {len(prompt)}" for prompt in prompts])  # a word changes what is behind it
    with pytest.raises(UserError, match="keeps no placeholder"):
        PseudoText(encoder)


def test_a_feature_that_is_read_before_the_place() -> None:
    encoder = small.encoder(small.custom_text(pool_type="first"))
    with pytest.raises(UserError, match="sees no pseudo-token"):
        PseudoText(encoder)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["clip", "coca", "siglip"])
def test_an_encoder_that_moved(name: str) -> None:
    build, vocabulary, length = SHAPES[name]
    encoder = small.encoder(build(), vocabulary, length)
    tower = PseudoText(encoder, "a {}")
    expected = tower.features(_drawn(tower))
    encoder.to("cuda")
    torch.testing.assert_close(tower.features(_drawn(tower).cuda()).cpu(), expected, atol=1e-5, rtol=0)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        features = tower.features(_drawn(tower).cuda())
    assert (features.cpu() * expected).sum(dim=1).min() > 0.999
