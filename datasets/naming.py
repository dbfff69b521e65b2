"""What a data set's name says: ``BASE[@CONVENTION][+CORRUPTION-SEVERITY[-cifar]]``.

``DTD``, ``DTD@paper``, ``Cars@hub+gaussian_noise-3`` and ``imagefolder:photos+contrast-5`` are names. The name alone decides
which images these are, so it is what files are called after and what results are told apart by.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from common.errors import UserError, unknown_name

CORRUPTIONS = ("contrast", "gaussian_noise", "impulse_noise", "jpeg_compression", "motion_blur", "pixelate", "spatter")
CONVENTIONS = {
    "standard": "the data set's own splits",
    "paper": "as the code of the IIMM paper split it",
    "coop": "the split files of CoOp (split_zhou_*.json) and those made after them",
    "hub": "the parquet sets on the Hugging Face hub that merging checkpoints were trained on",
    **{f"hub-{kind}": f"the test images that the hub keeps corrupted ({kind}), as they are stored" for kind in CORRUPTIONS},
}
NOTES = {
    ("DTD", "paper"): "as the code of the IIMM paper split it: its test images are the validation list (test = val), so numbers are "
    "not comparable with others of DTD",
    ("EuroSAT", "standard"): "270 images per class for testing, 270 for validation; drawn, since it comes without splits",
    ("ImageNet", "coop"): "the classes' names and folders of CoOp; validation and test are the same 50,000 images",
}  # where a convention means something of its own for a data set
ELSEWHERE = {
    "DescribableTextures": "DTD",
    "OxfordFlowers": "Flowers102",
    "StanfordCars": "Cars",
    "Aircraft": "FGVCAircraft",
    "CUB200": "CUB",
    "ImageNet-R": "ImageNetRendition",
    "ImageNet-A": "ImageNetAdversarial",
}  # names in papers and their code that are too unlike ours to be guessed
STYLES = ("relative", "cifar")
SEVERITIES = (1, 2, 3, 4, 5)

_CORRUPTED = re.compile(r"(?P<rest>.+)\+(?P<kind>[a-z_]+)-(?P<severity>\d+)(?:-(?P<style>[a-z]+))?")


@dataclass(frozen=True)
class Corruption:
    """One of :data:`CORRUPTIONS` at a severity from 1 to 5; the style says by which constants."""

    kind: str
    severity: int
    style: str = "relative"

    def __post_init__(self) -> None:
        if self.kind not in CORRUPTIONS:
            raise unknown_name("corruption", self.kind, CORRUPTIONS)
        if self.severity not in SEVERITIES:
            raise UserError(f"The severity of a corruption is a whole number from 1 to 5, not {self.severity}.")
        if self.style not in STYLES:
            raise unknown_name("corruption style", self.style, STYLES)

    def __str__(self) -> str:
        return f"{self.kind}-{self.severity}" + ("" if self.style == "relative" else f"-{self.style}")


@dataclass(frozen=True)
class TaskName:
    """The parts of a name; ``str()`` puts them together again."""

    base: str  # a fixed name, or SCHEME:WHERE for own data
    convention: str | None = None
    corruption: Corruption | None = None

    def __str__(self) -> str:
        convention = f"@{self.convention}" if self.convention else ""
        return self.base + convention + (f"+{self.corruption}" if self.corruption else "")

    @property
    def scheme(self) -> str | None:
        """``imagefolder`` of ``imagefolder:photos``; None for a fixed name."""
        scheme, colon, _ = self.base.partition(":")
        return scheme if colon else None

    @property
    def where(self) -> str:
        """``photos`` of ``imagefolder:photos``."""
        return self.base.partition(":")[2]


def parse_name(text: str) -> TaskName:
    """The parts of a data set's name. A ``+`` or ``@`` in a path of own data stays part of it where it begins no suffix."""
    base, corruption = text, None
    if (found := _CORRUPTED.fullmatch(text)) and (":" not in text or found["kind"] in CORRUPTIONS):
        base, corruption = found["rest"], Corruption(found["kind"], int(found["severity"]), found["style"] or "relative")
    if ":" in base or "@" not in base:
        return TaskName(base, None, corruption)
    base, _, convention = base.rpartition("@")
    if convention not in CONVENTIONS:
        raise unknown_name("split convention", convention, CONVENTIONS)
    return TaskName(base, convention, corruption)


def corrupted(name: str, corruption: Corruption | None) -> str:
    """``name`` with a corruption added to it; a name that has one already must not get another."""
    if corruption is None:
        return name
    parts = parse_name(name)
    if parts.corruption is not None:
        raise UserError(f"'{name}' names a corruption already; leave out --corruption, or the one in the name.")
    return str(replace(parts, corruption=corruption))
