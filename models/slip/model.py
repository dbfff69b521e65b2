"""SLIP's network in open_clip's parts: a timm vision transformer with a linear head, and CLIP's text tower.

With the timm network v and the released parameters W_i = ``image_projection`` [width, 512], W_t = ``text_projection`` [512, 512]::

    image features = v(pixels) W_i          the class token after the last LayerNorm, times W_i
    text features  = t(tokens) W_t          CLIP's text tower with QuickGELU, at the end-of-text token

The SimCLR head ``image_mlp`` is a matter of training alone and is left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from open_clip import CLIP
from open_clip.constants import IMAGENET_MEAN, IMAGENET_STD
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from common.errors import UserError
from models.slip.files import read_tensors

SIMCLR_HEAD = "image_mlp."
TEXT_TABLE = "token_embedding.weight"  # what any text tower has
CONVERTED_HEAD = "visual.head.proj.weight"


@dataclass(frozen=True)
class SlipSizes:
    """Sizes of the two towers; all but the image tower's first three are those of every released model."""

    width: int
    layers: int
    heads: int
    image_size: int = 224
    patch_size: int = 16
    embed_dim: int = 512
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8


SIZES = {
    "SLIP-ViT-S-16": SlipSizes(384, 12, 12),  # MoCo v3's small ViT: 12 heads, where timm's own has 6
    "SLIP-ViT-B-16": SlipSizes(768, 12, 12),
    "SLIP-ViT-L-16": SlipSizes(1024, 24, 16),
}


def load_slip(architecture: str, path: Path) -> CLIP:
    """The open_clip model of ``architecture``, a key of :data:`SIZES`, with the weights in ``path``: float32, on the CPU.

    ``path`` is a released ``.pt`` or a ``.safetensors`` with its tensors, under the released names or under those of the model that is
    returned. Raises :class:`UserError` when it cannot be read safely or holds something else. torch's random state does not change.
    """
    tensors = read_tensors(path)
    _check_kind(path, tensors)
    tensors = converted(tensors)
    with torch.device("meta"):  # drawing the weights of an L/16 only to overwrite them takes longer than reading the file
        model = _network(SIZES[architecture])
    _check_fit(path, architecture, tensors, model.state_dict())
    model.to_empty(device="cpu")
    model.attn_mask = torch.full(model.attn_mask.shape, float("-inf")).triu_(1)  # causal; no state dict holds it
    model.load_state_dict(tensors, strict=True)
    return model.eval()


def random_slip(architecture: str, seed: int) -> CLIP:
    """``architecture`` with weights drawn from ``seed``. torch's random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _network(SIZES[architecture]).eval()


def converted(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's state dict for the released tensors; one that has open_clip's names already stays as it is."""
    if CONVERTED_HEAD in released:
        return dict(released)
    kept = {name: tensor for name, tensor in released.items() if not name.startswith(SIMCLR_HEAD) and name != "image_projection"}
    renamed = {_renamed(name): tensor for name, tensor in kept.items()}
    return renamed | {CONVERTED_HEAD: released["image_projection"].t()}


def _renamed(name: str) -> str:
    return f"visual.trunk.{name.removeprefix('visual.')}" if name.startswith("visual.") else name


def _network(sizes: SlipSizes) -> CLIP:
    """The network, for images as SLIP's own evaluation prepares them.

    open_clip gives timm no sizes, so the image tower's two parts take the place of those of timm's smallest transformer.
    """
    vision = {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": sizes.image_size}
    text = {"width": sizes.text_width, "heads": sizes.text_heads, "layers": sizes.text_layers}
    model = CLIP(sizes.embed_dim, vision, text, quick_gelu=True)
    model.visual.trunk = VisionTransformer(
        sizes.image_size, sizes.patch_size, embed_dim=sizes.width, depth=sizes.layers, num_heads=sizes.heads, num_classes=0
    )
    head = nn.Linear(sizes.width, sizes.embed_dim, bias=False)
    model.visual.head = nn.Sequential(OrderedDict(drop=nn.Dropout(0.0), proj=head))
    preprocess = PreprocessCfg(sizes.image_size, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bilinear", resize_mode="shortest")
    set_model_preprocess_cfg(model, asdict(preprocess))
    return model


def _check_kind(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The repository releases CLIP and SimCLR in the same form; neither is SLIP. Converted files may lack the SimCLR head."""
    if CONVERTED_HEAD in tensors and tensors[CONVERTED_HEAD].ndim == 2:
        return
    has_head = any(name.startswith(SIMCLR_HEAD) for name in tensors)
    if has_head and TEXT_TABLE not in tensors:
        raise UserError(f"'{path}' is a SimCLR checkpoint: without a text tower there is nothing to compare images with; name a SLIP one.")
    if "image_projection" not in tensors or tensors["image_projection"].ndim != 2:
        raise UserError(f"'{path}' is no SLIP checkpoint: it has no matrix 'image_projection'; the released files are named slip_*.pt.")
    if not has_head and path.suffix != ".safetensors":
        raise UserError(f"'{path}' is a CLIP checkpoint of SLIP's repository: it has no SimCLR head '{SIMCLR_HEAD}*'; name a SLIP one.")


def _check_fit(path: Path, architecture: str, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Names and shapes must be those of the model; the first that is not is told, and the size that the file is of."""
    width = tensors[CONVERTED_HEAD].shape[-1]
    fitting = [name for name, sizes in SIZES.items() if sizes.width == width]
    if width != SIZES[architecture].width and fitting:
        raise UserError(f"'{path}' does not fit '{architecture}': it is of the size '{fitting[0]}'; write '{fitting[0]}/{path}'.")
    for name, tensor in wanted.items():
        if name not in tensors:
            raise UserError(f"'{path}' does not fit '{architecture}': it lacks '{name}'; it is damaged or another model, fetch it anew.")
        if tensors[name].shape != tensor.shape or not tensors[name].is_floating_point():
            found = f"{tensors[name].dtype} {list(tensors[name].shape)}"
            raise UserError(f"'{path}' does not fit '{architecture}': '{name}' is {found}, not float {list(tensor.shape)}.")
    if unexpected := next((name for name in tensors if name not in wanted), None):
        raise UserError(f"'{path}' does not fit '{architecture}', which has no place for '{unexpected}'.")
