"""Reports: the released form to the key, averages, groups, and the table that is printed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from common.errors import UserError
from datasets.sources.drawn import drawn_task
from engine.loading import SkippedImages
from merging.evaluate import Scores
from merging.report import Evaluated, check_report, counts_table, make_report, table, write_reports


def scores(correct, total, loss):
    return Scores(correct, total, loss, loss + 0.25, SkippedImages())


def task(name, size):
    return replace(drawn_task("Shapes-Kind", "test").subset(np.arange(size)), name=name, templates=("{c}",))


SCORES = {"sun397": scores(3, 4, 1.0), "stanford-cars": scores(1, 2, 0.5), "dtd": scores(0, 5, 3.0)}
TASKS = {name: task(f"{name}@hub", of.total) for name, of in SCORES.items()}
EVALUATED = Evaluated("ties", SCORES, 87_456_000, {"merge": {"method": "ties"}})


def test_a_report_has_exactly_the_released_keys_besides_ours():
    report = make_report(EVALUATED, TASKS, (), {"precision": "fp32"})
    own = report.pop("clipscope")
    assert report == {
        "model_info": {"trainable_params": 87_456_000, "all_params": 87_456_000, "trainable_percentage": 1.0, "name": "ties"},
        "sun397": {"accuracy": 0.75, "loss": 1.0},
        "stanford-cars": {"accuracy": 0.5, "loss": 0.5},
        "dtd": {"accuracy": 0.0, "loss": 3.0},
        "average": {"accuracy": pytest.approx(1.25 / 3), "loss": 1.5},
    }
    assert list(report) == ["model_info", *SCORES, "average"]
    assert set(own) == {"tasks", "merge", "precision"}
    assert own["tasks"]["sun397"] == {
        "correct": 3,
        "total": 4,
        "loss_over_batches": 1.25,
        "n_skipped": 0,
        "dataset": "sun397@hub",
        "split": "test",
        "fingerprint": TASKS["sun397"].fingerprint,
        "templates": ("{c}",),
    }


def test_seen_and_unseen_tasks_have_averages_of_their_own():
    own = make_report(EVALUATED, TASKS, ["dtd", "sun397"], {})["clipscope"]
    assert own["seen"] == {"tasks": ["sun397", "dtd"], "accuracy": 0.375, "loss": 2.0}
    assert own["unseen"] == {"tasks": ["stanford-cars"], "accuracy": 0.5, "loss": 0.5}
    assert "unseen" not in make_report(EVALUATED, TASKS, list(SCORES), {})["clipscope"]


def test_one_report_is_an_object_and_several_are_a_list(tmp_path):
    reports = [make_report(EVALUATED, TASKS, (), {})]
    write_reports(tmp_path / "one.json", reports, as_list=False)
    write_reports(tmp_path / "list.json", reports, as_list=True)
    assert json.loads((tmp_path / "one.json").read_text())["dtd"] == {"accuracy": 0.0, "loss": 3.0}
    assert json.loads((tmp_path / "list.json").read_text())[0]["dtd"] == {"accuracy": 0.0, "loss": 3.0}


def test_a_report_that_exists_is_refused_unless_it_may_be_replaced(tmp_path):
    path = tmp_path / "deep" / "report.json"
    check_report(path, overwrite=False)
    path.write_text("earlier")
    with pytest.raises(UserError, match="exists; name another --report, or add --overwrite"):
        check_report(path, overwrite=False)
    check_report(path, overwrite=True)
    with pytest.raises(UserError, match="is a folder"):
        check_report(tmp_path, overwrite=True)


def test_the_table_of_several_encoders():
    rows = {"0.3": {"sun397": 0.5714, "average": 0.68}, "published: Task Arithmetic": {"average": 0.6804}}
    assert table(rows, ["sun397", "average"]).splitlines() == [
        "                            sun397  average",
        "0.3                           57.1     68.0",
        "published: Task Arithmetic             68.0",
    ]


def test_the_table_of_one_encoder_counts():
    printed = counts_table(EVALUATED, ["dtd"], {"dtd": 0.54, "average": 0.722}).splitlines()
    assert printed == [
        "               accuracy  correct  images    loss  published",
        "sun397             75.0        3       4  1.0000",
        "stanford-cars      50.0        1       2  0.5000",
        "dtd                 0.0        0       5  3.0000       54.0",
        "average            41.7                   1.5000       72.2",
        "seen                0.0                   3.0000",
        "unseen             62.5                   0.7500",
    ]
