"""CLIP-LoRA on a small model and pictures of three colours."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.errors import UserError
from datasets.few_shot import few_shot
from datasets.registry import load_task
from engine.embed import LoadOptions, embed_classes, embed_images
from engine.order import EpochOrder
from engine.runtime import start
from fewshot.data import Features, FewShotData
from fewshot.method import ImageData
from fewshot.methods import clip_lora
from fewshot.methods.clip_lora import LORA, RECIPE, TEMPLATE, Batches
from fewshot.options import FewShotOptions
from fewshot.table import METHODS
from models.checkpoint import base_sha256
from models.lora import LowRank
from models.selection import select_encoder
from models.tunings import apply_tuning
from tests.helpers import forget_accelerator, write_images
from tests.models.small import write_local_dir

LOAD = LoadOptions(batch_size=5, num_workers=0)
OPTIONS = FewShotOptions(seed=4)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip-lora")
    write_images(folder / "images", per_class=20)
    forget_accelerator()
    runtime, selection = start("cpu", "fp32", 0), select_encoder(write_local_dir(folder / "model"), None, {})
    whole = load_task(f"imagefolder:{folder / 'images'}", "train", data_dir=folder)
    pool, test = (whole.subset(np.flatnonzero(np.arange(len(whole)) % 2 == part)) for part in (0, 1))
    tasks = {"train": few_shot(pool, 4, 1), "val": pool.subset(np.arange(3, len(pool), 3)), "test": test}

    def features(task):
        found = embed_images(runtime, selection.encoder, task, LOAD)
        return Features(torch.from_numpy(found.embeddings), None, torch.from_numpy(task.labels[found.indices]))

    classes = torch.from_numpy(embed_classes(runtime, selection.encoder, replace(test, templates=(TEMPLATE,))))
    data = FewShotData(*(features(task) for task in tasks.values()), classes, classnames=test.classnames)
    yield ImageData(runtime, selection, tasks, LOAD, data)
    forget_accelerator()


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(clip_lora, "STEPS_PER_SHOT", 1)
    monkeypatch.setattr(clip_lora, "RECIPE", replace(RECIPE, lr=2e-3))


def fit(images, options=OPTIONS):
    return METHODS["clip_lora"].fit_with_images(images, options)


def accuracy(fitted, images):
    return (fitted.logits(images.data.test).argmax(dim=1) == images.data.test.labels).float().mean().item()


def in_projections(encoder):
    """The weights of Q, K and V of every attention, by name [3 * width, width]."""
    return {name: weight for name, weight in encoder.named_parameters() if name.endswith("in_proj_weight")}


def test_without_a_step_it_is_zero_shot(images, monkeypatch):
    monkeypatch.setattr(clip_lora, "STEPS_PER_SHOT", 0)
    scale = images.selection.encoder.logit_scale.exp()
    data = replace(images.data, logit_scale=float(scale))
    torch.testing.assert_close(fit(images).logits(images.data.test), data.zero_shot(images.data.test), rtol=1e-4, atol=1e-4)


def test_the_first_step_by_the_formula(images, monkeypatch):
    """W + s B A after one step: B = -lr g / (|g| + eps) with g = s dL/dW A', and A decays."""
    one = replace(RECIPE, lr=0.1, eps=1e-2, batch_size=12)
    monkeypatch.setattr(clip_lora, "RECIPE", one)
    monkeypatch.setattr(clip_lora, "STEPS_PER_SHOT", 0.25)
    after = in_projections(fit(images).logits.__self__.encoder)
    plain, lora = (select_encoder(images.selection.model, None, {}).encoder for _ in range(2))
    apply_tuning(lora, "lora", replace(LORA, seed=OPTIONS.seed))
    updates = [module for module in lora.modules() if isinstance(module, LowRank)]
    weights = in_projections(plain)
    for weight in weights.values():
        weight.requires_grad_(True)
    task = replace(images.tasks["train"], templates=(TEMPLATE,))
    (batch,) = Batches(images.runtime, plain, task, LOAD, EpochOrder(12, 12, seed=OPTIONS.seed)).of_epoch(0)
    texts = plain.encode_text(plain.tokenize([prompt for (prompt,) in task.prompts()]))
    F.cross_entropy(plain.logits(plain.encode_image(batch.pixels), texts), batch.labels).backward()
    assert len(updates) == len(weights) == 6
    for (name, weight), update in zip(weights.items(), updates, strict=True):
        for role, (start_, stop) in update.rows.items():
            a = update.lora_A[role]
            g = LORA.lora_scale * weight.grad[start_:stop] @ a.T
            expected = LORA.lora_scale * (-0.1 * g / (g.abs() + 1e-2)) @ (a * (1 - 0.1 * one.wd))
            torch.testing.assert_close(after[name][start_:stop] - weight[start_:stop], expected, rtol=1e-3, atol=1e-6)


def test_updates_of_q_k_and_v_have_rank_2_and_nothing_else_changes(images):
    tuned, before = fit(images).logits.__self__.encoder, images.selection.encoder
    names = set(in_projections(before))
    assert {"visual" in name for name in names} == {True, False}
    others = dict(before.named_parameters())
    for name, one in tuned.named_parameters():
        other = others[name]
        if name not in names:
            assert torch.equal(one, other)
            continue
        for difference in (one - other).chunk(3):
            assert torch.linalg.matrix_rank(difference, rtol=1e-3) == 2


def test_steps_and_rank_as_published():
    assert (RECIPE.lr, RECIPE.least_lr, RECIPE.wd, RECIPE.batch_size) == (2e-4, 1e-6, 1e-2, 32)
    assert (LORA.rank, LORA.targets, LORA.towers) == (2, ("q", "k", "v"), "both")


def test_the_number_of_steps_grows_with_the_shots(images):
    fitted = fit(images)
    assert fitted.facts["steps"] == 4
    assert fitted.facts["dropout"] == 0.0
    assert set(fitted.hyperparameters) == {"rank", "scale", "lr"}


def test_it_learns(images, monkeypatch):
    monkeypatch.setattr(clip_lora, "STEPS_PER_SHOT", 15)
    monkeypatch.setattr(clip_lora, "RECIPE", replace(RECIPE, lr=1e-2))
    fitted = fit(images)
    zero_shot = (images.data.zero_shot(images.data.test).argmax(dim=1) == images.data.test.labels).float().mean()
    assert accuracy(fitted, images) > zero_shot + 0.2
    assert fitted.facts["last_loss"] < fitted.facts["first_loss"]


def test_the_seed_decides_and_the_models_stay_as_they_are(images):
    before = base_sha256(images.selection.encoder)
    torch.manual_seed(0)
    one = fit(images).logits(images.data.test)
    torch.manual_seed(1)
    other = fit(replace(images, load=replace(LOAD, batch_size=64)))
    torch.testing.assert_close(one, other.logits(images.data.test), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(one, fit(images, FewShotOptions(seed=5)).logits(images.data.test), atol=1e-4)
    assert base_sha256(images.selection.encoder) == before


def test_validation_images_are_counted(images):
    fitted = fit(images)
    logits = fitted.logits(images.data.val)
    assert fitted.val_correct == int((logits.argmax(dim=1) == images.data.val.labels).sum())
    assert fit(replace(images, data=replace(images.data, val=None))).val_correct is None


def test_images_that_it_was_not_given_are_refused(images):
    with pytest.raises(ValueError, match="needs the images"):
        fit(images).logits(images.data.test[:3])


def test_other_sets_are_classified_by_their_images(images):
    subset = np.array([5, 2, 9])
    other = images.data.test[torch.from_numpy(subset)]
    fitted = fit(replace(images, tasks={**images.tasks, "other": images.tasks["test"].subset(subset)}, features={"other": other}))
    torch.testing.assert_close(fitted.logits(other), fitted.logits(images.data.test)[subset], rtol=1e-4, atol=1e-4)


def test_features_alone_are_not_enough(images):
    with pytest.raises(ValueError, match="images"):
        METHODS["clip_lora"].fit(images.data, OPTIONS)


def test_without_a_readable_image_there_is_nothing_to_learn(images, monkeypatch):
    monkeypatch.setattr(clip_lora, "make_loader", partial(_nothing_readable, clip_lora.make_loader))
    with pytest.raises(UserError, match="could be read"):
        fit(images)


def _nothing_readable(make, *given, **named):
    loader = make(*given, **named)
    whole = type(loader).__iter__

    class Blind(type(loader)):
        def __iter__(self):
            for batch in whole(self):
                yield replace(batch, pixels=batch.pixels[:0], labels=batch.labels[:0], indices=batch.indices[:0])

    loader.__class__ = Blind
    return loader
