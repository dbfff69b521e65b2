"""Logits over the classes of a task: against formulas written out, and with no more passes of a tower than needed."""

import pytest
import torch
from torch.nn import functional as F

from engine.classifier import PROMPTS_PER_PASS, Classifier, average_templates, frozen_text_features
from models.encoder import Encoder
from models.loading import load_encoder
from models.tunings import TuningOptions, apply_tuning

PROMPTS = [["a photo of a cat", "a drawing of a cat, seen from above"], ["dog", "the dog"], ["a bird", "birds"]]


@pytest.fixture
def encoder(small_model):
    return load_encoder(str(small_model))


@pytest.fixture
def pixels():
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def calls(monkeypatch):
    """How many rows each call of a tower was given, where more than one."""
    counted = {"image_features": [], "text_features": []}
    for name, rows in counted.items():
        real = getattr(Encoder, name)

        def counting(self, inputs, real=real, rows=rows):
            if len(inputs) > 1:  # a single prompt is how the encoder finds out its width
                rows.append(len(inputs))
            return real(self, inputs)

        monkeypatch.setattr(Encoder, name, counting)
    return counted


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


def by_hand(encoder, pixels):
    """Logits from the definition, class by class and prompt by prompt, with the model's own methods."""
    model = encoder.model
    images = unit(model.encode_image(pixels))
    classes = []
    for prompts in PROMPTS:
        texts = [unit(model.encode_text(encoder._tokenizer([prompt]))[0]) for prompt in prompts]
        classes.append(unit(torch.stack(texts).mean(dim=0)))
    return model.logit_scale.exp() * images @ torch.stack(classes).T


@torch.no_grad()
def test_logits_of_frozen_and_of_training_towers_are_those_of_the_definition(encoder, pixels):
    expected = by_hand(encoder, pixels)
    torch.testing.assert_close(Classifier(encoder, PROMPTS)(pixels), expected)
    apply_tuning(encoder, "full", TuningOptions())
    torch.testing.assert_close(Classifier(encoder, PROMPTS)(pixels), expected)


@torch.no_grad()
def test_features_computed_before_give_the_logits_of_pixels(encoder, pixels):
    apply_tuning(encoder, "adapter", TuningOptions())
    classifier = Classifier(encoder, PROMPTS)
    assert torch.equal(classifier(encoder.image_features(pixels)), classifier(pixels))


@torch.no_grad()
def test_the_adapters_act_on_both_sides_before_templates_are_averaged(encoder, pixels):
    apply_tuning(encoder, "adapter", TuningOptions(adapter_ratio=0.7))
    tokens = encoder.tokenize([prompt for prompts in PROMPTS for prompt in prompts])
    texts = unit(encoder.encode_text(tokens).unflatten(0, (3, 2)).mean(dim=1))
    expected = encoder.logit_scale.exp() * encoder.encode_image(pixels) @ texts.T
    torch.testing.assert_close(Classifier(encoder, PROMPTS)(pixels), expected)


@torch.no_grad()
def test_a_probe_takes_the_place_of_the_class_embeddings(encoder, pixels, calls):
    apply_tuning(encoder, "probe", TuningOptions(), classnames=("cat", "dog", "bird"))
    classifier = Classifier(encoder, PROMPTS)
    expected = encoder.logit_scale.exp() * (encoder.encode_image(pixels) @ encoder.probe.weight.T + encoder.probe.bias)
    torch.testing.assert_close(classifier(pixels), expected)
    assert calls["text_features"] == []  # with a thousand classes of eighty prompts that would take minutes


def test_a_frozen_text_tower_runs_once(encoder, pixels, calls):
    apply_tuning(encoder, "adapter", TuningOptions())
    classifier = Classifier(encoder, PROMPTS)
    for _ in range(3):
        classifier(pixels).sum().backward()
    assert calls["text_features"] == [6]
    assert encoder.text_adapter.down.weight.grad is not None


def test_a_text_tower_that_trains_runs_in_every_step(encoder, pixels, calls):
    apply_tuning(encoder, "full", TuningOptions())
    classifier = Classifier(encoder, PROMPTS)
    for _ in range(3):
        classifier(pixels).sum().backward()
    assert calls["text_features"] == [6, 6, 6]
    assert encoder.model.token_embedding.weight.grad is not None


def test_only_parameters_that_train_receive_gradients(encoder, pixels):
    apply_tuning(encoder, "bias", TuningOptions(train_blocks=1))
    Classifier(encoder, PROMPTS)(pixels).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_one_template_is_taken_as_it_is_and_several_are_averaged_and_normalised():
    rows = unit(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(average_templates(rows, 1), rows)
    torch.testing.assert_close(average_templates(rows, 3), F.normalize(torch.stack([rows[:3].mean(0), rows[3:].mean(0)]), dim=1))


def test_prompts_in_several_passes_are_those_of_one_by_one(encoder):
    """Passes are cut to their longest prompt, which must not change the others."""
    prompts = [f"number {number}" + ", very long" * (number % 5) for number in range(PROMPTS_PER_PASS + 3)]
    features = frozen_text_features(encoder, prompts)
    chosen = [0, 4, PROMPTS_PER_PASS - 1, PROMPTS_PER_PASS, PROMPTS_PER_PASS + 2]
    alone = torch.cat([frozen_text_features(encoder, [prompts[number]]) for number in chosen])
    torch.testing.assert_close(features[chosen], alone, rtol=0, atol=1e-6)
    assert not features.requires_grad
