"""How far IIMM can move when embeddings move: at most half of delta_A, plus delta_B (the paper's theorem)."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from metrics.iimm import iimm_terms
from tests.metrics.pairs import random_instance, unit


def wasserstein(cost):
    """1-Wasserstein distance of two equally large samples: the optimal coupling is a permutation."""
    return cost[linear_sum_assignment(cost)].mean()


def wrong_pairs(images, texts, labels):
    return [(x, texts[k]) for x, label in zip(images, labels, strict=True) for k in range(len(texts)) if k != label]


def pair_cost(before, after):
    """Cost of moving an (image, wrong text) pair: the image's distance plus the text's."""
    (x, t), (y, u) = (tuple(np.array(side) for side in zip(*sample, strict=True)) for sample in (before, after))
    return cdist(x, y) + cdist(t, u)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), step=st.sampled_from([0.0, 0.01, 0.3, 3.0]), images=st.integers(2, 20))
def test_iimm_moves_no_further_than_the_embeddings(seed, step, images):
    generator = np.random.default_rng(seed)
    x, t, labels = random_instance(seed, images=images, classes=4, dimensions=6)
    y, u = (unit(rows + step * generator.standard_normal(rows.shape)) for rows in (x, t))
    delta_a = wasserstein(pair_cost(wrong_pairs(x, t, labels), wrong_pairs(y, u, labels)))
    delta_b = wasserstein(cdist(x, y))
    before, after = iimm_terms(x, t, labels), iimm_terms(y, u, labels)
    assert abs(after.iimm - before.iimm) <= delta_a / 2 + delta_b + 1e-12
    assert abs(after.image_image - before.image_image) <= 2 * delta_b + 1e-12
    assert abs(after.wrong_label - before.wrong_label) <= delta_a + 1e-12
