"""Time and memory of merging eight ViT-B/32 encoders, against the way of released code: whole state dicts, flattened for TIES.

    python -m benchmarks.merging                                   # 9 x 350 MB in a temporary folder, minutes on two cores
    python -m benchmarks.merging --layers 2 --methods ties emr     # smaller encoders
    python -m benchmarks.merging --methods tsv_m iso_cts           # methods that take singular values: longer

The encoders are random: a base with the names and shapes of Hugging Face's CLIPVisionModel (199 tensors at 12 layers), and models
around it. Each run has a process to itself, so its peak memory is its own; `start` is what the process holds before, that is its
libraries. `copy` reads all files and writes one: no merge can take less. `CPU s` counts all threads, those that hash the files too.
The results of both ways are compared.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.arguments import positive_int
from common.cli import Parser, run
from common.provenance import peak_memory_mib

WIDTH, HIDDEN, PATCH, TOKENS = 768, 3072, 32, 50  # of ViT-B/32
SCALING, DENSITY = 0.3, 0.2
TOLERANCE = 1e-6
METHODS = ("simple_average", "task_arithmetic", "ties", "dare_task_arithmetic", "dare_ties", "magmax", "model_stock", "tall_mask", "emr")


@dataclass(frozen=True)
class Problem:
    """The files, the base first, and where the result goes."""

    files: tuple[Path, ...]
    out: Path
    threads: int


@dataclass(frozen=True)
class Outcome:
    """How a run went."""

    seconds: float
    cpu: float
    start_mib: int
    peak_mib: int


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--models", type=positive_int, default=8, help="K, how many are merged")
    parser.add_argument("--layers", type=positive_int, default=12, help="transformer layers of an encoder")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME", help="merge.py --list shows them")
    parser.add_argument("--streamed-only", action="store_true", help="leave the released way out; its TIES takes many gigabytes")
    parser.add_argument("--folder", type=Path, help="where the files are written, and deleted at the end (default: the system's)")
    parser.add_argument("--threads", type=positive_int, default=multiprocessing.cpu_count(), help="of PyTorch")
    return parser.parse_args()


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
                writer.write(name, tensor.add_(torch.randn(spec.shape, generator=own), alpha=0.001) if number else tensor)
    return files


def copied(problem: Problem, method: str) -> Outcome:
    """Every file read once, and one written."""
    from merging.stream import TensorFile, TensorWriter

    with measured(problem) as outcome:
        files = [TensorFile(file) for file in problem.files]
        with TensorWriter(problem.out, files[0].specs) as writer:
            for name in files[0].specs:
                for file in files:
                    tensor = file.read(name)
                writer.write(name, tensor)
    return outcome[0]


def streamed(problem: Problem, method: str) -> Outcome:
    """The package's way, checks and checksums included."""
    from merging.inputs import open_inputs
    from merging.merge import merge
    from merging.options import MergeOptions
    from merging.table import METHODS as TABLE

    with measured(problem) as outcome:
        merge(open_inputs(str(problem.files[0]), [str(file) for file in problem.files[1:]]), TABLE[method], MergeOptions(), problem.out)
    return outcome[0]


def released(problem: Problem, method: str) -> Outcome:
    """Whole state dicts, as released code merges them."""
    from safetensors.torch import load_file, save_file

    with measured(problem) as outcome:
        base, *models = (load_file(file) for file in problem.files)
        save_file(RELEASED[method](base, models), problem.out)
    return outcome[0]


def average_of(base: Any, models: list[Any]) -> Any:
    """The sum of the models, divided by their number."""
    total = {name: tensor.clone() for name, tensor in models[0].items()}
    for model in models[1:]:
        total = {name: total[name] + model[name] for name in total}
    return {name: tensor / len(models) for name, tensor in total.items()}


def arithmetic_of(base: Any, models: list[Any]) -> Any:
    """The sum of the task vectors, scaled and added to the base."""
    total: dict[str, Any] = {}
    for model in models:
        vector = {name: model[name] - base[name] for name in base}
        total = {name: total[name] + vector[name] for name in base} if total else vector
    return {name: base[name] + SCALING * total[name] for name in base}


def ties_of(base: Any, models: list[Any]) -> Any:
    """All task vectors as rows of one matrix; the entry of every row below which it is trimmed, by kthvalue."""
    import torch

    names = sorted(base)
    flat_base = torch.cat([base[name].reshape(-1) for name in names])
    tau = torch.vstack([torch.cat([model[name].reshape(-1) for name in names]) for model in models]) - flat_base
    d = tau.shape[1]
    least = torch.vstack([row.abs().kthvalue(d - int(d * DENSITY)).values for row in tau])
    trimmed = tau * (tau.abs() >= least)
    sign = torch.sign(trimmed.sum(dim=0))
    sign[sign == 0] = torch.sign(sign.sum())
    kept = trimmed * torch.where(sign.unsqueeze(0) > 0, trimmed > 0, trimmed < 0)
    pieces = torch.split(flat_base + SCALING * kept.sum(dim=0), [base[name].numel() for name in names])
    return {name: piece.reshape(base[name].shape).clone() for name, piece in zip(names, pieces, strict=True)}


RELEASED: dict[str, Callable[[Any, list[Any]], Any]] = {
    "simple_average": average_of,
    "task_arithmetic": arithmetic_of,
    "ties": ties_of,
}


class measured:  # noqa: N801 (reads as a verb)
    """Time and memory of a block, as the one element of the list that it gives."""

    def __init__(self, problem: Problem) -> None:
        import torch

        torch.set_num_threads(problem.threads)
        self.outcome: list[Outcome] = []

    def __enter__(self) -> list[Outcome]:
        self.start, self.started, self.used = peak_memory_mib()["process"], time.perf_counter(), time.process_time()
        return self.outcome

    def __exit__(self, *error: object) -> None:
        seconds, cpu = time.perf_counter() - self.started, time.process_time() - self.used
        self.outcome.append(Outcome(seconds, cpu, self.start, peak_memory_mib()["process"]))


def alone(way: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``way`` in a new process. This one imports no PyTorch: a new process's peak begins at what its parent holds."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(way, *arguments).result()


def difference(one: Path, other: Path) -> float:
    """The greatest difference between two results."""
    from merging.stream import TensorFile

    first, second = TensorFile(one), TensorFile(other)
    assert first.specs == {name: second.specs[name] for name in first.specs}
    return max(float((first.read(name) - second.read(name)).abs().max()) for name in first.specs)


def show(method: str, way: str, outcome: Outcome, note: str = "") -> None:
    """One line of the table."""
    print(f"{method:22}{way:10}{outcome.seconds:9.2f}{outcome.cpu:9.2f}{outcome.start_mib:12}{outcome.peak_mib:12}   {note}", flush=True)


def lines(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str, Outcome, str]]:
    """Every run, as it ends."""
    files = alone(draw, folder, args.models, args.layers)
    problem = Problem(files, folder / "merged.safetensors", args.threads)
    yield "copy", "", alone(copied, problem, ""), ""
    compared = () if args.streamed_only else RELEASED
    for method in args.methods:
        if method in compared:
            plain = Problem(files, folder / "released.safetensors", args.threads)
            yield method, "released", alone(released, plain, method), ""
        problem.out.unlink(missing_ok=True)
        ours, note = alone(streamed, problem, method), ""
        if method in compared:
            apart = alone(difference, problem.out, plain.out)
            assert apart < TOLERANCE, f"{method}: the results differ by {apart}"
            note = f"differs by at most {apart:.1e}"
        yield method, "streamed", ours, note


def main() -> None:
    """Draw the encoders, run both ways of every method, delete the encoders."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        print(f"{args.models} encoders of {args.layers} layers, float32, {args.threads} threads\n")
        print(f"{'method':22}{'way':10}{'seconds':>9}{'CPU s':>9}{'start MiB':>12}{'peak MiB':>12}", flush=True)
        for line in lines(args, Path(name)):
            show(*line)


if __name__ == "__main__":
    run(main)
