"""The published tables beside a study's numbers."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from metrics.table import METRICS
from models.zoo import ZOO
from study.analysis import Analysis, analyse
from study.collect import collect
from study.published import PUBLISHED, R2, TAU, compare_published
from tests.study.small_study import small_plan, write_small_study


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """The numbers of a made-up study of CLIP and of a model that the paper does not have."""
    out, plan = tmp_path_factory.mktemp("study"), small_plan(models=("clip", "tiny"), seeds=(0,))
    write_small_study(out, plan)
    return analyse(collect(plan, out), plan)


def test_published_names_are_clipscopes() -> None:
    for paper in PUBLISHED.values():
        assert set(paper.models) <= set(ZOO)
        assert {numbers.measure for numbers in paper.numbers} <= set(METRICS)
        assert all(set(numbers.of_model) <= set(paper.models) for numbers in paper.numbers)


def test_published_taus_are_those_that_nine_tasks_allow() -> None:
    values = [value for numbers in PUBLISHED["iimm"].numbers if numbers.quantity == TAU for value in numbers.of_model.values()]
    impossible = [value for value in values if abs(value * 18 - round(value * 18)) > 0.005 * 18 + 1e-9]
    assert len(values) == 28 and impossible == [-0.59, 0.07]


def test_a_model_of_the_paper_has_its_number_beside_ours(analysis: Analysis) -> None:
    rows = {(row.quantity, row.measure, row.model): row for row in compare_published(analysis, "iimm")}
    tau, r2 = rows[TAU, "iimm", "clip"], rows[R2, "iimm", "clip"]
    (ours,) = [row for row in analysis.taus("clip", "full") if row.measure == "iimm"]
    assert ours.agreement is not None and ours.relation is not None
    assert (tau.published, tau.ours, tau.paper_model, tau.paper_measure) == (0.78, ours.agreement.tau, "CLIP", "IIMM")
    assert (tau.low, tau.high) == (ours.agreement.tau_interval.low, ours.agreement.tau_interval.high)
    assert (r2.published, r2.ours, r2.n, r2.published_n) == (0.92, ours.relation.r2, 9, 9)
    assert tau.difference == pytest.approx(ours.agreement.tau - 0.78)


def test_another_model_stands_beside_the_papers_range(analysis: Analysis) -> None:
    (row,) = [row for row in compare_published(analysis, "iimm") if (row.quantity, row.measure, row.model) == (TAU, "iimm", "tiny")]
    assert (row.paper_model, row.published, row.difference) == ("", None, None)
    assert (row.published_low, row.published_high) == (0.78, 0.89) and row.ours is not None


def test_only_the_papers_tuning_is_compared(analysis: Analysis) -> None:
    assert {row.tuning for row in compare_published(analysis, "iimm")} == {"full"}
    renamed = replace(analysis, tunings={"full": "bias", "lora": "full"})
    assert {row.tuning for row in compare_published(renamed, "iimm")} == {"lora"}


def test_what_the_study_does_not_have_is_said(analysis: Analysis, tmp_path: Path) -> None:
    rows = {(row.quantity, row.measure, row.model): row for row in compare_published(analysis, "iimm")}
    row = rows[TAU, "transrate", "clip"]
    assert (row.ours, row.difference) == (None, None) and row.note.endswith("The study has no outcomes with transrate.")
    assert "every class weighs 1/C" in row.note  # which the released code does, and the paper's number may come from
    plan = small_plan(models=("clip",))
    empty = compare_published(analyse(collect(plan, tmp_path), plan), "iimm")
    assert len(empty) == len(PUBLISHED["iimm"].numbers) and all(row.ours is None and row.note for row in empty)


def test_a_range_has_no_number_of_a_model(analysis: Analysis) -> None:
    (row,) = [row for row in compare_published(analysis, "iimm") if (row.quantity, row.measure, row.model) == (R2, "gbc_spherical", "clip")]
    assert (row.published, row.published_low, row.published_high) == (None, 0.59, 0.72)


def test_an_unknown_study_is_refused_with_the_nearest_name(analysis: Analysis) -> None:
    with pytest.raises(UserError, match="did you mean 'iimm'"):
        compare_published(analysis, "imm")
