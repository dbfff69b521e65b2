"""The diagonal of the Fisher information of an image tower under a zero-shot head, image by image.

The released code squares the gradient of the sum over a batch. The cross terms between its images and classes make another quantity of
that, which moreover depends on the batch size; it is here as ``as_released``.

Let z be an image's unit embedding, J = dz/dθ, and p = softmax(s W z). Then d log p_c / dθ = s (W_c - Σ_b p_b W_b) J, so an image's
Fisher information Σ_c p_c (d log p_c / dθ)^2 is Σ_r (a_r J)^2 with rows a_c = s √p_c (W_c - Σ_b p_b W_b), C of them. Any rows with the same
Σ_r a_r^T a_r give the same sum. The eigenvectors of that matrix are the fewest: at most min(C - 1, D), and for an image that the
model is sure of a handful hold all but a rounding error. Each costs one backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from common.errors import UserError
from merging.data import MergeData, in_float64
from merging.methods.images import TOWER

NEGLIGIBLE = 1e-7  # share of an image's Σ_r |a_r|^2 that its left out eigenvectors hold together


class FisherInformation:
    """Diagonals of image towers on the images and heads of ``data``.

    With ``samples`` n > 0 the sum over classes is estimated from n classes of each image, drawn by the seed from its p: n backward passes,
    unbiased. Beside the tower, its diagonal and a batch's activations, the gradients of one layer for each image of a batch are in memory.
    """

    def __init__(self, data: MergeData, names: Iterable[str], samples: int = 0, as_released: bool = False) -> None:
        self.data, self.samples, self.as_released = data, samples, as_released
        self.tower = data.tower()
        parameters = dict(self.tower.named_parameters())
        self.parameters = {name: parameters[own] for name in names if (own := name.removeprefix(TOWER)) in parameters}

    def diagonal(self, model: str) -> dict[str, Tensor]:
        """(1/N) Σ_x Σ_c p_c (d log p_c / dθ)^2 for the tower as it is now, by parameter, float32 on the device.

        ``as_released``: (1/N) Σ_B (d/dθ Σ_{x in B} Σ_c √p_c log p_c)^2, √p_c taken as constant, over batches B of the data's size. Sources:
        Matena and Raffel, NeurIPS 2022, eq. 3; the released estimate is FusionBench's. Raises UserError for outputs that are not finite.
        """
        totals = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}
        generator = np.random.default_rng([self.data.seed, *model.encode()])
        images = 0
        for pixels in self.data.batches(model):
            z = F.normalize(self._features(pixels, totals).float(), dim=-1)
            if not z.isfinite().all():
                raise UserError(f"The outputs of '{model}' are not finite; its weights have diverged.")
            rows = self._rows(z.detach(), model, generator)
            for number, row in enumerate(rows):
                torch.autograd.backward(z, row, retain_graph=number < len(rows) - 1)
            images += len(pixels)
        return {name: total.div_(images) for name, total in totals.items()}

    def _features(self, pixels: Tensor, totals: Mapping[str, Tensor]) -> Tensor:
        """The tower's features [b, D]; going back from them adds squared gradients to ``totals``."""
        examples = 0 if self.as_released else len(pixels)
        weights = {name.removeprefix(TOWER): squaring(parameter, totals[name], examples) for name, parameter in self.parameters.items()}
        with differentiable_attention():
            if self.as_released:
                return _forward(self.tower, weights, pixels)
            return torch.func.vmap(lambda own, image: _forward(self.tower, own, image[None])[0])(weights, pixels)

    def _rows(self, z: Tensor, model: str, generator: np.random.Generator) -> Tensor:
        """What to go back from: [R, b, D], each row for all images."""
        p = in_float64(self.data.logits(z, model)).softmax(dim=-1)
        head = in_float64(self.data.heads[model]).to(p)
        deviations = in_float64(self.data.encoder.logit_scale).exp() * (head - (p @ head)[:, None])  # [b, C, D]
        if self.samples and not self.as_released:
            drawn = draw(p, self.samples, generator)
            rows = deviations[torch.arange(len(p), device=p.device)[:, None], drawn] / self.samples**0.5
        else:
            rows = p.sqrt()[..., None] * deviations
            rows = rows.sum(dim=1, keepdim=True) if self.as_released else fewest_rows(rows)
        return rows.transpose(0, 1).to(z)


def fewest_rows(rows: Tensor) -> Tensor:
    """Orthogonal rows [b, R, D] of the same Σ_r a_r^T a_r as ``rows`` [b, C, D], the largest first, less what is negligible; float64."""
    classes, width = rows.shape[1:]
    if classes <= width:
        values, vectors = torch.linalg.eigh(rows @ rows.mT)
        rows = vectors.mT @ rows
    else:
        values, vectors = torch.linalg.eigh(rows.mT @ rows)
        rows = values.clamp(min=0).sqrt()[..., None] * vectors.mT
    below = values.clamp(min=0).cumsum(dim=-1)  # the values ascend
    kept = below > NEGLIGIBLE * below[:, -1:]
    most = int(kept.sum(dim=-1).max())
    return (rows * kept[..., None]).flip(1)[:, :most]


def draw(p: Tensor, samples: int, generator: np.random.Generator) -> Tensor:
    """Classes int64 [b, samples] drawn from ``p`` [b, C], image after image, so that it does not matter how they are batched."""
    numbers = torch.from_numpy(generator.random((len(p), samples))).to(p.device)
    return torch.searchsorted(p.cumsum(dim=-1), numbers).clamp(max=p.shape[1] - 1)


def squaring(parameter: Tensor, total: Tensor, examples: int) -> Tensor:
    """The parameter, for each of ``examples`` images on its own (0: for all together), whose squared gradients go to ``total``.

    As a leaf of the graph: there autograd goes as soon as it can, so that the gradients, ``examples`` times as large as the parameter, are
    gone before those of the layer before are made.
    """
    leaf = (parameter.expand(examples, *parameter.shape) if examples else parameter).detach().requires_grad_()

    def add(done: Tensor) -> None:
        assert done.grad is not None
        for gradient in done.grad if examples else [done.grad]:
            total.addcmul_(gradient, gradient)  # over twenty times as fast on the CPU as grad.square().sum(dim=0)
        done.grad = None

    leaf.register_post_accumulate_grad_hook(add)
    return leaf


def _forward(tower: nn.Module, weights: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
    features: Any = torch.func.functional_call(tower, dict(weights), (pixels,))
    return features[0] if isinstance(features, tuple) else features


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Attention in plain operations within the block: its fast paths have no gradient, or none for each image on its own."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
