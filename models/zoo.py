"""From a model's name to where its architecture and weights come from.

===============================  ==============================================================================
name                             encoder
===============================  ==============================================================================
``tiny``                         the small CLIP in this repository, no download
``clip``                         open_clip ``ViT-B-32-quickgelu`` / ``openai``
``siglip``                       open_clip ``ViT-B-16-SigLIP`` / ``webli``
``coca``                         open_clip ``coca_ViT-B-32`` / ``laion2b_s13b_b90k``
``eva02``                        open_clip ``EVA02-B-16`` / ``merged2b_s8b_b131k``
``ARCH/PRETRAINED``              any architecture and tag of ``open_clip.list_pretrained()``
``ARCH/random``                  that architecture with weights drawn from seed 0: no download, for trying and timing
``ARCH/FILE``                    that architecture with weights from a .safetensors or .pt file
``SLIP-ViT-B-16/FILE``           SLIP: the released slip_base_100ep.pt, or its tensors as .safetensors; also ViT-S-16, ViT-L-16
``hf-hub:org/name``              an open_clip model on the Hugging Face hub
``local-dir:PATH``               a folder with ``open_clip_config.json`` and weights
``PATH`` or ``org/name``         a folder or hub id of a Hugging Face ``CLIPModel``
===============================  ==============================================================================

To add a short name, add a line to :data:`ZOO`. Importing this module does not import torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import UserError, nearest, unknown_name
from common.files import is_folder

TINY_FOLDER = Path(__file__).parent / "tiny"
RANDOM = "random"  # the pretrained tag for weights drawn from a seed

ZOO: dict[str, str] = {
    "clip": "ViT-B-32-quickgelu/openai",  # plain ViT-B-32 would silently run GELU on weights made with QuickGELU
    "siglip": "ViT-B-16-SigLIP/webli",
    "coca": "coca_ViT-B-32/laion2b_s13b_b90k",
    "eva02": "EVA02-B-16/merged2b_s8b_b131k",
    "tiny": f"local-dir:{TINY_FOLDER}",
}


SLIP: dict[str, str] = {  # SLIP's architectures, and the released file that is usually meant (github.com/facebookresearch/SLIP)
    "SLIP-ViT-S-16": "slip_small_100ep.pt",
    "SLIP-ViT-B-16": "slip_base_100ep.pt",
    "SLIP-ViT-L-16": "slip_large_100ep.pt",
}


@dataclass(frozen=True)
class ModelSource:
    """Where an encoder comes from. ``architecture`` is a folder or hub id for the kinds that carry their own config."""

    name: str
    kind: Literal["open_clip", "slip", "local-dir", "hf-hub", "huggingface"]
    architecture: str
    pretrained: str | None = None


def resolve(name: str) -> ModelSource:
    """Find where the model called ``name`` comes from; a :class:`UserError` with the nearest name when it is unknown."""
    target = ZOO.get(name, name)
    if target.startswith("local-dir:"):
        return _from_folder(name, Path(target.removeprefix("local-dir:")).expanduser())
    if target.startswith("hf-hub:"):
        return ModelSource(name, "hf-hub", target.removeprefix("hf-hub:"))
    if is_folder(Path(target).expanduser()):
        return _from_folder(name, Path(target).expanduser())
    if "/" in target:
        return _from_pair(name, target)
    raise _unknown(name)


def canonical_name(name: str) -> str:
    """The short name in :data:`ZOO` of what ``name`` means, or ``name`` itself: what files record, free of machine paths."""
    short = {_place(resolve(known)): known for known in ZOO}
    source = resolve(name)
    own = f"{source.architecture}/{source.pretrained}" if source.kind == "slip" else name  # however the file's path was written
    return short.get(_place(source), own)


def _place(source: ModelSource) -> tuple[str, str, str | None]:
    architecture = str(Path(source.architecture).resolve()) if source.kind == "local-dir" else source.architecture
    return source.kind, architecture, source.pretrained


def _from_folder(name: str, folder: Path) -> ModelSource:
    if not folder.is_dir():
        raise UserError(f"The model folder '{folder}' does not exist.")
    if (folder / "open_clip_config.json").is_file():
        return ModelSource(name, "local-dir", str(folder))
    if (folder / "config.json").is_file():
        return ModelSource(name, "huggingface", str(folder))
    raise UserError(f"'{folder}' is not a model folder: it has neither open_clip_config.json nor a Hugging Face config.json.")


def _from_pair(name: str, target: str) -> ModelSource:
    """``ARCH/PRETRAINED`` when the architecture is SLIP's or one that open_clip knows, otherwise a Hugging Face hub id."""
    import open_clip

    architecture, _, pretrained = target.partition("/")
    if architecture in SLIP:
        return ModelSource(name, "slip", architecture, _slip_weights(architecture, pretrained))
    architectures = open_clip.list_models()
    if architecture in architectures:
        check_pretrained(architecture, pretrained)
        return ModelSource(name, "open_clip", architecture, pretrained)
    if target.startswith((".", "/", "~")):
        raise UserError(f"The model folder '{target}' does not exist.")
    if _is_typing_error(architecture, [*architectures, *SLIP]):
        raise unknown_name("architecture", architecture, [*architectures, *SLIP])
    return ModelSource(name, "huggingface", target)


def _slip_weights(architecture: str, weights: str) -> str:
    """The path of a SLIP checkpoint, in its shortest spelling, or :data:`RANDOM`."""
    if weights == RANDOM:
        return weights
    path = os.path.normpath(Path(weights).expanduser())
    if not weights or not Path(path).is_file():
        missing = f"There is no file '{path}'" if weights else f"'{architecture}/' names no file"
        raise UserError(f"{missing}; the weights of '{architecture}' are, e.g., the released {SLIP[architecture]}, or '{RANDOM}'.")
    return path


def _is_typing_error(architecture: str, architectures: list[str]) -> bool:
    """Whether a name that open_clip does not know looks like one of its own rather than like an organisation's."""
    import difflib

    return bool(difflib.get_close_matches(architecture.lower(), [known.lower() for known in architectures], cutoff=0.8))


def check_pretrained(architecture: str, pretrained: str) -> None:
    """Refuse an unknown tag, and a tag whose weights were made with another activation than the architecture runs.

    open_clip 3 only warns of the latter and goes on with a model that is some points worse (open_clip issue 1109).
    """
    import open_clip

    if pretrained == RANDOM or Path(pretrained).is_file():
        return
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if pretrained not in tags:
        raise _unknown_tag(architecture, pretrained, tags)
    wants = bool(open_clip.get_pretrained_cfg(architecture, pretrained).get("quick_gelu", False))
    runs = bool((open_clip.get_model_config(architecture) or {}).get("quick_gelu", False))
    if wants != runs:
        other = architecture.removesuffix("-quickgelu") if runs else f"{architecture}-quickgelu"
        activation = "QuickGELU" if wants else "plain GELU"
        raise UserError(
            f"The weights '{pretrained}' were made with {activation}, which '{architecture}' does not run; use '{other}/{pretrained}'."
        )


def _unknown_tag(architecture: str, pretrained: str, tags: list[str]) -> UserError:
    guess = nearest(pretrained, tags)
    known = f"did you mean '{guess}'?" if guess else f"known: {', '.join([*tags, RANDOM])}, or a weights file."
    return UserError(f"open_clip has no weights '{pretrained}' for '{architecture}'; {known}")


def _unknown(name: str) -> UserError:
    import open_clip

    if name.lower().startswith("slip"):
        meant = nearest(name, SLIP) or "SLIP-ViT-B-16"
        return UserError(f"'{name}' is an architecture without weights; name their file too, e.g. '{meant}/{SLIP[meant]}'.")
    if name in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(name) or [RANDOM]
        return UserError(f"'{name}' is an architecture without weights; name them too, e.g. '{name}/{tags[0]}'.")
    return unknown_name("model", name, ZOO)
