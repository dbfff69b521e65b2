"""How adapters are trained, whatever for: the options of the loop. Importing this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

KEEP = ("last", "overlap")
PREPROCESS = ("own", "as-released")


@dataclass(frozen=True)
class AdapterFit:
    """The hyper-parameters that every objective has; the defaults are those published for the supervised one."""

    epochs: int = 1
    batch_size: int = 128  # images of a step, of all processes together
    lr: float = 8e-3
    wd: float = 1e-2
    schedule: str = "constant"  # an objective may have its own
    warmup: int = 0  # optimizer steps
    preprocess: str = "own"  # the encoder's own mean and deviation, or as the released code of the objective has it
    keep: str = "last"  # the checkpoint of the last step, or of the least overlap of the validation images
    validate_every: int | None = None  # optimizer steps; None: after every epoch only
    save_minutes: float = 10.0  # the state of an unfinished run is saved that often
    progress: bool = False
