"""The loss of self-distillation over very many outputs, without ever holding the student's.

With s_v the student's cosines with K prototypes for view v, q_i the teacher's distribution for view i in {1, 2} and c a centre,

    q_i = softmax((t_i - c) / T)          loss = sum_i sum_{v != i} - q_i . log_softmax(s_v / 0.1)

(Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021, equations 1 to 4). Written out, each view
needs one normaliser, and of q_i only the mean prototype m_i = sum_k q_ik w_k that it expects:

    loss = sum_v n_v logsumexp(s_v / 0.1) - z_v . sum_{i != v} m_i / 0.1          s_v = z_v W^T, n_v teachers that v answers to

So the V x K outputs of each image are needed for the normalisers alone, and these can be had from some columns at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

STUDENT_TEMPERATURE = 0.1
CENTRE_MOMENTUM = 0.9
CHUNK = 8192  # prototypes at a time


def teacher_targets(cosines: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """The teacher's distributions: softmax((t - c) / T) along the last axis, for ``cosines`` [..., K] and ``centre`` [K]."""
    return ((cosines - centre) / temperature).softmax(dim=-1)


def moved_centre(centre: Tensor, mean: Tensor) -> Tensor:
    """The centre [K] after a step in which the teacher's outputs had that mean [K] over images and views: 0.9 c + 0.1 mean."""
    return CENTRE_MOMENTUM * centre + (1 - CENTRE_MOMENTUM) * mean


def distillation(
    students: Tensor, prototypes: Tensor, targets: Tensor, temperature: float = STUDENT_TEMPERATURE, chunk: int = CHUNK
) -> Tensor:
    """The loss above, summed over images and over the pairs of a teacher's view and another view of the student.

    ``students`` [V, B, D] and ``prototypes`` [K, D] are unit rows; ``targets`` [T, B, K] are distributions, of the first T <= V
    views, without gradient. Memory beyond ``targets`` and the gradients: V B ``chunk`` numbers. To divide by B and by the
    number of pairs, T (V - 1), is left to the caller, since B may be spread over processes.
    """
    with torch.autocast(students.device.type, enabled=False):
        return _Distillation.apply(students, prototypes, targets, temperature, chunk)  # type: ignore[no-any-return, no-untyped-call]


class _Distillation(torch.autograd.Function):
    """:func:`distillation`, whose gradient computes the probabilities of the student anew, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, students: Tensor, prototypes: Tensor, targets: Tensor, temperature: float, chunk: int) -> Tensor:
        views, teachers = len(students), len(targets)
        scaled = students.flatten(0, 1) / temperature
        normaliser = scaled.new_full((len(scaled),), -torch.inf)
        for part in prototypes.split(chunk):
            normaliser = torch.logaddexp(normaliser, (scaled @ part.T).logsumexp(dim=1))
        expected = targets @ prototypes
        wanted = expected.sum(dim=0).expand_as(students).clone()  # by the teacher of every view but the own
        wanted[:teachers] -= expected
        answers = torch.full((views,), float(teachers), dtype=students.dtype, device=students.device)
        answers[:teachers] -= 1
        ctx.save_for_backward(scaled, prototypes, targets, normaliser, wanted, answers)
        ctx.temperature, ctx.chunk = temperature, chunk
        return (answers @ normaliser.view(views, -1)).sum() - (scaled * wanted.flatten(0, 1)).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:  # type: ignore[override]
        scaled, prototypes, targets, normaliser, wanted, answers = ctx.saved_tensors
        weights = answers.repeat_interleave(wanted.shape[1])[:, None]
        of_students = -wanted.flatten(0, 1)
        of_prototypes = torch.empty_like(prototypes) if ctx.needs_input_grad[1] else None
        with torch.autocast(scaled.device.type, enabled=False):
            for number, part in enumerate(prototypes.split(ctx.chunk)):
                probabilities = (scaled @ part.T).sub_(normaliser[:, None]).exp_().mul_(weights)
                of_students.addmm_(probabilities, part)
                if of_prototypes is not None:
                    torch.mm(probabilities.T, scaled, out=of_prototypes[number * ctx.chunk : number * ctx.chunk + len(part)])
            if of_prototypes is not None:
                views = scaled.view_as(wanted)
                others = views.sum(dim=0) - views[: len(targets)]  # the views that answer to each teacher, summed
                of_prototypes.addmm_(targets.flatten(0, 1).T, others.flatten(0, 1), alpha=-1).mul_(grad)
        return of_students.mul_(grad / ctx.temperature).view_as(wanted), of_prototypes, None, None, None
