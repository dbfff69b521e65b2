"""What benchmarks.gpu measures of one encoder: embedding from files, training by each tuning, inverting."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg
from torch import Tensor
from torch.nn import functional as F

from common.files import read_json
from common.stages import synchronise
from datasets.registry import load_task
from engine.embed import LoadOptions, embed_task
from engine.fit import FitOptions
from engine.loading import contiguous_batches, make_loader
from engine.runtime import Runtime
from engine.training import TrainRequest, train
from inversion.optimise import InversionOptions, Tower, invert
from inversion.pseudo_image import PseudoImage
from inversion.pseudo_text import PseudoText
from inversion.published import STEPS, TEMPLATE, pseudo_patches
from models.encoder import Encoder
from models.loading import RANDOM_SEED, load_encoder
from models.preprocess import Preprocess
from models.selection import ZERO_SHOT, Selection
from models.zoo import ModelSource

Measured = dict[str, Any]
FEW = 4  # images for validation


@dataclass(frozen=True)
class Setting:
    """Where and on what is measured; ``folder`` holds drawn JPEG files by class, in ``train`` and ``test``."""

    runtime: Runtime
    folder: Path
    batch_size: int
    workers: tuple[int, ...]
    repeats: int

    @property
    def most_workers(self) -> int:
        """For what is not to wait for images."""
        return max(self.workers)


def embedding(setting: Setting, name: str) -> Measured:
    """Images a second of an encoder: the bare forward pass; decoding, transfer and computing each alone; all of it from files.

    The bare pass takes numbers that lie on the device; computing takes bytes there, and makes numbers of them first. All of it is
    what get_embeddings.py does: hashing of files and the class embeddings too. Whatever is slowest alone is the limit.
    """
    restart_peak()
    encoder = with_drawn_weights(name).to(setting.runtime.device)
    selection = Selection(encoder, name, ZERO_SHOT, "", "")
    task = load_task(f"imagefolder:{setting.folder}", "test")
    ways = {**_on_device(setting, encoder, len(task)), **_from_files(setting, encoder, selection)}
    rates = {way: len(task) / seconds for way, seconds in medians(ways, setting.repeats).items()}
    alone = {way: rates[way] for way in ("transfer", "compute")}
    alone["decode"] = max(rates[f"decode, {workers} workers"] for workers in setting.workers)
    from_files = max(rates[f"from files, {workers} workers"] for workers in setting.workers)
    slowest = min(alone, key=alone.__getitem__)
    return {"model": name, "images": len(task), **rates, "ratio": from_files / rates["bare"], "limit": slowest, **peak()}


def _on_device(setting: Setting, encoder: Encoder, images: int) -> dict[str, Callable[[], None]]:
    """The ways that need no file; each goes through as many whole batches as ``images`` make, and ends when the device has ended."""
    device = setting.runtime.device
    waiting = torch.randint(0, 256, (setting.batch_size, 3, *encoder.preprocess.geometry.size), dtype=torch.uint8)
    waiting = waiting.pin_memory() if setting.runtime.pin_memory else waiting
    there = waiting.to(device)
    numbers = encoder.preprocess.of_bytes(there)

    def whole(work: Callable[[Tensor], object], batch: Tensor) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode(), setting.runtime.autocast():
                for start in range(0, images, setting.batch_size):
                    work(batch[: images - start])
            synchronise()

        return run

    return {
        "bare": whole(encoder.encode_image, numbers),
        "compute": whole(encoder.encode_image, there),
        "transfer": whole(lambda batch: batch.to(device, non_blocking=True), waiting),
    }


def _from_files(setting: Setting, encoder: Encoder, selection: Selection) -> dict[str, Callable[[], object]]:
    """Decoding alone and all of it, by numbers of workers; each run starts its loader anew, and a task that no run has hashed yet."""
    pinned, geometry = setting.runtime.pin_memory, encoder.preprocess.geometry

    def task() -> Any:
        return load_task(f"imagefolder:{setting.folder}", "test")

    def decode(workers: int) -> None:
        images = task()
        batches = contiguous_batches(len(images), setting.batch_size)
        for _ in make_loader(images, geometry, batches, num_workers=workers, pin_memory=pinned):
            pass

    def embed(workers: int) -> object:
        return embed_task(setting.runtime, selection, task(), LoadOptions(setting.batch_size, workers))

    ways: dict[str, Callable[[], object]] = {}
    for workers in setting.workers:
        ways[f"decode, {workers} workers"] = lambda workers=workers: decode(workers)  # type: ignore[misc]
        ways[f"from files, {workers} workers"] = lambda workers=workers: embed(workers)  # type: ignore[misc]
    return ways


def training(setting: Setting, name: str, tuning: str) -> Measured:
    """Steps a second of the second epoch of train.py, from a pixel cache that the first one has filled."""
    restart_peak()
    fit, load = FitOptions(epochs=2, lr=1e-6), LoadOptions(setting.batch_size, setting.most_workers, pixel_cache=setting.folder / "pixels")
    data, models = f"imagefolder:{setting.folder}", setting.folder / "ckpts"
    little = FEW / len(list((setting.folder / "train").glob("*/*.jpg")))  # an epoch's seconds are those of its validation too
    request = TrainRequest(data, name, tuning, fit=fit, load=load, val_p=little, model_dir=models, overwrite=True)
    files = train(setting.runtime, request)
    seconds = read_json(files.record)["epochs"][1]["seconds"]
    for path in files.existing():
        path.unlink()
    steps = -(-len(load_task(data, "train", val_p=little)) // setting.batch_size)
    return {"model": name, "tuning": tuning, "batch": setting.batch_size, "steps/s": steps / seconds, **peak()}


def inverting(setting: Setting, name: str, kind: str, items: int, steps: int) -> Measured:
    """Items a second of OTI or OVI by the published number of steps: ``steps`` of them are timed, as the difference to twice as many."""
    restart_peak()
    encoder = load_encoder(name).to(setting.runtime.device)
    tower: Tower = PseudoText(encoder, TEMPLATE, 1) if kind == "oti" else PseudoImage(encoder, pseudo_patches(name))
    targets = F.normalize(torch.randn(items, encoder.embed_dim, generator=torch.Generator().manual_seed(0)), dim=-1)
    names = [str(number) for number in range(items)]

    def taking(number: int) -> Callable[[], object]:
        options = InversionOptions(steps=number)
        return lambda: invert(tower, targets.to(setting.runtime.device), names, options, setting.runtime.autocast)

    seconds = medians({"once": taking(steps), "twice": taking(2 * steps)}, setting.repeats)
    per_step = max(seconds["twice"] - seconds["once"], 1e-9) / steps
    rate = items / (per_step * STEPS[kind])
    return {"model": name, "kind": kind, "batch": items, "ms per step": 1000 * per_step, "items/s": rate, **peak()}


def medians(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each way. They run in turn, so that a busy machine slows them alike; a first run is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            synchronise()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def with_drawn_weights(name: str) -> Encoder:
    """The encoder ``name``; of an architecture with drawn weights whose tokenizer would have to be fetched, one that reads no text."""
    architecture, _, pretrained = name.partition("/")
    if pretrained != "random" or "hf_tokenizer_name" not in (open_clip.get_model_config(architecture) or {}).get("text_cfg", {}):
        return load_encoder(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        model: Any = open_clip.create_model(architecture, pretrained=None, pretrained_text=False)
    length = int(model.context_length)
    preprocess = Preprocess(PreprocessCfg(**model.visual.preprocess_cfg))
    source = ModelSource(name, "open_clip", architecture, pretrained)
    return Encoder(source, model.requires_grad_(False), preprocess, lambda texts: torch.ones(len(texts), length, dtype=torch.int64))


def restart_peak() -> None:
    """Let the device's peak begin anew."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak() -> dict[str, int]:
    """The device's peak memory in MiB, where it has memory of its own."""
    return {"device MiB": torch.cuda.max_memory_allocated() >> 20} if torch.cuda.is_available() else {}
