"""Numbers that papers printed, with where they stand, to be set beside those of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.errors import unknown_name
from metrics.table import METRICS
from study.agreement import Bootstrap
from study.analysis import Analysis
from study.comparison import Compared

TAU, R2 = "tau", "R2"  # Kendall's, plain; of the line of least squares


@dataclass(frozen=True)
class Numbers:
    """One line of a published table: a number for each of the paper's models, or but the range of them."""

    quantity: str  # TAU or R2
    paper_measure: str
    measure: str  # clipscope's name
    of_model: Mapping[str, float]  # by clipscope's name of the model
    range: tuple[float, float] | None = None  # where no more is printed than that
    note: str = ""

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest of the paper's models."""
        return self.range or (min(self.of_model.values()), max(self.of_model.values()))


@dataclass(frozen=True)
class Published:
    """What one paper printed of the relation of measures to outcomes."""

    source: str
    outcome: str  # as study.comparison names it
    tuning: str  # what the encoders were tuned by
    n: int  # tasks
    models: Mapping[str, str]  # clipscope's name -> the paper's
    numbers: tuple[Numbers, ...]
    findings: tuple[str, ...]  # what the paper says in words


@dataclass(frozen=True)
class PublishedRow:
    """One published number beside the study's own.

    ``published`` is None where the paper has no number for the model; the range of the paper's models is there all the same.
    """

    quantity: str  # "tau" or "R2"
    measure: str  # clipscope's name
    paper_measure: str
    model: str  # clipscope's name
    paper_model: str  # "" where the paper does not have the model
    tuning: str  # the study's name of it
    published: float | None
    published_low: float  # the least and the greatest of the paper's models
    published_high: float
    ours: float | None  # None where the study has no such number; ``note`` then says why
    low: float | None  # the study's 95 % bootstrap interval over the tasks
    high: float | None
    n: int  # the study's number of tasks
    published_n: int
    source: str
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the published number."""
        return None if self.ours is None or self.published is None else self.ours - self.published


def compare_published(analysis: Analysis, key: str) -> list[PublishedRow]:
    """The published numbers ``key`` beside those of every model that the study tunes as the paper did; UserError for an unknown key."""
    if key not in PUBLISHED:
        raise unknown_name("published study", key, PUBLISHED)
    paper = PUBLISHED[key]
    same = [(model, name) for model, name in analysis.combinations if analysis.tunings[name] == paper.tuning]
    ours = {pair: {of.measure: of for of in analysis.taus(*pair, paper.outcome)} for pair in same}
    return [_row(paper, numbers, *pair, ours[pair].get(numbers.measure)) for numbers in paper.numbers for pair in same]


def _row(paper: Published, numbers: Numbers, model: str, tuning: str, ours: Compared | None) -> PublishedRow:
    value, interval = _value(numbers.quantity, ours)
    return PublishedRow(
        *(numbers.quantity, numbers.measure, numbers.paper_measure, model, paper.models.get(model, ""), tuning),
        *(numbers.of_model.get(model), *numbers.ends, value),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        n=ours.n if ours else 0,
        published_n=paper.n,
        source=paper.source,
        note=" ".join(filter(None, (numbers.note, _as_released(numbers.measure), _why_not(numbers, ours)))),
    )


def _value(quantity: str, ours: Compared | None) -> tuple[float | None, Bootstrap | None]:
    if ours is None or ours.agreement is None or ours.relation is None:
        return None, None
    if quantity == TAU:
        return ours.agreement.tau, ours.agreement.tau_interval
    return ours.relation.r2, ours.relation.r2_interval


def _as_released(measure: str) -> str:
    """What the number may differ by for no other reason than the paper's code."""
    note = METRICS[measure].released_note
    return f"The released code differs: {note}." if note else ""


def _why_not(numbers: Numbers, ours: Compared | None) -> str:
    if ours is None:
        return f"The study has no outcomes with {numbers.measure}."
    return f"Not defined in the study: {ours.undefined}." if ours.undefined else ""


def _of_four(coca: float, eva: float, clip: float, siglip: float) -> Mapping[str, float]:
    return {"coca": coca, "eva02": eva, "clip": clip, "siglip": siglip}


_GBCS, _WHICH_GBC = ("gbc_spherical", "gbc_diagonal"), "The paper does not say which of the two."
_HSCORE = "The released code inverts covariances in float32 without regard to their rank, which can give anything."

# Its tables have the columns CoCa, EVA-02, CLIP, SigLIP. All taus but two are multiples of 1/18: plain ones of nine tasks, 36 pairs.
_IIMM = Published(
    source="Niss et al., Inter-Intra Modal Measure (ICCV 2025, arXiv 2407.15731), section 4, as a public reading note gives its tables",
    outcome="gain",
    tuning="full",
    n=9,
    models={"coca": "CoCa", "eva02": "EVA-02", "clip": "CLIP", "siglip": "SigLIP"},
    numbers=(
        Numbers(TAU, "IIMM", "iimm", _of_four(0.89, 0.83, 0.78, 0.78)),
        *(Numbers(TAU, "GBC", name, _of_four(0.78, 0.72, 0.78, 0.83), note=_WHICH_GBC) for name in _GBCS),
        Numbers(TAU, "TransRate", "transrate", _of_four(0.67, 0.61, 0.67, 0.72)),
        Numbers(TAU, "EMMS", "emms", _of_four(0.61, 0.28, 0.61, 0.44)),
        Numbers(TAU, "NCTI", "ncti", _of_four(-0.06, -0.59, 0.07, -0.06), note="-0.59 and 0.07 are no taus of nine tasks without ties."),
        Numbers(TAU, "H-Score", "hscore", _of_four(0.11, -0.78, 0.50, -0.67), note=_HSCORE),
        Numbers(R2, "IIMM", "iimm", _of_four(0.92, 0.89, 0.92, 0.92), note="The paper has p < 0.001 for all four."),
        *(Numbers(R2, "GBC", name, {}, range=(0.59, 0.72), note=f"The paper has only the range. {_WHICH_GBC}") for name in _GBCS),
        Numbers(R2, "image-image similarity", "image_image", {"coca": 0.88, "clip": 0.81, "siglip": 0.88}),
        Numbers(R2, "wrong-label alignment", "wrong_label", {"coca": 0.82, "clip": 0.62, "siglip": 0.80}),
        Numbers(R2, "text-text similarity", "text_text", {"coca": 0.37, "clip": 0.57, "siglip": 0.17}),
    ),
    findings=(
        "Forgetting, the mean change of accuracy on the other tasks, falls linearly with IIMM, with a high R2 except for CLIP.",
        "CLIP-Adapter weakens both relations, for the encoder itself stays as it was.",
        "LoRA and attention tuning forget severely where IIMM is high.",
    ),
)

PUBLISHED: dict[str, Published] = {"iimm": _IIMM}
