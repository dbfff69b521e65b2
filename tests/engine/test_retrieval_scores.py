"""Scores of retrieval against loops over whole rankings, torchmetrics, and cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_average_precision, retrieval_r_precision

from common.errors import UserError
from datasets.retrieval.relevance import Lists, Relevance
from engine.ranking import Ranks, rank_positives
from engine.retrieval_scores import retrieval_scores, revisited_scores


def ranks_of(*queries):
    """Ranks written down: a list for each query."""
    return Ranks.of(np.array([rank for ranks in queries for rank in ranks], dtype=np.int32), np.array([len(ranks) for ranks in queries]))


def drawn(seed, n_query=12, n_gallery=40):
    """For each query which items of a ranking are relevant, bool [G]; some queries have nothing, or all."""
    generator = np.random.default_rng(seed)
    relevant = generator.random((n_query, n_gallery)) < generator.random((n_query, 1))
    relevant[0], relevant[1], relevant[2] = False, True, np.arange(n_gallery) == n_gallery - 1
    return relevant


def brute_force(relevant):
    """AP, AP@R, R-precision and recall of one ranking, item by item."""
    R, hits, ap, ap_at_r = sum(relevant), 0, 0.0, 0.0
    for position, hit in enumerate(relevant, start=1):
        hits += hit
        ap += hit * hits / position / R
        ap_at_r += (position <= R) * hit * hits / position / R
    return [ap, ap_at_r, sum(relevant[:R]) / R, *(float(any(relevant[:k])) for k in (1, 5, 10))]


def brute_force_revisited(relevant):
    """Trapezoids under the precision-recall curve, and precision down to k or the last positive."""
    ranks = [position for position, hit in enumerate(relevant) if hit]
    area = 0.0
    for found, rank in enumerate(ranks):
        before = 1.0 if rank == 0 else found / rank
        area += (before + (found + 1) / (rank + 1)) / 2 / len(ranks)
    depths = [min(k, ranks[-1] + 1) for k in (1, 5, 10)]
    return [area, *(sum(relevant[:depth]) / depth for depth in depths)]


@pytest.mark.parametrize("n_gallery", [1, 2, 3, 4, 7, 40])
@pytest.mark.parametrize("part", [1, 5, 2**22])
def test_scores_are_those_of_loops(n_gallery, part, monkeypatch):
    monkeypatch.setattr(Ranks.parts, "__defaults__", (part,))
    relevant = drawn(n_gallery, n_gallery=n_gallery)
    ranks = ranks_of(*(np.flatnonzero(row) for row in relevant))
    scorable = [row.tolist() for row in relevant if row.any()]
    scores, revisited = retrieval_scores(ranks), revisited_scores(ranks)
    expected = np.array([brute_force(row) for row in scorable])
    values = [getattr(scores, name) for name in ("mAP", "mAP_at_R", "precision_at_R", "recall_at_1", "recall_at_5", "recall_at_10")]
    np.testing.assert_allclose(values, expected.mean(0), rtol=1e-12)
    by_trapezoids = np.array([brute_force_revisited(row) for row in scorable])
    values = [getattr(revisited, name) for name in ("mAP", "mP_at_1", "mP_at_5", "mP_at_10")]
    np.testing.assert_allclose(values, by_trapezoids.mean(0), rtol=1e-12)
    for got, per_query in ((scores, expected[:, 0]), (revisited, by_trapezoids[:, 0])):
        np.testing.assert_allclose(got.average_precision[relevant.any(1)], per_query, rtol=1e-12)
        assert np.isnan(got.average_precision[~relevant.any(1)]).all()
        assert (got.n_queries, got.n_without_positives) == (12, 12 - len(scorable))
        assert got.mAP_stderr == pytest.approx(np.std(per_query, ddof=1) / math.sqrt(len(per_query)), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_torchmetrics(seed):
    """Of shifted cosines, because torchmetrics takes positives with a score of 0 or less for irrelevant."""
    generator = torch.Generator().manual_seed(seed)
    query, gallery = (torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (10, 40))
    labels = np.random.default_rng(seed).integers(0, 6, 40)
    relevance = Relevance.by_label(labels[:10], labels)
    scores = retrieval_scores(rank_positives(query, gallery, {"": relevance})[""])
    relevant = torch.from_numpy(labels[:10, None] == labels)
    similarities = query @ gallery.T + 2
    precisions = [retrieval_average_precision(*each).item() for each in zip(similarities, relevant, strict=True)]
    np.testing.assert_allclose(scores.average_precision, precisions, atol=1e-6)
    at_r = [retrieval_r_precision(*each).item() for each in zip(similarities, relevant, strict=True)]
    assert scores.precision_at_R == pytest.approx(np.mean(at_r), abs=1e-6)


def test_r_is_counted_without_the_query_itself():
    """Corners of a rectangle with a class on each long side: the only positive stands behind the other class.

    Nothing is found at R = 1; R = 2, with the query among its own positives, would give 0.5.
    """
    features = torch.tensor([[x, y, math.sqrt(1 - x * x - y * y)] for x in (-0.1, 0.1) for y in (-0.2, 0.2)])
    labels = np.array([0, 0, 1, 1])
    scores = retrieval_scores(rank_positives(features, features, {"": Relevance.by_label(labels, labels, leave_one_out=True)})[""])
    assert (scores.mAP_at_R, scores.precision_at_R, scores.recall_at_1) == (0, 0, 0)
    assert (scores.mAP, scores.recall_at_5, scores.mAP_stderr) == (0.5, 1, 0)


def test_a_ranking_worked_out_by_hand():
    scores = retrieval_scores(ranks_of([0, 2, 5], [], [1]))
    assert scores.mAP == pytest.approx(((1 + 2 / 3 + 3 / 6) / 3 + 1 / 2) / 2)
    assert scores.mAP_at_R == pytest.approx(((1 + 2 / 3) / 3 + 0) / 2)
    assert scores.precision_at_R == pytest.approx((2 / 3 + 0) / 2)
    assert (scores.recall_at_1, scores.recall_at_5, scores.recall_at_10) == (0.5, 1, 1)
    assert (scores.n_queries, scores.n_without_positives) == (3, 1)


def test_revisited_scores_worked_out_by_hand_with_junk():
    """The ranking: junk, positive, irrelevant, junk, positive. Without junk the positives stand at ranks 0 and 2."""
    gallery = torch.tensor([[5.0], [4.0], [3.0], [2.0], [1.0]])
    relevance = Relevance(Lists.of([[1, 4]]), Lists.of([[0, 3]]))
    ranks = rank_positives(torch.ones(1, 1), gallery, {"": relevance})[""]
    assert ranks[0].tolist() == [0, 2]
    scores = revisited_scores(ranks)
    assert scores.mAP == pytest.approx(((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2)
    assert (scores.mP_at_1, scores.mP_at_5, scores.mP_at_10) == (1, pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_revisited_precision_stops_at_the_last_positive():
    scores = revisited_scores(ranks_of([0, 1], [], [3, 7, 20]))
    assert scores.mP_at_1 == pytest.approx((1 + 0) / 2)
    assert scores.mP_at_5 == pytest.approx((1 + 1 / 5) / 2)
    assert scores.mP_at_10 == pytest.approx((1 + 2 / 10) / 2)
    assert scores.n_without_positives == 1


def test_graded_documents_of_which_several_are_relevant():
    """The judgements of a text set: listed documents, one query without any, three documents that are the same."""
    gallery = torch.tensor([[1.0, 0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0, 1]])
    relevance = Relevance(Lists.of([[0, 2], [], [1, 3]]))
    ranks = rank_positives(torch.tensor([[1.0, 0], [0, 1], [0, 1]]), gallery, {"": relevance})[""]
    assert [ranks[query].tolist() for query in range(3)] == [[0, 2], [], [1, 3]]
    assert retrieval_scores(ranks).mAP == pytest.approx(((1 + 2 / 3) / 2 + (1 / 2 + 2 / 4) / 2) / 2)


@pytest.mark.parametrize("score", [retrieval_scores, revisited_scores])
def test_perfect_rankings_score_1(score):
    scores = score(ranks_of([0, 1, 2], [0], range(30)))
    values = {name: value for name, value in vars(scores).items() if isinstance(value, float) and name != "mAP_stderr"}
    assert len(values) >= 4
    assert set(values.values()) == {1.0}
    assert scores.mAP_stderr == 0


@pytest.mark.parametrize("score", [retrieval_scores, revisited_scores])
def test_one_query_has_no_standard_error(score):
    assert math.isnan(score(ranks_of([0, 1], [])).mAP_stderr)


@pytest.mark.parametrize("score", [retrieval_scores, revisited_scores])
@pytest.mark.parametrize("queries", [[], [[]], [[], []]])
def test_nothing_to_score_is_said(score, queries):
    with pytest.raises(UserError, match=f"None of the {len(queries)} queries has a positive"):
        score(ranks_of(*queries))
