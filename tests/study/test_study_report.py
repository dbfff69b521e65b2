"""The report of a made-up study: whole, escaped, self-contained, and every number traceable to a cell's JSON."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from statistics import fmean
from urllib.parse import unquote

import pytest
from scipy.stats import kendalltau

from study.analysis import analyse
from study.collect import collect
from study.report.document import Column, Document, Line, Section, Table, Text, Traced, write_csv
from study.report.html import to_html
from study.report.markdown import escaped, to_markdown
from study.study_figures import draw_all
from study.study_report import write_report
from tests.study.small_study import accuracy_of, iimm_of, small_plan, write_cell, write_small_study

TASKS = ("Cars", "DTD", "MNIST", "SVHN")
VOID = {"meta", "img", "br", "hr", "link"}
NASTY = 'a|b <script>alert("x")</script> & *c* `d` [e](f) $g$'


class Reader(HTMLParser):
    """Refuses tags that are not closed in order; keeps links, pictures and tables."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.links, self.pictures, self.tables, self.ids, self.tags = [], [], [], [], set(), set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        self.ids.add(attributes.get("id"))
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "img":
            self.pictures.append(attributes["src"])
        if tag == "tr":
            self.tables.append([])
        if tag in ("td", "th"):
            self.tables[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and ("td" in self.open or "th" in self.open):
            self.tables[-1][-1] += data


def written(out, plan, draw=False):
    collected = collect(plan, out)
    analysis = analyse(collected, plan)
    figures = draw_all(analysis, collected, plan, out / "figures") if draw else []
    return analysis, write_report(plan, collected, analysis, figures, out)


def report(out, plan, draw=False):
    write_small_study(out, plan)
    return written(out, plan, draw)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    plan = small_plan(models=("clip",), tuned_models=("clip",), tasks=TASKS, eval_tasks=TASKS)
    analysis, (markdown, html) = report(out, plan, draw=True)
    return out, analysis, markdown.read_text(), html.read_text()


def test_html_is_balanced_and_needs_nothing_else(small):
    reader = Reader(small[3])
    assert len(reader.pictures) == 7
    assert all(picture.startswith("data:image/png;base64,") for picture in reader.pictures)
    assert not reader.tags & {"script", "link", "iframe"}
    assert "http" not in "".join(reader.links)


def test_main_numbers_come_first(small):
    for text in small[2:]:
        assert text.index("clip, full: gain") < text.index('id="plan"')


def test_every_link_leads_somewhere(small):
    out, _, markdown, html = small
    reader = Reader(html)
    links = [*reader.links, *re.findall(r"\]\(([^)]+)\)", markdown)]
    assert {link[1:] for link in links if link.startswith("#")} <= reader.ids
    files = {unquote(link) for link in links if not link.startswith("#")}
    assert [link for link in files if not (out / link).is_file()] == []
    assert len([link for link in files if link.startswith("cells/")]) > 50


def test_every_row_of_every_table_names_its_cells(small):
    tables = {path.stem: list(csv.DictReader(path.open())) for path in (small[0] / "tables").glob("*.csv")}
    traced = {"gains", "fits_gain", "fits_mean_change_elsewhere", "fits_components", "tau", "tau_forgetting", "forgetting", "scores"}
    assert traced | {"zero_shot", "costs", "training_costs", "trainings", "published", "provenance", "seconds"} == set(tables)
    for name in traced | {"zero_shot", "costs", "training_costs", "trainings"}:
        for row in tables[name]:
            assert row["cells"], (name, row)
            assert all((small[0] / cell).is_file() for cell in row["cells"].split())


def test_a_gain_can_be_computed_from_its_cells(small):
    for row in csv.DictReader((small[0] / "tables" / "gains.csv").open()):
        kinds = [json.loads((small[0] / cell).read_text()) for cell in row["cells"].split()]
        before = next(of["results"]["top1"] for of in kinds if of["kind"] == "zero_shot")
        after = [of["results"]["top1"] for of in kinds if of["kind"] == "test"]
        assert {of["key"].get("eval_task", row["task"]) for of in kinds} == {row["task"]}
        assert float(row["gain"]) == pytest.approx((sum(after) / len(after) - before) / (1 - before))


def test_fits_and_taus_name_the_cells_of_all_their_points(small):
    for name in ("fits_gain", "tau"):
        row = next(of for of in csv.DictReader((small[0] / "tables" / f"{name}.csv").open()) if of["measure"] == "iimm")
        kinds = [json.loads((small[0] / cell).read_text())["kind"] for cell in row["cells"].split()]
        assert {kind: kinds.count(kind) for kind in set(kinds)} == {"measure": 4, "zero_shot": 4, "test": 8}


def test_published_numbers_stand_beside(small):
    rows = list(csv.DictReader((small[0] / "tables" / "published.csv").open()))
    iimm = next(row for row in rows if row["quantity"] == "tau" and row["measure"] == "iimm")
    ours = small[1].taus("clip", "full")[0].agreement.tau
    assert (float(iimm["published"]), float(iimm["ours"])) == (0.78, pytest.approx(ours))
    assert iimm["cells"]


def test_numbers_are_right_aligned(small):
    assert '<td class="number">' in small[3]
    assert "td.number { text-align: right" in small[3]
    assert "---:" in small[2]


def test_names_are_escaped(tmp_path):
    plan = small_plan(title=NASTY, about=NASTY, tunings=(), tasks=TASKS, eval_tasks=TASKS, path=tmp_path / "plan.toml")
    plan.path.write_text(f"title = '{NASTY}'\n```\n</pre><b>")
    _, (markdown, html) = report(tmp_path / "out", plan)
    reader = Reader(html.read_text())
    assert "script" not in reader.tags
    assert "b" not in reader.tags
    assert "&lt;script&gt;" in html.read_text()
    assert "<script" not in markdown.read_text().replace("\\<script", "").split("````")[0]
    assert "````\ntitle" in markdown.read_text()


def test_measures_without_training(tmp_path):
    _, (markdown, html) = report(tmp_path, small_plan(tunings=(), tasks=TASKS, eval_tasks=TASKS, published=None))
    Reader(html.read_text())
    assert not (tmp_path / "tables" / "gains.csv").exists()
    assert "Beside the published" not in markdown.read_text()


def test_failed_and_missing_cells_are_listed(tmp_path):
    plan = small_plan(models=("clip",), tuned_models=("clip",), tasks=TASKS, eval_tasks=TASKS)
    write_small_study(tmp_path, plan, skip=lambda cell: cell.kind == "test" and cell.key["task"] == "SVHN")
    from study.expansion import expand

    cell = next(cell for unit in expand(plan) for cell in unit.cells if cell.kind == "embed")
    write_cell(cell, tmp_path, {}, state="failed", error="Traceback ...\nValueError: it <broke> | here")
    _, (markdown, html) = written(tmp_path, plan)
    section = html.read_text().split('<section id="unfinished">')[1].split("</section>")[0]
    assert "ValueError: it &lt;broke&gt; | here" in section
    assert cell.path(tmp_path).name in section
    assert "16 not done yet" in section
    assert "it \\<broke\\> \\| here" in markdown.read_text()


def test_a_study_of_which_nothing_is_done(tmp_path):
    plan = small_plan()
    collected = collect(plan, tmp_path)
    _, html = write_report(plan, collected, analyse(collected, plan), [], tmp_path)
    Reader(html.read_text())


def test_the_same_cells_give_the_same_report(tmp_path):
    plan = small_plan(tunings=(), tasks=TASKS[:2], eval_tasks=TASKS[:2])
    _, paths = report(tmp_path, plan, draw=True)
    before = [path.read_bytes() for path in paths]
    assert before == [path.read_bytes() for path in written(tmp_path, plan, draw=True)[1]]


def test_blocks(tmp_path):
    columns = (Column("name"), Column("number", ".2f"), Column("nothing", "d"))
    table = Table(columns, [Line(("x_y", Traced(0.123, ("cells/a b.json",)), None), ("cells/c.json",))], "t", "caption")
    document = Document("T", "", [Section("s", "S", [table, Text("a_b _c_")])])
    markdown, html = to_markdown(document, tmp_path), to_html(document)
    assert "| x_y | [0.12](cells/a%20b.json) | – | [1](cells/c.json) |" in markdown
    assert ["x_y", "0.12", "–", "1"] in Reader(html).tables
    assert write_csv(table, tmp_path).read_text() == "name,number,nothing,cells\nx_y,0.123,,cells/c.json\n"
    assert [column.name for column in table.without_empty_columns().columns] == ["name", "number"]
    assert replace(table, rows=[]).traced is False


@pytest.mark.parametrize(
    ("text", "expected"), [("wrong_label", "wrong_label"), ("_a_", r"\_a\_"), ("a|b\nc", r"a\|b c"), ("<b>", r"\<b\>")]
)
def test_markdown_escapes(text, expected):
    assert escaped(text) == expected


def test_which_model_to_take_for_each_task(tmp_path):
    """Tau over four models, between a measure and the accuracy after training, against SciPy."""
    models, tasks = ("clip", "siglip", "coca", "eva02"), ("Cars", "DTD")
    plan = small_plan(models=models, tuned_models=models, tasks=tasks, eval_tasks=tasks)
    report(tmp_path, plan)
    with (tmp_path / "tables" / "tau_models.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["measure"] == "iimm" and row["outcome"] == "accuracy after"]
    assert sorted((row["task"], row["tuning"]) for row in rows) == [(task, tuning) for task in tasks for tuning in ("full", "lora")]
    for row in rows:
        after = [fmean(accuracy_of(model, row["tuning"], row["task"], seed, row["task"]) for seed in plan.seeds) for model in models]
        expected = kendalltau([iimm_of(model, row["task"]) for model in models], after)
        assert (float(row["tau"]), float(row["p"])) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
        assert all((tmp_path / cell).is_file() for cell in row["cells"].split())
        assert {cell.split("/")[-1].split("_")[0] for cell in row["cells"].split()} == set(models)
