"""What the METRICS table says of a measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.typing import ArrayLike

from metrics.sample import Sample
from metrics.scatter import Scatter, Squares
from metrics.statistics import Statistics

# What a measure does not change under. A measure has exactly the invariances that its table entry names.
IMAGE_ORDER = "image order"  # permuting the images with their labels
CLASS_ORDER = "class order"  # permuting the texts, labels renumbered
ROTATION = "rotation"  # one orthogonal map of images and texts
SEPARATE_ROTATION = "separate rotation"  # different orthogonal maps of images and texts
DUPLICATION = "duplication"  # every image repeated equally often
EMPTY_CLASS = "empty class"  # one more text, of a class without images
ALWAYS = frozenset({IMAGE_ORDER, CLASS_ORDER, ROTATION})
WITHOUT_TEXT = ALWAYS | {SEPARATE_ROTATION, EMPTY_CLASS}  # of a measure that looks at images and the labels they have

GEOMETRY = "geometry"  # how unit vectors lie to each other: cheap, and defined for unit rows only
TRANSFERABILITY = "transferability"  # how well the labels can be told from the features

AS_DEFINED, AS_RELEASED = "definition", "as released"  # the variants of a measure, as result tables name them


@dataclass(frozen=True)
class Metric:
    """A measure: how it is computed, what it needs, and how its value is read.

    ``function`` takes those of (image_embeddings, text_embeddings, labels) that it needs, in this order; ``from_sample``
    gives the same number from a :class:`Sample`, whose sums several measures share. ``as_released`` gives the number of
    the papers' released code where that differs from the definition, ``released_note`` says by what and why. ``range``,
    ``min_images`` and ``min_classes`` (for transferability: classes with images) tell where it is defined; ``cost`` is
    the time it takes as N, C and D grow. ``standard_error`` is a closed form where there is one; elsewhere ``bootstrap``
    tells whether resampling the images gives one.
    """

    name: str
    description: str
    function: Callable[..., float]
    from_sample: Callable[[Sample], float]
    higher_is: str
    family: str = GEOMETRY
    range: tuple[float, float] = (-1.0, 1.0)
    needs_images: bool = True
    needs_text: bool = True
    needs_labels: bool = True
    min_images: int = 1
    min_classes: int = 1
    invariances: frozenset[str] = ALWAYS
    released_names: tuple[str, ...] = ()
    as_released: Callable[[Sample], float] | None = None
    released_note: str = ""
    standard_error: Callable[[Sample], float] | None = None
    bootstrap: bool = True
    cost: str = "O((N + C) D)"

    def __call__(self, image_embeddings: ArrayLike, text_embeddings: ArrayLike, labels: ArrayLike) -> float:
        """The measure of a full set of embeddings, whatever it needs of it."""
        inputs = ((self.needs_images, image_embeddings), (self.needs_text, text_embeddings), (self.needs_labels, labels))
        return self.function(*(value for needed, value in inputs if needed))

    def variant(self, as_released: bool) -> str:
        """Which number :meth:`score` gives: that of the definition, or another that the released code gives."""
        return AS_RELEASED if as_released and self.as_released is not None else AS_DEFINED

    def score(self, sample: Sample, as_released: bool = False) -> float:
        """The measure of a sample; with ``as_released`` the released code's number where that is another one."""
        return self.as_released(sample) if as_released and self.as_released is not None else self.from_sample(sample)


def from_statistics(function: Callable[[Statistics], float]) -> Callable[[Sample], float]:
    """A measure of sums as a measure of samples."""
    return lambda sample: function(sample.statistics)


def from_scatter(function: Callable[[Scatter], float]) -> Callable[[Sample], float]:
    """A measure of the scatter as a measure of samples."""
    return lambda sample: function(sample.scatter)


def from_squares(function: Callable[[Squares], float]) -> Callable[[Sample], float]:
    """A measure of the squares by class and feature as a measure of samples."""
    return lambda sample: function(sample.squares)
