"""A result is a JSON of its own and a row of a table that only grows."""

import json

import pytest

from common.errors import UserError
from common.files import read_csv
from engine.results import check_recordable, record

ROW = {"model": "tiny", "top1": 0.5}


def test_row_and_json(tmp_path):
    table = tmp_path / "results.csv"
    path = record(table, ROW, {"versions": {"torch": "2"}}, "tiny_imagefolder:a b")
    assert read_csv(table) == [{"model": "tiny", "top1": "0.5"}]
    assert json.loads(path.read_text()) == {**ROW, "versions": {"torch": "2"}}
    assert path.parent == tmp_path / "results"
    assert path.name.startswith("tiny_imagefolder-a-b-")


def test_another_result_of_the_same_name_overwrites_nothing(tmp_path):
    table = tmp_path / "results.csv"
    paths = [record(table, {**ROW, "top1": top1}, {}, "tiny") for top1 in (0.1, 0.2)]
    assert [json.loads(path.read_text())["top1"] for path in paths] == [0.1, 0.2]
    assert [row["top1"] for row in read_csv(table)] == ["0.1", "0.2"]


def test_a_table_without_a_suffix_and_its_folder_do_not_get_in_each_others_way(tmp_path):
    check_recordable(tmp_path / "results")
    for top1 in (0.1, 0.2):
        record(tmp_path / "results", {**ROW, "top1": top1}, {}, "tiny")
    assert len(read_csv(tmp_path / "results")) == 2


def test_what_could_not_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "results").write_text("a file where the folder of the JSON files would be")
    with pytest.raises(UserError, match=r"results' is a file; the details of the rows of '.*results\.csv'"):
        check_recordable(tmp_path / "results.csv")
    with pytest.raises(UserError, match="is a folder; name a CSV file"):
        check_recordable(tmp_path)
    with pytest.raises(UserError, match="Cannot create the output folder"):
        check_recordable(tmp_path / "results" / "table.csv")
