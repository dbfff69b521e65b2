"""Adapters trained by self-distillation, without labels: a student learns from small crops what its moving average sees in large ones.

Student and teacher are the same frozen encoder with adapters of their own, each behind it a head of its own. The teacher's adapters
are what is kept. Source: Caron et al., Emerging Properties in Self-Supervised Vision Transformers (ICCV 2021), with adapters as
Kravets and Namboodiri (BMVC 2024) have them. The released code keeps the head frozen as it was drawn; here it trains, unless
``--freeze-head`` asks for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from open_clip.constants import IMAGENET_MEAN, IMAGENET_STD
from torch import Tensor, nn

from common.errors import UserError
from engine.loading import Batch, Transform
from fewshot.dino.crops import GLOBAL, MultiCrop, crop_sizes, split_views
from fewshot.dino.head import DinoHead
from fewshot.dino.loss import distillation, moved_centre, teacher_targets
from fewshot.dino.optimizers import clip_each, make_optimizer
from fewshot.dino.options import DinoOptions
from fewshot.dino.positions import image_size, patch_size
from fewshot.dino.schedules import teacher_temperature, warmed_cosine
from fewshot.dino.teacher import Teacher
from fewshot.objective import Objective, Setting, Step
from models.encoder import Encoder
from models.parallel_adapter import dropout_of
from models.tunings import trained_parameters

REFERENCE_BATCH = 256  # images of the step that the learning rate is given for


class Dino(Objective):
    """Cross-entropy between the teacher's distributions of the two large views and the student's of all others.

    The learning rate ``fit.lr`` is that of steps of 256 images, and in proportion for others; ``fit.wd`` is the decay at the start.
    """

    name = "dino"
    released_statistics = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if self.fit.schedule != "cosine" or self.fit.warmup:
            raise UserError("--objective dino has a cosine schedule with --warmup-epochs; leave --schedule and --warmup out.")
        self.options: DinoOptions = setting.options or DinoOptions()
        patch = max(patch_size(self.encoder)) if self.options.local_crops_number else 1
        self.sizes = crop_sizes(self.encoder.image_size, patch, self.options)
        self.head = DinoHead(self.encoder.embed_dim, self.options.out_dim, _generator(self.runtime.seed)).to(self.runtime.device)
        self.head.requires_grad_(not self.options.freeze_head)
        self.teacher = Teacher(self.encoder, self.head)
        self.centre = torch.zeros(self.options.out_dim, device=self.runtime.device)

    @property
    def transform(self) -> Transform:
        """See :class:`Objective`."""
        return MultiCrop(self.sizes, self.options)

    def parameters(self) -> dict[str, nn.Parameter]:
        """See :class:`Objective`."""
        head = {f"head.{name}": parameter for name, parameter in self.head.named_parameters() if parameter.requires_grad}
        return {**trained_parameters(self.encoder), **head}

    def optimizer(self) -> torch.optim.Optimizer:
        """See :class:`Objective`."""
        return make_optimizer(self.options.optimizer, self.parameters().values())

    def before_step(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        """See :class:`Objective`."""
        options, peak = self.options, self.fit.lr * step.images / REFERENCE_BATCH
        warmup = options.warmup_epochs * step.per_epoch
        lr = warmed_cosine(step.number, step.steps, start=peak, end=options.min_lr, warmup=warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr
        decay = warmed_cosine(step.number, step.steps, start=self.fit.wd, end=options.weight_decay_end)
        optimizer.param_groups[0]["weight_decay"] = decay  # the second group never decays

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """See :class:`Objective`. The centre moves here, behind the targets that it was used for."""
        large, small = (self.preprocess.normalized(pixels) for pixels in split_views(batch.pixels, self.sizes))
        targets = self._targets(large, step)
        features = [self._student(pixels, first, batch, step) for pixels, first in ((large, 0), (small, GLOBAL)) if len(pixels)]
        students = self.head(torch.cat(features)).unflatten(0, (self.sizes.views, len(batch)))
        prototypes = self.head.prototypes()
        if step.epoch < self.options.freeze_last_layer:
            prototypes = prototypes.detach()  # so that the last layer has no gradient, and neither moves nor decays
        pairs = GLOBAL * (self.sizes.views - 1)
        return distillation(students, prototypes, targets) / (step.images * pairs)

    def _student(self, pixels: Tensor, first: int, batch: Batch, step: Step) -> Tensor:
        """The student's features of views from number ``first`` on; where dropout is asked for, each loses units of its own."""
        images = self.step_key(step) * len(self.task) + batch.indices.to(pixels.device)
        views = torch.arange(first, first + len(pixels) // len(batch), device=pixels.device)
        keys = (images * self.sizes.views + views[:, None]).flatten()
        with dropout_of(self.encoder, keys), image_size(self.encoder, *pixels.shape[-2:]):
            return self.encoder.raw_image_features(pixels)

    @torch.no_grad()
    def _targets(self, large: Tensor, step: Step) -> Tensor:
        """The teacher's distributions [2, B, K] of the large views."""
        options = self.options
        vectors = self.teacher.head(self.teacher.encoder.raw_image_features(large))
        with torch.autocast(vectors.device.type, enabled=False):
            cosines = vectors @ self.teacher.head.prototypes().T
        temperature = teacher_temperature(
            step.epoch, start=options.warmup_teacher_temp, end=options.teacher_temp, warmup=options.warmup_teacher_temp_epochs
        )
        targets = teacher_targets(cosines, self.centre, temperature)
        self._move_centre(cosines)
        return targets.unflatten(0, (GLOBAL, -1))

    def _move_centre(self, cosines: Tensor) -> None:
        """Towards the mean over the images of all processes, which may hold different numbers of them."""
        count = cosines.new_tensor([float(len(cosines))])
        total = self.runtime.total(torch.cat([cosines.sum(dim=0), count]))
        self.centre.copy_(moved_centre(self.centre, total[:-1] / total[-1]))

    def after_backward(self, step: Step) -> None:
        """See :class:`Objective`."""
        if self.options.clip_grad:
            clip_each(self.parameters().values(), self.options.clip_grad)

    def after_step(self, step: Step) -> None:
        """See :class:`Objective`."""
        self.teacher.follow(warmed_cosine(step.number, step.steps, start=self.options.momentum_teacher, end=1.0))

    @property
    def kept(self) -> Encoder:
        """See :class:`Objective`."""
        return self.teacher.encoder

    def buffers(self) -> Mapping[str, Tensor]:
        """See :class:`Objective`."""
        return {**self.teacher.buffers(), "centre": self.centre}

    def settings(self) -> dict[str, Any]:
        """See :class:`Objective`."""
        return {**asdict(self.options), "local_crops_size": self.sizes.small}


def _generator(seed: int) -> torch.Generator:
    """The head's own draws; ``seed`` itself is that of the adapters'."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, 1)).generate_state(1)[0]))
