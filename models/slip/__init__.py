"""SLIP (Mu et al., ECCV 2022, arXiv 2112.12750): CLIP that was trained with SimCLR's loss besides its own, as open_clip models.

``files`` reads the released checkpoints without running anything that is stored in them, ``model`` builds the open_clip model
and gives it their tensors. Nothing downstream learns where the weights came from.
"""

from __future__ import annotations

from models.slip.model import SIZES, SlipSizes, load_slip, random_slip

__all__ = ["SIZES", "SlipSizes", "load_slip", "random_slip"]
