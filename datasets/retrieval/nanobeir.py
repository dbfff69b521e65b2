"""NanoBEIR: small parts of seven sets of BEIR, questions to find documents by.

``Nano<Name>`` is the data set ``zeta-alpha-ai/Nano<Name>`` of the Hugging Face hub (:mod:`datasets.hub_repository` tells where a
local copy may lie and which revision is read)::

    corpus/train-00000-of-00001.parquet     _id, text
    queries/train-00000-of-00001.parquet    _id, text
    qrels/train-00000-of-00001.parquet      query-id, corpus-id: the document is relevant to the query

Queries are searched as they are; documents too, or as summaries (:mod:`datasets.retrieval.summaries`). Ids are ``_id``.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from datasets.hub_repository import HubRepository, open_repository
from datasets.parquet_table import open_parquet, read_texts
from datasets.retrieval.collection import Collection
from datasets.retrieval.options import Options
from datasets.retrieval.relevance import Lists, Relevance
from datasets.retrieval.summaries import called, summarised
from datasets.retrieval.task import ONLY, RetrievalTask

ORGANISATION = "zeta-alpha-ai"


def nanobeir_task(name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
    """See :class:`~datasets.retrieval.table.RetrievalSource`. The order is that of the files."""
    repository = open_repository(f"{ORGANISATION}/{name}", data_dir)
    query, corpus = (_texts(repository, part) for part in ("queries", "corpus"))
    pairs = list(zip(*_columns(repository, "qrels", "query-id", "corpus-id"), strict=True))
    relevance = Relevance(_positives(name, pairs, query.ids, corpus.ids))
    return RetrievalTask(called(name, options.summaries), split, query, summarised(corpus, options.summaries), {ONLY: relevance})


def _texts(repository: HubRepository, part: str) -> Collection:
    ids, texts = _columns(repository, part, "_id", "text")
    return Collection.of_texts(texts, ids)


def _columns(repository: HubRepository, part: str, *columns: str) -> list[list[str]]:
    """Columns of the parquet files of one part."""
    files = [repository.fetch(file) for file in repository.split_files("train", part)]
    for file in files:
        if lacking := set(columns) - set(open_parquet(file).schema_arrow.names):
            raise UserError(f"'{file}' has no column '{min(lacking)}'; it is not a file of NanoBEIR.")
    read = [read_texts(files, column).tolist() for column in columns]
    if len({len(column) for column in read}) > 1:
        raise UserError(f"The columns {' and '.join(columns)} of '{files[0]}' do not have the same length; it is damaged, get it anew.")
    return read


def _positives(name: str, pairs: list[tuple[str, str]], queries: list[str], documents: list[str]) -> Lists:
    """The relevant documents' places of each query."""
    rows, columns = ({key: place for place, key in enumerate(keys)} for keys in (queries, documents))
    if unknown := [pair for pair in pairs if pair[0] not in rows or pair[1] not in columns]:
        first = " with ".join(map(repr, unknown[0]))
        raise UserError(f"The qrels of {name} hold {len(unknown)} pairs of which one is neither query nor document, e.g. {first}.")
    lists: list[list[int]] = [[] for _ in queries]
    for query, document in pairs:
        lists[rows[query]].append(columns[document])
    return Lists.of(lists)
