"""Accuracy of an encoder on a task."""

from __future__ import annotations

import time
from dataclasses import dataclass

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
    """Accuracies as fractions. ``mean_per_class`` averages the recalls of the classes that have images."""

    n_images: int
    top1: float
    mean_per_class: float
    seconds: float
    skipped: SkippedImages


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
    counts = torch.zeros(3, len(task.classnames), device=runtime.device)  # correct, all, without an answer
    with torch.inference_mode(), runtime.autocast():
        texts = classifier.class_embeddings() if classifier.encoder.probe is None else None
        for batch in batches_of(runtime, classifier.encoder, task, options, skipped):
            logits = classifier.classify(classifier.encoder.encode_image(batch.pixels), texts)
            answers = (logits.argmax(dim=1) == batch.labels, torch.ones_like(batch.labels), ~logits.isfinite().all(dim=1))
            counts.index_add_(1, batch.labels, torch.stack(answers).float())
    correct, total, unanswered = runtime.total(counts).double().cpu().numpy()
    check_answered(int(unanswered.sum()), task)
    seconds = time.perf_counter() - started
    return Evaluation(*_accuracies(correct, total), seconds, of_all_processes(runtime, skipped))


def check_answered(unanswered: int, task: Task) -> None:
    """Refuse to count where logits are not finite: their greatest would be a class all the same."""
    if unanswered:
        raise UserError(
            f"The model's outputs for {unanswered} images of {task.name} are not finite; "
            "its weights have diverged, or overflow in fp16 (then use --precision bf16 or fp32)."
        )


def accuracies_of(predicted: np.ndarray, labels: np.ndarray, classes: int) -> tuple[int, float, float]:
    """(number of images, top-1, mean per class) from predictions and labels [N]."""
    total = np.bincount(labels, minlength=classes).astype(float)
    return _accuracies(np.bincount(labels[predicted == labels], minlength=classes).astype(float), total)


def _accuracies(correct: np.ndarray, total: np.ndarray) -> tuple[int, float, float]:
    seen = total > 0
    if not seen.any():
        raise UserError("No image could be read, so there is no accuracy to report.")
    return int(total.sum()), float(correct.sum() / total.sum()), float((correct[seen] / total[seen]).mean())
