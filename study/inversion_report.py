"""The sections of a report with a study's inversion."""

from __future__ import annotations

from collections.abc import Sequence

from common.figures import Drawn
from study.collected import Collected
from study.inversion_comparison import compare_scores
from study.inversion_results import ScoreTable, curves, score_tables
from study.plan import Plan
from study.published_inversion import PUBLISHED_INVERSION, SOURCES, ZERO_SHOT
from study.report import inversion
from study.report.document import Block, Bullets, Section, Table, Text

INTRA = Text(
    "Native features, inverted queries (alone, and fused with the native ones), and projections of the native features, which take no "
    "optimisation and are what inversion has to beat."
)
INTER = Text(
    "native: an image among the texts of the classes. oti: the inverted image among these texts, so within the side of texts. "
    "ovi: the image among the inverted class names, so within the side of images."
)


def inversion_sections(plan: Plan, collected: Collected, figures: Sequence[Drawn]) -> list[Section]:
    """Retrieval, zero-shot classification, dynamics, similarities, cost, published numbers; those that there is nothing of are left out."""
    tables, moved = score_tables(collected, plan), curves(collected, plan)
    searched, classified = ([table for table in tables if (table.experiment == ZERO_SHOT) is wanted] for wanted in (False, True))
    found: list[Section] = []
    if searched:
        found.append(Section("retrieval", "Retrieval", [INTRA, *_matrices(searched), *_drawn(figures, "retrieval")]))
    if classified:
        blocks = [INTER, *_matrices(classified), *_drawn(figures, ZERO_SHOT)]
        found.append(Section("inverted-zero-shot", "Zero-shot with inverted features", blocks))
    if moved:
        found.append(Section("dynamics", "Dynamics", [*_drawn(figures, "dynamics"), inversion.peaks_table(moved)]))
    if collected.misalignments:
        blocks = [*_drawn(figures, "similarities"), inversion.overlaps_table(collected)]
        found.append(Section("similarities", "Similarities within and between modalities", blocks))
    if collected.inversions:
        found.append(Section("inversions", "Cost of inversion", [inversion.inversions_table(collected)]))
    return [*found, *_published(plan, tables)]


def inversion_lists(plan: Plan, collected: Collected) -> list[Table]:
    """What the CSV tables have beyond the report."""
    lists = (inversion.retrieval_list(collected), inversion.inverted_zero_shot_list(collected))
    return [*lists, inversion.curves_list(curves(collected, plan))]


def _matrices(tables: Sequence[ScoreTable]) -> list[Block]:
    return [inversion.score_matrix(table) for table in tables]


def _published(plan: Plan, tables: Sequence[ScoreTable]) -> list[Section]:
    if plan.published not in PUBLISHED_INVERSION:
        return []
    paper, compared = PUBLISHED_INVERSION[plan.published], compare_scores(tables, plan, plan.published)
    sources = Bullets([f"{name}: {where}." for name, where in SOURCES.items()])
    blocks: list[Block] = [inversion.published_scores_table(compared), sources, Text("Also published:"), Bullets(paper.findings)]
    return [Section("published-inversion", "Inversion beside the published numbers", blocks)]


def _drawn(figures: Sequence[Drawn], kind: str) -> list[Drawn]:
    """The figures whose names begin so."""
    return [of for of in figures if of.name.startswith(f"{kind}_")]
