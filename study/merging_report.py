"""The sections of a report with a study's merging."""

from __future__ import annotations

from collections.abc import Sequence

from common.figures import Drawn
from merging.published import facts
from study.collected import Collected
from study.merging_comparison import ComparedRow, compare_merging
from study.merging_results import MergingTable, curves, merging_tables
from study.plan import Plan
from study.published_merging import PUBLISHED_MERGING
from study.report import merging
from study.report.document import Block, Bullets, Section, Table, Text

TITLE = "Merging beside the published numbers"
MERGES = Text(
    "One encoder for all tasks, made from the fine-tunes: between the base, which knows none of them, and the fine-tunes, each of which "
    "stands here for its own task alone."
)
SINGLE = Text("What is merged: every fine-tune on its own task (the diagonal) and on the others, where it mostly forgets.")


def merging_sections(plan: Plan, collected: Collected, figures: Sequence[Drawn]) -> list[Section]:
    """Merges, scalings, robustness, single encoders, cost, published numbers; those that there is nothing of are left out."""
    tables = merging_tables(collected, plan)
    scaled = {table.model: curves(table) for table in tables}
    found: list[Section] = []
    if tables:
        blocks: list[Block] = [MERGES]
        for table in tables:
            blocks += [merging.methods_table(table), *_of(figures, "merges", table)]
        found.append(Section("merging", "Merged encoders", blocks))
    if any(scaled.values()):
        drawn = [of for table in tables for of in _of(figures, "scaling", table)]
        found.append(Section("scaling", "By scaling", [*drawn, merging.scalings_table(tables, scaled)]))
    if tables and tables[0].plan.corruptions:
        found.append(Section("robustness", "On corrupted images", [block for table in tables for block in _robustness(table, figures)]))
    if any(table.fine_tunes for table in tables):
        blocks = [SINGLE]
        for table in tables:
            blocks += [merging.fine_tunes_table(table), *_of(figures, "fine-tunes", table)]
        found.append(Section("fine-tunes", "The encoders that are merged", blocks))
    if any(table.rows for table in tables):
        found.append(Section("merges", "How the merges were made", [merging.merges_table(tables)]))
    return [*found, *_published(plan, tables)]


def merging_lists(plan: Plan, collected: Collected) -> list[Table]:
    """What the CSV tables have beyond the report."""
    tables = merging_tables(collected, plan)
    return [merging.merging_list(collected, tables), merging.published_list(_compared(plan, tables))]


def _robustness(table: MergingTable, figures: Sequence[Drawn]) -> list[Block]:
    return [merging.robustness_table(table), *_of(figures, "robustness", table), merging.robustness_by_task(table)]


def _published(plan: Plan, tables: Sequence[MergingTable]) -> list[Section]:
    if plan.published not in PUBLISHED_MERGING:
        return []
    if not (rows := _compared(plan, tables)):
        return [Section("published-merging", TITLE, [Text("Nothing was printed of these encoders and tasks.")])]
    findings: list[Block] = [Text("What must be known of the published numbers:"), Bullets(PUBLISHED_MERGING[plan.published])]
    blocks: list[Block] = [Text(f"Published: {facts()['source']}."), merging.published_table(rows), *findings]
    return [Section("published-merging", TITLE, blocks)]


def _compared(plan: Plan, tables: Sequence[MergingTable]) -> list[ComparedRow]:
    return [row for table in tables for row in compare_merging(table)] if plan.published in PUBLISHED_MERGING else []


def _of(figures: Sequence[Drawn], kind: str, table: MergingTable) -> list[Drawn]:
    """The figures of that kind of one model, and what they go on in."""
    from study.plots.merging import figure_name

    name = figure_name(kind, table.model)
    return [of for of in figures if of.name == name or of.name.removeprefix(f"{name}_").isdigit()]
