"""What a training step is fed with: pixels, or the outputs of frozen towers computed once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from common.errors import UserError
from datasets.task import Task
from engine.classifier import Classifier
from engine.embed import LoadOptions, embed_images
from engine.evaluate import Evaluation, accuracies_of, count_correct
from engine.loading import SkippedImages, Transform, make_loader
from engine.order import EpochOrder
from engine.runtime import Runtime


class Inputs(Protocol):
    """Micro-batches for training and a way to validate."""

    def micro_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) of this process for the epoch that the order is set to, on the device."""

    def validate(self, classifier: Classifier) -> Evaluation:
        """The accuracy on the validation part."""


class PixelInputs:
    """Images are read and preprocessed in every epoch."""

    def __init__(self, runtime: Runtime, train: Task, val: Task, transform: Transform, order: EpochOrder, options: LoadOptions) -> None:
        self.runtime, self.train, self.val, self.order, self.options = runtime, train, val, order, options
        self.skipped = SkippedImages(options.max_skipped)
        self.loader = make_loader(train, transform, order, num_workers=options.num_workers, pin_memory=runtime.pin_memory, seed=order.seed)

    def micro_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See :class:`Inputs`."""
        self.loader.set_epoch(self.order.epoch)
        for batch in self.loader:
            self.skipped.add_batch(self.train, batch)
            self.skipped.check()
            moved = batch.to(self.runtime.device)
            yield moved.pixels, moved.labels

    def validate(self, classifier: Classifier) -> Evaluation:
        """See :class:`Inputs`."""
        return count_correct(self.runtime, classifier, self.val, self.options)


class FeatureInputs:
    """The image tower is frozen and there is no augmentation: its outputs are computed once and stay on the device."""

    def __init__(self, runtime: Runtime, classifier: Classifier, train: Task, val: Task, order: EpochOrder, options: LoadOptions) -> None:
        self.runtime, self.order = runtime, order
        self.features, self.labels = _features(runtime, classifier, train, options)
        self.val_features, self.val_labels = _features(runtime, classifier, val, options)
        if len(self.features) != order.n:  # the order counts images, so every one must have a feature
            raise UserError(f"{order.n - len(self.features)} training images of {train.name} cannot be read; remove them to train.")

    def micro_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See :class:`Inputs`."""
        for batch in self.order:
            rows = torch.tensor(batch, device=self.features.device)
            yield self.features[rows], self.labels[rows]

    def validate(self, classifier: Classifier) -> Evaluation:
        """See :class:`Inputs`."""
        with torch.inference_mode(), self.runtime.autocast():
            predicted = classifier(self.val_features).argmax(dim=1)
        counts = accuracies_of(predicted.cpu().numpy(), self.val_labels.cpu().numpy(), int(self.val_labels.max()) + 1)
        return Evaluation(*counts, seconds=0.0, skipped=SkippedImages())


def _features(runtime: Runtime, classifier: Classifier, task: Task, options: LoadOptions) -> tuple[Tensor, Tensor]:
    embedded = embed_images(runtime, classifier.encoder, task, options, adapted=False)
    labels = torch.from_numpy(task.labels[embedded.indices])
    return torch.from_numpy(embedded.embeddings).to(runtime.device), labels.to(runtime.device)
