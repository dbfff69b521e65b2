"""Which images make which step: every image once per epoch, the same for any number of processes, from any step on."""

import itertools

import pytest

from engine.order import EpochOrder

SIZES = [(24, 4, 1), (23, 4, 1), (23, 4, 3), (5, 8, 2), (17, 1, 1), (9, 4, 2)]  # samples, batch size, accumulate


def epoch(order, number=0, first=0):
    order.set(number, first)
    return list(order)


@pytest.mark.parametrize(("n", "size", "accumulate"), SIZES)
def test_an_epoch_has_every_image_once(n, size, accumulate):
    batches = epoch(EpochOrder(n, size, accumulate))
    assert sorted(itertools.chain(*batches)) == list(range(n))
    assert [len(batch) for batch in batches] == [size] * (n // size) + [n % size] * (n % size > 0)


@pytest.mark.parametrize(("n", "size", "accumulate"), SIZES)
def test_steps_and_micro_batches_add_up(n, size, accumulate):
    order = EpochOrder(n, size, accumulate)
    steps = range(order.steps)
    assert sum(order.step_size(step) for step in steps) == n
    assert sum(order.micro_batches(step) for step in steps) == len(order) == len(epoch(order))
    assert all(order.micro_batches(step) == accumulate for step in steps[:-1])


@pytest.mark.parametrize(("n", "size", "accumulate"), SIZES)
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_micro_batches_of_one(n, size, accumulate, world):
    """A process without a share takes one image, which it is told to weigh with 0."""
    alone = epoch(EpochOrder(n, size, accumulate, seed=5))
    orders = [EpochOrder(n, size, accumulate, rank, world, seed=5) for rank in range(world)]
    for whole, *parts in zip(alone, *map(epoch, orders), strict=True):
        shares = [order.share(len(whole)) for order in orders]
        counted = [part[:share] for part, share in zip(parts, shares, strict=True)]
        assert sorted(itertools.chain(*counted)) == sorted(whole)
        for part, share in zip(parts, shares, strict=True):
            assert len(part) == max(share, 1)
            assert set(part) <= set(whole)


@pytest.mark.parametrize("world", [1, 2])
def test_an_epoch_taken_up_at_a_step_is_the_rest_of_it(world):
    order = EpochOrder(23, 4, 2, rank=world - 1, world=world, seed=1)
    whole = epoch(order, 3)
    for first in range(order.steps):
        rest = epoch(order, 3, first)
        assert rest == whole[2 * first :]
        assert len(rest) == len(order)


def test_epochs_and_seeds_differ_and_come_again():
    order, other = EpochOrder(50, 50), EpochOrder(50, 50, seed=1)
    drawn = [*(epoch(order, number)[0] for number in range(3)), epoch(other)[0], list(range(50))]
    assert all(one != another for one, another in itertools.combinations(drawn, 2))
    assert epoch(EpochOrder(50, 50), 2)[0] == drawn[2]


def test_the_size_of_a_batch_does_not_change_the_order():
    assert list(itertools.chain(*epoch(EpochOrder(23, 4)))) == epoch(EpochOrder(23, 23))[0]
