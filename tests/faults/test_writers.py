"""Processes that write the same files at once: no row is lost or doubled, no file is half of the one and half of the other."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from common.files import append_rows, read_csv, write_json, write_text
from engine.results import details_folder, record
from engine.scores import add_scores
from tests.faults.commands import images, write_inputs
from tests.faults.results import left_over, written
from tests.faults.scale import count, times
from tests.helpers import run_here

WRITERS, ROWS = times(3, 8), times(10, 60)
ON_CPU = ["--num-workers", 0, "--device", "cpu"]


def at_once(works: list[Callable[[], None]], kill: int | None = None) -> None:
    """Do each work in a process of its own, at the same time; the one with the number ``kill`` gets SIGKILL from itself."""
    children = []
    for work in works:
        children.append(os.fork())
        if children[-1] == 0:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
    for number, child in enumerate(children):
        status = os.waitpid(child, 0)[1]
        assert status == (signal.SIGKILL if number == kill else 0)


def rows_of(writer: int) -> list[dict[str, int]]:
    return [{"writer": writer, "row": row} for row in range(ROWS)]


def test_no_row_of_a_table_is_lost_or_doubled(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"

    def work(writer: int) -> Callable[[], None]:
        return lambda: [append_rows(table, [row]) for row in rows_of(writer)] and None

    at_once([work(writer) for writer in range(WRITERS)])
    found = [(int(row["writer"]), int(row["row"])) for row in read_csv(table)]
    assert sorted(found) == [(writer, row) for writer in range(WRITERS) for row in range(ROWS)]
    count("rows written by several processes", len(found))


def test_a_writer_that_is_killed_takes_nothing_with_it(tmp_path: Path) -> None:
    """It dies with the table locked and half of the new one written."""
    table = tmp_path / "results.csv"

    def dying() -> None:
        real = Path.write_text

        def half(path: Path, text: str, **how: str) -> int:
            if path.name == "new.tmp" and text.count("\n") > 2:
                real(path, text[: len(text) // 2], encoding="utf-8")
                os.kill(os.getpid(), signal.SIGKILL)
            return real(path, text, **how)

        Path.write_text = half  # type: ignore[method-assign,assignment]
        for row in rows_of(0):
            append_rows(table, [row])

    at_once(
        [dying, *((lambda writer=writer: [append_rows(table, [row]) for row in rows_of(writer)] and None) for writer in (1, 2))], kill=0
    )
    found = [(int(row["writer"]), int(row["row"])) for row in read_csv(table)]
    assert sorted(each for each in found if each[0]) == [(writer, row) for writer in (1, 2) for row in range(ROWS)]
    append_rows(table, rows_of(3)[:1])
    assert left_over(tmp_path) == []
    count("kills")


def test_a_score_that_two_processes_add_is_there_once(tmp_path: Path) -> None:
    """Both have measured the same; looking and adding are one step."""
    scores = [{"data": "Digits", "measure": f"m{number}", "score": 0.5, "seconds": 1.0} for number in range(ROWS)]
    at_once([lambda: [add_scores(tmp_path / "scores.csv", [score]) for score in scores] and None] * WRITERS)
    assert [row["measure"] for row in read_csv(tmp_path / "scores.csv")] == [score["measure"] for score in scores]


def test_a_json_is_one_of_those_that_were_written(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    values = [{"writer": writer, "numbers": list(range(1000 * writer))} for writer in range(1, WRITERS + 1)]
    at_once([lambda value=value: [write_json(path, value) for _ in range(ROWS)] and None for value in values])
    assert json.loads(path.read_text()) in values
    assert [each.name for each in tmp_path.iterdir()] == ["cell.json"]


def test_every_result_has_its_row_and_its_json(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"

    def work(writer: int) -> Callable[[], None]:
        return lambda: [record(table, row, {"pid": os.getpid()}, "same") for row in rows_of(writer)] and None

    at_once([work(writer) for writer in range(WRITERS)])
    rows = sorted((int(row["writer"]), int(row["row"])) for row in read_csv(table))
    details = [json.loads(path.read_text()) for path in details_folder(table).glob("*.json")]
    assert sorted((each["writer"], each["row"]) for each in details) == rows
    assert len(rows) == WRITERS * ROWS


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("writers") / "inputs")


def test_two_tests_and_two_embeddings_at_once(inputs: Path, tmp_path: Path) -> None:
    """Whole commands: each has its row, and the embeddings are those of either."""
    model, data = ["--model-name", inputs / "model", *ON_CPU], images(inputs)
    tested = ["--eval-datasets", data, "--outfile", tmp_path / "results.csv"]
    embedded = ["--datasets", data, "--outfolder", tmp_path / "embeddings", "--val-p", 0.2]
    at_once([lambda: run_here("test", *model, *tested).succeeded() and None] * 2)
    assert len(read_csv(tmp_path / "results.csv")) == 2
    at_once([lambda: run_here("get_embeddings", *model, *embedded).succeeded() and None] * 2)
    both = written(tmp_path / "embeddings")
    shutil.rmtree(tmp_path / "embeddings")
    run_here("get_embeddings", *model, *embedded).succeeded()
    assert written(tmp_path / "embeddings") == both


def test_two_processes_work_on_one_study(inputs: Path, tmp_path: Path) -> None:
    """Nothing is done twice, and the results are those of one process."""
    words = [inputs / "study" / "small.toml", "--only", "*zero_shot*", *ON_CPU]

    def cells(out: Path) -> dict[str, set[str]]:
        return {name: contents for name, contents in written(out).items() if name.startswith("cells")}

    at_once([lambda: run_here("reproduce", *words, "--out", tmp_path / "both").succeeded() and None] * 2)
    run_here("reproduce", *words, "--out", tmp_path / "one").succeeded()
    assert cells(tmp_path / "both") == cells(tmp_path / "one") != {}


def test_the_words_of_a_table_are_whole_while_others_write(tmp_path: Path) -> None:
    """Who reads meanwhile sees the old file or the new one."""
    path = tmp_path / "words.txt"
    write_text(path, "0" * 100_000)
    writer = os.fork()
    if writer == 0:
        for number in range(ROWS):
            write_text(path, str(number % 10) * 100_000)
        os._exit(0)
    while not os.waitpid(writer, os.WNOHANG)[0]:
        text = path.read_text()
        assert text == text[0] * 100_000
