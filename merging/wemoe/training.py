"""Train the routers on images without labels: each task's images should get decided answers from the task's zero-shot head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from merging.adaptation import entropy, minimise
from merging.data import MergeData
from merging.resuming import Batches, Keeper, StateFile
from merging.wemoe.assemble import Routed
from merging.wemoe.mlp import routers_of
from merging.wemoe.sparse import magnitude_pruned
from models.tensors import sha256_of_tensors


def train_routers(routed: Routed, data: MergeData, state: StateFile | None = None) -> list[float]:
    """Minimise the sum over tasks of the mean entropy of softmax(logits), by Adam; returns the mean entropy of the tasks in each step.

    ``data.encoder`` is the routed encoder. A step takes ``adapt_batch_size`` images of every task. With ``state`` the run is kept in
    that file now and then, and goes on from there when it exists, as if it had never stopped; who writes the result removes it.
    Raises :class:`UserError` for an entropy that is not finite and a state of another run. Source: Tang et al., ICML 2024.
    """
    routers, batches = routers_of(routed.encoder), Batches(data, routed.tasks, routed.options.adapt_batch_size)
    optimizer = torch.optim.Adam(routers.values(), lr=routed.options.adapt_lr)
    keeper = Keeper(state, _settings(routed, data), batches, data.runtime.say) if state else None
    loop = keeper.loop(routers, optimizer) if keeper else None

    def step() -> float:
        optimizer.zero_grad()
        entropies = [_backward(routed, data, task, batches.next(task)) for task in routed.tasks]
        optimizer.step()
        return torch.stack(entropies).mean().item()

    return minimise(step, routed.options.adapt_steps, what="routers", progress=data.load.progress, loop=loop)


def prune_routers(routed: Routed) -> None:
    """Set the smallest entries of every tensor of the trained routers to 0, a shared router's once; does nothing without a ratio."""
    if routed.options.gate_prune_ratio is None:
        return
    with torch.no_grad():
        for parameter in routers_of(routed.encoder).values():
            parameter.copy_(magnitude_pruned(parameter, routed.options.gate_prune_ratio))


def _backward(routed: Routed, data: MergeData, task: str, pixels: Tensor) -> Tensor:
    """Add one task's gradient to those of the others: only its graph is in memory."""
    with data.runtime.autocast():
        features = routed.encoder.image_tower(pixels)
        loss = entropy(data.logits(features[0] if isinstance(features, tuple) else features, task))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _settings(routed: Routed, data: MergeData) -> dict[str, Any]:
    """All that decides the result: a state of other settings is another run's."""
    frozen = {name: tensor for name, tensor in routed.encoder.model.state_dict().items() if name in {*routed.merged, *routed.routed}}
    return {
        "base": routed.base_sha256,
        "models": sha256_of_tensors(frozen),
        "precision": data.runtime.precision,
        "device": data.device.type,
        "order of images": data.seed,
        "heads": sha256_of_tensors({task: data.heads[task] for task in routed.tasks}),
        **{f"images of {task}": data.tasks[task].fingerprint for task in routed.tasks},
        **routed.options.structure,
        **routed.options.training,
    }
