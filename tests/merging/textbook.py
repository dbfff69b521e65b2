"""The merging methods as their papers write them: whole models, flattened to one vector each where the method is element by element,
matrices by full singular value decompositions. Slow, obvious, and sharing no code with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


def flatten(tensors: Tensors) -> Tensor:
    """All tensors in one vector [d], float32."""
    return torch.cat([tensor.float().reshape(-1) for tensor in tensors.values()])


def unflatten(vector: Tensor, like: Tensors) -> dict[str, Tensor]:
    pieces = vector.split([tensor.numel() for tensor in like.values()])
    return {name: piece.reshape(tensor.shape) for (name, tensor), piece in zip(like.items(), pieces, strict=True)}


def add(base: Tensors, task_vector: Tensors, scaling: float) -> dict[str, Tensor]:
    return {name: base[name].double() + scaling * task_vector[name].double() for name in base}


def task_matrix(base: Tensors, models: Sequence[Tensors]) -> Tensor:
    """The flattened task vectors, [K, d]."""
    return torch.stack([flatten(model) - flatten(base) for model in models])


def element_wise(base: Tensors, models: Sequence[Tensors], scaling: float, merge: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return add(base, unflatten(merge(task_matrix(base, models)), base), scaling)


def threshold(vector: Tensor, density: float) -> float:
    """The k-th smallest magnitude, by sorting."""
    rank = vector.numel() - int(vector.numel() * density)
    return float(np.partition(vector.abs().numpy(), rank - 1)[rank - 1]) if rank else 0.0


def ties(vectors: Tensor, density: float, merge_func: str) -> Tensor:
    trimmed = torch.stack([torch.where(vector.abs() >= threshold(vector, density), vector, 0) for vector in vectors])
    sign = torch.zeros(trimmed.shape[1])
    for vector in trimmed:
        sign += vector
    sign = sign.sign()
    sign[sign == 0] = sign.sum().sign()
    kept = torch.where(torch.where(sign > 0, trimmed > 0, trimmed < 0), trimmed, 0).double()
    if merge_func == "max":
        return kept.abs().max(0).values * sign
    if merge_func == "mean":
        return kept.sum(0) / (kept != 0).sum(0).clamp(min=1)
    return kept.sum(0)


def magmax(vectors: Tensor) -> Tensor:
    latest_first = vectors.flip(0)
    return latest_first.gather(0, latest_first.abs().argmax(0, keepdim=True))[0]


def tall_masks(vectors: Tensor, threshold: float) -> Tensor:
    return vectors.abs() > threshold * (vectors.sum(0) - vectors).abs()


def emr(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The unified task vector [d], the masks [K, d] and the rescalers [K]."""
    sign = vectors.sum(0).sign()
    unified = torch.where(vectors * sign > 0, vectors.abs(), 0).max(0).values * sign
    masks = vectors * unified > 0
    return unified, masks, vectors.double().abs().sum(1) / (masks * unified).double().abs().sum(1)


def model_stock(base: Tensors, models: Sequence[Tensors]) -> dict[str, Tensor]:
    merged = {}
    for name, start in base.items():
        vectors = [(model[name].double() - start.double()).reshape(-1) for model in models]
        count = len(vectors)
        pairs = [(i, j) for i in range(count) for j in range(i)]
        cosine = sum(float(torch.cosine_similarity(vectors[i], vectors[j], dim=0)) for i, j in pairs) / len(pairs)
        cosine = max(cosine, 0.0)
        ratio = count * cosine / (1 + (count - 1) * cosine)
        mean = torch.stack([model[name].double() for model in models]).mean(0)
        merged[name] = ratio * mean + (1 - ratio) * start.double()
    return merged


def slerp(first: Tensor, second: Tensor, t: float) -> Tensor:
    first, second = first.double(), second.double()
    angle = torch.arccos((first * second).sum() / (first.norm() * second.norm()))
    return torch.sin((1 - t) * angle) / torch.sin(angle) * first + torch.sin(t * angle) / torch.sin(angle) * second


def by_matrix(base: Tensors, models: Sequence[Tensors], merge: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The task vector that ``merge`` makes of the K task matrices [K, m, n], and the mean elsewhere."""
    merged = {}
    for name, start in base.items():
        vectors = torch.stack([model[name].double() - start.double() for model in models])
        merged[name] = merge(vectors) if start.ndim == 2 else vectors.mean(0)
    return merged


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.linalg.svd(matrix, full_matrices=False)


def _whiten(matrix: Tensor) -> Tensor:
    u, _, v = _svd(matrix)
    return u @ v


def iso_c(vectors: Tensor) -> Tensor:
    u, s, v = _svd(vectors.sum(0))
    return u @ torch.diag(s.mean().expand(len(s))) @ v


def iso_cts(vectors: Tensor, fraction: float) -> Tensor:
    count, rank = len(vectors), min(vectors.shape[1:])
    u, s, v = _svd(vectors.sum(0))
    own = round((rank - int(rank * fraction)) / count)
    common = rank - own * count
    us, ss, vs = [], [], []
    for vector in vectors:
        own_u, own_s, own_v = _svd(vector - u[:, :common] @ u[:, :common].T @ vector)
        us, ss, vs = [*us, own_u[:, :own]], [*ss, own_s[:own]], [*vs, own_v[:own]]
    left, spectrum, right = torch.cat([*us, u[:, :common]], 1), torch.cat([*ss, s[:common]]), torch.cat([*vs, v[:common]])
    return spectrum.mean() * _whiten(left) @ _whiten(right)


def tsv_m(vectors: Tensor) -> Tensor:
    kept = min(vectors.shape[1:]) // len(vectors)
    found = [_svd(vector) for vector in vectors]
    left, spectrum = torch.cat([u[:, :kept] for u, _, _ in found], 1), torch.cat([s[:kept] for _, s, _ in found])
    right = torch.cat([v[:kept] for _, _, v in found])
    return _whiten(left) @ torch.diag(spectrum) @ _whiten(right)


def wudi_loss(merged: Tensor, vectors: Tensor) -> Tensor:
    inner = (merged - vectors) @ vectors.transpose(1, 2)
    return (inner.square().sum((1, 2)) / vectors.square().sum((1, 2))).sum()


def wudi(vectors: Tensor, iterations: int, learning_rate: float) -> Tensor:
    merged = torch.nn.Parameter(vectors.sum(0))
    optimizer = torch.optim.Adam([merged], lr=learning_rate)
    for _ in range(iterations):
        optimizer.zero_grad()
        wudi_loss(merged, vectors).backward()
        optimizer.step()
    return merged.detach()
