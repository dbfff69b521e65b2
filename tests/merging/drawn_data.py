"""Small encoders with tasks of a few drawn images, and models around them, for tests of the methods that look at images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from open_clip.transform import PreprocessCfg
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.samples import RawSamples
from datasets.task import Task
from engine.embed import LoadOptions
from engine.runtime import start
from merging.data import LazyHeads, MergeData
from merging.weights import Pool, TensorWeights
from models.encoder import Encoder
from models.preprocess import Preprocess
from tests.models import small

CLASSES = {"one": ("cat", "dog", "bird"), "two": ("red", "green", "blue", "white", "black")}  # of the tasks, named like their models


def make_encoder(model: nn.Module) -> Encoder:
    """A small encoder that takes images."""
    encoder = small.encoder(model)
    encoder.preprocess = Preprocess(PreprocessCfg(size=encoder.image_size))
    encoder.model.logit_scale.data.fill_(3.0)  # not so sure of one class that the others have no part
    return encoder


def task(name: str, images: int = 9, side: int = 32) -> Task:
    """Noisy greys, one for each class, sorted by class."""
    classes, generator = CLASSES[name], np.random.default_rng(len(CLASSES[name]))
    labels = np.sort(np.arange(images) % len(classes)).astype(np.int64)
    noise = generator.normal(0, 60, (images, side, side, 3))
    pixels = np.clip(40 + 40 * labels[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    return Task(name, "train", RawSamples(pixels, name), labels, classes, ("a photo of a {c}.", "{c}"))


def make_data(encoder: Encoder, tasks: Sequence[Task] = (), **options: Any) -> MergeData:
    """The data of these tasks, by default of both; the test has to use the fixture ``fresh_accelerator``."""
    named = {one.name: one for one in tasks or [task(name, side=encoder.image_size) for name in CLASSES]}
    load, device = options.pop("load", LoadOptions(num_workers=0)), options.pop("device", "cpu")
    return MergeData(start(device, "fp32"), encoder, named, LazyHeads(encoder, named), load, **{"batch_size": 4, **options})


def moved(encoder: Encoder, name: str, seed: int, size: float = 0.05) -> TensorWeights:
    """A model called ``name`` whose image tower, less its projection, differs from the encoder's."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for key, tensor in encoder.model.state_dict().items():
        if key.startswith("visual.") and key != "visual.proj" and tensor.is_floating_point():
            tensors[key] = tensor + size * torch.randn(tensor.shape, generator=generator)
    return TensorWeights(name, tensors)


def make_pool(encoder: Encoder, models: Sequence[TensorWeights] = ()) -> Pool:
    """The pool of these models, by default of one for each task."""
    models = models or [moved(encoder, name, seed) for seed, name in enumerate(CLASSES)]
    return Pool(TensorWeights("base", encoder.model.state_dict()), tuple(models), tuple(models[0].tensors))


def with_weights(encoder: Encoder, weights: TensorWeights, build: Any) -> nn.Module:
    """An image tower of its own, by ``build``, with the encoder's weights and in their place those of a model."""
    model = build()
    model.load_state_dict({**encoder.model.state_dict(), **weights.tensors})
    return model.visual.requires_grad_(True).eval()


def images_of(data: MergeData, name: str) -> Tensor:
    """The drawn images of a task, preprocessed one by one."""
    drawn = data.drawn(name)
    return torch.stack([data.encoder.preprocess(drawn.samples.image(index)) for index in range(len(drawn))])


def log_probabilities(data: MergeData, name: str, features: Tensor) -> Tensor:
    """log softmax(exp(logit_scale) z W^T), from the prompts on."""
    encoder = data.encoder
    each = [[encoder.encode_text(encoder.tokenize([prompt]))[0] for prompt in prompts] for prompts in data.tasks[name].prompts()]
    head = torch.stack([F.normalize(torch.stack(vectors).mean(dim=0), dim=0) for vectors in each])
    return (encoder.logit_scale.exp() * F.normalize(features, dim=-1) @ head.T).log_softmax(dim=-1)
