"""From what the user names to a pool: the models opened, found to fit, and which of their tensors are merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from common.errors import UserError
from common.stages import staged
from merging.sources import Source, is_vision, open_all
from merging.sources.naming import PROJECTIONS, canonical
from merging.weights import Pool, Weights, equal, make_pool, smallest_first, told_equal


@dataclass(frozen=True)
class Inputs:
    """The sources and the pool of their weights. ``remarks`` are sentences that the user should read.

    ``images`` are those that a data-aware method looks at, for records.
    """

    base: Source | None
    models: tuple[Source, ...]
    pool: Pool
    remarks: tuple[str, ...]
    images: Mapping[str, Any] | None = None

    @property
    def reference(self) -> Source:
        """Whose names, dtypes and form the result has: the base, or the first model."""
        return self.models[0] if self.base is None else self.base


@staged("model")
def open_inputs(base: str | None, models: Sequence[str], towers: str | None = None, only: Sequence[str] = ()) -> Inputs:
    """Open the base and the models ``[NAME=]SOURCE`` and check that they fit.

    Of a CLIP the vision tower is merged, with ``towers`` "both" all; of other models all is. ``only`` are patterns (``*.mlp.*``), one of
    which a merged tensor's name must fit. Raises :class:`UserError` when a source cannot be opened or does not fit.
    """
    opened, sources = open_all(base, models)
    reference = opened or sources[0]
    chosen = chooser(reference, towers, only)
    pool = without_untouched_projection(make_pool(opened, sources, chosen, optional_in(reference)))
    remarks = [remark for source in sources for remark in source.remarks]
    if towers != "both":
        remarks += told_text_towers(sources, reference)
    return Inputs(opened, tuple(sources), pool, (*remarks, *told_equal(pool)))


def chooser(reference: Weights, towers: str | None, only: Sequence[str] = ()) -> Callable[[str], bool]:
    """Which of the reference's names may be merged. UserError when ``towers`` is asked for where there are none."""
    names = reference.specs
    is_clip = any(is_vision(name, names) for name in names)
    if towers is not None and not is_clip:
        raise UserError(f"--towers {towers} is for CLIPs, and '{reference.name}' is none; --only PATTERN chooses among any tensors.")

    def chosen(name: str) -> bool:
        in_tower = towers == "both" or not is_clip or is_vision(name, names)
        return in_tower and (not only or any(fnmatchcase(name, pattern) for pattern in only))

    return chosen


def optional_in(reference: Weights) -> Callable[[str], bool]:
    """Which of the reference's names a model may do without: those that are not of the vision tower, and its projection."""
    names = reference.specs
    is_clip = any(is_vision(name, names) for name in names)
    return lambda name: is_clip and (canonical(name, names) in PROJECTIONS or not is_vision(name, names))


def without_untouched_projection(pool: Pool) -> Pool:
    """The pool without the image tower's projection where no model has tuned it.

    Merging it would change nothing of it, but TIES counts the entries that it trims, and published results leave it out.
    """
    reference = pool.reference
    for name in pool.merged:
        if canonical(name, reference.specs) in PROJECTIONS and all(equal(model, reference, [name]) for model in pool.models):
            return replace(pool, merged=tuple(other for other in pool.merged if other != name))
    return pool


def told_text_towers(sources: Sequence[Source], reference: Source) -> list[str]:
    """A sentence when checkpoints have text towers of their own, which merging the vision towers alone leaves out."""
    text = [name for name in reference.specs if not is_vision(name, reference.specs)]
    checkpoints = [source for source in sources if source.kind.startswith("checkpoint")]
    tuned = [source.name for source in checkpoints if not equal(source, reference, smallest_first(reference, text))]
    if not tuned:
        return []
    names = ", ".join(f"'{name}'" for name in tuned)
    return [f"The text tower of {names} was tuned too; it is left out, --towers both merges it."]
