"""Merging as released code does it: whole models, and all that is computed of them. What benchmarks/merging.py has ours for comparison."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import merging_files as drawn
from benchmarks.merging_files import Problem

SCALING, DENSITY, DROP_RATE, RATIO, LEAST = 0.3, 0.2, 0.5, 0.95, 1e-6
ITERATIONS = 4  # of WUDI, a hundredth of the published number: each costs the same


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
            "hidden_size": drawn.WIDTH,
            "intermediate_size": drawn.HIDDEN,
            "num_attention_heads": drawn.WIDTH // drawn.HEAD_WIDTH,
            "patch_size": drawn.PATCH,
        }
        model = CLIPVisionModel(CLIPVisionConfig(**sizes, num_hidden_layers=self.layers, image_size=self.images.shape[-1]))
        inner = getattr(model, "vision_model", model)
        inner.load_state_dict({name.removeprefix("vision_model."): tensor for name, tensor in state.items()})
        return inner

    def log_probabilities(self, tower: Any, pixels: Any) -> Any:
        """log softmax of the logits [b, C]."""
        from torch.nn import functional as F

        z = F.normalize(tower(pixels).pooler_output @ self.projection.T, dim=-1)
        return (drawn.SCALE * z @ self.head.T).log_softmax(dim=-1)


def fisher_of(base: Any, models: list[Any], seen: list[Seen]) -> Any:
    """The squared gradients of every batch in a list; then all Fishers, and all models, at once."""
    import torch

    fishers = []
    for model, own in zip(models, seen, strict=True):
        tower = own.tower(model)
        squares: list[dict[str, Any]] = []
        parameters = {f"vision_model.{name}": parameter for name, parameter in tower.named_parameters()}
        for pixels in own.images.split(drawn.BATCH):
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
        grams.append(grams_of(tower, tower, own.images.split(drawn.BATCH)))
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
        hidden = [[tower.pre_layrnorm(tower.embeddings(pixels)) for pixels in own.images.split(drawn.BATCH)] for own in seen]
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
