"""Pretrain the tiny CLIP on captioned drawings that are rendered on the fly.

    python -m models.tiny.pretrain --out models/tiny

The architecture is read from models/tiny/open_clip_config.json. Written to --out: that configuration, the weights as
open_clip_model.safetensors (fp16) and zero_shot.json, the zero-shot accuracy on every drawn task and on Digits. Same
seed, same machine: same weights.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
SAVE_EVERY = 1000  # steps; a run that is cut short leaves a usable model
MAX_SCALE = math.log(100)  # CLIP's bound of the logit scale


def parse_arguments() -> argparse.Namespace:
    """The options, with the values of the weights in the repository as defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for configuration, weights and accuracies")
    parser.add_argument("--steps", type=int, default=7000, help="optimiser steps")
    parser.add_argument("--batch-size", type=int, default=64, help="drawings per step; every step renders new ones")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate; warm-up over 5 %% of the steps, then cosine")
    parser.add_argument("--weight-decay", type=float, default=0.05, help="of matrices other than the token embedding")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and of the drawings")
    parser.add_argument(
        "--threads", type=int, default=1, help="of the training, while another process renders; other numbers round otherwise"
    )
    return parser.parse_args()


def main() -> None:
    """Pretrain, save, and test."""
    arguments = parse_arguments()
    from common.files import write_json
    from models.tiny.zero_shot import zero_shot_accuracies

    model = pretrain(arguments)
    save(model, arguments.out)
    accuracies = zero_shot_accuracies(arguments.out)
    write_json(arguments.out / "zero_shot.json", accuracies)
    for name, accuracy in accuracies.items():
        print(f"{name:20s} {accuracy:6.1%}")


def pretrain(arguments: argparse.Namespace) -> Any:
    """A CLIP, trained with the symmetric contrastive loss; progress goes to stdout."""
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    model = new_model()
    optimiser = make_optimiser(model, arguments)
    started = time.monotonic()
    for step, batch in enumerate(batches(arguments)):
        for group in optimiser.param_groups:
            group["lr"] = arguments.lr * schedule(step, arguments.steps)
        loss = contrastive_loss(model, *batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        model.logit_scale.data.clamp_(0, MAX_SCALE)
        if step % SAVE_EVERY == SAVE_EVERY - 1:
            save(model, arguments.out)
        if step % 100 == 0 or step == arguments.steps - 1:
            seconds = time.monotonic() - started
            print(
                f"step {step:5d}  loss {loss.item():.3f}  {(step + 1) * arguments.batch_size / seconds:.0f} images/s  {seconds:.0f} s",
                flush=True,
            )
    return model


def new_model() -> Any:
    """The architecture of the configuration, with open_clip's initial weights."""
    import open_clip

    from common.files import read_json

    config = read_json(HERE / CONFIG)
    model = open_clip.CLIP(**config["model_cfg"])
    open_clip.factory.set_model_preprocess_cfg(model, config["preprocess_cfg"])
    return model


def make_optimiser(model: Any, arguments: argparse.Namespace) -> Any:
    """AdamW. Gains, biases and embeddings do not decay: words that pretraining never uses keep their initial vectors."""
    import torch

    decays = {name: p.ndim >= 2 and "embedding" not in name for name, p in model.named_parameters()}
    groups = [
        {"params": [p for name, p in model.named_parameters() if decays[name]], "weight_decay": arguments.weight_decay},
        {"params": [p for name, p in model.named_parameters() if not decays[name]], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=arguments.lr, betas=(0.9, 0.98), eps=1e-6, fused=True)


def schedule(step: int, steps: int) -> float:
    """Share of the highest learning rate: linear warm-up over 5 % of the steps, then a half cosine to zero."""
    warm_up = max(1, steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def contrastive_loss(model: Any, pixels: Any, tokens: Any, fits: Any) -> Any:
    """CLIP's symmetric cross-entropy. A caption that also fits another drawing of the batch is no negative of it.

    ``pixels`` uint8 [B, H, W, 3], ``tokens`` [B, L], ``fits`` bool [B, B] (drawing, caption), true on the diagonal.
    """
    import torch
    from torch.nn import functional as F

    from models.text_tower import TextTower

    mean, std = (torch.tensor(model.visual.preprocess_cfg[key]) * 255 for key in ("mean", "std"))
    images = ((pixels - mean) / std).permute(0, 3, 1, 2)
    tower = TextTower(model)
    image_embeddings = F.normalize(model.encode_image(images), dim=1)
    text_embeddings = F.normalize(tower.encode(tower.trim(tokens)), dim=1)
    logits = model.logit_scale.exp() * image_embeddings @ text_embeddings.T
    targets = torch.arange(len(logits))
    logits = logits.masked_fill(fits & ~torch.eye(len(logits), dtype=torch.bool), -torch.inf)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def batches(arguments: argparse.Namespace) -> Any:
    """Batches in order, rendered by a worker process while the step before runs."""
    from torch.utils.data import DataLoader

    data: Any = _Batches(arguments.seed, arguments.steps, arguments.batch_size)
    return DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=8)


class _Batches:
    """Batch ``step`` of a pretraining: depends on nothing but its arguments."""

    def __init__(self, seed: int, steps: int, batch_size: int) -> None:
        self.seed, self.steps, self.batch_size = seed, steps, batch_size

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Any, Any, Any]:
        import numpy as np
        import open_clip

        from datasets.sources.captions import captioned, describes
        from datasets.sources.drawings import render

        examples = [captioned(seed) for seed in example_seeds(self.seed, step, self.batch_size)]
        pixels = np.stack([np.asarray(render(example.drawing)) for example in examples])
        tokens = open_clip.tokenize([example.caption for example in examples])
        told, drawn = (np.array([getattr(example, side) for example in examples]) for side in ("told", "drawn"))
        return pixels, tokens, describes(told, drawn).T.copy()


def example_seeds(seed: int, step: int, batch_size: int) -> list[int]:
    """The seeds of a batch's examples, all of them in ``SEEDS``."""
    import numpy as np

    from datasets.sources.captions import SEEDS

    rng = np.random.default_rng((seed, step))
    return rng.integers(SEEDS.start, SEEDS.stop, size=batch_size).tolist()


def save(model: Any, folder: Path) -> None:
    """Write configuration and fp16 weights as an open_clip ``local-dir``."""
    import torch
    from safetensors.torch import save as serialised

    from common.files import ensure_folder, replacing

    ensure_folder(folder)
    weights = {name: tensor.to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(serialised(weights, metadata={"format": "pt"}))
    if folder.resolve() != HERE:
        shutil.copyfile(HERE / CONFIG, folder / CONFIG)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
