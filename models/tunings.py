"""The tunings: which parameters of an encoder train, and what is added to it.

To add one: a function that marks what trains, a line in :data:`TUNINGS`, and its hyper-parameters in
:mod:`models.tuning_options`. Parameters that train are those that require gradients; a checkpoint stores these, and what was
drawn beside them (:func:`stored_parameters`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.errors import unknown_name
from models.adapter import ClipAdapter, LinearProbe
from models.encoder import Encoder
from models.linearized import train_linearized
from models.lora import LowRank, add_lora
from models.parallel_adapter import add_parallel_adapters, parallel_adapters
from models.parts import Tower, bias_parameters, last_blocks, no_place, projections_in, text_tower, towers
from models.projections import without_projections
from models.tuning_options import TUNING_NAMES, TuningOptions, all_options_of, tuning_tag

__all__ = [
    "TUNINGS",
    "TUNING_NAMES",
    "Classes",
    "Tuning",
    "TuningOptions",
    "apply_tuning",
    "stored_parameters",
    "text_tower_is_frozen",
    "towers_are_frozen",
    "trained_parameters",
    "tuning_tag",
]


@dataclass(frozen=True)
class Classes:
    """What a probe must know of a task: the class names, and their text embeddings [C, D] when it starts from them."""

    names: tuple[str, ...] = ()
    text_embeddings: Tensor | None = None


@dataclass(frozen=True)
class Tuning:
    """A way to tune an encoder. ``apply`` adds what is added and marks what trains on an encoder that is all frozen."""

    name: str
    description: str
    apply: Callable[[Encoder, TuningOptions, Classes], None]

    @property
    def options(self) -> tuple[str, ...]:
        """The hyper-parameters that it reads."""
        return all_options_of(self.name)


def apply_tuning(
    encoder: Encoder,
    name: str,
    options: TuningOptions,
    *,
    classnames: Sequence[str] = (),
    text_embeddings: Tensor | None = None,
) -> None:
    """Make ``encoder`` ready for the tuning ``name``: freeze all, add what is added, mark what trains.

    ``classnames`` and, with ``probe_init='text'``, ``text_embeddings`` [C, D] are for the probe. Raises :class:`UserError`
    for an unknown tuning or one that has no place in a tower; the encoder then is frozen and has nothing added.

    >>> apply_tuning(load_encoder("tiny"), "lora", TuningOptions(rank=4))  # doctest: +SKIP
    """
    if name not in TUNINGS:
        raise unknown_name("tuning", name, TUNINGS)
    encoder.requires_grad_(False)
    TUNINGS[name].apply(encoder, options, Classes(tuple(classnames), text_embeddings))


def trained_parameters(encoder: Encoder) -> dict[str, nn.Parameter]:
    """The parameters that train, by their names in ``encoder``."""
    return {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def stored_parameters(encoder: Encoder) -> dict[str, nn.Parameter]:
    """What a checkpoint holds, by its names in ``encoder``: the parameters that train, and L-LoRA's A0, which was drawn and does not."""
    low_rank = {id(parameter) for module in encoder.modules() if isinstance(module, LowRank) for parameter in module.parameters()}
    return {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad or id(parameter) in low_rank}


def towers_are_frozen(encoder: Encoder) -> bool:
    """Whether neither tower trains, so that the features of a data set can be computed once."""
    return not _any_trains(encoder.model.parameters())


def text_tower_is_frozen(encoder: Encoder) -> bool:
    """Whether the text tower does not train, so that the text features of the prompts can be computed once."""
    return not _any_trains(text_tower(encoder).parameters())


def _any_trains(parameters: Iterable[nn.Parameter]) -> bool:
    return any(parameter.requires_grad for parameter in parameters)


def _full(encoder: Encoder, options: TuningOptions, classes: Classes) -> None:
    if options.towers == "both":
        encoder.model.requires_grad_(True)
        return
    with without_projections(encoder):  # one tower alone is a recipe of merging, which keeps the base's projections and logit scale
        for parameter in _tuned(encoder, options)[0].parameters():
            parameter.requires_grad_(True)


def _tuned(encoder: Encoder, options: TuningOptions) -> tuple[Tower, ...]:
    """The towers that train."""
    vision, text = towers(encoder)
    return {"both": (vision, text), "vision": (vision,), "text": (text,)}[options.towers]


def _add_lora(encoder: Encoder, options: TuningOptions) -> None:
    add_lora(encoder, options.rank, options.lora_scale, options.seed, options.targets, _tuned(encoder, options))


def _lora(encoder: Encoder, options: TuningOptions, classes: Classes) -> None:
    _add_lora(encoder, options)
    for module in encoder.modules():
        if isinstance(module, LowRank):
            module.requires_grad_(True)


def _l_lora(encoder: Encoder, options: TuningOptions, classes: Classes) -> None:
    _add_lora(encoder, options)
    train_linearized(encoder)


def _bias(encoder: Encoder, options: TuningOptions, classes: Classes) -> None:
    def biases(tower: Tower) -> list[nn.Parameter]:
        return [bias for block in last_blocks(tower, options.train_blocks) for bias in bias_parameters(block)]

    _train_in(_tuned(encoder, options), "bias", biases, "no residual blocks with biases", "full, adapter, probe")


def _attention(encoder: Encoder, options: TuningOptions, classes: Classes) -> None:
    def weights(tower: Tower) -> list[nn.Parameter]:
        return [projection.weight for block in last_blocks(tower, options.train_blocks) for projection in projections_in(tower, block)]

    lacks = f"no attention among its last {options.train_blocks} blocks"
    _train_in(_tuned(encoder, options), "attention", weights, lacks, "full, bias, adapter, probe")


def _train_in(tuned: Iterable[Tower], name: str, pick: Callable[[Tower], list[nn.Parameter]], lacks: str, others: str) -> None:
    """Mark what ``pick`` finds in each tower, or nothing when it finds nothing in one of them."""
    picked = []
    for tower in tuned:
        found = pick(tower)
        if not found:
            raise no_place(tower, name, lacks, others)
        picked += found
    for parameter in picked:
        parameter.requires_grad_(True)


def _adapter(encoder: Encoder, options: TuningOptions, classes: Classes) -> None:
    generator = torch.Generator().manual_seed(options.seed)
    width = encoder.embed_dim
    image, text = (ClipAdapter(width, options.reduction, options.adapter_ratio, generator) for _ in range(2))
    encoder.image_adapter = image.to(encoder.device)
    encoder.text_adapter = text.to(encoder.device)


def _parallel_adapter(encoder: Encoder, options: TuningOptions, classes: Classes) -> None:
    add_parallel_adapters(encoder, options.bottleneck, options.adapter_scale, options.adapter_dropout, options.seed)
    for adapter in parallel_adapters(encoder).values():
        adapter.requires_grad_(True)


def _probe(encoder: Encoder, options: TuningOptions, classes: Classes) -> None:
    if not classes.names:
        raise ValueError("a probe needs the class names")
    start: Tensor | torch.Generator | None = classes.text_embeddings
    if options.probe_init == "random":
        start = torch.Generator().manual_seed(options.seed)
    if start is None:
        raise ValueError("a probe that starts from text needs the class text embeddings")
    encoder.probe = LinearProbe(classes.names, encoder.embed_dim, encoder.logit_scale, start).to(encoder.device)


TUNINGS: dict[str, Tuning] = {
    tuning.name: tuning
    for tuning in (
        Tuning("full", "every parameter of the model, the logit scale included; or those of one tower alone", _full),
        Tuning("lora", "low-rank updates of Q and V in every attention, optionally of K, the output and the MLPs", _lora),
        Tuning("l-lora", "linearised LoRA: as lora, with the update linear in what trains, since A stays as it was drawn", _l_lora),
        Tuning("bias", "BitFit: every bias in the last blocks of both towers", _bias),
        Tuning("attention", "the Q, K and V weights in the last blocks of both towers", _attention),
        Tuning("adapter", "CLIP-Adapter: a bottleneck on the image and on the text embeddings", _adapter),
        Tuning(
            "parallel-adapter",
            "a bottleneck beside the MLP of each block of the image tower, to be switched off at will",
            _parallel_adapter,
        ),
        Tuning("probe", "a linear classifier on the image embeddings", _probe),
    )
}
