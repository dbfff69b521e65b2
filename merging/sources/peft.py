"""LoRA folders of PEFT, and linearised ones (L-LoRA), folded into the base's weights as they are read.

A LoRA adds s B A to a weight W [out, in], with A [r, in], B [out, r] and s = alpha / r, or alpha / sqrt(r) where the configuration says
``use_rslora`` (Hu et al., ICLR 2022; Kalajdzievski 2023). A linearised LoRA (Tang et al., Parameter-efficient multi-task model fusion
with partial linearization, ICLR 2024) runs the first-order Taylor model around its start A_0, B_0; as the layer is linear in W, that is
the weight W + s (B A_0 + B_0 A - B_0 A_0), exactly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from common.errors import UserError
from common.files import read_json
from merging.sources.naming import canonical, is_huggingface, is_open_clip, to_huggingface
from merging.stream import Spec, TensorFile
from merging.weights import View, Weights, part_of

CONFIG, ADAPTER, LINEARIZED = "adapter_config.json", "adapter_model.safetensors", "linearized_adapter_model.safetensors"
WRAPPER = "base_model.model."  # what PEFT puts before the names of the model that it wraps
MOST = 1e9  # of a rank or an alpha; any above is damage
UPDATE = re.compile(r"(?P<module>.+?)\.lora_(?P<letter>[AB])(\.default)?\.weight")
LINEAR_UPDATE = re.compile(r"(?P<module>.+?)\.model\.lora_(?P<letter>[AB])\.(default\.)?weight")
START = re.compile(r"(?P<module>.+?)\.params0_values\.(?P<index>\d+)")
OWN = re.compile(r"(?P<module>.+?)(\.model|\.base_layer|\.model\.base_layer)\.(?P<parameter>weight|bias)")  # the layer's, within LoRA's


def open_lora(folder: Path, name: str, base: Weights) -> View:
    """The base with the LoRA in ``folder`` added. What else the adapter stores (biases, whole modules) takes the base's place.

    Raises :class:`UserError` when the folder is not whole, is another kind of adapter, or fits no tensor of the base.
    """
    config, file = _Config.read(folder), TensorFile(folder / ADAPTER)
    updates = {}
    for module, (key_a, key_b) in _matrices(file, UPDATE).items():
        updates[_bare(module)] = _Update(file, config.scale(folder, _bare(module), file.specs[key_a]), key_a, key_b, None)
    others = {_bare(_unwrapped(key)): key for key in file.specs if not UPDATE.fullmatch(key)}
    return _folded(folder, name, base, updates, _Others(file, others), config.transposed)


def open_linearized_lora(folder: Path, name: str, base: Weights) -> View:
    """The base with the linearised LoRA in ``folder`` added; raises as :func:`open_lora`."""
    config, file = _Config.read(folder), TensorFile(folder / LINEARIZED)
    updates = {}
    for module, (key_a, key_b) in _matrices(file, LINEAR_UPDATE).items():
        start = _start(file, module, (key_a, key_b))
        updates[_bare(module)] = _Update(file, config.scale(folder, _bare(module), file.specs[key_a]), key_a, key_b, start)
    others = {_bare(_unwrapped(key)): key for key in file.specs if not LINEAR_UPDATE.fullmatch(key) and not START.fullmatch(key)}
    return _folded(folder, name, base, updates, _Others(file, others), config.transposed)


@dataclass(frozen=True)
class _Update:
    """What is added to one weight: s B A, or with ``start``, the keys of A_0 and B_0, s (B A_0 + B_0 A - B_0 A_0)."""

    file: TensorFile
    scale: float
    key_a: str
    key_b: str
    start: tuple[str, str] | None

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in], where a convolution's height and width belong to ``in``."""
        return self.file.specs[self.key_b].shape[0], prod(self.file.specs[self.key_a].shape[1:])

    def product(self) -> Tensor:
        """The update [out, in], float32."""
        a, b = self._matrix(self.key_a), self._matrix(self.key_b)
        if self.start is None:
            return self.scale * (b @ a)
        a0, b0 = self._matrix(self.start[0]), self._matrix(self.start[1])
        return self.scale * (b @ a0 + b0 @ (a - a0))

    def _matrix(self, key: str) -> Tensor:
        """A or B; a convolution's, [r, in, h, w] and [out, r, 1, 1], as matrices."""
        return self.file.read(key).float().flatten(1)


@dataclass(frozen=True)
class _Others:
    """Tensors that an adapter stores whole: the base's name -> the key in the file."""

    file: TensorFile
    keys: Mapping[str, str]


@dataclass(frozen=True)
class _Config:
    """What adapter_config.json says of scales and of the orientation of weights."""

    rank: int
    alpha: float
    rank_stabilised: bool
    transposed: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]

    @classmethod
    def read(cls, folder: Path) -> _Config:
        path = folder / CONFIG
        config = read_json(path)
        if not isinstance(config, dict) or str(config.get("peft_type", "LORA")).upper() != "LORA":
            raise UserError(f"'{path}' is not that of a LoRA; only LoRA adapters have a form as plain weights.")
        if config.get("use_dora"):
            raise UserError(f"'{folder}' holds a DoRA, whose weights are not W + s B A; merge it into its base with PEFT first.")
        return cls(
            _number(path, config, "r"),
            _number(path, config, "lora_alpha"),
            bool(config.get("use_rslora")),
            bool(config.get("fan_in_fan_out")),
            _patterns(path, config, "rank_pattern"),
            _patterns(path, config, "alpha_pattern"),
        )

    def scale(self, folder: Path, module: str, a: Spec) -> float:
        """The factor of B A in ``module``, whose A is [rank, ...]."""
        alpha, rank = _pattern(self.alphas, module, self.alpha), _pattern(self.ranks, module, self.rank)
        if a.shape[:1] != (rank,):
            raise UserError(f"The LoRA of '{module}' in '{folder}' is {a}, and {CONFIG} says rank {rank}; they belong to two adapters.")
        return alpha / (sqrt(rank) if self.rank_stabilised else rank)


def _number(path: Path, config: Mapping[str, Any], key: str) -> Any:
    value = config.get(key)
    if not _is_number(value):
        raise UserError(f"'{path}' gives no {key}; a LoRA's configuration has one above 0.")
    return value


def _patterns(path: Path, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Numbers by regular expressions for names of modules."""
    patterns = config.get(key) or {}
    try:
        if isinstance(patterns, dict) and all(re.compile(pattern) and _is_number(value) for pattern, value in patterns.items()):
            return patterns
    except re.error:
        pass
    raise UserError(f"The {key} in '{path}' is not one of numbers above 0 by patterns of names; the file is damaged, fetch it again.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST


def _pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value whose pattern fits the end of the module's name, as PEFT reads ``rank_pattern`` and ``alpha_pattern``."""
    return next((value for pattern, value in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", module)), default)


def _bare(key: str) -> str:
    return key.removeprefix(WRAPPER)


def _unwrapped(key: str) -> str:
    """The name of a layer's own weight or bias without what LoRA and its linearisation put around the layer."""
    found = OWN.fullmatch(key)
    return f"{found['module']}.{found['parameter']}" if found else key


def _matrices(file: TensorFile, pattern: re.Pattern[str]) -> dict[str, tuple[str, str]]:
    """The keys of A and B of every module that has them."""
    found: dict[str, dict[str, str]] = {}
    for key in file.specs:
        if match := pattern.fullmatch(key):
            found.setdefault(match["module"], {})[match["letter"]] = key
    for module, letters in found.items():
        if letters.keys() != {"A", "B"}:
            raise UserError(f"'{file.path}' is not whole: '{_bare(module)}' has no lora_{'B' if 'A' in letters else 'A'}.")
        a, b = file.specs[letters["A"]], file.specs[letters["B"]]
        if min(len(a.shape), len(b.shape)) < 2 or prod(b.shape[1:]) != a.shape[0]:
            raise UserError(
                f"'{file.path}' is damaged: A and B of '{_bare(module)}' are {a} and {b}, which have no product; fetch it again."
            )
    if not found:
        raise UserError(f"'{file.path}' holds no LoRA of linear layers or convolutions: there is no lora_A in it.")
    return {module: (letters["A"], letters["B"]) for module, letters in found.items()}


def _start(file: TensorFile, module: str, keys: tuple[str, str]) -> tuple[str, str]:
    """The keys of A_0 and B_0: the last two parameters of the layer, after its weight and its bias, if it has one."""
    indices = sorted(int(match["index"]) for key in file.specs if (match := START.fullmatch(key)) and match["module"] == module)
    start = [f"{module}.params0_values.{index}" for index in indices[-2:]]
    if [file.specs[key].shape for key in start] != [file.specs[key].shape for key in keys]:
        raise UserError(f"'{file.path}' is not whole: '{_bare(module)}' lacks the A and B that it was linearised around.")
    return start[0], start[1]


def _folded(folder: Path, name: str, base: Weights, updates: Mapping[str, _Update], others: _Others, transposed: bool) -> View:
    """The base with ``updates`` added to the weights of their modules, and ``others`` put in the place of its tensors."""
    if is_open_clip(base.specs) and not is_huggingface(base.specs):
        base = to_huggingface(base)
    names = {canonical(tensor, base.specs): tensor for tensor in base.specs}
    added = {_find(folder, f"{module}.weight", names, base.name): update for module, update in updates.items()}
    replaced = {_find(folder, key, names, base.name): stored for key, stored in others.keys.items()}
    for tensor, update in added.items():
        _check_shape(folder, tensor, update.shape[::-1] if transposed else update.shape, base.specs[tensor])

    def read(tensor: str, part: slice | None) -> Tensor:
        holder, key = (others.file, replaced[tensor]) if tensor in replaced else (base, tensor)
        if tensor not in added:
            return holder.read(key, part)
        weight, product = holder.read(key), added[tensor].product()
        delta = (product.t() if transposed else product).reshape(weight.shape)
        return part_of((weight.float() + delta).to(weight.dtype), part)

    specs = {**base.specs, **{tensor: others.file.specs[stored] for tensor, stored in replaced.items()}}
    return View(name, specs, read)


def _check_shape(folder: Path, tensor: str, shape: tuple[int, int], spec: Spec) -> None:
    if shape != (spec.shape[0], prod(spec.shape[1:])):
        raise UserError(f"The LoRA in '{folder}' updates '{tensor}' as {shape[0]}x{shape[1]}, which is {spec} in the base.")


def _find(folder: Path, key: str, names: Mapping[str, str], base: str) -> str:
    """The base's name of a tensor that an adapter names, which may have been put on the vision tower alone."""
    found = next((names[tried] for tried in (key, f"vision_model.{key}") if tried in names), None)
    if found is None:
        raise UserError(f"The LoRA in '{folder}' updates '{key}', which the base '{base}' has not; it was made for another model.")
    return found
