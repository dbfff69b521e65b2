"""Many encoders of one architecture on the images of a task, in one pass.

Images are read, decoded and preprocessed once; every encoder answers for some of them before the next ones are read. An encoder is a
:class:`~merging.weights.Weights`, asked anew for its tensors each time, so who keeps them decides the memory: :func:`held` keeps a
model on the device, :func:`scaled` makes one of a base and a task vector that many share, and any other is read from its file,
or merged, again. Beside those, one model and :data:`IMAGES_AT_ONCE` images are in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from datasets.task import Task
from engine.embed import LoadOptions, batches_of, of_all_processes
from engine.loading import Batch, SkippedImages
from engine.runtime import Runtime
from merging.sources.naming import PROJECTIONS, under
from merging.stream import spec_of
from merging.weights import TensorWeights, View, Weights
from models.encoder import Encoder

IMAGES_AT_ONCE = 512  # that wait, preprocessed, for all encoders: 0.3 GB at 224 pixels
RELEASED_BATCH = 128  # images; over these the released code averages its loss


@dataclass(frozen=True)
class Scores:
    """How one encoder did on one task.

    ``loss`` is the mean over images of -log softmax(logits)[label]. ``batch_loss`` is the released code's: the unweighted mean over
    batches of 128 images, in the task's order, of their means, in which the images of a short last batch count for more.
    """

    correct: int
    total: int
    loss: float
    batch_loss: float
    skipped: SkippedImages  # of the task, the same for all encoders

    @property
    def accuracy(self) -> float:
        """Correct answers among all, top-1."""
        return self.correct / self.total


def evaluate(
    runtime: Runtime, encoder: Encoder, models: Sequence[Weights], names: Sequence[str], task: Task, head: Tensor, options: LoadOptions
) -> list[Scores]:
    """How each of ``models`` does on ``task``: z the unit image embedding, logits = exp(logit_scale) z W^T in float32, top-1.

    A model is ``encoder`` with those tensors of ``names`` (:func:`tower_names`) that it has in the place of its own. ``head`` is
    W [C, D]; a model with a text tower of its own makes another of the task's prompts. Raises :class:`UserError` for unreadable images
    beyond those allowed and for outputs that are not finite. Source: the zero-shot protocol of FusionBench.
    """
    encoder.to(runtime.device)
    _check_head(head, task, encoder)
    swapped, skipped = _Swapped(encoder, names), SkippedImages(options.max_skipped)
    heads = [swapped.own_head(model, task) if _has_text_side(model, names) else head.to(runtime.device) for model in models]
    answers = torch.zeros(len(models), 3, len(task), device=runtime.device)  # loss, whether correct, whether there is an answer
    with torch.inference_mode(), runtime.autocast():
        for batches in _some_at_once(encoder, batches_of(runtime, encoder, task, options, skipped)):
            for model, model_head, row in zip(models, heads, answers, strict=True):
                swapped.answer(model, model_head, batches, row)
    skipped = of_all_processes(runtime, skipped)
    return [_scores(model.name, task, row, skipped) for model, row in zip(models, runtime.total(answers).cpu().double(), strict=True)]


def tower_names(encoder: Encoder, *, both: bool = False) -> list[str]:
    """The names of the floating-point tensors of the image tower in ``encoder.model``, or of ``both`` towers."""
    named = encoder.model.state_dict().items()
    return [name for name, tensor in named if tensor.is_floating_point() and (both or name.startswith("visual."))]


def as_encoder_names(encoder: Encoder, model: Weights) -> View:
    """``model`` under the names of ``encoder.model``; :class:`UserError` where its image tower is not that of the encoder."""
    own = TensorWeights(encoder.source.name, encoder.model.state_dict())
    renamed = under(model, own)
    for name in tower_names(encoder):
        there, wanted = renamed.specs.get(name), spec_of(own.tensors[name])
        if there is None and name in PROJECTIONS:
            continue  # a tower without its projection keeps the encoder's, which is never tuned
        if there is None or there.shape != wanted.shape:
            has = "lacks" if there is None else f"has another ({there}) tensor"
            raise UserError(f"'{model.name}' {has} '{name}' ({wanted}) of the encoder '{own.name}'; --encoder names the one that is meant.")
    return renamed


def held(model: Weights, names: Iterable[str], device: torch.device) -> TensorWeights:
    """Those tensors of ``names`` that a model has, read once and kept on ``device``."""
    return TensorWeights(model.name, {name: model.read(name).to(device) for name in names if name in model.specs})


def scaled(name: str, base: Weights, tau: Weights, scaling: float) -> View:
    """The weights θ_0 + scaling * τ, made when they are read: in float32, in the base's dtype, to the bit as a merge writes them."""

    def read(tensor: str, part: slice | None) -> Tensor:
        origin = base.read(tensor, part)
        return torch.add(origin.float(), tau.read(tensor, part).to(origin.device), alpha=scaling).to(origin.dtype)

    return View(name, base.specs, read)


class _Swapped(nn.Module):
    """An encoder that answers with other weights in the place of its own, which stay as they are."""

    def __init__(self, encoder: Encoder, names: Sequence[str]) -> None:
        super().__init__()
        self.encoder, self.names = encoder, names

    def forward(self, method: str, *inputs: Tensor) -> Tensor:
        """What a method of the encoder gives."""
        return getattr(self.encoder, method)(*inputs)  # type: ignore[no-any-return]

    def call(self, weights: Mapping[str, Tensor], method: str, *inputs: Tensor) -> Tensor:
        """The same with ``weights``."""
        return torch.func.functional_call(self, dict(weights), (method, *inputs))  # type: ignore[no-any-return]

    def weights_of(self, model: Weights) -> dict[str, Tensor]:
        """The model's tensors on the encoder's device, float32, by their names in this module."""
        device = self.encoder.device
        return {f"encoder.model.{name}": model.read(name).to(device, torch.float32) for name in self.names if name in model.specs}

    def answer(self, model: Weights, head: Tensor, batches: Sequence[Batch], answers: Tensor) -> None:
        """Put into ``answers`` [3, N] a model's losses, whether it was correct, and 1; the loss is NaN where a logit is not finite."""
        weights = self.weights_of(model)
        for batch in batches:
            logits = self.call(weights, "logits", self.call(weights, "encode_image", batch.pixels), head)
            losses = F.cross_entropy(logits, batch.labels, reduction="none").masked_fill(~logits.isfinite().all(dim=1), torch.nan)
            correct = logits.argmax(dim=1) == batch.labels
            answers[:, batch.indices.to(answers.device)] = torch.stack((losses, correct, torch.ones_like(losses)))

    @torch.inference_mode()
    def own_head(self, model: Weights, task: Task) -> Tensor:
        """The zero-shot head [C, D] of a model whose text tower was merged too; see :func:`merging.heads.zero_shot_head`."""
        weights = self.weights_of(model)
        of_class = [self.call(weights, "encode_text", self.encoder.tokenize(prompts)).mean(dim=0) for prompts in task.prompts()]
        return F.normalize(torch.stack(of_class), dim=-1)


def _has_text_side(model: Weights, names: Sequence[str]) -> bool:
    return any(name in model.specs for name in names if not name.startswith("visual."))


def _check_head(head: Tensor, task: Task, encoder: Encoder) -> None:
    wanted = (len(task.classnames), encoder.embed_dim)
    if tuple(head.shape) != wanted:
        raise UserError(
            f"The head of {task.name} is {' x '.join(map(str, head.shape))}, but it has {wanted[0]} classes, "
            f"and the embeddings of '{encoder.source.name}' have width {wanted[1]}."
        )


def _some_at_once(encoder: Encoder, batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """Batches, preprocessed, of together at least :data:`IMAGES_AT_ONCE` images; the last ones as they come."""
    some: list[Batch] = []
    for batch in batches:
        some.append(replace(batch, pixels=encoder.preprocess.of_bytes(batch.pixels)))
        if sum(map(len, some)) >= IMAGES_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _scores(model: str, task: Task, answers: Tensor, skipped: SkippedImages) -> Scores:
    """From the answers [3, N] of one model, float64."""
    losses, correct = answers[:2, answers[2].bool()]
    if not len(losses):
        raise UserError(f"No image of {task.name} could be read, so there is no accuracy to report.")
    if unanswered := int(losses.isnan().sum()):
        raise UserError(f"The outputs of '{model}' for {unanswered} images of {task.name} are not finite; its weights have diverged.")
    batch_loss = torch.stack([batch.mean() for batch in losses.split(RELEASED_BATCH)]).mean()
    return Scores(int(correct.sum()), len(losses), losses.mean().item(), batch_loss.item(), skipped)
