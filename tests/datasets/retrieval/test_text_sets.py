"""IMDB, 20 Newsgroups and NanoBEIR, on miniature copies, and summaries in place of their texts."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_files

from common.errors import UserError
from datasets.retrieval import nanobeir
from datasets.retrieval.newsgroups import QUERIES
from datasets.retrieval.options import Options
from datasets.retrieval.table import RETRIEVAL, load_retrieval
from tests.datasets.sources.listed_copies import text

# --- IMDB --------------------------------------------------------------------------------------------------------

REVIEWS = [
    ("One of the other reviewers, he, said:<br /><br />watch it.", "positive"),
    ('Petter Mattei\'s "Love in the Time of Money"\nis a visually stunning film.', "positive"),
    ("Basically there's a family, and a zombie.", "negative"),
]


def write_reviews(data_dir, reviews=REVIEWS, header=("review", "sentiment"), name="IMDB_Dataset.csv"):
    path = data_dir / "IMDB_Reviews" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *reviews])
    return path


@pytest.mark.parametrize("name", ["IMDB_Dataset.csv", "IMDB Dataset.csv"])
def test_reviews(name, tmp_path):
    write_reviews(tmp_path, name=name)
    task = load_retrieval("IMDB", data_dir=tmp_path)
    assert (task.name, task.split, task.leave_one_out) == ("IMDB", "all", False)
    assert task.query.texts == ("a negative review of a movie.", "a positive review of a movie.")
    assert task.query.ids == ["negative", "positive"]
    assert task.gallery.texts == tuple(review for review, _ in REVIEWS)
    assert task.gallery.ids == ["0", "1", "2"] and task.gallery.labels.tolist() == [1, 1, 0]
    assert task.protocols[""].counts.tolist() == [1, 2]


def test_sentiments_do_not_depend_on_the_order_of_the_rows(tmp_path):
    write_reviews(tmp_path, REVIEWS[::-1])
    assert load_retrieval("IMDB", data_dir=tmp_path).gallery.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("reviews", "header"),
    [
        ([*REVIEWS, ("so so", "neutral")], ("review", "sentiment")),
        ([*REVIEWS, ("half a row",)], ("review", "sentiment")),
        (REVIEWS, ("text", "label")),
    ],
)
def test_torn_reviews(reviews, header, tmp_path):
    write_reviews(tmp_path, reviews, header)
    with pytest.raises(UserError, match="must have the columns review,sentiment"):
        load_retrieval("IMDB", data_dir=tmp_path)


def test_reviews_that_end_within_a_row(tmp_path):
    path = write_reviews(tmp_path)
    path.write_text(path.read_text()[:70])
    with pytest.raises(UserError, match=r"is damaged, or is no CSV file"):
        load_retrieval("IMDB", data_dir=tmp_path)


# --- summaries -----------------------------------------------------------------------------------------------------


def write_summaries(path, summaries):
    if path.suffix == ".json":
        text(path, json.dumps(summaries))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("id", "summary"), *summaries.items()])
    return path


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_summaries_take_the_place_of_texts(suffix, tmp_path):
    write_reviews(tmp_path)
    path = write_summaries(tmp_path / f"short{suffix}", {"2": "Zombies, bad.", "0": 'Watch "it".', "1": "Stunning.", "9": "Another."})
    plain, task = (load_retrieval("IMDB", data_dir=tmp_path, options=Options(summaries=each)) for each in (None, path))
    assert task.name == "IMDB-summaries"
    assert task.gallery.texts == ('Watch "it".', "Stunning.", "Zombies, bad.")
    assert task.gallery.ids == plain.gallery.ids and (task.gallery.labels == plain.gallery.labels).all()
    assert task.query.fingerprint == plain.query.fingerprint and task.gallery.fingerprint != plain.gallery.fingerprint


def test_a_text_without_a_summary(tmp_path):
    write_reviews(tmp_path)
    path = write_summaries(tmp_path / "short.csv", {"1": "Stunning."})
    with pytest.raises(UserError, match=r"has no summary of 2 of 3 texts, e.g. of '0'"):
        load_retrieval("IMDB", data_dir=tmp_path, options=Options(summaries=path))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("short.csv", "id,text\n0,a\n", "must have the columns id,summary"),
        ("short.csv", "id,summary\n0,a,b\n", "must have the columns id,summary"),
        ("short.csv", "id,summary\n0,a\n0,b\n", "has '0' twice"),
        ("short.json", "[1]", "must be one JSON object"),
        ("short.json", '{"0": 1}', "must be one JSON object"),
        ("short.json", '{"0": ', "is not readable JSON"),
        ("short.pkl", "", r"must be a .csv file"),
    ],
)
def test_files_that_are_no_summaries(name, content, sentence, tmp_path):
    write_reviews(tmp_path)
    text(tmp_path / name, content, end="")
    with pytest.raises(UserError, match=sentence):
        load_retrieval("IMDB", data_dir=tmp_path, options=Options(summaries=tmp_path / name))


def test_summaries_that_are_not_there(tmp_path):
    write_reviews(tmp_path)
    for name in ("short.csv", "short.json"):
        with pytest.raises(UserError, match=name):
            load_retrieval("IMDB", data_dir=tmp_path, options=Options(summaries=tmp_path / name))


# --- 20 Newsgroups -------------------------------------------------------------------------------------------------


def write_messages(data_dir, split="test", below="20Newsgroups"):
    root = data_dir / below / f"20news-bydate-{split}"
    for place, group in enumerate(QUERIES):
        for number in range(1 + place % 3):
            path = root / group / str(53068 + 10 * number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"From: someone\nSubject: {group} {number}\n\ncaf\xe9\n".encode("latin-1"))
    return root


@pytest.mark.parametrize("split", ["test", "train"])
def test_messages_are_those_that_scikit_learn_reads(split, tmp_path):
    root = write_messages(tmp_path, split)
    task = load_retrieval("20Newsgroups", split, tmp_path)
    oracle = load_files(str(root), encoding="latin1", shuffle=False)
    names = ["/".join(path.split("/")[-2:]) for path in oracle.filenames]
    expected = {name: (message, label) for name, message, label in zip(names, oracle.data, oracle.target.tolist(), strict=True)}
    gallery = task.gallery
    assert dict(zip(gallery.ids, zip(gallery.texts, gallery.labels.tolist(), strict=True), strict=True)) == expected
    assert gallery.ids == sorted(gallery.ids)
    assert task.query.ids == oracle.target_names and len(set(task.query.texts)) == 20
    assert task.protocols[""].counts.tolist() == [1 + place % 3 for place in range(20)]
    assert "café" in gallery.texts[0]


def test_the_default_is_the_test_split_wherever_it_was_unpacked(tmp_path):
    write_messages(tmp_path, below=".")
    assert load_retrieval("20Newsgroups", data_dir=tmp_path).split == "test"


@pytest.mark.parametrize("change", ["missing", "too many"])
def test_groups_that_are_not_the_twenty(change, tmp_path):
    root = write_messages(tmp_path)
    if change == "missing":
        (root / "sci.med").rename(tmp_path / "sci.med")
    else:
        (root / "sci.math").mkdir()
    with pytest.raises(UserError, match=r"'sci.m(ed|ath)' is missing or too many"):
        load_retrieval("20Newsgroups", data_dir=tmp_path)


# --- NanoBEIR ------------------------------------------------------------------------------------------------------

CORPUS = {"_id": ["d3", "d1", "d2", "d4"], "text": ["About salt.", "About fish oil.", "About cancer.", "About bones."]}
ASKED = {"_id": ["PLAIN-2", "PLAIN-12", "PLAIN-9"], "text": ["does fish help", "is salt bad", "what is love"]}
QRELS = {"query-id": ["PLAIN-2", "PLAIN-12", "PLAIN-2", "PLAIN-2"], "corpus-id": ["d2", "d3", "d1", "d2"]}
NOTHING = pa.array([], pa.string())


def write_nano(data_dir, name="NanoNFCorpus", corpus=CORPUS, queries=ASKED, qrels=QRELS):
    root = data_dir / "hub/zeta-alpha-ai" / name
    for part, table in {"corpus": corpus, "queries": queries, "qrels": qrels}.items():
        (root / part).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), root / part / "train-00000-of-00001.parquet")
    return root


@pytest.mark.parametrize("name", [name for name in RETRIEVAL if name.startswith("Nano")])
def test_nano(name, tmp_path):
    write_nano(tmp_path, name)
    task = load_retrieval(name, data_dir=tmp_path)
    assert (task.name, task.split, task.leave_one_out) == (name, "test", False)
    assert task.query.ids == ASKED["_id"] and list(task.query.texts) == ASKED["text"]
    assert task.gallery.ids == CORPUS["_id"] and list(task.gallery.texts) == CORPUS["text"]
    relevance = task.protocols[""]
    assert [[task.gallery.ids[place] for place in relevance.positives[query]] for query in range(3)] == [["d1", "d2"], ["d3"], []]
    assert relevance.counts.tolist() == [2, 1, 0] and relevance.without_positives == 1


def test_nano_with_summaries(tmp_path):
    write_nano(tmp_path)
    path = write_summaries(tmp_path / "short.json", {key: f"S {key}" for key in CORPUS["_id"]})
    task = load_retrieval("NanoNFCorpus", data_dir=tmp_path, options=Options(summaries=path))
    assert task.name == "NanoNFCorpus-summaries"
    assert task.gallery.texts == ("S d3", "S d1", "S d2", "S d4") and list(task.query.texts) == ASKED["text"]


def test_numbers_as_ids(tmp_path):
    tables = {"corpus": CORPUS | {"_id": [3, 1, 2, 4]}, "queries": ASKED | {"_id": [7, 8, 9]}}
    write_nano(tmp_path, **tables, qrels={"query-id": [7, 8], "corpus-id": [4, 3], "score": np.ones(2)})
    assert load_retrieval("NanoNFCorpus", data_dir=tmp_path).protocols[""].counts.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"corpus": {"_id": ["d1"]}}, "has no column 'text'"),
        (
            {"qrels": {"query-id": ["x"], "corpus-id": ["d1"]}},
            "hold 1 pairs of which one is neither query nor document, e.g. 'x' with 'd1'",
        ),
        ({"qrels": {"query-id": ["PLAIN-2"], "corpus-id": ["y"]}}, "e.g. 'PLAIN-2' with 'y'"),
        ({"corpus": CORPUS | {"_id": ["d1", "d1", "d2", "d3"]}}, "gallery of NanoNFCorpus, split test, hold 'd1' twice"),
        (
            {"queries": {"_id": NOTHING, "text": NOTHING}, "qrels": {"query-id": NOTHING, "corpus-id": NOTHING}},
            "empty",
        ),
    ],
)
def test_parts_that_do_not_fit_together(tables, sentence, tmp_path):
    write_nano(tmp_path, **tables)
    with pytest.raises(UserError, match=sentence):
        load_retrieval("NanoNFCorpus", data_dir=tmp_path)


def test_columns_of_other_lengths(tmp_path, monkeypatch):
    """As a flipped bit in a parquet file can make them."""
    write_nano(tmp_path)
    read = nanobeir.read_texts
    monkeypatch.setattr(nanobeir, "read_texts", lambda files, column: read(files, column)[: 4 if column == "_id" else 2])
    with pytest.raises(UserError, match=r"columns _id and text of '.*queries.*' do not have the same length; it is damaged"):
        load_retrieval("NanoNFCorpus", data_dir=tmp_path)


def test_a_torn_parquet_file(tmp_path):
    path = write_nano(tmp_path) / "corpus/train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="not a readable parquet file"):
        load_retrieval("NanoNFCorpus", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["IMDB", "20Newsgroups"])
def test_what_is_not_there(name, tmp_path):
    with pytest.raises(UserError, match=f"{name} is not in .* --(datasets|list) {name} "):
        load_retrieval(name, data_dir=tmp_path)


def test_a_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    with pytest.raises(UserError, match="zeta-alpha-ai/NanoNQ"):
        load_retrieval("NanoNQ", data_dir=tmp_path)
