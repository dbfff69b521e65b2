"""Every command that writes, small enough to be run hundreds of times: what it reads, and what it is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.fewshot.adapters import write_adapter
from tests.helpers import run_here, write_images, write_model
from tests.study import real_study
from tests.study.examples import REAL, write_embeddings, write_scores

Words = list[object]


@dataclass(frozen=True)
class Command:
    """A script, what it is asked for, given the folder of inputs and the one it writes below, and the flag with which it goes on.

    One that ``saves`` its state ends with status 75 on SIGTERM.
    """

    script: str
    words: Callable[[Path, Path], Words]
    again: tuple[object, ...] = ()
    saves: bool = False


def write_inputs(folder: Path) -> Path:
    """A model, images, fine-tuned models of it, an adapter, embeddings, known outcomes, a plan: all that the commands read."""
    model = write_model(folder / "model")
    write_images(folder / "images" / "train", 6)
    write_images(folder / "images" / "test", 4, seed=1)
    base = torch.Generator().manual_seed(0)
    weights = {f"layers.{i}.w": torch.randn(20, 30, generator=base) for i in range(3)}
    for number, name in enumerate(("base", "one", "two")):
        noise = torch.Generator().manual_seed(number)
        save_file({key: of + 0.1 * torch.randn(of.shape, generator=noise) for key, of in weights.items()}, folder / f"{name}.safetensors")
    write_adapter(folder / "adapter.safetensors", model)
    write_scores(folder / "scores.csv")
    write_embeddings(folder / "FMoW_train", 0.44, 0.17)
    real_study.write_plan(folder / "study", model, ("lora", "probe"))
    for seed in (1, 2):
        words = [*trained("full", "--towers", "vision", "--nepochs", 1)(folder, folder / "tuned"), "--seed", seed]
        run_here("train", *words).succeeded()
    for number, path in enumerate(sorted((folder / "tuned").glob("*_last.safetensors"))):
        path.rename(folder / f"tuned-{number}.safetensors")
    run_here("get_embeddings", *embedded()(folder, folder / "embeddings")).succeeded()
    return folder


ON_CPU: Words = ["--num-workers", 0, "--device", "cpu"]


def images(inputs: Path) -> str:
    return f"imagefolder:{inputs}/images"


def tested(*more: object) -> Callable[[Path, Path], Words]:
    def words(inputs: Path, out: Path) -> Words:
        cache = ["--pixel-cache", out / "pixels"] if "cached" in more else []
        return ["--model-name", inputs / "model", "--eval-datasets", images(inputs), "--outfile", out / "results.csv", *cache, *ON_CPU]

    return words


def embedded(*more: object) -> Callable[[Path, Path], Words]:
    def words(inputs: Path, out: Path) -> Words:
        where = ["--outfolder", out, "--measure-outpath", out / "scores.csv"]
        return ["--model-name", inputs / "model", "--datasets", images(inputs), "--val-p", 0.2, *where, *more, *ON_CPU]

    return words


def measured(inputs: Path, out: Path) -> Words:
    (file,) = (inputs / "embeddings").rglob("*.safetensors")
    return ["--embeddings", file, "--metrics", "iimm", "gap", "hscore", "--outpath", out / "scores.csv"]


def transferred(inputs: Path, out: Path) -> Words:
    what = ["--dataset", images(inputs), "--eval-models", inputs / "model", inputs / "tuned-0.safetensors", "--metrics", "iimm", "logme"]
    return [*what, "--embeddings-dir", out / "embeddings", "--results-dir", out / "results", *ON_CPU]


def predicted(inputs: Path, out: Path) -> Words:
    known = ["--outcomes", REAL, "--scores", inputs / "scores.csv", "--embeddings", inputs / "FMoW_train.safetensors"]
    return [*known, "--plot", out / "plot.png", "--outfile", out / "numbers.json"]


def inverted(kind: str, *more: object) -> Callable[[Path, Path], Words]:
    def words(inputs: Path, out: Path) -> Words:
        places = ["--outfolder", out / "pseudo", "--features", out / "features", "--outfile", out / "retrieval.csv"]
        what = ["--model-name", inputs / "model", "--dataset-name", images(inputs), f"--{kind}-steps", 3, "--batch-size", 4]
        return [*what, *places, *more, *ON_CPU]

    return words


def searched(inputs: Path, out: Path) -> Words:
    sides = ["--query", "image", "--gallery", "image", "--outfile", out / "retrieval.csv", "--features", out / "features"]
    return ["--model-name", inputs / "model", "--dataset-name", images(inputs), *sides, *ON_CPU]


def merged(inputs: Path, out: Path) -> Words:
    models = (f"{name}={inputs}/{name}.safetensors" for name in ("one", "two"))
    return ["--method", "ties", "--base", inputs / "base.safetensors", "--models", *models, "--out", out / "merged.safetensors"]


def merged_encoders(method: str, *more: object) -> Callable[[Path, Path], Words]:
    def words(inputs: Path, out: Path) -> Words:
        models = [f"one={inputs}/tuned-0.safetensors", f"two={inputs}/tuned-1.safetensors"]
        where = ["--out", out / "merged.safetensors", "--report", out / "report.json"]
        tasks = ["--tasks", images(inputs), images(inputs), "--adapt-steps", 3, "--adapt-batch-size", 4] if "adamerging" in method else []
        evaluate = ["--evaluate", images(inputs), *ON_CPU]
        return ["--method", method, "--base", inputs / "model", "--models", *models, *where, *tasks, *evaluate, *more]

    return words


def trained(tuning: str, *more: object) -> Callable[[Path, Path], Words]:
    def words(inputs: Path, out: Path) -> Words:
        how = ["--bs", 8, "--nepochs", 2, "--lr", 0.01, "--val-p", 0.2, "--save-minutes", 0, *ON_CPU]
        return [*how, "--dataset", images(inputs), "--model-name", tuning, "--base-model", inputs / "model", "--model-dir", out, *more]

    return words


def adapted(objective: str, *more: object) -> Callable[[Path, Path], Words]:
    def words(inputs: Path, out: Path) -> Words:
        how = ["--batch-size", 6, "--epochs", 2, "--val-p", 0.4, "--save-minutes", 0, *ON_CPU]
        what = ["--objective", objective, "--dataset", images(inputs), "--model-name", inputs / "model", "--model-dir", out]
        return [*how, *what, *more]

    return words


def classified(inputs: Path, out: Path) -> Words:
    how = ["--shots", 1, 2, "--seeds", 1, "--views", 2, "--search", "fixed", "--methods", "zero_shot", "tip_adapter", "--val-p", 0.25]
    places = ["--out", out / "out", "--features", out / "kept", "--adapter", inputs / "adapter.safetensors"]
    return ["--dataset", images(inputs), *how, *places, *ON_CPU]


def reproduced(inputs: Path, out: Path) -> Words:
    return [inputs / "study" / "small.toml", "--out", out, *ON_CPU]


def exported(inputs: Path, out: Path) -> Words:
    return ["--model-path", inputs / "tuned-0.safetensors", "--to", "huggingface", "--out", out / "exported"]


def downloaded(inputs: Path, out: Path) -> Words:
    return ["--datasets", "Pictures", "Labels", "--manifest", inputs / "manifest.json", "--data-dir", out]


def write_manifest(folder: Path, url: str, pictures: bytes) -> None:
    """Two data sets of the server at ``url``: an archive, and a plain file."""
    archive = {"url": f"{url}/pictures.tar.gz", "size": len(pictures), "items": [{"path": "pictures/images", "inner": "p", "files": 2}]}
    plain = {"url": f"{url}/labels.txt", "size": 6, "items": [{"path": "labels/labels.txt"}]}
    entries = [{"name": "Pictures", "downloads": [archive]}, {"name": "Labels", "downloads": [plain]}]
    common = {"home": "http://home", "licence": "free"}
    (folder / "manifest.json").write_text(json.dumps([entry | common for entry in entries]))


RESUMED = ("--resume",)
COMMANDS = {
    "test": Command("test", tested()),
    "test_cached": Command("test", tested("cached")),
    "get_embeddings": Command("get_embeddings", embedded()),
    "get_embeddings_csv": Command("get_embeddings", embedded("--format", "csv")),
    "get_embeddings_parts": Command("get_embeddings", embedded("--parts", 3, "--join")),
    "get_embeddings_measure": Command("get_embeddings", embedded("--measure", "iimm", "gap")),
    "get_embeddings_both": Command("get_embeddings", embedded("--measure", "iimm", "hscore", "--keep-embeddings")),
    "get_metric_scores": Command("get_metric_scores", measured),
    "get_transfer_scores": Command("get_transfer_scores", transferred),
    "predict": Command("predict", predicted),
    "oti": Command("oti", inverted("oti", "--validate"), saves=True),
    "ovi": Command("ovi", inverted("ovi", "--use-class-names"), saves=True),
    "retrieval": Command("retrieval", searched),
    "merge": Command("merge", merged),
    "merge_evaluated": Command("merge", merged_encoders("task_arithmetic", "--sweep", "scaling=0.2,0.4")),
    "merge_adamerging": Command("merge", merged_encoders("task_wise_adamerging"), saves=True),
    "train_full": Command("train", trained("full"), RESUMED, saves=True),
    "train_lora": Command(
        "train", trained("lora", "--bs", 2, "--accumulate", 2, "--optimizer", "AdamW", "--augment", "crop-flip"), RESUMED, saves=True
    ),
    "train_probe": Command("train", trained("probe"), RESUMED, saves=True),
    "train_adapter_supervised": Command("train_adapter", adapted("supervised"), RESUMED, saves=True),
    "train_adapter_overlap": Command("train_adapter", adapted("overlap", "--images-per-class", 2), RESUMED, saves=True),
    "train_adapter_dino": Command("train_adapter", adapted("dino"), RESUMED, saves=True),
    "few_shot": Command("few_shot", classified),
    "export": Command("export", exported),
    "download_datasets": Command("download_datasets", downloaded),
}
