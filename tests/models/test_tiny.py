"""The tiny model in the repository: its files, its pretraining script and what it can do."""

import json
import math
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from datasets.sources.captions import ATTRIBUTES, SEEDS, UNTOLD, caption, captioned, describes, random_drawing
from datasets.sources.digits import digits_task
from datasets.sources.drawn import DRAWN_TASKS, drawn_task
from models.tiny.pretrain import _Batches, contrastive_loss, example_seeds, new_model, save, schedule
from models.tiny.zero_shot import accuracy

FOLDER = Path("models/tiny")
TABLE = json.loads((FOLDER / "zero_shot.json").read_text())


@pytest.fixture(scope="module")
def tiny():
    name = f"local-dir:{FOLDER}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    return model.eval(), preprocess, open_clip.get_tokenizer(name)


def test_files_are_under_12_megabytes():
    size = sum((FOLDER / name).stat().st_size for name in ("open_clip_config.json", "open_clip_model.safetensors"))
    assert size < 12e6


def test_weights_are_half_precision_and_finite():
    tensors = load_file(FOLDER / "open_clip_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_towers_are_plain_transformers_deep_enough_to_tune(tiny):
    model = tiny[0]
    assert len(model.visual.transformer.resblocks) >= 4 and len(model.transformer.resblocks) >= 2
    blocks = [*model.visual.transformer.resblocks, *model.transformer.resblocks]
    assert all(isinstance(block.attn, torch.nn.MultiheadAttention) for block in blocks)
    assert model.visual.class_embedding is not None


def test_words_go_through_the_tokenizer_of_clip(tiny):
    model, _, tokenizer = tiny
    assert torch.equal(tokenizer(["a photo of a zebra"]), open_clip.tokenize(["a photo of a zebra"]))
    zebra, violin = model.encode_text(tokenizer(["a zebra", "a violin"]), normalize=True)
    assert zebra @ violin < 0.999


def test_photographs_of_any_size_are_taken(tiny):
    from PIL import Image

    model, preprocess, _ = tiny
    pixels = preprocess(Image.effect_noise((640, 361), 60).convert("RGB"))
    assert pixels.shape == (3, 48, 48)
    assert model.encode_image(pixels[None]).isfinite().all()


def test_table_covers_every_task_and_spreads_from_near_chance_to_over_90_percent():
    assert set(TABLE) == {*DRAWN_TASKS, "Digits"} and len(TABLE) >= 13
    chance = {name: 1 / len(drawn_task(name, "test").classnames) for name in DRAWN_TASKS}
    assert max(TABLE.values()) > 0.9
    assert sum(TABLE[name] < 2 * chance[name] for name in chance) >= 2
    assert np.std(list(TABLE.values())) > 0.2


@pytest.mark.parametrize("name", ["Shapes-Color", "Shapes-Kind", "Shapes-Outlined", "Glyphs-Letters", "Glyphs-Greek", "Digits"])
def test_zero_shot_accuracy_is_that_of_the_table(tiny, name):
    task = digits_task("test") if name == "Digits" else drawn_task(name, "test")
    assert accuracy(*tiny, task) == pytest.approx(TABLE[name], abs=0.01)


def test_examples_depend_on_seed_and_step_alone():
    assert captioned(SEEDS.start + 5) == captioned(SEEDS.start + 5)
    assert example_seeds(0, 3, 8) == example_seeds(0, 3, 8)
    assert not set(example_seeds(0, 3, 64)) & {*example_seeds(0, 4, 64), *example_seeds(1, 3, 64)}
    assert all(seed in SEEDS for seed in example_seeds(0, 3, 64))


def test_a_caption_tells_what_it_mentions_and_nothing_else():
    rng = random.Random(0)
    for seed in range(300):
        drawing = random_drawing(rng, seed)
        if drawing.count > 1:
            continue
        words = caption(drawing, frozenset({"color", "size"}), rng).rstrip(".").split()
        assert drawing.color in words and drawing.size in words
        told_more = {drawing.thing, drawing.thing.upper()} & set(words) - {"a", "an"}
        assert not told_more and "on" not in words


def test_captions_fit_their_own_drawings():
    examples = [captioned(seed) for seed in example_seeds(0, 0, 300)]
    fits = describes(np.array([example.told for example in examples]), np.array([example.drawn for example in examples]))
    assert fits.diagonal().all()
    for row, example in enumerate(examples[:50]):
        for column, other in enumerate(examples[:50]):
            told = [(a, b) for a, b in zip(example.told, other.drawn, strict=True) if a != UNTOLD]
            assert fits[row, column] == all(a == b for a, b in told)
    assert len(examples[0].told) == len(ATTRIBUTES)


def test_a_batch_pairs_images_tokens_and_fits():
    pixels, tokens, fits = _Batches(seed=0, steps=2, batch_size=16)[1]
    again = _Batches(seed=0, steps=9, batch_size=16)[1]
    assert pixels.shape == (16, 48, 48, 3) and pixels.dtype == np.uint8 and tokens.shape == (16, 77)
    assert np.array_equal(pixels, again[0]) and torch.equal(tokens, again[1])
    examples = [captioned(seed) for seed in example_seeds(0, 1, 16)]
    told, drawn = np.array([example.told for example in examples]), np.array([example.drawn for example in examples])
    assert np.array_equal(fits, describes(told, drawn).T)


def test_loss_is_the_symmetric_cross_entropy_without_false_negatives(tiny):
    model = tiny[0]
    pixels, tokens, fits = (torch.as_tensor(part) for part in _Batches(seed=1, steps=1, batch_size=12)[0])
    images = (pixels.float() / 255 - 0.5).permute(0, 3, 1, 2) / 0.25
    with torch.no_grad():
        scale = model.logit_scale.exp()
        logits = scale * model.encode_image(images, normalize=True) @ model.encode_text(tokens, normalize=True).T
        expected = 0.0
        for i in range(12):
            rivals_of_image = [j for j in range(12) if j == i or not fits[i, j]]
            rivals_of_text = [j for j in range(12) if j == i or not fits[j, i]]
            expected += (logits[i, rivals_of_image].logsumexp(0) + logits[rivals_of_text, i].logsumexp(0) - 2 * logits[i, i]).item() / 24
        assert contrastive_loss(model, pixels, tokens, fits).item() == pytest.approx(expected, rel=1e-4)


def test_schedule_warms_up_and_ends_at_zero():
    rates = [schedule(step, 200) for step in range(200)]
    assert rates[0] == 0.1 and max(rates) == 1.0 == rates[9] and rates[-1] < 0.001
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))


def test_saved_model_loads_as_a_local_dir(tmp_path):
    torch.manual_seed(0)
    model = new_model()
    save(model, tmp_path)
    loaded, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())
    assert math.isclose(loaded.logit_scale.item(), math.log(1 / 0.07), abs_tol=1e-2)
