"""The presets in configs/: the published protocol for the backbones of the paper, in flags that oti.py and ovi.py have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.cli import Parser
from common.configs import read_config
from inversion.arguments import add_inversion_arguments
from inversion.published import pseudo_patches
from models.zoo import SLIP, resolve
from tests.helpers import ROOT

BACKBONES = {
    "clip_vitb32": "clip",
    "clip_vitl14": "ViT-L-14-quickgelu/openai",
    "openclip_vitb32": "ViT-B-32/datacomp_xl_s13b_b90k",
    "openclip_vitl14": "ViT-L-14/datacomp_xl_s13b_b90k",
    "siglip_vitb16": "siglip",
    "slip_vitb16": "SLIP-ViT-B-16/slip_base_100ep.pt",
    "slip_vitl16": "SLIP-ViT-L-16/slip_large_100ep.pt",
}
PATCHES = {"clip_vitl14": 4, "openclip_vitl14": 2, "siglip_vitb16": 4, "slip_vitl16": 2}  # of OVI; 1 for the others


def preset(kind: str, backbone: str) -> dict[str, Any]:
    """What the preset gives, by the flags' names."""
    parser = Parser("")
    add_inversion_arguments(parser, kind)
    given = read_config(ROOT / "configs" / kind / f"{backbone}.toml", parser)
    return {action.option_strings[0]: value for action, value in given.items()}


@pytest.mark.parametrize("kind", ["oti", "ovi"])
def test_there_is_one_for_every_backbone(kind: str) -> None:
    files = sorted((ROOT / "configs" / kind).iterdir())
    assert [file.name for file in files] == sorted(f"{backbone}.toml" for backbone in BACKBONES)
    assert all(file.read_text().startswith(f"# {kind.upper()} as published (Cross the Gap, ICLR 2025): ") for file in files)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("kind", "steps"), [("oti", 150), ("ovi", 1000)])
def test_they_are_the_published_protocol(kind: str, steps: int, backbone: str) -> None:
    assert preset(kind, backbone) == {
        "--exp-name": backbone,
        "--model-name": BACKBONES[backbone],
        f"--{kind}-steps": steps,
        "--num-pseudo-tokens": PATCHES.get(backbone, 1) if kind == "ovi" else 1,
        "--learning-rate": 2e-2,
        "--weight-decay": 0.01,
        "--template-sentence": "a photo of {}",
        "--seed": 42,
    }


@pytest.mark.parametrize("backbone", BACKBONES)
def test_they_say_what_holds_without_them(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OVI takes the published number of pseudo-patches of a backbone by itself."""
    monkeypatch.chdir(tmp_path)
    for file in SLIP.values():
        (tmp_path / file).touch()
    source = resolve(BACKBONES[backbone])
    assert pseudo_patches(f"{source.architecture}/{source.pretrained}") == PATCHES.get(backbone, 1)
