"""From the flags ``--model-name`` and ``--model-path`` to an encoder, and what is to be said of it in results."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import slug
from common.stages import staged
from models.checkpoint import CheckpointHeader, base_sha256, checkpoint_sha256, load_checkpoint
from models.encoder import Encoder
from models.loading import load_encoder
from models.tuning_options import TUNING_NAMES
from models.zoo import RANDOM, SLIP, ZOO

DEFAULT_MODEL = "clip"
ZERO_SHOT = "none"  # the tuning of an encoder as it was published


@dataclass(frozen=True)
class Selection:
    """An encoder and where it came from. ``sha256`` is that of the checkpoint file, or of the weights without one."""

    encoder: Encoder
    model: str
    tuning: str
    checkpoint: str
    sha256: str
    header: CheckpointHeader | None = None

    @property
    def label(self) -> str:
        """What names this encoder in a path: the model, or the checkpoint."""
        return slug(Path(self.checkpoint).stem) if self.checkpoint else model_slug(self.model)


@staged("model")
def select_encoder(model_name: str | None, model_path: Path | None, given: Mapping[str, object]) -> Selection:
    """The encoder that the flags name: a checkpoint where there is a path, else the model as it was published.

    ``given`` are the tuning's hyper-parameters that the user typed; with a checkpoint they must agree with it.
    """
    tuning = model_name if model_name in TUNING_NAMES else None
    model = None if tuning else model_name
    if model_path is not None:
        encoder, header = load_checkpoint(model_path, model=model, tuning=tuning, given=given)
        return Selection(encoder, header.model, header.tuning, str(model_path), checkpoint_sha256(model_path), header)
    if tuning:
        raise UserError(f"'{tuning}' is a tuning, not a model, and has no weights of its own; give its checkpoint with --model-path.")
    if given:
        flag = next(iter(given)).replace("_", "-")
        raise UserError(f"--{flag} belongs to a fine-tuned encoder; give its checkpoint with --model-path, or leave the flag out.")
    encoder = load_encoder(model or DEFAULT_MODEL)
    return Selection(encoder, model or DEFAULT_MODEL, ZERO_SHOT, "", base_sha256(encoder))


def model_slug(name: str) -> str:
    """A model's name as part of a file name; of a folder, its last part and six digits of its absolute path's hash.

    Of SLIP's weights it is the architecture, the file's name and those digits: ``SLIP-ViT-B-16-slip_base_100ep-1f2e3d``.
    """
    architecture, _, weights = name.partition("/")
    if architecture in SLIP and weights and weights != RANDOM:
        return f"{architecture}-{_path_slug(Path(weights), Path(weights).stem)}"
    folder = Path(name.removeprefix("local-dir:"))
    if name in ZOO or not folder.expanduser().is_dir():
        return slug(name)
    return _path_slug(folder)


def _path_slug(path: Path, label: str = "") -> str:
    """``label``, by default the path's last part, and six digits that tell it from others of that name, however it is written."""
    absolute = os.path.normpath(path.expanduser().absolute())
    return f"{slug(label or Path(absolute).name)}-{hashlib.sha256(os.fsencode(absolute)).hexdigest()[:6]}"
