"""The published numbers: transcribed as they were printed, shown only where they are of the same thing."""

import pytest

from merging.published import ARCHITECTURES, PRETRAINED, ROWS, facts, of_method, of_model
from merging.table import METHODS
from merging.task_names import GROUPS

TA8 = list(GROUPS["TA8"])
B32, L14 = 87_456_000, 303_179_776
SIX = ["sun397", "stanford-cars", "resisc45", "dtd", "svhn", "gtsrb"]


def test_the_columns_are_the_eight_tasks():
    assert tuple(facts()["tasks"]) == GROUPS["TA8"]
    for table in (*facts()["merging"].values(), *facts()["single"].values()):
        assert all(len(values) == 9 for values in table.values())


def test_averages_are_those_of_the_rows_within_their_rounding():
    for table in (*facts()["merging"].values(), *facts()["single"].values()):
        for name, (*of_tasks, average) in table.items():
            if None not in of_tasks:
                assert sum(of_tasks) / 8 == pytest.approx(average, abs=0.11), name


def test_every_method_names_a_row_that_is_there():
    there = {row for table in facts()["merging"].values() for row in table}
    assert set(ROWS.values()) <= there
    assert {"simple_average", "task_arithmetic", "ties", "magmax", "iso_c", "iso_cts", "tsv_m", "wudi"} <= set(ROWS) & set(METHODS)


def test_task_arithmetic_of_the_eight_models():
    label, numbers = of_method("task_arithmetic", B32, 8, TA8)
    assert label == "Task Arithmetic scaling 0.3"
    assert list(numbers.values()) == pytest.approx([0.571, 0.557, 0.649, 0.767, 0.779, 0.685, 0.961, 0.472, 0.680])
    assert list(numbers) == [*TA8, "average"]


def test_the_average_is_shown_for_all_eight_tasks_only():
    _, numbers = of_method("ties", L14, 8, ["mnist", "Digits"])
    assert numbers == {"mnist": 0.978}
    assert of_method("iso_c", B32, 8, TA8) == ("ISO-C scaling 1.5", {"average": 0.828})


def test_six_seen_tasks_are_a_generalization_experiment():
    _, numbers = of_method("ties", B32, 6, TA8, SIX)
    assert numbers["mnist"] == 0.731
    assert "average" not in numbers
    assert of_method("ties", B32, 6, TA8) is None
    assert of_method("ties", L14, 6, TA8, SIX) is None


@pytest.mark.parametrize("what", [("emr", B32, 8), ("ties", 12345, 8), ("ties", B32, 7)])
def test_nothing_is_said_of_what_was_not_published(what):
    assert of_method(*what, TA8) is None


def test_single_models_by_their_task():
    assert set(ARCHITECTURES.values()) <= set(facts()["single"])
    for task in TA8:
        own = of_model(task, B32, TA8)
        assert max(own, key=own.__getitem__) == task or own[task] > 0.75  # a fine-tune is best on what it was tuned on
        assert of_model(f"clip-vit-base-patch32_{task}", B32, TA8) == own
    assert of_model("stanford-cars", B32, TA8)["stanford-cars"] == 0.783
    assert of_model(PRETRAINED, L14, TA8)["average"] == 0.646
    assert of_model("Digits", B32, TA8) is None
