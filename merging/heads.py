"""Zero-shot heads: what the text tower makes of the classes of a task, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from common.errors import UserError
from datasets.registry import task_slug
from datasets.task import Task
from engine.classifier import average_templates, frozen_text_features
from models.encoder import Encoder
from models.selection import model_slug
from models.tensors import read_safetensors, sha256_of_tensors, write_safetensors

FORMAT = "clipscope-head/1"


def zero_shot_head(encoder: Encoder, task: Task) -> Tensor:
    """W float32 [C, D]: w_c = mean_j e_j / ||mean_j e_j||, with e_j the unit text embedding of class c in template j.

    In float32 whatever the precision of the images, so that a head is one and the same in all runs. Source: CLIP (Radford et
    al., ICML 2021), section 3.1.4, prompt ensembling; FusionBench's zero-shot classifier is the same.
    """
    with torch.inference_mode():
        prompts = [prompt for of_class in task.prompts() for prompt in of_class]
        head = average_templates(encoder.adapt_text(frozen_text_features(encoder, prompts)), len(task.templates))
    return head.clone()  # out here, so that a backward pass may go through it


@dataclass(frozen=True)
class Heads:
    """The heads of one encoder. ``folder`` keeps them under all that decides them, so that none is ever stale; None keeps nothing."""

    encoder: Encoder
    folder: Path | None = None

    @cached_property
    def text_side(self) -> str:
        """SHA-256 of the text tower's weights and of the modules that they run in, which weights alone do not tell."""
        model = self.encoder.model
        weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("visual.")}
        return hashlib.sha256(f"{sha256_of_tensors(weights)} {model!r}".encode()).hexdigest()

    def of(self, task: Task, *, keep: bool = True) -> Tensor:
        """The head of ``task`` on the encoder's device, from the folder where it is there; with ``keep`` it is put there."""
        if self.folder is None:
            return zero_shot_head(self.encoder, task)
        decides = self.identity(task)
        path = self._path(self.folder, task, decides)
        head = _kept(path, decides)
        if head is None:
            head = zero_shot_head(self.encoder, task)
            if keep:
                write_safetensors(path, {"head": head}, decides)
        return head.to(self.encoder.device)

    def identity(self, task: Task) -> dict[str, str]:
        """All that decides the head of ``task``. The tokens stand for the tokenizer, which has no hash of its own."""
        tokens = [self.encoder.tokenize(prompts) for prompts in task.prompts()]
        of_class = {str(number): some for number, some in enumerate(tokens)}
        return {
            "format": FORMAT,
            "text_side": self.text_side,
            "tokens": sha256_of_tensors(of_class),
            "classnames": json.dumps(task.classnames, ensure_ascii=False),
            "templates": json.dumps(task.templates, ensure_ascii=False),
        }

    def _path(self, folder: Path, task: Task, decides: dict[str, str]) -> Path:
        mark = hashlib.sha256(repr(sorted(decides.items())).encode()).hexdigest()[:12]
        return folder / model_slug(self.encoder.source.name) / f"{task_slug(task.name)}-{mark}.safetensors"


def _kept(path: Path, decides: dict[str, str]) -> Tensor | None:
    """The head in ``path``; None when there is none, or a damaged one, or another's: then it is made anew."""
    if not path.is_file():
        return None
    try:
        tensors, metadata = read_safetensors(path)
    except UserError:
        return None
    return tensors["head"] if metadata == decides and "head" in tensors else None
