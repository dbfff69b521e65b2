"""Train the routers on images without labels: each task's images should get decided answers from the task's zero-shot head."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.state import Progress, load_state, save_state
from merging.adaptation import entropy, minimise
from merging.data import MergeData
from merging.wemoe.assemble import Routed
from merging.wemoe.mlp import routers_of
from merging.wemoe.sparse import magnitude_pruned
from models.tensors import sha256_of_tensors

SAVE_EVERY = 100  # steps


def train_routers(routed: Routed, data: MergeData, state: Path | None = None) -> list[float]:
    """Minimise the sum over tasks of the mean entropy of softmax(logits), by Adam; returns the mean entropy of the tasks in each step.

    ``data.encoder`` is the routed encoder. A step takes ``adapt_batch_size`` images of every task. With ``state`` the run is kept in
    that file every so many steps, and goes on from there when it exists, as if it had never stopped; who writes the result removes it.
    Raises :class:`UserError` for an entropy that is not finite and a state of another run. Source: Tang et al., ICML 2024.
    """
    run = _Run(routed, data, state)
    minimise(run.step, routed.options.adapt_steps - run.progress.step, what="routers", progress=data.load.progress)
    return [entry["entropy"] for entry in run.progress.history]


def prune_routers(routed: Routed) -> None:
    """Set the smallest entries of every tensor of the trained routers to 0, a shared router's once; does nothing without a ratio."""
    if routed.options.gate_prune_ratio is None:
        return
    with torch.no_grad():
        for parameter in routers_of(routed.encoder).values():
            parameter.copy_(magnitude_pruned(parameter, routed.options.gate_prune_ratio))


class _Run:
    """Routers in training, from the beginning or from where an earlier run was kept."""

    def __init__(self, routed: Routed, data: MergeData, state: Path | None) -> None:
        self.tower, self.data, self.state = routed.encoder.image_tower, data, state
        self.routers = routers_of(routed.encoder)
        self.optimizer = torch.optim.Adam(self.routers.values(), lr=routed.options.adapt_lr)
        self.progress, self.settings = Progress(), _settings(routed, data)
        if state is not None and state.exists():
            self.progress = load_state(state, self.routers, self.optimizer, None, self.settings)
        size, first = routed.options.adapt_batch_size, self.progress.step
        self.images = {task: data.endless(task, size, first) for task in routed.tasks}

    def step(self) -> float:
        """One step of Adam; the mean entropy before it."""
        self.optimizer.zero_grad()
        entropies = [self._backward(task, next(images)) for task, images in self.images.items()]
        self.optimizer.step()
        mean = torch.stack(entropies).mean().item()
        self.progress.step += 1
        self.progress.history.append({"entropy": mean})
        if self.state is not None and self.progress.step % SAVE_EVERY == 0 and isfinite(mean):
            save_state(self.state, self.routers, self.optimizer, None, self.progress, self.settings)
        return mean

    def _backward(self, task: str, pixels: Tensor) -> Tensor:
        """Add one task's gradient to those of the others: only its graph is in memory."""
        with self.data.runtime.autocast():
            features = self.tower(pixels)
            loss = entropy(self.data.logits(features[0] if isinstance(features, tuple) else features, task))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def _settings(routed: Routed, data: MergeData) -> dict[str, Any]:
    """All that decides the result: a state of other settings is another run's."""
    frozen = {name: tensor for name, tensor in routed.encoder.model.state_dict().items() if name in {*routed.merged, *routed.routed}}
    return {
        "base": routed.base_sha256,
        "models": sha256_of_tensors(frozen),
        "precision": data.runtime.precision,
        "order of images": data.seed,
        **{f"images of {task}": data.tasks[task].fingerprint for task in routed.tasks},
        **routed.options.structure,
        **routed.options.training,
    }
