"""One model's tensors under another's names: both spellings of Hugging Face, and open_clip's names, in either direction.

Nothing is built. The table of :mod:`models.huggingface.state_dict` needs the sizes of the towers, which the shapes of the tensors tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isqrt, nextafter, prod
from typing import TYPE_CHECKING, Any

from torch import Tensor

from common.errors import UserError
from merging.stream import Spec
from merging.weights import View, Weights, part_of

if TYPE_CHECKING:
    from models.huggingface import TensorPair

VISION = ("vision_model.", "visual_projection.", "visual.")  # how names of an image tower begin
PROJECTIONS = ("visual_projection.weight", "visual.proj")  # from the tower's width to the embedding's
MARK = "pre_layrnorm.weight"  # misspelt by transformers alone, so it tells its CLIP from other models


def is_huggingface(names: Iterable[str]) -> bool:
    """Whether these are names of a Hugging Face CLIP, or of its vision tower alone."""
    return not {MARK, f"vision_model.{MARK}"}.isdisjoint(names)


def is_open_clip(names: Iterable[str]) -> bool:
    """Whether these are names of an open_clip model, or of its image tower."""
    return any(name.startswith("visual.") for name in names)


def is_vision(name: str, names: Mapping[str, object]) -> bool:
    """Whether ``name`` is of the image tower, its projection included."""
    return canonical(name, names).startswith(VISION)


def canonical(name: str, names: Mapping[str, object]) -> str:
    """``name`` with the ``vision_model.`` that transformers 5 leaves out where there is only the vision tower."""
    return f"vision_model.{name}" if MARK in names else name


def under(weights: Weights, like: Weights) -> View:
    """``weights`` under the names of ``like``; what ``like`` has not keeps its name, or a name in the same style."""
    if is_huggingface(weights.specs) and is_open_clip(like.specs):
        weights = to_open_clip(weights)
    elif is_open_clip(weights.specs) and is_huggingface(like.specs):
        weights = to_huggingface(weights)
    spelled = {canonical(name, like.specs): name for name in like.specs}
    names = {spelled.get(other := canonical(name, weights.specs), other): name for name in weights.specs}
    specs = {name: weights.specs[own] for name, own in names.items()}
    return View(weights.name, specs, lambda name, part: weights.read(names[name], part))


def to_open_clip(weights: Weights) -> View:
    """A Hugging Face CLIP under open_clip's names; query, key and value become one tensor."""
    own = {canonical(name, weights.specs): name for name in weights.specs}
    pairs = {pair.open_clip: pair for pair in _pairs(weights, _HUGGINGFACE, own) if set(pair.huggingface) <= own.keys()}

    def read(name: str, part: slice | None) -> Tensor:
        pair = pairs[name]
        return part_of(pair.join([weights.read(own[one]) for one in pair.huggingface]), part)

    specs = {name: Spec(pair.open_clip_shape, weights.specs[own[pair.huggingface[0]]].dtype) for name, pair in pairs.items()}
    return View(weights.name, specs, read)


def to_huggingface(weights: Weights) -> View:
    """An open_clip model under the names of a Hugging Face CLIP; of a packed tensor only the rows that are asked for are read."""
    table = _pairs(weights, _OPEN_CLIP, {name: name for name in weights.specs})
    places = {name: (pair, place) for pair in table if pair.open_clip in weights.specs for place, name in enumerate(pair.huggingface)}

    def read(name: str, part: slice | None) -> Tensor:
        pair, place = places[name]
        if pair.transposed or len(pair.huggingface) == 1:
            return part_of(pair.split(weights.read(pair.open_clip))[0], part)
        size = prod(pair.shape)
        wanted = slice(0, size) if part is None else part
        rows = weights.read(pair.open_clip, slice(place * size + wanted.start, place * size + wanted.stop))
        return rows.view(pair.shape) if part is None else rows

    specs = {name: Spec(pair.shape, weights.specs[pair.open_clip].dtype) for name, (pair, _) in places.items()}
    return View(weights.name, specs, read)


# Where the sizes of the towers are found: the positions, a weight of the patches or of the tokens, the layers and their MLP.
_HUGGINGFACE = {
    "vision": ("vision_model.embeddings.position_embedding.weight", "vision_model.embeddings.patch_embedding.weight"),
    "vision layers": r"vision_model\.encoder\.layers\.(\d+)\.mlp\.fc1\.weight",
    "text": ("text_model.embeddings.position_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    "text layers": r"text_model\.encoder\.layers\.(\d+)\.mlp\.fc1\.weight",
    "projection": "visual_projection.weight",
}
_OPEN_CLIP = {
    "vision": ("visual.positional_embedding", "visual.conv1.weight"),
    "vision layers": r"visual\.transformer\.resblocks\.(\d+)\.mlp\.c_fc\.weight",
    "text": ("positional_embedding", "token_embedding.weight"),
    "text layers": r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.weight",
    "projection": "visual.proj",
}


def _pairs(weights: Weights, places: Mapping[str, Any], own: Mapping[str, str]) -> list[TensorPair]:
    """The table of names for a model of these sizes, whose tensors must have the shapes that follow from them."""
    shapes = {name: weights.specs[given].shape for name, given in own.items()}
    try:
        pairs = _table(shapes, places)
    except (KeyError, ValueError, IndexError) as error:
        raise _unlike(weights) from error
    for pair in pairs:
        there = {pair.open_clip: pair.open_clip_shape} if places is _OPEN_CLIP else dict.fromkeys(pair.huggingface, pair.shape)
        if any(shapes.get(name, shape) != shape for name, shape in there.items()):
            raise _unlike(weights)
    return pairs


def _table(shapes: Mapping[str, tuple[int, ...]], places: Mapping[str, Any]) -> list[TensorPair]:
    """The pairs of both towers, or of the vision tower with the projection that it may have."""
    from models.huggingface.state_dict import TensorPair, tensor_pairs, vision_pairs

    (tokens, width), patch = shapes[places["vision"][0]], shapes[places["vision"][1]][-1]
    vision = {"image_size": isqrt(tokens - 1) * patch, "patch_size": patch, **_layers(shapes, places["vision layers"], width)}
    embed_dim = shapes[places["projection"]][places is _OPEN_CLIP] if places["projection"] in shapes else 1
    if places["text"][0] not in shapes:
        projection = TensorPair("visual.proj", ("visual_projection.weight",), (embed_dim, width), transposed=True)
        return [*vision_pairs({"vision_cfg": vision}), projection]
    (context, text_width), vocabulary = shapes[places["text"][0]], shapes[places["text"][1]][0]
    text = {"context_length": context, "vocab_size": vocabulary, **_layers(shapes, places["text layers"], text_width)}
    return tensor_pairs({"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text})


def _unlike(weights: Weights) -> UserError:
    towers = "CLIP's plain transformers, the only towers that have names both in open_clip and in Hugging Face"
    return UserError(f"'{weights.name}' cannot go under the base's names: it has not {towers}.")


def _layers(shapes: Mapping[str, tuple[int, ...]], pattern: str, width: int) -> dict[str, Any]:
    """Width, number of layers and the MLP's ratio, of which open_clip takes the whole part: ``int(width * ratio)``."""
    hidden = [shape[0] for name, shape in shapes.items() if re.fullmatch(pattern, name)]
    ratio = hidden[0] / width
    return {"width": width, "layers": len(hidden), "mlp_ratio": ratio if int(width * ratio) == hidden[0] else nextafter(ratio, 1e9)}
