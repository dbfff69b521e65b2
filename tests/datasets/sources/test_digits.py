"""Digits: scikit-learn's images, split once and for all."""

import pickle

import numpy as np
from sklearn.datasets import load_digits

from datasets.sources.digits import CLASSNAMES, digits_task


def test_sizes_and_shares():
    train, test = digits_task("train"), digits_task("test")
    assert (len(train), len(test)) == (1200, 597)
    shares = [np.bincount(task.labels, minlength=10) / len(task) for task in (train, test)]
    assert np.abs(shares[0] - shares[1]).max() < 0.005


def test_splits_are_disjoint_and_complete():
    ids = [*digits_task("train").sample_ids, *digits_task("test").sample_ids]
    assert len(set(ids)) == len(ids) == 1797


def test_images_and_labels_are_those_of_scikit_learn():
    data, task = load_digits(), digits_task("test")
    for index in (0, 100, 596):
        row = int(task.samples.sample_id(index).removeprefix("digits-"))
        pixels = np.asarray(task.samples.image(index))
        assert pixels.shape == (8, 8, 3)
        assert np.abs(pixels[..., 0] - data.images[row] * 255 / 16).max() <= 0.5
        assert task.labels[index] == data.target[row] and task.classnames[task.labels[index]] == str(data.target[row])


def test_digest_is_that_of_the_pixels():
    samples = digits_task("test").samples
    by_pixels = {samples.image(index).tobytes() for index in range(len(samples))}
    by_digest = {samples.digest(index) for index in range(len(samples))}
    assert len(by_pixels) == len(by_digest)


def test_two_readings_agree_and_survive_pickling():
    task = digits_task("test")
    assert pickle.loads(pickle.dumps(task)).fingerprint == digits_task("test").fingerprint
    assert digits_task("train").fingerprint != task.fingerprint
    assert len(CLASSNAMES) == 10
