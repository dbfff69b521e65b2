"""``IMDB``: 50,000 film reviews, found by what kind of review they are.

Layout (the CSV that is spread as "IMDB Dataset of 50K Movie Reviews")::

    IMDB_Reviews/IMDB_Dataset.csv    review,sentiment
                                     "One of the other reviewers has mentioned ...<br /><br />The first thing ...",positive

Two queries, the gallery all reviews as they are in the file, or summaries (:mod:`datasets.retrieval.summaries`). Labels are 0,
negative, and 1, positive, whatever the order of the rows; a review's id is its row, from 0.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from datasets.places import find
from datasets.retrieval.collection import Collection
from datasets.retrieval.options import Options
from datasets.retrieval.summaries import called, read_csv, summarised
from datasets.retrieval.task import RetrievalTask, by_label

COLUMNS = ["review", "sentiment"]
SENTIMENTS = ("negative", "positive")


def imdb_task(name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
    """See :class:`~datasets.retrieval.table.RetrievalSource`."""
    path = find(name, data_dir, "IMDB_Reviews/IMDB_Dataset.csv", "IMDB_Reviews/IMDB Dataset.csv")
    header, *rows = read_csv(path) or [[]]
    if header != COLUMNS or any(len(row) != len(COLUMNS) or row[1] not in SENTIMENTS for row in rows):
        raise UserError(f"'{path}' must have the columns review,sentiment, and in every row a review that is positive or negative.")
    labels = [SENTIMENTS.index(sentiment) for _, sentiment in rows]
    reviews = Collection.of_texts([review for review, _ in rows], [str(row) for row in range(len(rows))], labels)
    query = Collection.of_texts([f"a {sentiment} review of a movie." for sentiment in SENTIMENTS], SENTIMENTS, [0, 1])
    return by_label(called(name, options.summaries), split, query, summarised(reviews, options.summaries))
