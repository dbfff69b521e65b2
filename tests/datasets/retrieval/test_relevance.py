"""Relevance against matrices of all pairs."""

import numpy as np
import pytest

from datasets.retrieval.relevance import Lists, Relevance


def matrix(pairs, shape):
    """Pairs as the matrix that the module exists to avoid; each pair may be there once."""
    counts = np.zeros(shape, dtype=int)
    np.add.at(counts, pairs, 1)
    assert counts.max(initial=0) <= 1
    return counts.astype(bool)


def blocks(n, size):
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def whole(pairs_of, n, n_gallery, size):
    """The matrix of all queries, put together from blocks."""
    return np.concatenate([matrix(pairs_of(start, stop), (stop - start, n_gallery)) for start, stop in blocks(n, size)])


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("seed", range(3))
def test_equal_labels(seed, size):
    generator = np.random.default_rng(seed)
    query, gallery = generator.integers(0, 6, 11), generator.integers(2, 8, 17)
    relevance = Relevance.by_label(query, gallery)
    expected = query[:, None] == gallery[None]
    assert (whole(relevance.relevant, 11, 17, size) == expected).all()
    assert not whole(relevance.ignored, 11, 17, size).any()
    assert (relevance.counts == expected.sum(1)).all()
    assert relevance.without_positives == (expected.sum(1) == 0).sum() > 0


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("seed", range(3))
def test_leave_one_out(seed, size):
    labels = np.random.default_rng(seed).integers(0, 9, 13)
    relevance = Relevance.by_label(labels, labels, leave_one_out=True)
    expected = (labels[:, None] == labels[None]) & ~np.eye(13, dtype=bool)
    assert (whole(relevance.relevant, 13, 13, size) == expected).all()
    assert (whole(relevance.ignored, 13, 13, size) == np.eye(13, dtype=bool)).all()
    assert (relevance.counts == expected.sum(1)).all()
    assert relevance.without_positives == (expected.sum(1) == 0).sum()


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("seed", range(3))
def test_listed(seed, size):
    generator = np.random.default_rng(seed)
    grades = generator.integers(0, 3, (8, 10))  # 0 irrelevant, 1 positive, 2 junk
    grades[3], grades[7] = 0, 2
    lists = [Lists.of([generator.permutation(np.flatnonzero(row == grade)) for row in grades]) for grade in (1, 2)]
    relevance = Relevance(*lists)
    assert (whole(relevance.relevant, 8, 10, size) == (grades == 1)).all()
    assert (whole(relevance.ignored, 8, 10, size) == (grades == 2)).all()
    assert (relevance.counts == (grades == 1).sum(1)).all()
    assert relevance.without_positives == 2


def test_lists_are_sorted_and_without_repetition():
    lists = Lists.of([[5, 2, 5], [], [0]])
    assert [lists[query].tolist() for query in range(3)] == [[2, 5], [], [0]]
    assert lists.counts.tolist() == [2, 0, 1]
    assert len(Lists.of([])) == 0


def test_queries_of_a_label_share_their_list():
    relevance = Relevance.by_label(np.zeros(1000, np.int64), np.zeros(2000, np.int64))
    assert len(relevance.positives.values) == 2000
    assert relevance.counts.sum() == 2_000_000


def test_junk_of_other_queries_is_refused():
    with pytest.raises(ValueError, match="2 lists of positives but 1 of junk"):
        Relevance(Lists.of([[0], [1]]), Lists.of([[2]]))
