"""Tunings: counts of trained parameters, every tuning on every kind of architecture, and the formulas of adapter and probe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.errors import UserError
from models.adapter import ClipAdapter, LinearProbe
from models.encoder import Encoder
from models.loading import load_encoder
from models.lora import fold_lora
from models.tuning_options import LATER_OPTIONS, TUNING_OPTIONS, all_options_of, options_of, readers_of
from models.tunings import (
    TUNING_NAMES,
    TUNINGS,
    TuningOptions,
    apply_tuning,
    text_tower_is_frozen,
    towers_are_frozen,
    trained_parameters,
    tuning_tag,
)
from tests.models import small

CLASSES = ("cat", "crop land", "dog")

# Trained parameters and tensors at the published settings. ViT-B/32: measured on the released code (specification of IIMM, section 3);
# the others: by hand from widths and depths, e.g. SigLIP's LoRA of rank 1: 24 attentions and one pooling attention x 4 x 768.
COUNTS = {
    "ViT-B-32-quickgelu": {
        "full": 151_277_313,
        "attention": 30_670_848,
        "bias": 168_960,
        "adapter": 262_144,
        "lora": 61_440,
        "l-lora": 30_720,
    },
    "coca_ViT-B-32": {"attention": 30_670_848, "bias": 168_960, "adapter": 262_144, "lora": 61_440 + 1024 + 1280},
    "ViT-B-16-SigLIP": {"attention": 42_467_328, "bias": 202_752, "adapter": 589_824, "lora": 25 * 4 * 768},
    "EVA02-B-16": {"attention": 30_670_848, "bias": 205_824, "adapter": 262_144, "lora": 61_440},
}
TENSORS = {"full": 302, "attention": 24, "bias": 144, "adapter": 4, "lora": 96, "l-lora": 48}

BUILD: dict[str, Callable[[], Encoder]] = {
    "clip": lambda: small.encoder(small.clip()),
    "coca": lambda: small.encoder(small.coca(), length=76),
    "siglip": lambda: small.encoder(small.siglip()),
    "siglip's text tower": lambda: small.encoder(small.siglip_text(), vocabulary=320, length=16),
    "eva02": lambda: small.encoder(small.eva02()),
    "resnet": lambda: small.encoder(small.resnet()),
    "convnext": lambda: small.encoder(small.convnext()),
}
CONVOLUTIONAL = ("resnet", "convnext")
WITHOUT_PLACE = [(name, tuning) for name in CONVOLUTIONAL for tuning in ("lora", "l-lora", "attention", "parallel-adapter")]


@pytest.fixture
def clip() -> Encoder:
    return BUILD["clip"]()


@pytest.fixture(scope="module", params=COUNTS)
def full_size(request: pytest.FixtureRequest) -> Iterator[tuple[str, Encoder]]:
    if request.param == "ViT-B-32-quickgelu":
        yield request.param, load_encoder(f"{request.param}/random")
    else:
        model = small.full_size(request.param)
        if hasattr(model, "text_decoder"):
            del model.text_decoder
        vocabulary = 320 if request.param == "ViT-B-16-SigLIP" else small.VOCABULARY
        yield request.param, small.encoder(model, vocabulary=vocabulary, length=int(small.TEXT["context_length"]) - 13, noise=0)


def _tune(encoder: Encoder, name: str, **options: object) -> dict[str, nn.Parameter]:
    with torch.no_grad():
        text = encoder.encode_text(encoder.tokenize(CLASSES))
    apply_tuning(encoder, name, TuningOptions(**options), classnames=CLASSES, text_embeddings=text)  # type: ignore[arg-type]
    return trained_parameters(encoder)


def _logits(encoder: Encoder) -> torch.Tensor:
    images = encoder.encode_image(small.pixels(encoder))
    if encoder.probe is not None:
        return encoder.probe(images)
    return encoder.logits(images, encoder.encode_text(encoder.tokenize(CLASSES)))


@pytest.mark.parametrize("name", ["full", "attention", "bias", "adapter", "lora", "l-lora"])
def test_counts_of_trained_parameters(full_size: tuple[str, Encoder], name: str) -> None:
    architecture, encoder = full_size
    trained = _tune(encoder, name, rank=1)
    count = sum(parameter.numel() for parameter in trained.values())
    fold_lora(encoder)
    encoder.image_adapter = encoder.text_adapter = nn.Identity()
    if name in COUNTS[architecture]:
        assert count == COUNTS[architecture][name]
    elif name == "full":
        assert count == sum(parameter.numel() for parameter in encoder.model.parameters())
    if architecture == "ViT-B-32-quickgelu":
        assert len(trained) == TENSORS[name]


def test_a_probe_has_a_weight_and_a_bias_per_class(clip: Encoder) -> None:
    assert {name: tuple(parameter.shape) for name, parameter in _tune(clip, "probe").items()} == {
        "probe.weight": (3, small.WIDTH),
        "probe.bias": (3,),
    }


@pytest.mark.parametrize(
    ("name", "tuning"), [(name, tuning) for name in BUILD for tuning in TUNING_NAMES if (name, tuning) not in WITHOUT_PLACE]
)
def test_every_tuning_trains_what_it_marks_and_nothing_else(name: str, tuning: str) -> None:
    encoder = BUILD[name]()
    trained = _tune(encoder, tuning)
    assert trained
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.05)
    for _ in range(2):  # LoRA's A has no gradient before B has moved
        optimizer.zero_grad()
        loss = F.cross_entropy(_logits(encoder), torch.arange(3))
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)
    for key, tensor in encoder.state_dict().items():
        if key in trained:
            assert torch.isfinite(tensor).all()
        else:
            assert torch.equal(tensor, before[key]), key  # buffers included: BatchNorm keeps its statistics
    moved = sum(not torch.equal(parameter, before[key]) for key, parameter in trained.items())
    assert moved > 0.8 * len(trained)  # biases of keys and weights that a projection cancels do not move


@pytest.mark.parametrize(("name", "tuning"), WITHOUT_PLACE)
def test_a_convolutional_tower_has_no_place_for_attention(name: str, tuning: str) -> None:
    encoder = BUILD[name]()
    lacks = r"(attention|blocks of a plain vision transformer)"
    with pytest.raises(UserError, match=rf"^The image tower of 'small' \(\w+\) has no {lacks}.* use one of: full, bias, adapter, probe\.$"):
        _tune(encoder, tuning)
    assert not trained_parameters(encoder)


@pytest.mark.parametrize("tuning", TUNING_NAMES)
def test_a_huggingface_text_tower(tuning: str, tmp_path: Path) -> None:
    encoder = small.encoder(small.huggingface_text(tmp_path), vocabulary=100, length=20)
    if tuning in ("lora", "l-lora", "attention"):
        with pytest.raises(UserError, match=r"^The text tower of 'small' \(HFTextEncoder\) has no attention"):
            _tune(encoder, tuning)
        assert not trained_parameters(encoder)
    else:
        trained = _tune(encoder, tuning)
        _logits(encoder).sum().backward()
        assert any(parameter.grad is not None for parameter in trained.values())
    if tuning == "bias":
        assert any(name.startswith("model.text.transformer.encoder.layer.1.") for name in trained)


@pytest.mark.parametrize("tuning", ["bias", "attention"])
def test_the_last_blocks_train(clip: Encoder, tuning: str) -> None:
    """The released code trained the first ones, which its documentation does not say."""
    blocks = {name.split("resblocks.")[1][0] for name in _tune(clip, tuning, train_blocks=2)}
    assert blocks == {"1", "2"}


def test_a_tower_with_fewer_blocks_is_trained_whole(clip: Encoder) -> None:
    assert len(_tune(clip, "attention", train_blocks=100)) == 6


# One tower alone


def test_the_vision_tower_alone_is_what_merging_merges() -> None:
    """ViT-B/32 has 87,456,000 parameters in a CLIPVisionModel (specification of merging, section 1.2)."""
    encoder = load_encoder("ViT-B-32-quickgelu/random")
    trained = _tune(encoder, "full", towers="vision")
    assert sum(parameter.numel() for parameter in trained.values()) == 87_456_000
    assert trained.keys() == {name for name, _ in encoder.named_parameters() if name.startswith("model.visual.")} - {"model.visual.proj"}


@pytest.mark.parametrize(
    ("name", "projection"), [("siglip", "visual.head."), ("eva02", "visual.head."), ("resnet", "visual.attnpool.c_proj.")]
)
def test_the_vision_tower_alone_of_other_architectures(name: str, projection: str) -> None:
    encoder = BUILD[name]()
    names = [key for key, _ in encoder.named_parameters()]
    trained = _tune(encoder, "full", towers="vision")
    assert [key for key, _ in encoder.named_parameters()] == names
    assert any(key.startswith(f"model.{projection}") for key in names)
    assert trained.keys() == {key for key in names if key.startswith("model.visual.") and not key.startswith(f"model.{projection}")}


def test_the_text_tower_alone(clip: Encoder) -> None:
    names = {name for name, _ in clip.named_parameters() if not name.startswith("model.visual.")}
    assert _tune(clip, "full", towers="text").keys() == names - {"model.text_projection", "model.logit_scale"}


@pytest.mark.parametrize("tuning", readers_of("towers"))
@pytest.mark.parametrize("side", ["vision", "text"])
def test_one_tower_trains_and_the_other_is_frozen(clip: Encoder, tuning: str, side: str) -> None:
    trained = _tune(clip, tuning, towers=side)
    assert trained and all(name.startswith("model.visual.") == (side == "vision") for name in trained)
    assert text_tower_is_frozen(clip) == (side == "vision") and not towers_are_frozen(clip)


def test_a_tower_that_does_not_train_needs_no_place_for_the_tuning(tmp_path: Path) -> None:
    encoder = small.encoder(small.huggingface_text(tmp_path), vocabulary=100, length=20)
    assert _tune(encoder, "lora", towers="vision")
    with pytest.raises(UserError, match="has no attention"):
        _tune(BUILD["convnext"](), "lora", towers="vision")


def test_tuning_again_starts_from_frozen(clip: Encoder) -> None:
    _tune(clip, "full")
    assert len(_tune(clip, "bias", train_blocks=1)) == 12


def test_the_adapter_mixes_a_bottleneck_into_the_features() -> None:
    """Against a loop over rows and units; raw and unit features give the same direction."""
    adapter = ClipAdapter(8, reduction=4, ratio=0.3, generator=torch.Generator().manual_seed(0))
    features = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    down, up = adapter.down.weight.tolist(), adapter.up.weight.tolist()
    for row, result in zip(features.tolist(), adapter(features).tolist(), strict=True):
        hidden = [max(0.0, sum(w * f for w, f in zip(unit, row, strict=True))) for unit in down]
        adapted = [max(0.0, sum(w * h for w, h in zip(unit, hidden, strict=True))) for unit in up]
        assert result == pytest.approx([0.3 * a + 0.7 * f for a, f in zip(adapted, row, strict=True)], abs=1e-6)
    torch.testing.assert_close(F.normalize(adapter(7 * features), dim=-1), F.normalize(adapter(features), dim=-1))


def test_the_adapters_stand_behind_both_towers(clip: Encoder) -> None:
    images, texts = small.embeddings(clip)
    _tune(clip, "adapter", reduction=8)
    for adapter, before, after in zip((clip.image_adapter, clip.text_adapter), (images, texts), small.embeddings(clip), strict=True):
        torch.testing.assert_close(after, F.normalize(adapter(before), dim=-1))
        assert not torch.allclose(after, before, atol=1e-4)
    assert not torch.equal(clip.image_adapter.down.weight, clip.text_adapter.down.weight)


def test_an_adapter_needs_a_unit_in_the_middle(clip: Encoder) -> None:
    with pytest.raises(UserError, match=r"--reduction 33 leaves nothing of an embedding of width 32"):
        _tune(clip, "adapter", reduction=33)
    assert isinstance(clip.image_adapter, nn.Identity)


def test_a_probe_from_text_starts_as_the_zero_shot_classifier(clip: Encoder) -> None:
    images, texts = clip.encode_image(small.pixels(clip)), clip.encode_text(clip.tokenize(CLASSES))
    zero_shot = clip.logits(images, texts)
    _tune(clip, "probe", probe_init="text")
    assert isinstance(clip.probe, LinearProbe) and clip.probe.classnames == CLASSES
    torch.testing.assert_close(clip.probe(images), zero_shot)


def test_a_random_probe_depends_on_the_seed_alone(clip: Encoder) -> None:
    start = [_tune(clip, "probe", seed=seed)["probe.weight"].clone() for seed in (0, 0, 1)]
    assert torch.equal(start[0], start[1]) and not torch.equal(start[0], start[2])
    probe = LinearProbe([str(index) for index in range(500)], 64, torch.tensor(0.0), torch.Generator().manual_seed(0))
    assert abs(probe.weight.std().item() * 8 - 1) < 5 / (2 * 500 * 64) ** 0.5
    assert not probe.bias.any()


def test_a_probe_without_what_it_needs_is_a_programming_error(clip: Encoder) -> None:
    with pytest.raises(ValueError, match="class names"):
        apply_tuning(clip, "probe", TuningOptions())
    with pytest.raises(ValueError, match="text embeddings"):
        apply_tuning(clip, "probe", TuningOptions(probe_init="text"), classnames=CLASSES)
    with pytest.raises(ValueError, match=r"\(3, 32\)"):
        apply_tuning(clip, "probe", TuningOptions(probe_init="text"), classnames=CLASSES, text_embeddings=torch.zeros(2, 32))


@pytest.mark.parametrize("build", [small.clip, small.custom_text])
def test_which_towers_are_frozen(build: Callable[[], nn.Module]) -> None:
    frozen = {name: (towers_are_frozen(encoder), text_tower_is_frozen(encoder)) for name, encoder in _each_tuned(build)}
    alike = {name: (name in ("adapter", "probe"),) * 2 for name in TUNING_NAMES}
    assert frozen == {**alike, "parallel-adapter": (False, True)}  # which the image tower alone has
    encoder = small.encoder(build())
    encoder.image_tower.requires_grad_(True)
    assert (towers_are_frozen(encoder), text_tower_is_frozen(encoder)) == (False, True)


def _each_tuned(build: Callable[[], nn.Module]) -> Iterator[tuple[str, Encoder]]:
    for name in TUNING_NAMES:
        encoder = small.encoder(build())
        _tune(encoder, name)
        yield name, encoder


def test_unknown_names_offer_the_nearest(clip: Encoder) -> None:
    with pytest.raises(UserError, match="'adaptor'; did you mean 'adapter'"):
        apply_tuning(clip, "adaptor", TuningOptions())
    with pytest.raises(UserError, match="did you mean 'lora'"):
        options_of("loar")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "--rank must be at least 1, not 0"),
        ({"train_blocks": 0}, "--train-blocks must be at least 1, not 0"),
        ({"reduction": -1}, "--reduction must be at least 1"),
        ({"lora_scale": float("nan")}, "--lora-scale must be a finite number"),
        ({"adapter_ratio": 1.5}, "--adapter-ratio must lie between 0 and 1, not 1.5"),
        ({"probe_init": "txt"}, "did you mean 'text'"),
        ({"towers": "visual"}, "Unknown choice of towers 'visual'; did you mean 'vision'"),
        ({"lora_targets": "q,v,ml"}, "Unknown LoRA target 'ml'; did you mean 'mlp'"),
        ({"lora_targets": " , "}, "--lora-targets names nothing to update; give some of q,k,v,out,mlp"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TuningOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options", "tag"),
    [
        ("full", {}, "full"),
        ("lora", {}, "lora-r16-s0.2"),
        ("lora", {"rank": 4, "lora_mlp": True}, "lora-r4-s0.2-mlp"),
        ("bias", {}, "bias-b12"),
        ("attention", {"train_blocks": 3}, "attention-b3"),
        ("adapter", {}, "adapter-r4-a0.2"),
        ("probe", {}, "probe"),
        ("probe", {"probe_init": "text"}, "probe-text"),
        ("full", {"towers": "vision"}, "full-vision"),
        ("l-lora", {"lora_scale": 2.0, "towers": "vision"}, "l-lora-r16-s2-vision"),
        ("lora", {"lora_targets": "mlp,out,q,k,v", "towers": "text"}, "lora-r16-s0.2-mlp-qkvout-text"),
        ("lora", {"lora_targets": "mlp"}, "lora-r16-s0.2-mlp-only"),
    ],
)
def test_tags(name: str, options: dict[str, object], tag: str) -> None:
    assert tuning_tag(name, TuningOptions(**options)) == tag  # type: ignore[arg-type]


def test_the_tables_agree() -> None:
    assert tuple(TUNINGS) == TUNING_NAMES
    always, later = ({option for options in table.values() for option in options} for table in (TUNING_OPTIONS, LATER_OPTIONS))
    assert always | later | {"seed"} == {field.name for field in fields(TuningOptions)}
    assert not always & later and LATER_OPTIONS.keys() <= TUNING_OPTIONS.keys()
    assert readers_of("towers") == ["full", "lora", "l-lora", "bias", "attention"] and readers_of("reduction") == ["adapter"]
    assert all(tuning.name == name and tuning.description and tuning.options == all_options_of(name) for name, tuning in TUNINGS.items())


def test_options_that_came_later_are_said_only_where_they_are_not_the_default() -> None:
    """Headers, file names and cells of a study that were written before they came stay what they were."""
    assert TuningOptions().read_by("lora") == {"rank": 16, "lora_scale": 0.2, "lora_mlp": False}
    assert TuningOptions().read_by("full") == {}
    other = TuningOptions(lora_targets="out,v,mlp", towers="vision")
    assert other.read_by("lora") == {"rank": 16, "lora_scale": 0.2, "lora_mlp": True, "lora_targets": "v,out", "towers": "vision"}
    assert other.read_by("full") == {"towers": "vision"} and other.read_by("adapter") == {"reduction": 4, "adapter_ratio": 0.2}


@pytest.mark.parametrize("spelled", ["v,q", "q, v", "v,q,q"])
def test_what_lora_updates_has_one_spelling(spelled: str) -> None:
    assert TuningOptions(lora_targets=spelled) == TuningOptions()
    assert TuningOptions(lora_targets=f"mlp,{spelled}") == TuningOptions(lora_mlp=True)


def test_names_can_be_listed_without_torch() -> None:
    code = "import sys, models.tuning_options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0
