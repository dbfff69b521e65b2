"""Ranks of positives against a stable sort of the whole matrix of similarities."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.retrieval.relevance import Lists, Relevance
from datasets.retrieval.revisited import protocols
from engine import ranking
from engine.ranking import Ranks, rank_positives

BLOCKS = [1, 3, None]


def brute_force(similarities, relevance):
    """Sort every row, take out what is ignored, and look each positive up."""
    found = []
    for query, row in enumerate(np.asarray(similarities, dtype=np.float64)):
        ignored = set(relevance.ignored(query, query + 1)[1].tolist())
        order = [item for item in np.argsort(-row, kind="stable").tolist() if item not in ignored]
        found.append(sorted(order.index(item) for item in relevance.relevant(query, query + 1)[1].tolist()))
    return found


def listed(ranks):
    return [ranks[query].tolist() for query in range(len(ranks))]


def whole_numbers(generator, count, width=3):
    """Features whose dot products are exact in float32 whatever the order of summation, with many ties."""
    return torch.from_numpy(generator.integers(-2, 3, (count, width)).astype(np.float32))


def judged(generator, n_query, n_gallery):
    """Random positives and junk; the first query has no positives, the second nothing else."""
    grades = generator.integers(0, 3, (n_query, n_gallery))
    grades[:1][grades[:1] == 1] = 0
    grades[1:2] = 1
    return Relevance(*(Lists.of([np.flatnonzero(row == grade) for row in grades]) for grade in (1, 2)))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("n_gallery", [1, 2, 3, 4, 40, 300])
def test_listed_positives_and_junk_with_many_ties(n_gallery, block):
    generator = np.random.default_rng(n_gallery)
    query, gallery = whole_numbers(generator, 7), whole_numbers(generator, n_gallery)
    relevance = judged(generator, 7, n_gallery)
    ranks = rank_positives(query, gallery, {"listed": relevance}, block=block)["listed"]
    assert listed(ranks) == brute_force(query @ gallery.T, relevance)
    assert (ranks.counts == relevance.counts).all()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("seed", range(3))
def test_leave_one_out_with_many_ties(seed, block):
    generator = np.random.default_rng(seed)
    features = whole_numbers(generator, 50)
    labels = generator.integers(0, 12, 50)
    labels[0] = 12  # alone in its class
    relevance = Relevance.by_label(labels, labels, leave_one_out=True)
    ranks = rank_positives(features, features, {"labels": relevance}, block=block)["labels"]
    assert listed(ranks) == brute_force(features @ features.T, relevance)
    assert len(ranks[0]) == 0


@pytest.mark.parametrize("block", BLOCKS)
def test_cosines_of_labelled_items(block):
    generator = torch.Generator().manual_seed(0)
    query, gallery = (torch.nn.functional.normalize(torch.randn(n, 16, generator=generator), dim=1) for n in (8, 60))
    relevance = Relevance.by_label(np.arange(8) % 7, np.arange(60) % 9)
    ranks = rank_positives(query, gallery, {"labels": relevance}, block=block)["labels"]
    assert listed(ranks) == brute_force(query.double() @ gallery.double().T, relevance)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("processes", [1, 2, 5, 17])
def test_shares_of_the_queries_give_the_ranks_of_all(processes, block):
    """As several processes rank, more of them than queries too."""
    generator = np.random.default_rng(3)
    rows, labels = whole_numbers(generator, 13), generator.integers(4, size=13)
    relevance = {"": Relevance.by_label(labels, labels, leave_one_out=True)}
    edges = [13 * number // processes for number in range(processes + 1)]
    parts = [rank_positives(rows, rows, relevance, block=block, queries=range(*pair))[""] for pair in pairwise(edges)]
    joined, expected = Ranks.joined(parts), rank_positives(rows, rows, relevance)[""]
    assert listed(joined) == listed(expected)
    np.testing.assert_array_equal(joined.starts, expected.starts)


@pytest.mark.parametrize("block", BLOCKS)
def test_several_ways_of_judging_share_one_pass(block, monkeypatch):
    generator = np.random.default_rng(0)
    query, gallery = whole_numbers(generator, 5), whole_numbers(generator, 60)
    grades = generator.integers(0, 4, (5, 60))
    relevance = protocols([{grade: np.flatnonzero(row == n) for n, grade in enumerate(("easy", "hard", "junk"))} for row in grades])
    passes = []
    monkeypatch.setattr(ranking, "_keys", lambda similarities, copies, real=ranking._keys: passes.append(1) or real(similarities, copies))
    ranks = rank_positives(query, gallery, relevance, block=block)
    assert {name: listed(of) for name, of in ranks.items()} == {name: brute_force(query @ gallery.T, of) for name, of in relevance.items()}
    assert len(passes) == -(-5 // (block or 5))


@pytest.mark.parametrize("n_gallery", [2, 3, 5, 17, 101, 1003])
@pytest.mark.parametrize("width", [8, 100, 512])
def test_equal_rows_tie_exactly_wherever_they_lie(n_gallery, width):
    """A matrix product alone does not see to that: it rounds the columns at its edges differently."""
    generator = torch.Generator().manual_seed(n_gallery)
    different = torch.nn.functional.normalize(torch.randn(min(20, max(1, n_gallery // 3)), width, generator=generator), dim=1)
    which = torch.randint(len(different), (n_gallery,), generator=generator)
    query = torch.nn.functional.normalize(torch.randn(5, width, generator=generator), dim=1)
    relevance = Relevance(Lists.of([np.arange(n_gallery)[start::5] for start in range(5)]))
    expected = brute_force((query @ different.T)[:, which], relevance)
    for block in BLOCKS:
        assert listed(rank_positives(query, different[which], {"": relevance}, block=block)[""]) == expected


def test_zeros_of_both_signs_tie():
    query, gallery = torch.tensor([[1.0, 0.0]]), torch.tensor([[-0.0, 1.0], [0.0, 1.0], [-0.0, -1.0], [1.0, 0.0]])
    assert listed(rank_positives(query, gallery, {"": Relevance(Lists.of([[0, 1, 2]]))})[""]) == [[1, 2, 3]]
    keys = ranking._keys(torch.tensor([[-0.0, 0.0, -1e-30, 1e-30, -0.0]]), torch.arange(5))
    assert keys.argsort().tolist() == [[3, 0, 1, 4, 2]]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_ranks_are_those_of_brute_force_for_any_shape(n_query, n_gallery, seed, block):
    generator = np.random.default_rng(seed)
    query, gallery = whole_numbers(generator, n_query, 2), whole_numbers(generator, n_gallery, 2)
    relevance = judged(generator, n_query, n_gallery)
    ranks = rank_positives(query, gallery, {"": relevance}, block=block)[""]
    assert listed(ranks) == brute_force(query @ gallery.T, relevance)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.25, 2.0, 64.0]))
def test_what_keeps_the_order_of_similarities_keeps_ranks(seed, scale):
    generator = np.random.default_rng(seed)
    query, gallery = whole_numbers(generator, 4), whole_numbers(generator, 20)
    relevance = judged(generator, 4, 20)
    shifted = torch.cat([query, torch.ones(4, 1)], dim=1), torch.cat([gallery, torch.full((20, 1), 8.0)], dim=1)
    expected = listed(rank_positives(query, gallery, {"": relevance})[""])
    assert listed(rank_positives(scale * query, gallery, {"": relevance})[""]) == expected
    assert listed(rank_positives(*shifted, {"": relevance})[""]) == expected


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_gallery_matters_to_ties_only(seed):
    generator = np.random.default_rng(seed)
    query = torch.tensor([[1.0, 32], [1, -32], [32, 1], [-32, 1]])
    gallery = torch.from_numpy(np.stack([generator.permutation(25) for _ in range(2)], axis=1))  # similarities differ, and are exact
    labels, order = generator.integers(0, 3, 25), generator.permutation(25)
    ranks, permuted = (
        rank_positives(query, gallery[each].float(), {"": Relevance.by_label(np.arange(4), labels[each])})[""]
        for each in (np.arange(25), order)
    )
    assert listed(ranks) == listed(permuted)


def test_an_irrelevant_item_at_the_bottom_changes_nothing():
    generator = np.random.default_rng(0)
    query, gallery = whole_numbers(generator, 5).abs() + 1, whole_numbers(generator, 20)
    relevance = Relevance(Lists.of([[3, 5], [1], [], list(range(20)), [19]]))
    longer = torch.cat([gallery, torch.full((1, 3), -100.0)])
    assert listed(rank_positives(query, longer, {"": relevance})[""]) == listed(rank_positives(query, gallery, {"": relevance})[""])


def test_no_queries_and_no_judging_give_no_ranks():
    gallery = torch.eye(3)
    assert len(rank_positives(torch.empty(0, 3), gallery, {"": Relevance(Lists.of([]))})[""]) == 0
    assert rank_positives(gallery, gallery, {}) == {}


def test_the_block_follows_the_memory_it_takes(monkeypatch):
    few = {"": Relevance(Lists.of([[0]] * 9))}
    cpu = torch.device("cpu")
    assert ranking._block(10**9, few, cpu) == 1
    assert 20 <= ranking._block(500_000, few, cpu) <= 60
    many = {"": Relevance(Lists.of([range(500)] * 9), Lists.of([range(500, 1000)] * 9))}
    assert ranking._block(1000, many, cpu) < ranking._block(1000, few, cpu) / 2
    monkeypatch.setitem(ranking.WORK, "cpu", 1)
    query = torch.eye(4)
    assert listed(rank_positives(query, query, {"": Relevance(Lists.of([[n] for n in range(4)]))})[""]) == [[0]] * 4


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_parts_hold_every_query_in_order(size):
    ranks = Ranks.of(np.arange(9, dtype=np.int32), np.array([0, 3, 0, 1, 5, 0]))
    parts = list(ranks.parts(size))
    assert [each for part in parts for each in listed(part)] == listed(ranks)
    assert len(parts) == 1 if size == 100 else len(parts) > 1


@pytest.mark.parametrize(
    ("query", "gallery", "relevance", "message"),
    [
        (torch.eye(3), torch.eye(4), Relevance(Lists.of([[0]] * 3)), "[3, 3] and [4, 4]"),
        (torch.eye(3), torch.eye(3), Relevance(Lists.of([[0]] * 2)), "'x' judges 2 queries, but there are 3"),
        (torch.eye(3), torch.ones(2, 3), Relevance(Lists.of([[0]] * 3), leave_one_out=True), "'x' leaves the query out of a gallery of 2"),
        (torch.eye(3).log(), torch.eye(3), Relevance(Lists.of([[0]] * 3)), "3 query features are not finite, the first that of item 0"),
        (torch.eye(2), torch.tensor([[1.0, 0], [0, torch.nan]]), Relevance(Lists.of([[0]] * 2)), "1 gallery features are not finite, "
         "the first that of item 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(query, gallery, relevance, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        rank_positives(query, gallery, {"x": relevance})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("block", BLOCKS)
def test_a_gpu_ranks_as_the_cpu_does(block):
    generator = np.random.default_rng(0)
    features = whole_numbers(generator, 200)
    labels = generator.integers(0, 12, 200)
    relevance = {"labels": Relevance.by_label(labels, labels, leave_one_out=True), "listed": judged(generator, 200, 200)}
    expected, ranks = (rank_positives(features, features, relevance, device, block) for device in ("cpu", "cuda"))
    assert {name: listed(of) for name, of in ranks.items()} == {name: listed(of) for name, of in expected.items()}
