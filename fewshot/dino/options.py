"""The hyper-parameters of self-distillation beside those of every objective. Importing this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

OPTIMIZERS = ("adamw", "sgd", "lars")


@dataclass(frozen=True)
class DinoOptions:
    """How to distil; the defaults are those of the released code. Epochs that are longer than the run are cut by its end."""

    min_lr: float = 2e-6  # where the learning rate ends, whatever the batch size
    warmup_epochs: int = 10
    weight_decay_end: float = 0.4  # it begins at the common --wd
    optimizer: str = "adamw"
    clip_grad: float = 0.3  # the largest norm of each parameter's gradient; 0: none
    momentum_teacher: float = 0.9995  # at the start; 1 at the end
    warmup_teacher_temp: float = 0.04
    teacher_temp: float = 0.07
    warmup_teacher_temp_epochs: int = 50
    out_dim: int = 65536
    freeze_last_layer: int = 1  # epochs
    freeze_head: bool = False
    global_crops_scale: tuple[float, float] = (0.25, 1.0)  # of the area
    local_crops_number: int = 10
    local_crops_scale: tuple[float, float] = (0.05, 0.25)
    local_crops_size: int | None = None  # pixels; None: 96 of 224, in whole patches
