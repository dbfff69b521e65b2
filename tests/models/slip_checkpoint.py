"""SLIP checkpoints in exactly the released form, with random weights, and the features that SLIP's own code gives."""

from __future__ import annotations

import argparse
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.slip import SlipSizes

SMALL = SlipSizes(48, 2, 4, image_size=32, embed_dim=32, text_width=64, text_layers=2, text_heads=4)


def vision(sizes: SlipSizes) -> nn.Module:
    """The timm network that SLIP calls ``visual``."""
    network = timm.create_model(
        "vit_base_patch16_224",
        num_classes=0,
        img_size=sizes.image_size,
        embed_dim=sizes.width,
        depth=sizes.layers,
        num_heads=sizes.heads,
    )
    return network.eval()


def released(sizes: SlipSizes = SMALL, seed: int = 0) -> dict[str, Tensor]:
    """A state dict of SLIP's class: no bias is 0, no two layers are alike, and attention is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {f"visual.{name}": tensor.shape for name, tensor in vision(sizes).state_dict().items()}
    shapes |= _text_shapes(sizes) | _simclr_shapes(sizes.width, 20, 10)
    shapes |= {"image_projection": (sizes.width, sizes.embed_dim), "text_projection": (sizes.text_width, sizes.embed_dim)}
    drawn = {name: _drawn(name, tuple(shape), generator) for name, shape in shapes.items()}
    counters = {f"image_mlp.bn{index}.num_batches_tracked": torch.tensor(7) for index in (1, 2)}
    return drawn | counters | {"logit_scale": torch.tensor(4.6)}


def _drawn(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    values = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return 2 * values / shape[-1] ** 0.5
    return 0.2 * values + name.endswith(".weight")  # of a normalisation: around 1


def _text_shapes(sizes: SlipSizes) -> dict[str, tuple[int, ...]]:
    width = sizes.text_width
    shapes: dict[str, tuple[int, ...]] = {"token_embedding.weight": (49408, width), "positional_embedding": (77, width)}
    shapes |= {"ln_final.weight": (width,), "ln_final.bias": (width,)}
    for index in range(sizes.text_layers):
        layers = {"attn.in_proj_": (3 * width, width), "attn.out_proj.": (width, width)}
        layers |= {"mlp.c_fc.": (4 * width, width), "mlp.c_proj.": (width, 4 * width)}
        for name, shape in layers.items():
            shapes |= {
                f"transformer.resblocks.{index}.{name}weight": shape,
                f"transformer.resblocks.{index}.{name}bias": shape[:1],
            }
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"transformer.resblocks.{index}.{norm}.{part}": (width,) for part in ("weight", "bias")}
    return shapes


def _simclr_shapes(width: int, hidden: int, out: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (n_in, n_out) in {"layer1": (width, hidden), "layer2": (hidden, hidden), "layer3": (hidden, out)}.items():
        shapes |= {f"image_mlp.{layer}.weight": (n_out, n_in), f"image_mlp.{layer}.bias": (n_out,)}
    for norm in ("bn1", "bn2"):
        shapes |= {f"image_mlp.{norm}.{part}": (hidden,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes


def write_checkpoint(path: Path, tensors: dict[str, Tensor], **others: Any) -> Path:
    """``tensors`` as SLIP's training saves them, in DistributedDataParallel and with all that lies beside them."""
    folder = PosixPath("/checkpoint/somebody/experiments/slip/1234")
    args = argparse.Namespace(model="SLIP_VITB16", ssl_mlp_dim=4096, ssl_emb_dim=256, betas=(0.9, 0.98), output_dir=folder, gpu=0)
    optimizer = {"state": {0: {"step": 5, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": np.float64(1e-5), "params": [0]}]}
    beside = {"epoch": 100, "optimizer": optimizer, "scaler": {"scale": 65536.0}, "best_acc1": np.float64(45.0), "args": args}
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}, **beside, **others}, path)
    return path


def image_features(tensors: dict[str, Tensor], sizes: SlipSizes, pixels: Tensor) -> Tensor:
    """Unit rows of v(pixels) W_i."""
    network = vision(sizes)
    network.load_state_dict({name.removeprefix("visual."): t for name, t in tensors.items() if name.startswith("visual.")})
    with torch.no_grad():
        return F.normalize(network(pixels) @ tensors["image_projection"], dim=-1)


def text_features(tensors: dict[str, Tensor], sizes: SlipSizes, tokens: Tensor) -> Tensor:
    """Unit rows of CLIP's text tower, from its formula, over the whole context, in float64."""
    given = {name: tensor.double() for name, tensor in tensors.items()}
    length, width, heads = tokens.shape[1], sizes.text_width, sizes.text_heads
    x = given["token_embedding.weight"][tokens] + given["positional_embedding"][:length]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    for index in range(sizes.text_layers):
        block = {name.split(f"resblocks.{index}.")[1]: t for name, t in given.items() if f"transformer.resblocks.{index}." in name}
        y = F.layer_norm(x, (width,), block["ln_1.weight"], block["ln_1.bias"])
        qkv = F.linear(y, block["attn.in_proj_weight"], block["attn.in_proj_bias"]).reshape(len(x), length, 3, heads, width // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / (width // heads) ** 0.5).masked_fill(future, -torch.inf).softmax(-1)
        y = (weights @ v).transpose(1, 2).reshape(len(x), length, width)
        x = x + F.linear(y, block["attn.out_proj.weight"], block["attn.out_proj.bias"])
        y = F.linear(F.layer_norm(x, (width,), block["ln_2.weight"], block["ln_2.bias"]), block["mlp.c_fc.weight"], block["mlp.c_fc.bias"])
        x = x + F.linear(y * torch.sigmoid(1.702 * y), block["mlp.c_proj.weight"], block["mlp.c_proj.bias"])
    x = F.layer_norm(x, (width,), given["ln_final.weight"], given["ln_final.bias"])
    pooled = x[torch.arange(len(x)), tokens.argmax(1)]
    return F.normalize(pooled @ given["text_projection"], dim=-1).float()
