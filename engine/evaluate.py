"""Accuracy of an encoder on a task."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from common.errors import UserError
from datasets.task import Task
from engine.classifier import Classifier
from engine.embed import LoadOptions, batches_of, of_all_processes
from engine.loading import SkippedImages
from engine.runtime import Runtime
from models.encoder import Encoder


@dataclass(frozen=True)
class Evaluation:
    """Accuracies as fractions. ``mean_per_class`` averages the recalls of the classes that have images.

    Where the task divides its images into groups, ``groups`` and ``group_images`` have the accuracy and the number of images
    of each group that has any, in the task's order.
    """

    n_images: int
    top1: float
    mean_per_class: float
    seconds: float
    skipped: SkippedImages
    groups: dict[str, float] = field(default_factory=dict)
    group_images: dict[str, int] = field(default_factory=dict)

    @property
    def worst_group(self) -> float | None:
        """The least of the groups' accuracies; None without groups."""
        return min(self.groups.values(), default=None)


def check_probe(encoder: Encoder, task: Task) -> None:
    """A probe knows the classes that it was trained on and no others; refuse a task with other ones."""
    trained_on = getattr(encoder.probe, "classnames", None)
    if trained_on is not None and tuple(trained_on) != task.classnames:
        raise UserError(f"The probe was trained on {len(trained_on)} classes, not those of {task.name}; it can only tell its own apart.")


def evaluate(runtime: Runtime, encoder: Encoder, task: Task, options: LoadOptions) -> Evaluation:
    """Classify every image of ``task`` by its nearest class embedding (or by the encoder's probe) and count."""
    check_probe(encoder, task)
    started = time.perf_counter()
    encoder.to(runtime.device)
    with torch.no_grad(), runtime.autocast():
        classifier = Classifier(encoder, task.prompts()).to(runtime.device)
    return count_correct(runtime, classifier, task, options, started)


def count_correct(runtime: Runtime, classifier: Classifier, task: Task, options: LoadOptions, started: float | None = None) -> Evaluation:
    """The accuracies of a classifier that stands ready on the device."""
    started = time.perf_counter() if started is None else started
    skipped = SkippedImages(options.max_skipped)
    classes, names = len(task.classnames), task.groups.names if task.groups else ()
    counts = torch.zeros(3, classes + len(names), device=runtime.device)  # correct, all, without an answer; of classes, then of groups
    with torch.inference_mode(), runtime.autocast():
        texts = classifier.class_embeddings() if classifier.encoder.probe is None else None
        for batch in batches_of(runtime, classifier.encoder, task, options, skipped):
            logits = classifier.classify(classifier.encoder.encode_image(batch.pixels), texts)
            correct = logits.argmax(dim=1) == batch.labels
            answers = torch.stack((correct, torch.ones_like(correct), ~logits.isfinite().all(dim=1))).float()
            counts.index_add_(1, batch.labels, answers)
            if task.groups is not None:
                groups = torch.from_numpy(task.groups.labels[batch.indices.numpy()])
                counts.index_add_(1, classes + groups.to(runtime.device, non_blocking=True), answers)
    of_classes, of_groups = np.split(runtime.total(counts).double().cpu().numpy(), [classes], axis=1)
    check_answered(int(of_classes[2].sum()), task)
    seconds = time.perf_counter() - started
    skipped = of_all_processes(runtime, skipped)
    return Evaluation(*_accuracies(*of_classes[:2]), seconds, skipped, *_group_accuracies(names, *of_groups[:2]))


def evaluation_of(predicted: np.ndarray, indices: np.ndarray, task: Task, seconds: float, skipped: SkippedImages) -> Evaluation:
    """The accuracies of the classes ``predicted`` int64 [n] for the images at ``indices`` int64 [n] of ``task``."""
    labels = task.labels[indices]
    counts = _accuracies(*_correct_and_all(labels, predicted == labels, len(task.classnames)))
    if task.groups is None:
        return Evaluation(*counts, seconds, skipped)
    names, groups = task.groups.names, task.groups.labels[indices]
    return Evaluation(*counts, seconds, skipped, *_group_accuracies(names, *_correct_and_all(groups, predicted == labels, len(names))))


def check_answered(unanswered: int, task: Task) -> None:
    """Refuse to count where logits are not finite: their greatest would be a class all the same."""
    if unanswered:
        raise UserError(
            f"The model's outputs for {unanswered} images of {task.name} are not finite; "
            "its weights have diverged, or overflow in fp16 (then use --precision bf16 or fp32)."
        )


def accuracies_of(predicted: np.ndarray, labels: np.ndarray, classes: int) -> tuple[int, float, float]:
    """(number of images, top-1, mean per class) from predictions and labels [N]."""
    return _accuracies(*_correct_and_all(labels, predicted == labels, classes))


def _correct_and_all(labels: np.ndarray, correct: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each of ``n`` labels: how many are correct, and how many there are."""
    return np.bincount(labels[correct], minlength=n).astype(float), np.bincount(labels, minlength=n).astype(float)


def _accuracies(correct: np.ndarray, total: np.ndarray) -> tuple[int, float, float]:
    seen = total > 0
    if not seen.any():
        raise UserError("No image could be read, so there is no accuracy to report.")
    return int(total.sum()), float(correct.sum() / total.sum()), float((correct[seen] / total[seen]).mean())


def _group_accuracies(names: Sequence[str], correct: np.ndarray, total: np.ndarray) -> tuple[dict[str, float], dict[str, int]]:
    """(accuracy, number of images) of the groups that have images."""
    counted = [(name, right, of) for name, right, of in zip(names, correct.tolist(), total.tolist(), strict=True) if of]
    return {name: right / of for name, right, of in counted}, {name: int(of) for name, _, of in counted}
