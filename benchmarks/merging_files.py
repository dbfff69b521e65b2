"""What benchmarks/merging.py merges: drawn encoders of ViT-B/32's size as files, and drawn images and heads for methods that look at some.

A base has the names and shapes of Hugging Face's CLIPVisionModel (199 tensors at 12 layers), and models lie around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

WIDTH, HIDDEN, PATCH, TOKENS, EMBED = 768, 3072, 32, 50, 512  # of ViT-B/32
HEAD_WIDTH, CLASSES, SCALE, BATCH = 64, 10, 10.0, 32  # SCALE: of the logits; at 100 random heads would make every answer sure


@dataclass(frozen=True)
class Problem:
    """The files, the base first, and where the result goes."""

    files: tuple[Path, ...]
    out: Path
    layers: int
    images: int

    @property
    def names(self) -> list[str]:
        """Of the models, and of their tasks."""
        return [file.stem for file in self.files[1:]]

    @property
    def seen(self) -> Path:
        """Each task's images and head, and the projection."""
        return self.out.with_name("seen.safetensors")


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a CLIPVisionModel."""
    layer: dict[str, tuple[int, ...]] = {}
    for part in "kvq":
        layer |= weight_and_bias(f"self_attn.{part}_proj", WIDTH, WIDTH)
    layer |= weight_and_bias("self_attn.out_proj", WIDTH, WIDTH) | weight_and_bias("layer_norm1", WIDTH)
    layer |= weight_and_bias("mlp.fc1", HIDDEN, WIDTH) | weight_and_bias("mlp.fc2", WIDTH, HIDDEN) | weight_and_bias("layer_norm2", WIDTH)
    embeddings = {
        "class_embedding": (WIDTH,),
        "patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "position_embedding.weight": (TOKENS, WIDTH),
    }
    own = {f"embeddings.{name}": shape for name, shape in embeddings.items()} | weight_and_bias("pre_layrnorm", WIDTH)
    own |= {f"encoder.layers.{index}.{name}": shape for index in range(layers) for name, shape in layer.items()}
    own |= weight_and_bias("post_layernorm", WIDTH)
    return {f"vision_model.{name}": shape for name, shape in own.items()}


def weight_and_bias(module: str, rows: int, *columns: int) -> dict[str, tuple[int, ...]]:
    """Both tensors of a module."""
    return {f"{module}.weight": (rows, *columns), f"{module}.bias": (rows,)}


def draw(folder: Path, count: int, layers: int) -> tuple[Path, ...]:
    """A base and ``count`` models around it, as files."""
    import torch

    from merging.stream import Spec, TensorWriter

    specs = {name: Spec(shape, torch.float32) for name, shape in shapes(layers).items()}
    files = tuple(folder / f"{'model' if number else 'base'}{number}.safetensors" for number in range(count + 1))
    for number, file in enumerate(files):
        base, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(number)
        with TensorWriter(file, specs, {"format": "pt"}) as writer:
            for name, spec in specs.items():
                tensor = torch.randn(spec.shape, generator=base).mul_(0.02)
                if "norm" in name and name.endswith("weight"):  # near 1, as gains are: near 0 they leave Gram matrices all but singular
                    tensor += 1
                writer.write(name, tensor.add_(torch.randn(spec.shape, generator=own), alpha=0.001) if number else tensor)
    return files


def data_of(problem: Problem) -> Any:
    """The encoder, and a task of random images and a random head for every model."""
    import torch

    from engine.embed import LoadOptions
    from engine.runtime import start
    from merging.data import MergeData

    heads = {name: torch.nn.functional.normalize(drawn(name, CLASSES, EMBED), dim=-1) for name in problem.names}
    tasks = {name: task_of(name, problem.images) for name in problem.names}
    options = LoadOptions(num_workers=0, progress=False)
    return MergeData(start("cpu", "fp32"), encoder_of(problem.layers), tasks, heads, options, problem.images, BATCH)


def task_of(name: str, images: int) -> Any:
    """Noise of the encoder's size."""
    import numpy as np

    from datasets.samples import RawSamples
    from datasets.task import Task

    side = PATCH * isqrt(TOKENS - 1)
    pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    return Task(name, "train", RawSamples(pixels, name), np.arange(images) % CLASSES, tuple(map(str, range(CLASSES))), ("{c}",))


def encoder_of(layers: int) -> Any:
    """An encoder whose image tower is that of the files, with the smallest of text towers."""
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg

    from models.encoder import Encoder
    from models.preprocess import Preprocess
    from models.zoo import ModelSource

    side = PATCH * isqrt(TOKENS - 1)
    vision = {
        "image_size": side,
        "patch_size": PATCH,
        "width": WIDTH,
        "layers": layers,
        "head_width": HEAD_WIDTH,
        "mlp_ratio": HIDDEN / WIDTH,
    }
    text = {"context_length": 2, "vocab_size": 2, "width": 2, "heads": 1, "layers": 1}
    model = open_clip.CLIP(embed_dim=EMBED, vision_cfg=vision, text_cfg=text, quick_gelu=True).requires_grad_(False)
    model.visual.proj.data.copy_(drawn("projection", EMBED, WIDTH).T)
    model.logit_scale.data.copy_(torch.tensor(SCALE).log())
    return Encoder(
        ModelSource("random", "open_clip", "random"), model, Preprocess(PreprocessCfg(size=side)), lambda prompts: torch.zeros(1, 2)
    )


def drawn(name: str, *shape: int) -> Any:
    """Normal numbers that depend on the name alone."""
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(int.from_bytes(name.encode(), "big") % 2**63)) * WIDTH**-0.5


def write_seen(problem: Problem) -> None:
    """What the plain way finds: preprocessed images, in the order in which the package draws them, heads and the projection."""
    import torch
    from safetensors.torch import save_file

    data = data_of(problem)
    tensors = {
        f"{name}/{what}": tensor
        for name in problem.names
        for what, tensor in (("images", torch.cat(list(data.batches(name)))), ("head", data.heads[name]))
    }
    save_file({**tensors, "projection": drawn("projection", EMBED, WIDTH)}, problem.seen)
