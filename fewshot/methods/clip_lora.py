"""CLIP-LoRA: low-rank updates of queries, keys and values in both towers, trained on the labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import Compose, InterpolationMode, RandomHorizontalFlip, RandomResizedCrop
from tqdm import tqdm

from common.errors import UserError
from datasets.task import Task
from engine.classifier import Classifier
from engine.embed import LoadOptions, embed_images
from engine.loading import Batch, make_loader
from engine.order import EpochOrder
from engine.runtime import Runtime
from fewshot.data import Features, FewShotData
from fewshot.learning import Facts, Learner, Recipe
from fewshot.method import Fitted, ImageData, Method
from fewshot.options import FewShotOptions
from models.encoder import Encoder
from models.lora import fold_lora
from models.selection import select_encoder
from models.tunings import TuningOptions, apply_tuning, trained_parameters

TEMPLATE = "a photo of a {c}."  # of every data set
LORA = TuningOptions(rank=2, lora_scale=2**-0.5, lora_targets="q,k,v")  # the released code's alpha / sqrt(rank), with alpha 1
RECIPE = Recipe(lr=2e-4, batch_size=32, least_lr=1e-6)
STEPS_PER_SHOT = 500
CROP = (0.08, 1.0)  # of the area


def clip_lora(images: ImageData, options: FewShotOptions) -> Fitted:
    """Logits of the tuned encoder: s cos(f, w_c), with LoRA of rank 2 on Q, K and V of every attention of both towers.

    500 steps for each shot on batches of 32 images, cropped and mirrored at random; AdamW from 2e-4 along half a cosine; nothing is
    searched. Two things differ from the released code: it also drops a quarter of what goes into each update, which updates of
    weights (:mod:`models.lora`) cannot, and it draws A uniformly, with a deviation of 0.021 in a tower of width 768 where it is 0.02
    here. Source: Zanella and Ben Ayed, CLIP-LoRA, CVPR Workshops 2024, and the released code.
    """
    data, runtime = images.data, images.runtime
    encoder = select_encoder(images.selection.model, None, {}).encoder.to(runtime.device)
    apply_tuning(encoder, "lora", replace(LORA, seed=options.seed))
    encoder.to(runtime.device)
    task = replace(images.tasks["train"], templates=(TEMPLATE,))
    facts = tune(runtime, encoder, task, images.load, options.seed)
    fold_lora(encoder)
    tuned = Tuned(images, encoder, classes_of(runtime, encoder, task))
    correct = tuned.correct("val") if data.val is not None and len(data.val) else None
    return Fitted({"rank": LORA.rank, "scale": LORA.lora_scale, "lr": RECIPE.lr}, tuned.logits, correct, {"dropout": 0.0, **facts})


def tune(runtime: Runtime, encoder: Encoder, task: Task, load: LoadOptions, seed: int) -> Facts:
    """Train what requires gradients in ``encoder`` on the images of ``task``."""
    classifier = Classifier(encoder, task.prompts()).to(runtime.device)
    order = EpochOrder(len(task), RECIPE.batch_size, seed=seed)
    shots = int(torch.from_numpy(task.labels).bincount().max())
    parameters = [*trained_parameters(encoder).values()]

    def loss(batch: Batch) -> Tensor:
        with runtime.autocast():
            logits = classifier(batch.pixels)
        return F.cross_entropy(logits.float(), batch.labels)

    scaler = torch.amp.GradScaler(runtime.device.type) if runtime.precision == "fp16" else None  # a new one: it remembers
    learner = Learner(parameters, loss, RECIPE, STEPS_PER_SHOT * shots, order.steps, scaler)
    batches = Batches(runtime, encoder, task, load, order)
    with tqdm(total=learner.steps, desc="clip_lora", disable=not (load.progress and runtime.is_main), leave=False) as bar:
        epochs = count()
        while learner.done < learner.steps:
            learner.epoch(batches.of_epoch(next(epochs)))
            bar.update(learner.done - bar.n)
    return learner.facts


class Batches:
    """Random crops of the images of a task, batch by batch."""

    def __init__(self, runtime: Runtime, encoder: Encoder, task: Task, load: LoadOptions, order: EpochOrder) -> None:
        self.runtime, self.order, self.task = runtime, order, task
        crop = RandomResizedCrop(encoder.image_size, scale=CROP, interpolation=InterpolationMode.BICUBIC)
        transform = Compose([crop, RandomHorizontalFlip(), encoder.preprocess.geometry])
        self.loader = make_loader(
            task,
            transform,
            order,
            num_workers=load.num_workers,
            pin_memory=runtime.pin_memory,
            seed=order.seed,
            full_decode=load.full_decode,
        )

    def of_epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch on the device, less images that cannot be read."""
        self.order.set(epoch)
        self.loader.set_epoch(epoch)
        readable = False
        for batch in self.loader:
            if len(batch):
                readable = True
                yield batch.to(self.runtime.device)
        if not readable:
            raise UserError(f"No labelled image of {self.task.name} could be read, so there is nothing to learn from.")


def classes_of(runtime: Runtime, encoder: Encoder, task: Task) -> Tensor:
    """Unit text embeddings [C, D] of the classes of ``task``."""
    with torch.inference_mode(), runtime.autocast():
        return Classifier(encoder, task.prompts()).class_embeddings().float()


@dataclass(frozen=True, eq=False)
class Tuned:
    """The tuned encoder and its class embeddings [C, D]. It must see images, so it classifies only those that it was given."""

    images: ImageData
    encoder: Encoder
    classes: Tensor

    def logits(self, features: Features) -> Tensor:
        """Logits [N, C] of the images that ``features`` are of: test images, validation images, or those of another tested set."""
        for name, known in self.known.items():
            if features is known:
                return self.of_task(name, len(features))
        raise ValueError("features of images that CLIP-LoRA was not given; it has tuned the towers and needs the images")

    @property
    def known(self) -> Mapping[str, Features]:
        """The features of each task whose images are there."""
        data = self.images.data
        return {**self.images.features, "test": data.test, **({} if data.val is None else {"val": data.val})}

    def of_task(self, name: str, count: int) -> Tensor:
        """Logits of the images of a task that can be read: as many as there are features."""
        runtime, images = self.images.runtime, self.images
        embedded = embed_images(runtime, self.encoder, images.tasks[name], images.load)
        if len(embedded.indices) != count:
            raise UserError(f"Of {count} images of {images.tasks[name].name}, {len(embedded.indices)} could be read a second time.")
        with torch.inference_mode():
            return self.encoder.logits(torch.from_numpy(embedded.embeddings).to(runtime.device), self.classes)

    def correct(self, name: str) -> int:
        """How many images of a task it classifies right."""
        known = self.known[name]
        return int((self.of_task(name, len(known)).argmax(dim=1) == known.labels).sum())


def _needs_images(data: FewShotData, options: FewShotOptions) -> Fitted:
    raise ValueError("CLIP-LoRA learns from images; fit_with_images takes them")


METHOD = Method(
    "clip_lora",
    "low-rank updates in both towers, trained on the labelled images",
    "Zanella and Ben Ayed, CVPR Workshops 2024 (arXiv:2405.18541)",
    needs_adapter=False,
    trains=True,
    fit=_needs_images,
    fit_with_images=clip_lora,
)
