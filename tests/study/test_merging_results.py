"""From cells of merging to tables, averages, curves, notes, published numbers, figures and a report; of made-up numbers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merging.published import facts
from merging.table import METHODS
from study.analysis import analyse
from study.collect import collect
from study.collected import Collected
from study.expansion import expand
from study.merging_comparison import ComparedRow, compare_merging
from study.merging_notes import merging_notes
from study.merging_results import (
    DATA_FREE,
    PER_TASK,
    TRANSDUCTIVE,
    WITH_IMAGES,
    Encoder,
    MergingTable,
    curves,
    merging_headline,
    merging_tables,
)
from study.plan import Plan
from study.plan_file import read_plan
from study.plots.merging import Grid, draw_averages, draw_curves, draw_grid, draw_merging
from study.published_merging import ALL_TASKS, ARCHITECTURES, SEEN, UNSEEN, printed
from study.report.merging import mean_change
from study.study_report import write_report
from tests.helpers import ROOT
from tests.study.small_merging import ADAPTED, BASE, LOST, OWN, accuracy, small_plan, write_small_merging

TWO = 'tasks = ["mnist", "dtd"]\neval_tasks = ["svhn"]\ncorruptions = ["contrast-3"]'
PUBLISHED = 'published = "fusion_bench"'
EXP1 = 'tasks = ["sun397", "stanford-cars", "resisc45", "dtd", "svhn", "gtsrb"]\neval_tasks = ["mnist", "eurosat"]'
FOUR = 'tasks = ["stanford-cars", "eurosat", "resisc45", "gtsrb"]'


def made(folder: Path, merging: str = TWO, skip: Any = lambda cell: False, **more: Any) -> tuple[Plan, Collected, MergingTable]:
    plan = small_plan(folder, merging, **more)
    write_small_merging(folder / "out", plan, skip)
    collected = collect(plan, folder / "out")
    return plan, collected, merging_tables(collected, plan)[0]


def named(table: MergingTable, label: str) -> Encoder:
    return next(encoder for encoder in (*table.encoders, *table.fine_tunes) if encoder.label == label)


def test_every_encoder_on_every_task(tmp_path: Path) -> None:
    _, collected, table = made(tmp_path)
    assert collected.complete
    merges = ["simple_average", *(f"task_arithmetic scaling {scaling}" for scaling in (0.1, 0.3, 0.5))]
    merges += ["emr_own", "fisher", "layer_wise_adamerging"]
    assert [encoder.label for encoder in table.encoders] == ["base, zero-shot", "fine-tuned, each on its task", *merges]
    assert [encoder.label for encoder in table.fine_tunes] == ["mnist", "dtd"]
    best = named(table, "task_arithmetic scaling 0.3")
    assert table.score(best, "mnist").value == pytest.approx(100 * accuracy("MNIST@hub", 0.2))  # type: ignore[union-attr]
    assert table.score(named(table, "mnist"), "dtd").value < table.score(named(table, "dtd"), "dtd").value  # type: ignore[union-attr]
    own = named(table, "fine-tuned, each on its task")
    assert table.score(own, "mnist").value == pytest.approx(100 * accuracy("MNIST@hub", OWN))  # type: ignore[union-attr]
    assert table.score(own, "svhn") is None


def test_averages_are_over_the_merged_or_the_unseen_tasks(tmp_path: Path) -> None:
    _, _, table = made(tmp_path)
    fisher = named(table, "fisher")
    expected = [100 * accuracy(name, 0.25) for name in ("MNIST@hub", "DTD@hub")]
    assert table.average(fisher).value == pytest.approx(np.mean(expected))  # type: ignore[union-attr]
    assert len(table.average(fisher).cells) == 2  # type: ignore[union-attr]
    assert table.average(fisher, ["svhn"]).value == pytest.approx(100 * accuracy("SVHN@hub", 0.25))  # type: ignore[union-attr]
    assert table.average(named(table, "emr_own"), ["svhn"]) is None
    own = [100 * accuracy(name, OWN) for name in ("MNIST@hub", "DTD@hub")]
    assert table.normalised(fisher) == pytest.approx(np.mean([100 * ours / its for ours, its in zip(expected, own, strict=True)]))


def test_an_average_over_fewer_tasks_is_none(tmp_path: Path) -> None:
    def skip(cell: Any) -> bool:
        return cell.kind == "merged_test" and cell.key["merge"]["label"] == "fisher" and cell.key["eval_task"] == "DTD@hub"

    plan, collected, table = made(tmp_path, skip=skip)
    assert table.average(named(table, "fisher")) is None
    assert table.normalised(named(table, "fisher")) is None
    assert "clip, fisher: no average is given, for nothing is known yet of dtd." in merging_notes(collected, plan, [table])


def test_seeds_are_averaged(tmp_path: Path) -> None:
    _, _, table = made(tmp_path, top="seeds = [0, 1]")
    score = table.score(named(table, "fisher"), "mnist")
    assert score is not None
    assert score.value == pytest.approx(100 * accuracy("MNIST@hub", 0.26))
    assert len(score.cells) == 2
    assert len(table.merges) == 7


def test_what_adapts_is_looked_up_by_what_it_adapted_to(tmp_path: Path) -> None:
    _, _, table = made(tmp_path)
    values = {}
    for label in ("fisher", "layer_wise_adamerging"):
        score = table.average(named(table, label), corruption="contrast-3")
        clean = table.average(named(table, label))
        assert score is not None
        assert clean is not None
        values[label] = score.value - clean.value
    assert values["fisher"] == pytest.approx(-100 * LOST)
    assert values["layer_wise_adamerging"] == pytest.approx(-100 * (LOST - ADAPTED))


def test_merges_by_what_they_need(tmp_path: Path) -> None:
    plan, collected, table = made(tmp_path)
    found = {need: [encoder.label for encoder in encoders] for need, encoders in table.by_need().items()}
    assert found[DATA_FREE] == ["simple_average", *(f"task_arithmetic scaling {scaling}" for scaling in (0.1, 0.3, 0.5))]
    assert (found[WITH_IMAGES], found[TRANSDUCTIVE], found[PER_TASK]) == (["fisher"], ["layer_wise_adamerging"], ["emr_own"])
    assert table.name(named(table, "layer_wise_adamerging")) == "layer_wise_adamerging *"
    assert table.name(named(table, "emr_own")) == "emr_own †"
    notes = " ".join(merging_notes(collected, plan, [table]))
    assert all(word in notes for word in ("marked *", "marked †", "best scaling", "one seed"))
    (line,) = merging_headline([table])
    assert line.startswith(f"clip, 2 tasks merged, top-1 accuracy in %: base, zero-shot {100 * BASE + 3:.1f};")
    assert "(task_arithmetic scaling 0.3)" in line


def test_a_curve_for_every_method_with_several_scalings(tmp_path: Path) -> None:
    _, _, table = made(tmp_path)
    (curve,) = curves(table)
    assert (curve.label, curve.scalings) == ("task_arithmetic", (0.1, 0.3, 0.5))
    best = curve.best(table)
    assert best is not None
    assert best[0] == 0.3
    several = "[merging.methods.ties]\nscaling = [0.5, 0.3]\ndensity = [0.1, 0.2]"
    _, _, table = made(tmp_path / "ties", skip=lambda cell: cell.kind != "zero_shot", methods=several)
    assert curves(table) == []


def test_curves_keep_other_options_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.study.small_merging.GAINS", {"ties": 0.1})
    _, _, table = made(tmp_path, methods="[merging.methods.ties]\nscaling = [0.5, 0.3]\ndensity = [0.1, 0.2]")
    assert [(curve.label, curve.scalings) for curve in curves(table)] == [(f"ties density {part}", (0.3, 0.5)) for part in (0.1, 0.2)]


def test_pixelate_is_warned_of(tmp_path: Path) -> None:
    plan, collected, table = made(tmp_path, f'{FOUR}\ncorruptions = ["hub-pixelate"]')
    assert any(note.startswith("Pixelate") for note in merging_notes(collected, plan, [table]))


def rows_of(table: MergingTable) -> dict[tuple[str, str, str], ComparedRow]:
    return {(row.published.experiment, row.published.row, row.images): row for row in compare_merging(table)}


def test_the_eight_tasks_beside_the_published_numbers(tmp_path: Path) -> None:
    _, _, table = made(tmp_path, 'tasks = ["TA8"]')
    rows = rows_of(table)
    row = rows["eight tasks", "Task Arithmetic", ""]
    assert row.encoder == named(table, "task_arithmetic scaling 0.3")
    assert row.published.accuracies["sun397"] == 57.1
    assert row.difference("sun397") == pytest.approx(100 * accuracy("SUN397@hub", 0.2) - 57.1)
    assert row.difference(ALL_TASKS) == pytest.approx(table.average(row.encoder).value - 68.0)  # type: ignore[union-attr, arg-type]
    assert rows["eight tasks", "Pre-trained", ""].encoder == named(table, "base, zero-shot")
    assert rows["eight tasks", "Fine-tuned (STL)", ""].encoder == named(table, "fine-tuned, each on its task")
    assert rows["single models", "Cars", ""].encoder == named(table, "stanford-cars")
    assert rows["eight tasks", "RegMean", ""].note == "The study has no such encoder."
    assert rows["eight tasks", "RegMean", ""].difference(ALL_TASKS) is None
    assert ("eight tasks", "Traditional MTL", "") not in rows


def test_other_options_than_the_published_are_told(tmp_path: Path) -> None:
    methods = "[merging.methods.task_arithmetic]\nscaling = 0.5\n[merging.methods.layer_wise_adamerging]\nadapt_steps = 50"
    _, _, table = made(tmp_path, 'tasks = ["TA8"]', methods=methods)
    rows = rows_of(table)
    assert rows["eight tasks", "Task Arithmetic", ""].encoder is None
    assert rows["eight tasks", "Layer-wise AdaMerging", ""].note == "Ours with adapt_steps 50."


def test_released_values_are_not_told_as_others(tmp_path: Path) -> None:
    methods = "[merging.methods.layer_wise_adamerging]\nadapt_lr = 1e-3\nadapt_steps = 1000"
    _, _, table = made(tmp_path, 'tasks = ["TA8"]', methods=methods)
    assert rows_of(table)["eight tasks", "Layer-wise AdaMerging", ""].note == ""
    rates = {
        of.experiment: of.released["adapt_lr"] for of in printed("clip", facts()["generalization"]["exp1"]["seen"]) if of.name == "wemoe"
    }
    assert rates == {"generalization exp1": 2e-3}


def test_generalization_has_averages_of_seen_and_unseen_tasks(tmp_path: Path) -> None:
    _, _, table = made(tmp_path, EXP1)
    row = rows_of(table)["generalization exp1", "Task Arithmetic", ""]
    assert row.averages == [SEEN, UNSEEN]
    assert (row.published.accuracies[SEEN], row.published.accuracies[UNSEEN]) == (69.9, 59.1)  # as they were printed
    unseen = table.average(row.encoder, ["mnist", "eurosat"])  # type: ignore[arg-type]
    assert unseen is not None
    assert row.ours[UNSEEN].value == unseen.value


@pytest.mark.parametrize("which", ["hub-contrast", "contrast-3"])
def test_robustness_by_corruption(tmp_path: Path, which: str) -> None:
    _, _, table = made(tmp_path, f'{FOUR}\ncorruptions = ["{which}"]')
    rows = rows_of(table)
    assert rows["robustness", "Task Arithmetic", ""].published.accuracies[ALL_TASKS] == 77.9
    row = rows["robustness", "Layer-wise AdaMerging", which]
    assert row.published.accuracies["gtsrb"] == 96.2
    assert row.ours["gtsrb"].value == pytest.approx(100 * accuracy("GTSRB@hub-contrast", 0.3, adapted=True))
    assert ("severity" in row.note) == (which == "contrast-3")
    assert rows["robustness", "Task Arithmetic", "spatter"].note == "The study has no such images."


def test_printed_averages_are_those_of_their_tasks() -> None:
    """But for rounding: transcription is checked by it."""
    for of in facts()["robustness"]["rows"].values():
        for name, (*values, average) in of.items():
            assert np.mean(values) == pytest.approx(average, abs=0.11), name
    for of in facts()["generalization"].values():
        columns = dict(zip(facts()["tasks"], zip(*(values[:-1] for values in of["rows"].values()), strict=True), strict=True))
        for place, group in enumerate(("seen", "unseen")):
            means = np.mean([columns[task] for task in of[group]], axis=0)
            printed_means = [averages[place] for averages in of["averages"].values()]
            assert means[1:] == pytest.approx(printed_means[1:], abs=0.11)
            assert means[0] == pytest.approx(42.05 if printed_means[0] == 40.1 else printed_means[0], abs=0.11)  # 40.1: misprinted


def test_what_was_printed_of_other_models() -> None:
    assert {of.row: of.accuracies for of in printed("ViT-L-14-quickgelu/openai", TALL20)} == {"RegMean++": {ALL_TASKS: 82.4}}
    assert list(printed("tiny", ["Digits"])) == []
    rows = list(printed("ViT-B-16-quickgelu/openai", facts()["tasks"], "lora"))
    assert [of.name for of in rows if of.kind == "fine-tune"] == facts()["tasks"]
    assert next(of.accuracies["sun397"] for of in rows if of.name == "sun397") == 70.8
    assert {of.settings["scaling"] for of in printed("clip", facts()["tasks"]) if of.row == "MagMax"} == {0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0}
    assert set(ARCHITECTURES.values()) == set(facts()["merging"])


def test_all_figures(tmp_path: Path) -> None:
    plan, collected, _ = made(tmp_path, 'tasks = ["TA8"]\ncorruptions = ["contrast-3"]', top=PUBLISHED)
    drawn = draw_merging(collected, plan, tmp_path / "figures")
    assert [of.name for of in drawn] == [f"{kind}_clip" for kind in ("merges", "fine-tunes", "robustness", "scaling")]
    assert "published" in drawn[0].caption
    assert all(of.png.is_file() and of.pdf.is_file() for of in drawn)


def test_the_legend_of_the_curves_stands_above_all_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, table = made(tmp_path)
    kept: list[Any] = []
    monkeypatch.setattr("study.plots.merging.save", lambda figure, *rest: kept.append(figure))
    draw_curves(table, curves(table), tmp_path)
    kept[0].draw_without_rendering()
    axes = kept[0].axes[0]
    bottom = axes.transData.inverted().transform(axes.get_legend().get_window_extent().min)[1]
    assert bottom > max(max(line.get_ydata()) for line in axes.lines)
    assert max(axes.get_yticks()) <= 100


def test_bars_are_the_averages_best_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, table = made(tmp_path)
    kept: list[Any] = []
    monkeypatch.setattr("study.plots.merging.save", lambda figure, *rest: kept.append(figure))
    list(draw_averages(table, [], tmp_path))
    axes = kept[0].axes[0]
    widths = [patch.get_width() for patch in axes.patches]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == pytest.approx(table.average(named(table, "emr_own")).value)  # type: ignore[union-attr]
    assert axes.get_yticklabels()[0].get_text() == f"emr_own †   {widths[0]:.1f}"


def test_a_tall_grid_goes_on_and_unknown_numbers_are_dashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(draw_grid(Grid(["a"], ["b"], np.full((1, 1), np.nan)), tmp_path, "x", "c", "", "")) == []
    values = np.full((60, 2), 99.5)
    values[0, 1] = np.nan
    kept: list[Any] = []
    monkeypatch.setattr("study.plots.merging.save", lambda figure, folder, name, caption: kept.append((name, figure)))
    list(draw_grid(Grid([f"r{row}" for row in range(60)], ["a", "b"], values), tmp_path, "x", "c", "", ""))
    assert [name for name, _ in kept] == ["x", "x_2"]
    assert [text.get_text() for text in kept[0][1].axes[0].texts[:2]] == ["99.5", "–"]


def test_mean_change_needs_every_number() -> None:
    from study.inversion_results import Score

    scores = [Score(80.0, ()), Score(60.0, ()), Score(50.0, ())]
    assert mean_change(scores) == pytest.approx(-25)
    assert mean_change([*scores, None]) is None
    assert mean_change(scores[:1]) is None


def test_a_report_with_every_section_and_its_tables(tmp_path: Path) -> None:
    plan, collected, _ = made(tmp_path, f'{FOUR}\ncorruptions = ["hub-contrast"]', top=PUBLISHED)
    out = tmp_path / "out"
    markdown, html = write_report(plan, collected, analyse(collected, plan), [], out)
    for anchor in ("merging", "scaling", "robustness", "fine-tunes", "merges", "published-merging"):
        assert f'<section id="{anchor}">' in html.read_text()
    assert "OpenCLIP's" in markdown.read_text()
    rows = list(csv.DictReader((out / "tables" / "merging.csv").open()))
    assert len(rows) == len(collected.merged_tests) + len(collected.single_tests) + len(collected.zero_shot)
    assert {row["what"] for row in rows} == {"base", "fine-tune", "merge"}
    assert {(row["label"], row["corruption"]) for row in rows if row["adapt"]} == {("layer_wise_adamerging", "hub-contrast")}
    assert {row["transductive"] for row in rows if row["method"] == "layer_wise_adamerging"} == {"1"}
    for row in rows:
        assert int(row["n_correct"]) == round(float(row["top1"]) * int(row["n_images"]))
        assert (out / row["cells"]).is_file()
    listed = list(csv.DictReader((out / "tables" / "published_merging.csv").open()))
    ours = next(row for row in listed if (row["row"], row["images"], row["task"]) == ("Task Arithmetic", "hub-contrast", "gtsrb"))
    assert (float(ours["published"]), ours["encoder"]) == (70.8, "task_arithmetic scaling 0.3")
    assert float(ours["difference"]) == pytest.approx(float(ours["ours"]) - 70.8)


def test_an_unfinished_study_has_a_report(tmp_path: Path) -> None:
    for number, kinds in enumerate([(), ("zero_shot",), ("merge",), ("merged_test",), ("single_test",)]):
        plan = small_plan(tmp_path / str(number), TWO, top=PUBLISHED)
        out = tmp_path / str(number) / "out"
        write_small_merging(out, plan, lambda cell, kinds=kinds: cell.kind not in kinds)  # type: ignore[misc]
        collected = collect(plan, out)
        figures = draw_merging(collected, plan, out / "figures")
        markdown, _ = write_report(plan, collected, analyse(collected, plan), figures, out)
        assert "cells are not done yet" in markdown.read_text()


TALL20 = [
    *("sun397", "stanford-cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd", "oxford_flowers102", "pcam", "fer2013"),
    *("oxford-iiit-pet", "stl10", "cifar100", "cifar10", "food101", "fashion_mnist", "emnist_letters", "kmnist", "rendered-sst2"),
]


@pytest.mark.parametrize("path", sorted((ROOT / "plans").glob("merging_*.toml")), ids=lambda path: path.stem)
def test_the_plans_of_merging_can_be_read_and_expanded(path: Path) -> None:
    plan = read_plan(path)
    assert plan.merging is not None
    names = [cell.name for unit in expand(plan) for cell in unit.cells]
    assert len(names) == len(set(names))
    lines = path.read_text().splitlines()
    assert max(map(len, lines)) <= 140


def test_the_tiny_plan_has_every_method() -> None:
    plan = read_plan(ROOT / "plans" / "merging_tiny.toml")
    assert plan.merging is not None
    assert {of.method for of in plan.merging.methods} == set(METHODS) - {"slerp"}  # which joins two models
