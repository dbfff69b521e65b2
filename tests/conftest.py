"""What many tests need: a small random model and a small folder of images, made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import forget_accelerator, write_images, write_model

# Read when torch is first imported. Small models gain nothing from more threads, and threads that wait for one another on a
# busy machine are many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip local-dir: two towers of two blocks of width 32, images of 32 x 32 pixels, random weights. Do not write to it."""
    return write_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three colours: 8 images of each for training, 4 for testing. Do not write to it."""
    folder = tmp_path_factory.mktemp("images") / "colors"
    write_images(folder / "train", 8)
    write_images(folder / "test", 4, seed=1)
    return folder


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """For tests that make a Runtime: accelerate keeps its choices for the life of a process."""
    forget_accelerator()
    yield
    forget_accelerator()
