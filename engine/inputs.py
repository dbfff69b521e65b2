"""What a training step is fed with: pixels, or the outputs of frozen towers computed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from common.stages import staged
from datasets.task import Task
from engine.classifier import Classifier
from engine.embed import LoadOptions, embed_images
from engine.evaluate import Evaluation, accuracies_of, check_answered, count_correct
from engine.loading import Batch, SkippedImages, Transform, make_loader
from engine.order import EpochOrder
from engine.pixel_cache import with_cached_pixels
from engine.runtime import Runtime
from models.preprocess import Geometry

NO_LABEL = -100  # what cross_entropy leaves out


class Inputs(Protocol):
    """Micro-batches for training and a way to validate.

    ``unreadable`` says of every image that this process could not read why, once, however many epochs meet it. Such an image
    stays in its step as one without a loss, so that the steps are the same with it and without. ``max_skipped`` bounds their
    number, those for training and for validation together.
    """

    unreadable: dict[str, str]
    max_skipped: int

    def micro_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) of this process for the epoch that the order is set to, on the device."""

    def validate(self, classifier: Classifier) -> Evaluation:
        """The accuracy on the validation part."""


class PixelInputs:
    """Images are read and preprocessed in every epoch."""

    def __init__(self, runtime: Runtime, train: Task, val: Task, transform: Transform, order: EpochOrder, options: LoadOptions) -> None:
        self.runtime, self.train, self.val, self.order, self.options = runtime, train, val, order, options
        self.unreadable, self.max_skipped = dict[str, str](), options.max_skipped
        images = with_cached_pixels(runtime, transform, train, options) if isinstance(transform, Geometry) else train
        self.loader = make_loader(
            images,
            transform,
            order,
            num_workers=options.num_workers,
            pin_memory=runtime.pin_memory,
            seed=order.seed,
            full_decode=options.full_decode,
        )

    def micro_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See :class:`Inputs`."""
        self.loader.set_epoch(self.order.epoch)
        for batch in self.loader:
            self._note(self.train, batch)
            moved = batch.to(self.runtime.device)
            yield (moved.pixels, moved.labels) if len(batch) else self._nothing(moved.pixels)

    def _note(self, task: Task, batch: Batch) -> None:
        self.unreadable.update((task.samples.sample_id(index), reason) for index, reason in batch.skipped)
        check_unreadable(self.unreadable, self.max_skipped)

    def _nothing(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """One blank image without a loss: a model cannot be run on none, and other processes wait for this one's gradient."""
        return pixels.new_zeros(1, *pixels.shape[1:]), torch.full((1,), NO_LABEL, device=pixels.device)

    def validate(self, classifier: Classifier) -> Evaluation:
        """See :class:`Inputs`."""
        evaluation = count_correct(self.runtime, classifier, self.val, self.options)
        self.unreadable.update(evaluation.skipped.entries)
        return evaluation


class FeatureInputs:
    """The image tower is frozen and there is no augmentation: its outputs are computed once and stay on the device."""

    def __init__(self, runtime: Runtime, classifier: Classifier, train: Task, val: Task, order: EpochOrder, options: LoadOptions) -> None:
        self.runtime, self.order, self.val = runtime, order, val
        self.unreadable, self.max_skipped = dict[str, str](), options.max_skipped
        self.features, self.labels = self._features(classifier, train, options)
        self.val_features, self.val_labels = self._features(classifier, val, options)

    @staged("features")
    def _features(self, classifier: Classifier, task: Task, options: LoadOptions) -> tuple[Tensor, Tensor]:
        """Features [N, D] and labels [N] of all images of ``task``; those of unreadable ones are 0 and :data:`NO_LABEL`."""
        embedded = embed_images(self.runtime, classifier.encoder, task, options, adapted=False)
        self.unreadable.update(embedded.skipped.entries)
        check_unreadable(self.unreadable, self.max_skipped)
        features = np.zeros((len(task), embedded.embeddings.shape[1]), dtype=np.float32)
        labels = np.full(len(task), NO_LABEL)
        features[embedded.indices], labels[embedded.indices] = embedded.embeddings, task.labels[embedded.indices]
        return torch.from_numpy(features).to(self.runtime.device), torch.from_numpy(labels).to(self.runtime.device)

    def micro_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See :class:`Inputs`."""
        for batch in self.order:
            rows = torch.tensor(batch, device=self.features.device)
            yield self.features[rows], self.labels[rows]

    def validate(self, classifier: Classifier) -> Evaluation:
        """See :class:`Inputs`."""
        with torch.inference_mode(), self.runtime.autocast():
            logits = classifier(self.val_features).float().cpu()
        labels = self.val_labels.cpu()
        logits, labels = logits[labels != NO_LABEL], labels[labels != NO_LABEL]
        check_answered(int((~logits.isfinite().all(dim=1)).sum()), self.val)
        counts = accuracies_of(logits.argmax(dim=1).numpy(), labels.numpy(), len(self.val.classnames))
        return Evaluation(*counts, seconds=0.0, skipped=SkippedImages())


def check_unreadable(unreadable: Mapping[str, str], max_skipped: int) -> None:
    """A :class:`UserError` when more images of a run are unreadable than allowed."""
    skipped = SkippedImages(max_skipped)
    skipped.extend(unreadable.items())
    skipped.check()
