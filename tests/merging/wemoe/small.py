"""Small routed encoders, and what they should give computed the slow way."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from merging.evaluate import tower_names
from merging.weights import Pool, TensorWeights
from merging.wemoe.assemble import Routed, assemble
from merging.wemoe.mlp import RoutedMLP
from merging.wemoe.options import WemoeOptions
from models.encoder import Encoder
from models.loading import load_encoder


def pool_of(encoder: Encoder, count: int, size: float = 0.05) -> Pool:
    """The encoder as the base, and models that were moved from it by noise in all of the image tower but its projection."""
    base = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    names = tuple(name for name in tower_names(encoder) if name != "visual.proj")
    models = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        moved = {name: base[name] + size * torch.randn(base[name].shape, generator=generator) for name in names}
        models.append(TensorWeights(f"task{seed}", moved))
    return Pool(TensorWeights("base", base), tuple(models), names)


def assembled(model: object, count: int = 3, *, stirred: bool = True, **options: object) -> tuple[Routed, Pool]:
    """A routed encoder; ``stirred`` routers have larger weights than those that are drawn, so that images differ."""
    encoder = load_encoder(str(model))
    pool = pool_of(encoder, count)
    routed = assemble(pool, encoder, WemoeOptions(**options))
    if stirred:
        stir(routed)
    return routed, pool


def stir(routed: Routed) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for mlp in mlps(routed):
            for parameter in mlp.router.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)


def mlps(routed: Routed) -> list[RoutedMLP]:
    return [module for module in routed.encoder.modules() if isinstance(module, RoutedMLP)]


def images(routed: Routed, count: int = 5) -> Tensor:
    size = routed.encoder.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(7))


def image_by_image(mlp: RoutedMLP, x: Tensor) -> Tensor:
    """What the MLP should give: weights merged for one image after the other, from the router's outputs for each of its tokens."""
    router, outputs = mlp.router, []
    for tokens in x:
        seen = tokens if mlp.position is None else torch.cat((mlp.position.expand(len(tokens), -1), tokens), dim=1)
        if router.constant is not None:
            weights = router.constant
        else:
            seen = seen if router.hidden is None else F.relu(F.linear(seen, router.hidden.weight, router.hidden.bias))
            weights = torch.stack([router.last(token) for token in seen]).mean(dim=0)
        hidden = mlp.act(F.linear(tokens, *(_merged(part, weights) for part in (mlp.c_fc.weight, mlp.c_fc.bias))))
        outputs.append(F.linear(hidden, *(_merged(part, weights) for part in (mlp.c_proj.weight, mlp.c_proj.bias))))
    return torch.stack(outputs)


def _merged(experts: Tensor, weights: Tensor) -> Tensor:
    total = experts[0]
    for weight, vector in zip(weights, experts[1:], strict=True):
        total = total + weight * vector
    return total
