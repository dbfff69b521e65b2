"""The flags of the released code of Cross the Gap (arXiv 2502.04263) that choose a model, and its way to write booleans.

There, ``--clip_model_name``, ``--use_open_clip`` and ``--open_clip_pretrained`` together name a model; here ``--model-name`` does.
Names are told apart in this order: SLIP's, OpenCLIP's where that flag is true, and OpenAI's otherwise. OpenAI's weights
run with QuickGELU here, as they were made, and OpenCLIP's with what their architecture says. Nothing here imports torch.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

from common.errors import UserError, nearest
from models.zoo import SLIP, ZOO

OPENAI: dict[str, str] = {  # OpenAI's own names, and what open_clip calls them with the activation they were trained with
    **{name: f"{name.replace('/', '-')}-quickgelu/openai" for name in ("ViT-B/32", "ViT-B/16", "ViT-L/14")},
    "ViT-L/14@336px": "ViT-L-14-336-quickgelu/openai",
    **{name: f"{name}-quickgelu/openai" for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")},
}
_CANONICAL = re.compile(r"(?P<architecture>.+)-(?P<pretrained>[a-z0-9]+(_[a-z0-9]+)+|webli|openai)")  # no tag holds a "-"
TRUE, FALSE = ("true", "yes", "on", "1", "y", "t"), ("false", "no", "off", "0", "n", "f")


def yes_or_no(text: str) -> bool:
    """The boolean that ``text`` says, in the words that the released code took: true, yes, on, 1, y, t and their opposites."""
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")


def add_boolean(group: Any, flag: str, *, help: str) -> None:
    """A flag that is False until it is given: ``--validate``, ``--validate True`` or ``--validate False``."""
    group.add_argument(flag, type=yes_or_no, nargs="?", const=True, default=False, metavar="True|False", help=help)


def add_released_model_flags(parser: argparse.ArgumentParser) -> None:
    """The three flags; :func:`chosen_model` reads them."""
    group = parser.add_argument_group("the model, as the released code names it")
    group.add_argument("--clip-model-name", metavar="NAME", help="as there: ViT-B/32, ViT-L/14, SLIP-ViT-B-16 ...")
    group.add_argument("--open-clip-pretrained", metavar="TAG", help="OpenCLIP's weights, e.g. datacomp_xl_s13b_b90k")
    add_boolean(group, "--use-open-clip", help="the name is one of OpenCLIP's, not of OpenAI's")


def chosen_model(args: argparse.Namespace) -> str | None:
    """The model that ``--model-name`` or the released flags name, as :mod:`models.zoo` calls it; None where none is given.

    Both may be given where they name the same, a file of SLIP's weights with ``--model-name`` only. Raises :class:`UserError` for
    flags that contradict each other, and as :func:`released_model` does.
    """
    own: str | None = args.model_name
    if args.clip_model_name is None:
        if args.use_open_clip or args.open_clip_pretrained:
            raise UserError(
                "--use-open-clip and --open-clip-pretrained belong to a name; give it with --clip-model-name, or use --model-name."
            )
        return own
    released = released_model(args.clip_model_name, args.open_clip_pretrained or "", args.use_open_clip)
    if own is None or ZOO.get(own, own) == ZOO.get(released, released):
        return released
    if args.clip_model_name in SLIP and own.startswith(f"{args.clip_model_name}/"):
        return own
    told = f"--clip-model-name {args.clip_model_name} means '{released}'"
    raise UserError(f"{told}, but --model-name, typed or in the preset, is '{own}'; leave one of them out.")


def released_model(name: str, pretrained: str = "", use_open_clip: bool = False) -> str:
    """What :mod:`models.zoo` calls the model that the released code finds under these three values of its flags.

    ``ARCH-PRETRAINED``, by which its files call OpenCLIP's models, is a name too. SLIP's weights are the released file, in the working
    directory. Raises :class:`UserError` when the released code knows no such model, or ``pretrained`` is missing or has no meaning::

        released_model("ViT-L/14")                                              # "ViT-L-14-quickgelu/openai"
        released_model("ViT-B/32", "datacomp_xl_s13b_b90k", use_open_clip=True)  # "ViT-B-32/datacomp_xl_s13b_b90k"
        released_model("ViT-B-16-SigLIP", "webli", use_open_clip=True)           # "siglip"
    """
    short = {long: known for known, long in ZOO.items()}
    model = _long_name(name, pretrained, use_open_clip)
    return short.get(model, model)


def _long_name(name: str, pretrained: str, use_open_clip: bool) -> str:
    if name.partition("/")[0] in SLIP:
        return name if "/" in name else f"{name}/{SLIP[name]}"
    if use_open_clip:
        return _of_open_clip(name.replace("/", "-"), pretrained)
    if pretrained:
        raise UserError(f"--open-clip-pretrained {pretrained} is for OpenCLIP's models; add --use-open-clip, or leave it out.")
    if name in OPENAI:
        return OPENAI[name]
    if name in ZOO:
        return name
    if _CANONICAL.fullmatch(name):
        return _of_open_clip(name, "")
    hint = f"did you mean '{guess}'?" if (guess := nearest(name, [*OPENAI, *SLIP])) else "OpenCLIP's models need --use-open-clip."
    raise UserError(f"Unknown model '{name}' for --clip-model-name; {hint}")


def _of_open_clip(name: str, pretrained: str) -> str:
    """``ARCH/PRETRAINED`` for ``ARCH``, or for ``ARCH-PRETRAINED``."""
    named = _CANONICAL.fullmatch(name)
    if not pretrained and not named:
        raise UserError(f"OpenCLIP has several weights of '{name}'; name them with --open-clip-pretrained, e.g. datacomp_xl_s13b_b90k.")
    if named and pretrained and named["pretrained"] != pretrained:
        raise UserError(f"--clip-model-name {name} names other weights than --open-clip-pretrained {pretrained}; leave one of them out.")
    architecture, pretrained = (named["architecture"], named["pretrained"]) if named else (name, pretrained)
    if pretrained == "openai" and not architecture.endswith("-quickgelu"):
        architecture += "-quickgelu"  # as open_clip 2 loaded these weights under either name
    return f"{architecture}/{pretrained}"
