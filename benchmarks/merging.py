"""Time and memory of merging encoders of ViT-B/32's size, against the way of released code: whole models, and all that is computed of them.

    python -m benchmarks.merging                                              # 9 x 350 MB in a temporary folder, minutes on two cores
    python -m benchmarks.merging --methods fisher regmean regmean_plus_plus --models 4          # those that look at images
    python -m benchmarks.merging --methods tsv_m iso_c wudi --layers 1        # those that take singular values: long at 12 layers
    python -m benchmarks.merging --methods iso_cts tall_mask --streamed-only

The encoders are random: a base with the names and shapes of Hugging Face's CLIPVisionModel (199 tensors at 12 layers), and models
around it; so are the images and the zero-shot heads. Each run has a process to itself, so its peak memory is its own; `start` is what
the process holds before, that is its libraries. `copy` reads all files and writes one: no merge can take less. `CPU s` counts all
threads, those that hash the files too. `differs` is the greatest difference of a merged weight between the two ways; a ! marks one that
is beyond the tolerance, which is to be looked into.

fisher and regmean_plus_plus run with as_released here, so that both ways compute the same; fisher_by_image is the method's own default.
WUDI takes 40 of the published 400 steps. Of DARE the two ways draw other entries, so their results are not compared. The plain way finds
its images preprocessed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from math import isqrt
from pathlib import Path
from typing import Any

from common.arguments import positive_int
from common.cli import Parser, run
from common.provenance import peak_memory_mib

WIDTH, HIDDEN, PATCH, TOKENS, EMBED = 768, 3072, 32, 50, 512  # of ViT-B/32
HEAD_WIDTH, CLASSES, SCALE, BATCH = 64, 10, 10.0, 32  # SCALE: of the logits; at 100 random heads would make every answer sure
SCALING, DENSITY, DROP_RATE, RATIO, LEAST = 0.3, 0.2, 0.5, 0.95, 1e-6
ITERATIONS = 40  # of WUDI, a tenth of the published number: each costs the same
METHODS = ("simple_average", "task_arithmetic", "ties", "dare_task_arithmetic", "dare_ties", "magmax", "model_stock", "tall_mask", "emr")
LOOK = ("fisher", "fisher_by_image", "regmean", "regmean_plus_plus")  # at images
AS_RELEASED = ("fisher", "regmean_plus_plus")
OUR_LIBRARIES = ("open_clip", "merging.data_command", "merging.fisher_information", "merging.layers", "merging.regression")
PLAIN_LIBRARIES = ("transformers.models.clip.modeling_clip",)
TOLERANCES = {  # of a weight; decompositions and inverses are in float32 in the plain way
    **dict.fromkeys(("tsv_m", "iso_c", "wudi", "fisher"), 1e-5),
    **dict.fromkeys(("regmean", "regmean_plus_plus"), 1e-4),
}


@dataclass(frozen=True)
class Problem:
    """The files, the base first, and where the result goes."""

    files: tuple[Path, ...]
    out: Path
    threads: int
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
    parser.add_argument("--images", type=positive_int, default=64, help="of each task, for methods that look at some")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), metavar="NAME", help="of merge.py that need no labels; and fisher_by_image"
    )
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
                if "norm" in name and name.endswith("weight"):  # near 1, as gains are: near 0 they leave Gram matrices all but singular
                    tensor += 1
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

    for library in OUR_LIBRARIES if method in LOOK else ():
        import_module(library)  # before the clock starts
    with measured(problem) as outcome:
        inputs = open_inputs(str(problem.files[0]), [str(file) for file in problem.files[1:]])
        chosen, options = TABLE[method.removesuffix("_by_image")], MergeOptions(as_released=method in AS_RELEASED, iterations=ITERATIONS)
        if method in LOOK:
            chosen = with_images(problem, chosen, inputs)
        merge(inputs, chosen, options, problem.out)
    return outcome[0]


def with_images(problem: Problem, method: Any, inputs: Any) -> Any:
    """The method started with images, between the names of Hugging Face that files have and those of the encoder."""
    from merging.candidates import merged
    from merging.data_command import encoder_pool
    from merging.sources import under

    pool = encoder_pool(argparse.Namespace(towers=None, only=[]), inputs, method.name)

    def start(_: Any, options: Any) -> Any:
        return under(merged(method.name, pool, method.start_with_data(pool, options, data_of(problem))), inputs.reference).read

    return replace(method, start=start)


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


def released(problem: Problem, method: str) -> Outcome:
    """Whole state dicts, as released code merges them."""
    from safetensors.torch import load_file, save_file

    for library in PLAIN_LIBRARIES if method in LOOK else ():
        import_module(library)
    with measured(problem) as outcome:
        base, *models = (load_file(file) for file in problem.files)
        seen = [Seen(problem, name) for name in problem.names] if method in LOOK else []
        save_file(RELEASED[method](base, models, *([seen] if seen else [])), problem.out)
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


def dare_of(base: Any, models: list[Any]) -> Any:
    """Task vectors of which a random half is dropped and the other doubled, then as in task arithmetic."""
    import torch

    keep = 1 - DROP_RATE
    vectors = [{name: model[name] - base[name] for name in base} for model in models]
    thinned = [{name: tau * torch.bernoulli(torch.full_like(tau, keep)) / keep for name, tau in vector.items()} for vector in vectors]
    return {name: base[name] + SCALING * torch.stack([tau[name] for tau in thinned]).sum(dim=0) for name in base}


def magmax_of(base: Any, models: list[Any]) -> Any:
    """All task vectors; of each weight's the largest, the later of equal ones."""
    import torch

    vectors = [{name: model[name] - base[name] for name in base} for model in models]
    best = vectors[0]
    for vector in vectors[1:]:
        best = {name: torch.where(vector[name].abs() >= best[name].abs(), vector[name], best[name]) for name in base}
    return {name: base[name] + 0.5 * best[name] for name in base}


def by_matrix_of(merge: Callable[[Any], Any]) -> Callable[[Any, list[Any]], Any]:
    """All task vectors; ``merge`` gives τ [m, n] from those of a matrix [K, m, n], the rest is averaged."""

    def merged(base: Any, models: list[Any]) -> Any:
        import torch

        vectors = [{name: model[name] - base[name] for name in base} for model in models]
        stacked = {name: torch.stack([vector[name] for vector in vectors]) for name in base}
        return {name: base[name] + (merge(tau) if base[name].ndim == 2 else tau.mean(dim=0)) for name, tau in stacked.items()}

    return merged


def tsv_m_of(taus: Any) -> Any:
    """Full decompositions of every task vector, cut to a K-th each and side by side; two more make them orthogonal."""
    import torch

    rank = max(1, min(taus.shape[1:]) // len(taus))
    found = [torch.linalg.svd(tau, full_matrices=False) for tau in taus]
    s = torch.cat([one.S[:rank] for one in found])
    u, _, v = torch.linalg.svd(torch.cat([one.U[:, :rank] for one in found], dim=1), full_matrices=False)
    x, _, y = torch.linalg.svd(torch.cat([one.Vh[:rank] for one in found]), full_matrices=False)
    return u @ v * s @ x @ y


def iso_c_of(taus: Any) -> Any:
    """A full decomposition of the sum."""
    import torch

    u, s, v = torch.linalg.svd(taus.sum(dim=0), full_matrices=False)
    return s.mean() * u @ v


def wudi_of(taus: Any) -> Any:
    """Steps of Adam at 1e-5 through the K products of the loss."""
    import torch

    tau = torch.nn.Parameter(taus.sum(dim=0))
    norms, optimizer = taus.flatten(1).square().sum(dim=1), torch.optim.Adam([tau], lr=1e-5)
    for _ in range(ITERATIONS):
        optimizer.zero_grad()
        ((tau - taus) @ taus.mT).square().sum(dim=(1, 2)).div(norms).sum().backward()
        optimizer.step()
    return tau.detach()


class Seen:
    """A model's images, head and tower, as transformers has it."""

    def __init__(self, problem: Problem, name: str) -> None:
        from safetensors import safe_open

        self.layers = problem.layers
        with safe_open(problem.seen, "pt") as file:
            self.images, self.head = file.get_tensor(f"{name}/images"), file.get_tensor(f"{name}/head")
            self.projection = file.get_tensor("projection")

    def tower(self, state: Any) -> Any:
        """A CLIPVisionModel with these tensors; its names have a prefix or not, as its version has it."""
        from transformers import CLIPVisionConfig, CLIPVisionModel

        sizes: dict[str, Any] = {
            "hidden_size": WIDTH,
            "intermediate_size": HIDDEN,
            "num_attention_heads": WIDTH // HEAD_WIDTH,
            "patch_size": PATCH,
        }
        model = CLIPVisionModel(CLIPVisionConfig(**sizes, num_hidden_layers=self.layers, image_size=self.images.shape[-1]))
        inner = getattr(model, "vision_model", model)
        inner.load_state_dict({name.removeprefix("vision_model."): tensor for name, tensor in state.items()})
        return inner

    def log_probabilities(self, tower: Any, pixels: Any) -> Any:
        """log softmax of the logits [b, C]."""
        from torch.nn import functional as F

        z = F.normalize(tower(pixels).pooler_output @ self.projection.T, dim=-1)
        return (SCALE * z @ self.head.T).log_softmax(dim=-1)


def fisher_of(base: Any, models: list[Any], seen: list[Seen]) -> Any:
    """The squared gradients of every batch in a list; then all Fishers, and all models, at once."""
    import torch

    fishers = []
    for model, own in zip(models, seen, strict=True):
        tower = own.tower(model)
        squares: list[dict[str, Any]] = []
        parameters = {f"vision_model.{name}": parameter for name, parameter in tower.named_parameters()}
        for pixels in own.images.split(BATCH):
            log_p = own.log_probabilities(tower, pixels)
            gradients = torch.autograd.grad((log_p.exp().sqrt().detach() * log_p).sum(), list(parameters.values()))
            squares.append({name: gradient.square() for name, gradient in zip(parameters, gradients, strict=True)})
        fishers.append({name: sum(square[name] for square in squares) / len(own.images) for name in parameters})
    norms = [torch.stack([tensor.norm() for tensor in fisher.values()]).norm() for fisher in fishers]
    weights = [{name: (tensor + LEAST) / (norm + LEAST) for name, tensor in one.items()} for one, norm in zip(fishers, norms, strict=True)]
    return {
        name: sum(own[name] * model[name] for own, model in zip(weights, models, strict=True)) / sum(own[name] for own in weights)
        for name in base
    }


def linears(module: Any) -> dict[str, Any]:
    """The linear maps of a tower or a layer by name; query, key and value are three."""
    import torch

    return {name: one for name, one in module.named_modules() if isinstance(one, torch.nn.Linear)}


def grams_of(module: Any, forward: Callable[[Any], Any], batches: Any) -> dict[str, Any]:
    """X^T X / n of every linear map of ``module``: a matrix each, query, key and value too, although theirs are equal."""
    import torch

    grams: dict[str, Any] = {}
    images = sum(map(len, batches))

    def hook(name: str) -> Any:
        def add(_: Any, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].flatten(0, -2)
            grams[name] = grams.get(name, 0) + x.T @ x / (images * inputs[0].shape[1])

        return add

    handles = [one.register_forward_pre_hook(hook(name)) for name, one in linears(module).items()]
    with torch.no_grad():
        for batch in batches:
            forward(batch)
    for handle in handles:
        handle.remove()
    return grams


def regression_of(grams: list[Any], weights: list[Any]) -> Any:
    """The merged weight by an inverse."""
    import torch

    shrunk = [RATIO * gram + (1 - RATIO) * gram.diag().diag() for gram in grams]
    right = sum(gram @ weight.T for gram, weight in zip(shrunk, weights, strict=True))
    return (torch.linalg.inv(torch.stack(shrunk).sum(dim=0)) @ right).T.contiguous()


def regmean_of(base: Any, models: list[Any], seen: list[Seen]) -> Any:
    """The Gram matrices of all tasks and layers at once."""
    grams = []
    for model, own in zip(models, seen, strict=True):
        tower = own.tower(model)
        grams.append(grams_of(tower, tower, own.images.split(BATCH)))
    merged = average_of(base, models)
    for name in grams[0]:
        full = f"vision_model.{name}.weight"
        merged[full] = regression_of([gram[name] for gram in grams], [model[full] for model in models])
    return merged


def regmean_plus_plus_of(base: Any, models: list[Any], seen: list[Seen]) -> Any:
    """All towers at once, and of a layer the Gram matrices of all tasks; the last LayerNorm stays the base's."""
    import torch

    merged = average_of(base, models)
    merged |= {name: tensor for name, tensor in base.items() if ".post_layernorm." in name}
    towers, tower = [own.tower(model) for own, model in zip(seen, models, strict=True)], seen[0].tower(merged)
    with torch.no_grad():
        hidden = [[tower.pre_layrnorm(tower.embeddings(pixels)) for pixels in own.images.split(BATCH)] for own in seen]
    for number, layer in enumerate(tower.encoder.layers):
        layers = [one.encoder.layers[number] for one in towers]
        grams = [grams_of(own, partial(through, own), batches) for own, batches in zip(layers, hidden, strict=True)]
        for name, linear in linears(layer).items():
            weight = regression_of([gram[name] for gram in grams], [linears(own)[name].weight.data for own in layers])
            merged[f"vision_model.encoder.layers.{number}.{name}.weight"] = weight
            linear.weight.data.copy_(weight)
        with torch.no_grad():
            hidden = [[through(layer, x) for x in batches] for batches in hidden]
    return merged


def through(layer: Any, x: Any) -> Any:
    """What a layer of transformers gives: a tensor, in older versions the first of several."""
    given = layer(x, None)
    return given[0] if isinstance(given, tuple) else given


RELEASED: dict[str, Callable[..., Any]] = {
    "simple_average": average_of,
    "task_arithmetic": arithmetic_of,
    "ties": ties_of,
    "dare_task_arithmetic": dare_of,
    "magmax": magmax_of,
    "tsv_m": by_matrix_of(tsv_m_of),
    "iso_c": by_matrix_of(iso_c_of),
    "wudi": by_matrix_of(wudi_of),
    "fisher": fisher_of,
    "regmean": regmean_of,
    "regmean_plus_plus": regmean_plus_plus_of,
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


def agreement(method: str, ours: Path, plain: Path) -> str:
    """How far the results are apart; with a mark where that is further than the tolerance."""
    if method.startswith("dare"):
        return "other draws"
    apart = alone(difference, ours, plain)
    return f"{apart:.1e}{' !' if apart > TOLERANCES.get(method, 1e-6) else ''}"


def row(name: str, plain: Outcome | None, ours: Outcome, differs: str = "") -> str:
    """One line of the table."""
    pairs = [
        (f"{getattr(plain, field):{form}}" if plain else "", f"{getattr(ours, field):{form}}")
        for field, form in (("seconds", ".2f"), ("cpu", ".2f"), ("peak_mib", ",d"))
    ]
    return f"{name:22}" + "".join(f"{one:>10}{other:>9}" for one, other in pairs) + f"{ours.start_mib:>8,d}{differs:>13}"


def rows(args: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The table, line by line as the runs end."""
    files = alone(draw, folder, args.models, args.layers)
    problem = Problem(files, folder / "merged.safetensors", args.threads, args.layers, args.images)
    other = replace(problem, out=folder / "released.safetensors")
    if set(args.methods) & set(LOOK):
        alone(write_seen, problem)
    yield row("copy", None, alone(copied, problem, ""))
    for method in args.methods:
        problem.out.unlink(missing_ok=True)
        compared = method in RELEASED and not args.streamed_only
        plain = alone(released, other, method) if compared else None
        ours = alone(streamed, problem, method)
        yield row(method, plain, ours, agreement(method, problem.out, other.out) if compared else "")


def main() -> None:
    """Draw the encoders, run both ways of every method, delete the encoders."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        print(f"{args.models} encoders of {args.layers} layers, float32, {args.threads} threads; {args.images} images of each task\n")
        print(f"{'':22}{'seconds':>19}{'CPU s':>19}{'peak MiB':>19}{'start':>8}")
        print(f"{'method':22}" + 3 * f"{'plain':>10}{'ours':>9}" + f"{'MiB':>8}{'differs':>13}", flush=True)
        for line in rows(args, Path(name)):
            print(line, flush=True)


if __name__ == "__main__":
    run(main)
