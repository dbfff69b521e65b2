"""From cells of inversion to tables, means, curves, notes, published numbers and a report; of made-up numbers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inversion.figures import draw_dynamics
from inversion.histograms import EDGES
from study.analysis import analyse
from study.collect import collect
from study.collected import Collected
from study.inversion_comparison import ComparedScore, compare_scores
from study.inversion_notes import inversion_notes
from study.inversion_results import Method, ScoreTable, curves, inversion_headline, score_tables
from study.plan import Plan
from study.plots.inversion import draw_inversion, similarities_of
from study.published_inversion import (
    EACH,
    IMAGE_SETS,
    NATIVE,
    POSTER,
    PUBLISHED_INVERSION,
    RETRIEVAL,
    SOURCES,
    TEXT_RETRIEVAL,
    ZERO_SHOT,
    backbone,
)
from study.study_figures import draw_all
from study.study_report import write_report
from tests.study.small_inversion import small_plan, write_small_inversion

OTI, OTI4, FUSED = Method("oti", 1), Method("oti", 4), Method("oti", 1, 0.5)


@pytest.fixture
def study(tmp_path: Path) -> tuple[Plan, Collected]:
    """The whole made-up study, collected."""
    plan = small_plan(tmp_path)
    write_small_inversion(tmp_path / "out", plan)
    return plan, collect(plan, tmp_path / "out")


def table(study: tuple[Plan, Collected], experiment: str = RETRIEVAL, model: str = "tiny") -> ScoreTable:
    plan, collected = study
    (found,) = [of for of in score_tables(collected, plan) if (of.experiment, of.model) == (experiment, model)]
    return found


def test_every_cell_has_its_row(study: tuple[Plan, Collected]) -> None:
    _, collected = study
    assert collected.complete
    assert {row["cell"].split("/")[1] for row in collected.rows} == {
        "zero_shot",
        "invert",
        "retrieve",
        "misalignment",
        "inverted_zero_shot",
    }
    assert len({row["cell"] for row in collected.rows}) == len(collected.rows)


def test_a_table_has_data_sets_by_methods(study: tuple[Plan, Collected]) -> None:
    of = table(study, model="clip")
    assert of.tasks == ["Digits", "Shapes-Color", "ROxford5k"]
    labels = [of.label(method) for method in of.methods]
    assert labels == ["native", "oti R=1", "oti R=1 fused 0.5", "oti R=4", "oti R=4 fused 0.5", "pca", "iso"]
    scores = {label: of.score("Digits", method) for label, method in zip(labels, of.methods, strict=True)}
    assert {label: score and score.value for label, score in scores.items()} == {
        **{"native": 30, "oti R=1": 32, "oti R=1 fused 0.5": 31, "oti R=4": 38, "oti R=4 fused 0.5": 34},
        **{"pca": 34, "iso": 35},
    }
    assert of.gain(OTI4, "Digits") == 8 and of.gain(OTI4) == 8


def test_of_the_revisited_sets_the_easy_protocol_counts(study: tuple[Plan, Collected]) -> None:
    score = table(study).score("ROxford5k", Method(NATIVE))
    assert score is not None and score.value == 50
    mean = table(study).mean(Method(NATIVE))
    assert mean is not None and mean.value == 40 and len(mean.cells) == 3


def test_a_mean_is_over_what_all_methods_have(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, ("tiny",), project=["pca"])
    write_small_inversion(
        tmp_path / "out", plan, lambda cell: cell.key["task"] == "Digits" and "inversion" in cell.key and "fuse" in cell.key
    )
    collected = collect(plan, tmp_path / "out")
    of = table((plan, collected))
    native = of.mean(Method(NATIVE))
    assert of.common == ["Shapes-Color", "ROxford5k"] and native is not None and native.value == 45
    assert of.mean(FUSED, ["Digits", "Shapes-Color"]) is None
    notes = inversion_notes(collected, plan, score_tables(collected, plan))
    assert any("the means are over 2 of 3 data sets" in note and "Digits" in note for note in notes)


def test_seeds_are_averaged(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, ("clip",), seeds=[42, 44], oti={"num_pseudo_tokens": 1})
    write_small_inversion(tmp_path / "out", plan)
    collected = collect(plan, tmp_path / "out")
    score = table((plan, collected), model="clip").score("Digits", OTI)
    assert score is not None and score.value == 33 and len(score.cells) == 2  # 32 and 34
    assert not any("one seed" in note for note in inversion_notes(collected, plan, score_tables(collected, plan)))


def test_zero_shot_accuracies_stand_beside_the_native_one(study: tuple[Plan, Collected]) -> None:
    of = table(study, ZERO_SHOT)
    assert {of.label(method): round(score.value, 6) for (_, method), score in of.scores.items()} == {
        **{"native": 80, "oti R=1": 70, "oti R=4": 70, "ovi": 60},
    }
    assert of.gain(Method("ovi", 1), "Digits") == pytest.approx(-20)


def test_a_headline_tells_the_means(study: tuple[Plan, Collected]) -> None:
    plan, collected = study
    first, *others = inversion_headline(score_tables(collected, plan))
    assert first.startswith("tiny, images by images, mean of 3 data sets: native 40.0, oti R=1 42.0 (+2.0), oti R=1 fused 0.5 41.0 (+1.0)")
    assert (
        others[0]
        == "tiny, texts by texts, Shapes-Captions: native 20.0, ovi 23.0 (+3.0), ovi fused 0.5 21.5 (+1.5), pca 24.0 (+4.0) (% mAP)"
    )
    assert others[1].startswith("tiny, zero-shot, Digits: native 80.0, oti R=1 70.0 (-10.0)")


def test_curves_have_losses_scores_and_the_native_line(study: tuple[Plan, Collected]) -> None:
    plan, collected = study
    one, four = [of for of in curves(collected, plan) if (of.model, of.task) == ("clip", "Digits")]
    assert (one.method, four.method) == (OTI, OTI4)
    assert (one.steps, one.scores, one.native) == ((10, 20, 150), (40.0, 37.0, 32.0), 30.0)
    assert four.losses == pytest.approx((1 / 40, 1 / 80, 1 / 600))
    assert (one.peak, len(one.curve), len(one.cells)) == (0, 150, 3)


def test_notes_say_what_to_mind(study: tuple[Plan, Collected]) -> None:
    plan, collected = study
    notes = inversion_notes(collected, plan, score_tables(collected, plan))
    assert "ROxford5k, easy: 2 of 70 queries have nothing to be found in the gallery and are in no mean." in notes
    assert "How many directions IsoCLIP drops of the images of tiny is not published, so it is not run there." in notes
    assert any("best step of a curve is seen on the queries" in note for note in notes)
    assert any("one seed" in note for note in notes)


def test_histograms_come_back_as_they_were(study: tuple[Plan, Collected]) -> None:
    _, collected = study
    of = similarities_of(collected.misalignments[0]).histograms["image_image_same_class"]
    (places,) = np.nonzero(of.counts)
    assert of.counts[places].tolist() == [1, 2, 3]
    assert EDGES[places[0]] == pytest.approx(0.5)


# --- published numbers ---------------------------------------------------------------------------------------------

PAPER = PUBLISHED_INVERSION["cross_the_gap"]


def test_the_published_oti_rows_reconcile_with_the_means_of_their_thirteen_sets() -> None:
    """The table's own column of means, as printed; a wrong digit would show."""
    printed = {("clip", NATIVE): 41.6, ("clip", "oti"): 42.9, ("clip", "pca"): 49.0, (backbone("ViT-L-14-quickgelu/openai"), "oti"): 57.0}
    printed |= {("siglip", NATIVE): 57.2, ("siglip", "oti"): 60.0, ("SLIP-ViT-B-16", NATIVE): 35.6, ("SLIP-ViT-B-16", "oti"): 35.7}
    printed |= {("ViT-L-14-quickgelu/openai", NATIVE): 53.7}
    found = {(of.model, of.method): sum(of.of_task.values()) / len(of.of_task) for of in PAPER.each}
    assert found.keys() == printed.keys()
    for key, mean in printed.items():
        assert found[key] == pytest.approx(mean, abs=0.15), key


def test_published_differences_of_the_poster_are_those_that_it_prints() -> None:
    means = {(of.experiment, of.method): of.of_model for of in PAPER.means if of.source == POSTER}
    gains = {"clip": 2.0, "ViT-L-14-quickgelu/openai": 3.3, "siglip": 2.8, "SLIP-ViT-L-16": 0.4}
    for model, gain in gains.items():
        assert means[RETRIEVAL, "oti"][model] - means[RETRIEVAL, NATIVE][model] == pytest.approx(gain)
    assert means[TEXT_RETRIEVAL, "ovi"]["siglip"] - means[TEXT_RETRIEVAL, NATIVE]["siglip"] == pytest.approx(3.6)
    assert means[ZERO_SHOT, "oti"]["siglip"] - means[ZERO_SHOT, NATIVE]["siglip"] == pytest.approx(-8.8)


def compared(tmp_path: Path, **changes: Any) -> list[ComparedScore]:
    plan = small_plan(tmp_path, ("clip",), {"published": "cross_the_gap"}, **changes)
    write_small_inversion(tmp_path / "out", plan)
    return compare_scores(score_tables(collect(plan, tmp_path / "out"), plan), plan, "cross_the_gap")


def test_ours_stand_beside_the_published_numbers(tmp_path: Path) -> None:
    rows = {(row.experiment, row.what, row.method): row for row in compared(tmp_path)}
    oxford = rows[RETRIEVAL, "ROxford5k", "oti"]
    assert (oxford.published, oxford.ours, oxford.note) == (43.0, 52.0, "")
    assert oxford.difference == pytest.approx(9.0) and "quoted" in oxford.source
    assert rows[RETRIEVAL, "Cars@coop", "oti"].ours is None
    assert rows[RETRIEVAL, "Cars@coop", "oti"].note == "The study has no such number."
    whole = rows[RETRIEVAL, "mean of 15", NATIVE]
    assert (whole.published, whole.ours) == (39.2, None) and whole.note.startswith("The study lacks CUB, SOP, RParis6k")


def test_a_mean_is_compared_only_over_the_papers_data_sets() -> None:
    scores = {(task, Method(NATIVE)): score for task, score in zip(IMAGE_SETS, _scores(range(15)), strict=True)}
    assert ScoreTable(RETRIEVAL, "clip", scores).mean(Method(NATIVE), IMAGE_SETS) is not None
    assert ScoreTable(RETRIEVAL, "clip", scores).mean(Method(NATIVE), (*IMAGE_SETS, "more")) is None


def _scores(values: Any) -> list[Any]:
    from study.inversion_results import Score

    return [Score(float(value), (f"cells/{value}.json",)) for value in values]


def test_another_protocol_is_not_compared(tmp_path: Path) -> None:
    rows = [row for row in compared(tmp_path, oti={"steps": 20}) if row.method == "oti"]
    assert {row.ours for row in rows} == {None}
    assert {row.note for row in rows} == {"The paper learns 1 pseudo-token in 150 steps, which this plan does not."}


def test_native_numbers_of_two_sources_are_marked(tmp_path: Path) -> None:
    """The published baselines of RParis6k and EuroSAT are not those of the paper whose OTI is quoted."""
    plan = small_plan(tmp_path, ("clip",), {"published": "cross_the_gap"})
    native = {(task, Method(NATIVE)): score for task, score in zip(EACH, _scores(range(13)), strict=True)}
    rows = compare_scores([ScoreTable(RETRIEVAL, "clip", native)], plan, "cross_the_gap")
    marked = {row.what for row in rows if "is not what inversion gained" in row.note}
    assert marked == {"RParis6k", "EuroSAT@coop"}


def test_slips_models_are_known_by_their_architecture() -> None:
    assert backbone("SLIP-ViT-B-16/some/slip_base_100ep.pt") == "SLIP-ViT-B-16"
    assert backbone("ViT-B-32/datacomp_xl_s13b_b90k") == "ViT-B-32/datacomp_xl_s13b_b90k"


# --- the report ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the made-up study with its report. Do not write to it."""
    tmp_path = tmp_path_factory.mktemp("report")
    plan = small_plan(tmp_path, ("clip",), {"published": "cross_the_gap"})
    write_small_inversion(out := tmp_path / "out", plan)
    collected = collect(plan, out)
    analysis = analyse(collected, plan)
    write_report(plan, collected, analysis, draw_all(analysis, collected, plan, out / "figures"), out)
    return out


def rows_of(out: Path, name: str) -> list[dict[str, str]]:
    with (out / "tables" / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_report_has_the_sections_of_inversion_and_no_others(report: Path) -> None:
    text = (report / "report.md").read_text()
    sections = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert sections == [
        *("Main numbers", "Retrieval", "Zero-shot with inverted features", "Dynamics", "Similarities within and between modalities"),
        *("Cost of inversion", "Inversion beside the published numbers", "The plan", "Failed and missing cells", "Provenance"),
    ]
    assert "clip, images by images: mAP in %." in text
    assert "| mean of 3 | 40.0 | 42.0 | 41.0 | 48.0 | 44.0 | 44.0 | 45.0 | +2.0 | +8.0 | +4.0 | +5.0 |" in text
    assert "a published OTI minus a published native one is not what inversion gained" in text
    assert all(f"- {name}: " in text for name in SOURCES)
    assert (report / "report.html").read_text().count("<figure>") == text.count("![")


def test_every_number_of_a_matrix_leads_to_its_cell(report: Path) -> None:
    (line,) = [
        line for line in (report / "report.md").read_text().splitlines() if line.startswith("| Shapes-Captions | [20.0]") and "iso" in line
    ]
    for link in line.split("](")[1:]:
        assert (report / link.split(")")[0]).is_file()


def test_tables_have_every_score(report: Path) -> None:
    rows = rows_of(report, "retrieval")
    assert len(rows) == 26
    assert {row["method"] for row in rows} == {"native", "oti", "ovi", "pca", "iso"}
    (oxford,) = [row for row in rows if (row["model"], row["data set"], row["method"]) == ("clip", "ROxford5k", "iso")]
    assert (oxford["mAP_easy"], oxford["mAP_hard"], oxford["dropped"], oxford["mAP"]) == ("55.0", "27.5", "150 50", "")
    dynamics = [row for row in rows_of(report, "dynamics") if (row["data set"], row["R"]) == ("Digits", "4")]
    assert [(row["step"], float(row["mAP"])) for row in dynamics] == [("10", 46.0), ("20", 43.0), ("150", 38.0)]
    assert len(rows_of(report, "inverted_zero_shot")) == 3
    assert {row["s an item"] for row in rows_of(report, "inversions")} == {"0.2"}
    assert len(rows_of(report, "published_inversion")) > 40


def test_figures_are_named_after_what_they_show(report: Path) -> None:
    assert {path.stem for path in (report / "figures").glob("*.png")} == {
        *("retrieval_images_clip", "retrieval_texts_clip", "zero-shot_clip"),
        *(f"dynamics_clip_{task}" for task in ("Digits", "Shapes-Color", "ROxford5k")),
        *(f"similarities_clip_Digits_r{number}_seed42" for number in (1, 4)),
    }


def test_a_figure_has_a_line_for_each_number_of_pseudo_tokens_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_plan(tmp_path, ("clip",), image_tasks=["Digits"], misalignment=["Digits"], seeds=[42, 43])
    write_small_inversion(tmp_path / "out", plan)
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr("study.plots.inversion.draw_dynamics", lambda *of, **more: drawn.append(of) or draw_dynamics(*of, **more))
    monkeypatch.setattr("study.plots.inversion.draw_comparison", lambda *of: [])
    monkeypatch.setattr("study.plots.inversion._histograms", lambda *of: [])
    draw_inversion(collect(plan, tmp_path / "out"), plan, tmp_path)
    ((rows, losses, native, _),) = drawn
    assert {row.exp_name for row in rows} == losses.keys() == {f"R{number} seed {seed}" for number in (1, 4) for seed in (42, 43)}
    assert [row.score for row in rows if row.exp_name == "R4 seed 43"] == pytest.approx([0.47, 0.44, 0.39])
    assert native == {"native": 0.3}


def test_an_unfinished_study_has_a_report(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, ("clip",), {"published": "cross_the_gap"}, image_tasks=["Digits"], oti={"snapshots": [10, 20]})
    for number, kinds in enumerate([(), ("invert",), ("retrieve",), ("zero_shot", "misalignment")]):
        out = tmp_path / str(number)
        write_small_inversion(out, plan, lambda cell, kinds=kinds: cell.kind not in kinds)  # type: ignore[misc]
        collected = collect(plan, out)
        analysis = analyse(collected, plan)
        markdown, _ = write_report(plan, collected, analysis, draw_inversion(collected, plan, out / "figures"), out)
        assert "cells are not done yet" in markdown.read_text()
