"""From the rows of retrieval and of zero-shot classification to tables of a model: data sets by methods, means, differences, curves.

A number that several seeds have is their mean. Scores are percentages, of retrieval mAP unless something else is said; of the
revisited Oxford and Paris the easy protocol's, which is the one that is published under the name of mAP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from study.collected import Collected, RetrievalRow
from study.plan import Plan
from study.plan_inversion import ISO, MODALITY, OTI, OVI, PCA
from study.published_inversion import NATIVE, RETRIEVAL, TEXT_RETRIEVAL, ZERO_SHOT

EXPERIMENTS = {"image": RETRIEVAL, "text": TEXT_RETRIEVAL}  # by modality
ORDER = (NATIVE, OTI, OVI, PCA, ISO)


class Method(NamedTuple):
    """What a column of numbers is made by."""

    name: str  # native, oti, ovi, pca or iso
    tokens: int = 0  # pseudo-tokens
    fuse: float | None = None  # share of the inverted similarity

    @property
    def inverted(self) -> bool:
        """Whether the inverted side stands alone."""
        return self.name in MODALITY and self.fuse is None


class Score(NamedTuple):
    """A number and the cells that it comes from."""

    value: float
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ScoreTable:
    """One experiment with one model: every data set with every method."""

    experiment: str
    model: str
    scores: Mapping[tuple[str, Method], Score] = field(default_factory=dict)  # by data set and method

    @property
    def tasks(self) -> list[str]:
        """The data sets of which anything is known."""
        return list(dict.fromkeys(task for task, _ in self.scores))

    @property
    def methods(self) -> list[Method]:
        """The methods of which anything is known: native, inverted, then projected."""
        found = dict.fromkeys(method for _, method in self.scores)
        return sorted(found, key=lambda of: (ORDER.index(of.name), of.tokens, of.fuse or 0.0))

    @property
    def common(self) -> list[str]:
        """The data sets of which every method is known: means over others would not compare."""
        return [task for task in self.tasks if all((task, method) in self.scores for method in self.methods)]

    def score(self, task: str, method: Method) -> Score | None:
        """One number."""
        return self.scores.get((task, method))

    def mean(self, method: Method, tasks: Sequence[str] | None = None) -> Score | None:
        """The mean over ``tasks`` (default: those that all methods have); None unless all are known."""
        found = [self.score(task, method) for task in (self.common if tasks is None else tasks)]
        known = [score for score in found if score is not None]
        return _mean(known) if known and len(known) == len(found) else None

    def gain(self, method: Method, task: str | None = None) -> float | None:
        """The number of ``method`` minus the native one: of a data set, or of the means."""
        native, other = (self.mean(of) if task is None else self.score(task, of) for of in (Method(NATIVE), method))
        return None if native is None or other is None else other.value - native.value

    def label(self, method: Method) -> str:
        """``oti``, ``oti R=4`` where there are several numbers of pseudo-tokens, ``oti fused 0.5``."""
        counts = {of.tokens for of in self.methods if of.name == method.name}
        several = f" R={method.tokens}" if len(counts) > 1 else ""
        return f"{method.name}{several}" + ("" if method.fuse is None else f" fused {method.fuse:g}")


def score_tables(collected: Collected, plan: Plan) -> list[ScoreTable]:
    """Of every model: images by images, texts by texts, zero-shot; those without a number are left out."""
    tables = [table for model in plan.models for table in (*_retrieval(collected, model), _zero_shot(collected, plan, model))]
    return [table for table in tables if table.scores]


def main_score(scores: Mapping[str, float]) -> float | None:
    """mAP, or that of the easy protocol."""
    return scores.get("mAP", scores.get("mAP_easy"))


def method_of(row: RetrievalRow) -> Method:
    """What a row of retrieval was made by."""
    if (of := row["inversion"]) is not None:
        return Method(of["kind"], of["num_pseudo_tokens"], row["fuse"])
    return Method(row["project"] or NATIVE)


def _retrieval(collected: Collected, model: str) -> Iterable[ScoreTable]:
    for modality, experiment in EXPERIMENTS.items():
        found: dict[tuple[str, Method], list[Score]] = {}
        for row in collected.retrievals:
            value = main_score(row["scores"])
            if (row["model"], row["gallery"]) == (model, modality) and value is not None:
                found.setdefault((row["task"], method_of(row)), []).append(Score(value, (row["cell"],)))
        yield ScoreTable(experiment, model, {key: _mean(scores) for key, scores in found.items()})


def _zero_shot(collected: Collected, plan: Plan, model: str) -> ScoreTable:
    """Accuracies as percentages, of the data sets that the plan classifies with inverted features."""
    tasks = plan.inversion.zero_shot_tasks if plan.inversion else ()
    found: dict[tuple[str, Method], list[Score]] = {}
    for native in collected.zero_shot:
        if native["model"] == model and native["task"] in tasks:
            found[native["task"], Method(NATIVE)] = [Score(100 * native["top1"], (native["cell"],))]
    for row in collected.inverted_zero_shot:
        if row["model"] == model:
            method = Method(row["inversion"]["kind"], row["inversion"]["num_pseudo_tokens"])
            found.setdefault((row["task"], method), []).append(Score(100 * row["top1"], (row["cell"],)))
    return ScoreTable(ZERO_SHOT, model, {key: _mean(scores) for key, scores in found.items()})


def _mean(scores: Sequence[Score]) -> Score:
    return Score(float(np.mean([score.value for score in scores])), tuple(dict.fromkeys(cell for score in scores for cell in score.cells)))


@dataclass(frozen=True)
class Curve:
    """mAP and loss of one inversion after each recorded step."""

    model: str
    task: str
    method: Method
    seed: int
    steps: tuple[int, ...]
    scores: tuple[float, ...]
    losses: tuple[float | None, ...]
    curve: tuple[float, ...]  # the loss before every step
    native: float | None  # mAP without inversion
    cells: tuple[str, ...]

    @property
    def peak(self) -> int:
        """The place of the best step, the first on a tie."""
        return int(np.argmax(self.scores))


def curves(collected: Collected, plan: Plan) -> list[Curve]:
    """Of every inversion whose retrieval was scored after several steps."""
    tables = {(table.experiment, table.model): table for table in score_tables(collected, plan)}
    return [_curve(row, collected, tables) for row in collected.retrievals if row["inversion"] and len(row["at_steps"]) > 1]


def _curve(row: RetrievalRow, collected: Collected, tables: Mapping[tuple[str, str], ScoreTable]) -> Curve:
    same = (row["model"], row["task"], row["inversion"])
    learnt = next((of for of in collected.inversions if (of["model"], of["task"], of["inversion"]) == same and of["side"] == "query"), None)
    losses = dict(zip(learnt["steps"], learnt["losses"], strict=True)) if learnt else {}
    known = [(int(of["step"]), main_score(of["scores"])) for of in row["at_steps"]]
    points = [(step, score) for step, score in known if score is not None]
    native = tables[EXPERIMENTS[row["gallery"]], row["model"]].score(row["task"], Method(NATIVE))
    return Curve(
        *(row["model"], row["task"], method_of(row), (row["inversion"] or {})["seed"]),
        steps=tuple(step for step, _ in points),
        scores=tuple(score for _, score in points),
        losses=tuple(losses.get(step) for step, _ in points),
        curve=tuple(learnt["curve"]) if learnt else (),
        native=native.value if native else None,
        cells=(row["cell"], *([learnt["cell"]] if learnt else []), *(native.cells if native else ())),
    )


def inversion_headline(tables: Sequence[ScoreTable]) -> list[str]:
    """The means of every experiment and model, and what each method gains over the native features."""
    return [_headline(table) for table in tables if table.common]


def _headline(table: ScoreTable) -> str:
    parts = []
    for method in table.methods:
        mean, gain = table.mean(method), table.gain(method)
        if mean is not None:
            parts.append(f"{table.label(method)} {mean.value:.1f}" + ("" if gain is None or method.name == NATIVE else f" ({gain:+.1f})"))
    number = len(table.common)
    over = table.common[0] if number == 1 else f"mean of {number} data sets"
    return f"{table.model}, {table.experiment}, {over}: {', '.join(parts)} (% {measure_of(table)})"


def measure_of(table: ScoreTable) -> str:
    """What the numbers of a table are."""
    return "top-1 accuracy" if table.experiment == ZERO_SHOT else "mAP"
