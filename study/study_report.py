"""A study's report: OUT/report.md, OUT/report.html and a CSV of each table in OUT/tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.figures import Drawn
from common.files import write_text
from study.analysis import Analysis, headline
from study.collected import Collected
from study.inversion_notes import inversion_notes
from study.inversion_report import inversion_lists, inversion_sections
from study.inversion_results import inversion_headline, score_tables
from study.merging_notes import merging_notes
from study.merging_report import merging_lists, merging_sections
from study.merging_results import merging_headline, merging_tables
from study.plan import Plan
from study.prediction import CHANGE, GAIN
from study.published import PUBLISHED
from study.report import record, results
from study.report.document import Block, Bullets, Document, Section, Table, Text, write_csv
from study.report.html import to_html
from study.report.markdown import to_markdown
from study.report.sources import Sources

ABOUT_NUMBERS = (
    "Every number leads to the JSON files of the cells that it was computed from: by the links in the last column, or, in matrices, by the "
    "number itself. The CSV tables have all digits."
)
ABOUT_GAINS = "Accuracies are shares; gain is (after − zero-shot) / (1 − zero-shot)."
ABOUT_MERGING = "Accuracies of merging are percentages; an average is given only where all of its tasks are known."
ABOUT_INVERSION = "Scores of retrieval, and accuracies beside them, are percentages; of the revisited Oxford and Paris the easy protocol's."


def write_report(plan: Plan, collected: Collected, analysis: Analysis, figures: Sequence[Drawn], out: Path) -> tuple[Path, Path]:
    """Write the report in both forms and the tables; the paths of the Markdown and of the HTML file."""
    sections = [
        _main_numbers(plan, collected, analysis),
        *(inversion_sections(plan, collected, figures) if plan.inversion else []),
        *(merging_sections(plan, collected, figures) if plan.merging else []),
        *(_finetuning_sections(plan, collected, analysis, figures) if plan.tasks else []),
        Section("plan", "The plan", record.plan_blocks(plan)),
        Section("unfinished", "Failed and missing cells", record.unfinished_blocks(collected)),
        Section("provenance", "Provenance", record.provenance_blocks(collected, out)),
    ]
    document = Document(plan.title or plan.path.stem, plan.about, [_without_empty(section) for section in sections])
    extra = [
        results.forgetting_list(analysis),
        results.scores_list(collected),
        results.trainings_list(collected),
        *inversion_lists(plan, collected),
        *merging_lists(plan, collected),
    ]
    _write_tables(
        [*(block for section in document.sections for block in section.blocks if isinstance(block, Table)), *extra], out / "tables"
    )
    markdown, html = out / "report.md", out / "report.html"
    write_text(markdown, to_markdown(document, out))
    write_text(html, to_html(document))
    return markdown, html


def _finetuning_sections(plan: Plan, collected: Collected, analysis: Analysis, figures: Sequence[Drawn]) -> list[Section]:
    """Of measures and of what they are measured for."""
    sources = Sources(analysis, collected)
    return [
        Section("gains", "Gains", [results.gains_table(analysis)]),
        _lines(plan, analysis, figures, sources),
        _agreement(analysis, figures, sources),
        Section("forgetting", "Forgetting", [*_named(figures, "forgetting_matrix"), *results.forgetting_tables(analysis)]),
        *_published(plan, analysis, sources),
        _scores(analysis, collected),
        Section("cost", "Cost", [*_named(figures, "cost"), *results.cost_tables(analysis)]),
        Section("geometry", "Geometry of the embeddings", _named(figures, "geometry")),
    ]


def _main_numbers(plan: Plan, collected: Collected, analysis: Analysis) -> Section:
    tables, merged = score_tables(collected, plan), merging_tables(collected, plan)
    blocks: list[Block] = []
    if lines := [*headline(analysis), *inversion_headline(tables), *merging_headline(merged)]:
        blocks.append(Bullets(lines))
    if notes := [*analysis.notes, *inversion_notes(collected, plan, tables), *merging_notes(collected, plan, merged)]:
        blocks += [Text("What to mind when reading these numbers:"), Bullets(notes)]
    told = ((plan.tasks, ABOUT_GAINS), (plan.inversion, ABOUT_INVERSION), (plan.merging, ABOUT_MERGING))
    about = (ABOUT_NUMBERS, *(sentence for there, sentence in told if there))
    return Section("main", "Main numbers", [*blocks, Text(" ".join(about))])


def _lines(plan: Plan, analysis: Analysis, figures: Sequence[Drawn], sources: Sources) -> Section:
    blocks: list[Block] = []
    for name, outcome in ((f"gain_vs_{plan.predictor}", GAIN), (f"forgetting_vs_{plan.predictor}", CHANGE)):
        fits = [of for of in analysis.fits if of.outcome == outcome]
        blocks += [*_named(figures, name), results.fits_table(fits, f"fits_{outcome}", sources)]
    blocks += [*_named(figures, "components"), results.fits_table(analysis.components, "fits_components", sources)]
    return Section("fits", f"What {plan.predictor} predicts", blocks)


def _agreement(analysis: Analysis, figures: Sequence[Drawn], sources: Sources) -> Section:
    tables: list[Block] = [
        *(results.tau_table(analysis, outcome, sources) for outcome in (GAIN, CHANGE)),
        results.models_table(analysis, sources),
    ]
    return Section("tau", "All measures: Kendall's tau", [*_named(figures, "tau"), *tables])


def _published(plan: Plan, analysis: Analysis, sources: Sources) -> list[Section]:
    if plan.published not in PUBLISHED:
        return []
    paper = PUBLISHED[plan.published]
    table, findings = results.published_table(analysis, plan.published, sources), Bullets(paper.findings)
    blocks: list[Block] = [Text(f"Published: {paper.source}."), table, Text("The paper also says:"), findings]
    return [Section("published", "Beside the published numbers", blocks)]


def _scores(analysis: Analysis, collected: Collected) -> Section:
    tables = [*results.scores_tables(analysis, collected), results.zero_shot_table(collected)]
    return Section("scores", "Scores and zero-shot accuracy", tables)


def _named(figures: Sequence[Drawn], name: str) -> list[Drawn]:
    """The figures NAME, NAME_2, NAME_3 and so on."""
    return [of for of in figures if of.name == name or of.name.removeprefix(f"{name}_").isdigit()]


def _without_empty(section: Section) -> Section:
    """The section without tables that have no row and columns that have no value; one with nothing in it says so."""
    blocks = [block.without_empty_columns() if isinstance(block, Table) else block for block in section.blocks]
    kept = [block for block in blocks if not isinstance(block, Table) or block.rows]
    return Section(section.anchor, section.title, kept or [Text("None.")])


def _write_tables(tables: Sequence[Table], folder: Path) -> None:
    for table in tables:
        if table.name and table.rows:
            write_csv(table, folder)
