"""From collected cells to the report's numbers, against the plain formulas and on studies that are not finished."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from study.analysis import Analysis, analyse, headline
from study.cells import Cell
from study.collect import collect
from study.collected import Collected
from study.plan import Plan
from study.prediction import CHANGE, GAIN
from tests.study.small_study import (
    MEASURES,
    TASKS,
    accuracy_of,
    iimm_of,
    small_plan,
    validation_of,
    write_cell,
    write_small_study,
    zero_shot_of,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Collected, Plan]:
    """The whole made-up study."""
    out = tmp_path_factory.mktemp("study")
    plan = write_small_study(out)
    return collect(plan, out), plan


@pytest.fixture(scope="module")
def analysis(study: tuple[Collected, Plan]) -> Analysis:
    """Its numbers."""
    return analyse(*study)


def gains_of(model: str, tuning: str) -> list[float]:
    """What the made-up accuracies mean as gains, means over the two seeds."""
    gains = []
    for task in TASKS:
        after = np.mean([accuracy_of(model, tuning, task, seed, task) for seed in (0, 1)])
        gains.append((after - zero_shot_of(model, task)) / (1 - zero_shot_of(model, task)))
    return gains


def test_every_combination_has_its_fits(analysis: Analysis) -> None:
    assert analysis.combinations == (("clip", "full"), ("clip", "lora"), ("siglip", "full"), ("siglip", "lora"))
    assert [(of.model, of.tuning, of.outcome) for of in analysis.fits] == [
        (*pair, outcome) for outcome in (GAIN, CHANGE) for pair in analysis.combinations
    ]
    assert len(analysis.components) == 3 * 2 * 4
    assert all(of.fit is not None and not of.undefined for of in (*analysis.fits, *analysis.components))


def test_a_fit_is_least_squares_over_the_tasks(analysis: Analysis) -> None:
    found = analysis.fit("siglip", "lora")
    assert found is not None and found.fit is not None
    expected = stats.linregress([iimm_of("siglip", task) for task in TASKS], gains_of("siglip", "lora"))
    line = found.fit.line
    assert (line.slope, line.intercept, line.p) == pytest.approx((expected.slope, expected.intercept, expected.pvalue))
    assert line.r2 == pytest.approx(expected.rvalue**2)
    assert [of.task for of in found.fit.known] == list(TASKS)


def test_the_left_out_error_is_that_of_fits_without_the_task(analysis: Analysis) -> None:
    x, y = np.asarray([iimm_of("clip", task) for task in TASKS]), np.asarray(gains_of("clip", "full"))
    errors = []
    for left in range(len(TASKS)):
        kept = np.arange(len(TASKS)) != left
        slope, intercept = np.polyfit(x[kept], y[kept], 1)
        errors.append(y[left] - intercept - slope * x[left])
    found = analysis.fit("clip", "full")
    assert found is not None and found.fit is not None and found.fit.leave_one_out is not None
    assert found.fit.leave_one_out.mean_absolute == pytest.approx(np.abs(errors).mean())


def test_forgetting_is_fitted_to_the_mean_change_elsewhere(analysis: Analysis) -> None:
    changes = []
    for task in TASKS:
        others = [other for other in TASKS if other != task]
        after = [np.mean([accuracy_of("clip", "full", task, seed, other) for seed in (0, 1)]) for other in others]
        changes.append(np.mean(np.asarray(after) - [zero_shot_of("clip", other) for other in others]))
    expected = stats.linregress([iimm_of("clip", task) for task in TASKS], changes)
    found = analysis.fit("clip", "full", "iimm", CHANGE)
    assert found is not None and found.fit is not None
    assert (found.fit.line.slope, found.fit.line.r2) == pytest.approx((expected.slope, expected.rvalue**2))


def test_taus_are_of_all_measures_in_the_plans_order(analysis: Analysis) -> None:
    rows = analysis.taus("clip", "full")
    assert [row.measure for row in rows] == [*MEASURES, "zero_shot"] == list(analysis.measures)
    expected = stats.kendalltau([iimm_of("clip", task) for task in TASKS], gains_of("clip", "full")).statistic
    weighted = stats.weightedtau([iimm_of("clip", task) for task in TASKS], gains_of("clip", "full")).statistic
    assert rows[0].agreement is not None
    assert (rows[0].agreement.tau, rows[0].agreement.weighted_tau) == pytest.approx((expected, weighted))
    assert analysis.taus("clip", "full", CHANGE)[0].agreement is not None
    assert analysis.taus("clip", "nothing") == []


def test_what_validation_chose_is_tested(analysis: Analysis) -> None:
    rates = ("lr0.01", "lr0.001")  # of lora
    (row,) = [row for row in analysis.gains if (row.model, row.tuning, row.task) == ("siglip", "lora", "DTD")]
    for run in row.runs:
        validations = [validation_of("siglip", "lora", "DTD", run.seed, index) for index in range(2)]
        assert (run.setting, run.validation) == (rates[int(np.argmax(validations))], max(validations))
        assert run.accuracy == accuracy_of("siglip", "lora", "DTD", run.seed, "DTD")


def test_costs_count_only_what_a_measure_needs(analysis: Analysis) -> None:
    costs = {(of.model, of.measure): of for of in analysis.costs}
    both, images, texts = (costs["clip", name] for name in ("iimm", "image_image", "text_text"))
    assert (both.embedding_seconds, both.text_seconds, both.calculation_seconds) == pytest.approx((14.0, 0.5, 0.02))
    assert (images.embedding_seconds, images.text_seconds) == pytest.approx((14.0, 0.0))
    assert (texts.embedding_seconds, texts.text_seconds) == pytest.approx((0.0, 0.5))
    assert both.total_seconds == pytest.approx(14.52) and both.n == len(TASKS)
    assert len(both.cells) == 2 * len(TASKS)


def test_a_training_costs_its_whole_grid(analysis: Analysis) -> None:
    assert [(of.model, of.tuning) for of in analysis.training_costs] == list(analysis.combinations)
    assert [(of.n, of.runs, of.seconds) for of in analysis.training_costs] == [(18, 36, 120.0)] * 4


def test_notes_say_how_few_the_points_are(analysis: Analysis) -> None:
    few, many, perfect = analysis.notes
    assert "n = 9 tasks have 7 degrees of freedom" in few and "2.4 standard errors" in few and "tau by 0.056" in few
    assert many.startswith("7 measures are compared on the same few tasks") and "no certainty" in perfect


def test_the_headline_has_the_main_numbers(analysis: Analysis) -> None:
    lines = headline(analysis)
    found = analysis.fit("clip", "full")
    assert len(lines) == 4 and found is not None and found.fit is not None
    assert lines[0].startswith("clip, full: gain ~ iimm: slope ")
    assert f"R2 {found.fit.line.r2:.2f}" in lines[0] and lines[0].endswith("(n = 9)")


def test_the_order_of_rows_does_not_matter_for_any_number(study: tuple[Collected, Plan], analysis: Analysis) -> None:
    collected, plan = study
    turned = replace(collected, tests=collected.tests[::-1], scores=collected.scores[::-1], zero_shot=collected.zero_shot[::-1])
    again = analyse(turned, plan)
    for pair in analysis.combinations:
        assert [row.agreement for row in analysis.taus(*pair)] == [row.agreement for row in again.taus(*pair)]


def numbers_of(tmp_path: Path, skip: Callable[[Cell], bool], **changes: object) -> Analysis:
    """The numbers of a made-up study of one model from which some cells are missing."""
    plan = small_plan(**{"models": ("clip",), "seeds": (0,), **changes})
    write_small_study(tmp_path, plan, skip)
    return analyse(collect(plan, tmp_path), plan)


def test_a_study_without_any_cell_has_no_numbers_and_says_so(tmp_path: Path) -> None:
    of = numbers_of(tmp_path, lambda cell: True)
    assert (of.outcomes, of.gains, of.costs, of.forgetting, of.compared) == ([], [], [], [], [])
    assert len(of.fits) == 4 and all(fit.fit is None and "at least 3" in fit.undefined for fit in of.fits)
    assert of.notes[0].startswith("The study is not finished: ")
    assert "only 0 tasks" in headline(of)[0]


def test_measures_without_training_are_no_fits(tmp_path: Path) -> None:
    of = numbers_of(tmp_path, lambda cell: False, tunings=())
    assert (of.combinations, of.fits, of.compared, of.notes) == ((), [], [], [])
    assert [cost.measure for cost in of.costs] == list(MEASURES)


def test_two_tasks_are_too_few_for_a_line_but_have_gains(tmp_path: Path) -> None:
    of = numbers_of(tmp_path, lambda cell: False, tasks=TASKS[:2], eval_tasks=TASKS[:2])
    assert len(of.gains) == 4
    assert all(row.gain is not None and row.mean_change_elsewhere is not None for row in of.gains)
    assert all(fit.fit is None for fit in of.fits)


def test_a_task_whose_tests_are_missing_is_left_out(tmp_path: Path) -> None:
    of = numbers_of(tmp_path, lambda cell: cell.kind == "test" and cell.key["task"] == "DTD" and cell.key["tuning_name"] == "lora")
    lora, full = of.fit("clip", "lora"), of.fit("clip", "full")
    assert lora is not None and lora.fit is not None and lora.fit.line.n == 8
    assert full is not None and full.fit is not None and full.fit.line.n == 9
    assert [note[:19] for note in of.notes if note.startswith("Fits over")] == ["Fits over n = 8 tas", "Fits over n = 9 tas"]


def test_a_task_whose_forgetting_is_half_known_keeps_its_gain(tmp_path: Path) -> None:
    of = numbers_of(tmp_path, lambda cell: cell.kind == "test" and (cell.key["task"], cell.key["eval_task"]) == ("DTD", "MNIST"))
    gains, changes = of.fit("clip", "full"), of.fit("clip", "full", outcome=CHANGE)
    assert gains is not None and gains.fit is not None and gains.fit.line.n == 9
    assert changes is not None and changes.fit is not None and changes.fit.line.n == 8
    assert "clip, full: not all other tasks are tested after training on DTD, so that mean change is not given." in of.notes


def test_a_missing_zero_shot_accuracy_costs_its_task_only(tmp_path: Path) -> None:
    of = numbers_of(tmp_path, lambda cell: cell.kind == "zero_shot" and cell.key["task"] == "DTD")
    assert [row.task for row in of.gains if row.gain is None] == ["DTD", "DTD"]
    assert "clip, full, DTD: left out of all fits, for its zero-shot accuracy is not known." in of.notes
    assert "clip, full: the mean change on other tasks is without DTD, of which none is known." in of.notes


def test_missing_seeds_are_named(tmp_path: Path) -> None:
    def second_seed_on_dtd(cell: Cell) -> bool:
        return cell.kind == "test" and (cell.key["task"], cell.key["seed"]) == ("DTD", 1)

    of = numbers_of(tmp_path, second_seed_on_dtd, seeds=(0, 1))
    assert "clip, full, DTD: only 1 of 2 seeds (0) are in the means." in of.notes


def test_a_measure_that_is_not_defined_is_named_and_the_others_stand(tmp_path: Path) -> None:
    def hscore(cell: Cell) -> bool:
        return cell.kind == "measure" and cell.key["measure"] == "hscore" and cell.key["task"] == "DTD"

    skipped: list[Cell] = []
    plan = small_plan(models=("clip",), seeds=(0,))
    write_small_study(tmp_path, plan, lambda cell: hscore(cell) and (skipped.append(cell) or True))
    write_cell(skipped[0], tmp_path, {"error": "needs at least 2 classes with images", "calculation_seconds": 0.1})
    of = analyse(collect(plan, tmp_path), plan)
    assert "hscore is not defined for clip on DTD: needs at least 2 classes with images" in of.notes
    assert {row.measure: row.n for row in of.taus("clip", "full")} == {name: 9 - (name == "hscore") for name in of.measures}


def test_a_test_that_is_no_longer_of_the_best_setting_is_named(study: tuple[Collected, Plan]) -> None:
    collected, plan = study
    better = [{**row, "best_validation": 0.999} if row["task"] == "DTD" else row for row in collected.trainings]
    notes = analyse(replace(collected, trainings=better), plan).notes  # type: ignore[arg-type]
    assert any(note.startswith("clip, full, DTD, seed 0: tested with lr0.") and "run the study again" in note for note in notes)


def test_a_grid_that_helps_nowhere_is_named(study: tuple[Collected, Plan]) -> None:
    collected, plan = study
    flat = [{**row, "zero_shot_validation": 0.999} if row["task"] == "DTD" else row for row in collected.trainings]
    notes = analyse(replace(collected, trainings=flat), plan).notes  # type: ignore[arg-type]
    assert "clip, full, DTD: no setting of the grid raises the validation accuracy above what it is before training." in notes


def test_images_that_could_not_be_read_are_counted(study: tuple[Collected, Plan]) -> None:
    collected, plan = study
    embeds = [{**row, "n_skipped": 3 if (row["model"], row["task"]) == ("clip", "DTD") else 0} for row in collected.embeds]
    notes = analyse(replace(collected, embeds=embeds), plan).notes  # type: ignore[arg-type]
    assert "3 training images of DTD could not be read: left out." in notes


def test_a_probe_has_gains_and_no_forgetting(tmp_path: Path) -> None:
    (full, _) = small_plan().tunings
    of = numbers_of(tmp_path, lambda cell: False, tunings=(replace(full, name="probe", tuning="probe"),))
    gains, changes = of.fits
    assert gains.fit is not None and changes.fit is None and "only 0 tasks" in changes.undefined
    assert {row.mean_change_elsewhere for row in of.gains} == {None}
    assert "probe: a probe tells only those classes apart that it was trained on, so there is no forgetting to measure." in of.notes


def test_a_perfect_order_is_not_taken_for_certain(tmp_path: Path) -> None:
    of = numbers_of(tmp_path, lambda cell: False, tasks=TASKS[:3], eval_tasks=TASKS[:3])
    assert any(row.agreement is not None and abs(row.agreement.tau) == 1 for row in of.taus("clip", "full"))
    assert sum("no certainty" in note for note in of.notes) == 1


def test_a_grid_of_which_settings_failed_is_named(tmp_path: Path) -> None:
    of = numbers_of(tmp_path, lambda cell: cell.kind == "train" and cell.key["task"] == "DTD" and cell.key["setting"]["lr"] == 1e-4)
    assert "clip, full, DTD: validation chose among 1 of the grid's 2 settings, for want of the others." in of.notes


def test_a_best_learning_rate_at_the_end_of_the_grid_is_named(tmp_path: Path) -> None:
    plan = small_plan(models=("clip",), seeds=(0,), tunings=small_plan().tunings[:1])
    (tuning,) = plan.tunings
    first = tuning.grid[0]
    grid = tuple(replace(first, fit=replace(first.fit, lr=lr)) for lr in (1e-2, 1e-3, 1e-4))
    write_small_study(tmp_path, plan := replace(plan, tunings=(replace(tuning, grid=grid),)))
    collected = collect(plan, tmp_path)
    best = [{**row, "best_validation": 0.9 if row["values"]["lr"] == 1e-4 else 0.1} for row in collected.trainings]
    notes = analyse(replace(collected, trainings=best), plan).notes  # type: ignore[arg-type]
    assert "clip, full: validation chose the lowest learning rate of the grid, 0.0001, in 9 of 9 runs; try beyond it." in notes
