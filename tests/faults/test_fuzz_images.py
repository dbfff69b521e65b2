"""Damaged images, however they are decoded: an image, or one that is told to be unreadable; and files of decoded pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.decoding import decode
from datasets.registry import load_task
from datasets.samples import UnreadableImage
from engine.embed import LoadOptions, embed_images
from engine.pixel_cache import with_cached_pixels
from engine.runtime import start
from models.loading import load_encoder
from tests.faults.damage import Reader, attack, files_in
from tests.faults.scale import times
from tests.helpers import write_images


def encoded(form: str, mode: str = "RGB", size: tuple[int, int] = (24, 18), **options: Any) -> bytes:
    stream, coarse = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode).save(stream, form, **options)
    return stream.getvalue()


IMAGES = {
    "jpeg": encoded("JPEG"),
    "progressive jpeg": encoded("JPEG", progressive=True),
    "cmyk jpeg": encoded("JPEG", "CMYK"),
    "large jpeg": encoded("JPEG", size=(900, 820), quality=10),
    "png": encoded("PNG"),
    "palette png": encoded("PNG", "P", transparency=0),
    "grey png": encoded("PNG", "L"),
    "gif": encoded("GIF", "P"),
    "bmp": encoded("BMP"),
    "tiff": encoded("TIFF"),
    "webp": encoded("WEBP"),
}


def decoded(name: str, side: int | None) -> Reader:
    """Whatever the decoder raises makes an unreadable image of it (datasets.samples)."""
    full = decode(IMAGES[name], side)

    def check(image: Image.Image) -> None:
        assert image.mode == "RGB"
        assert min(image.size) > 0
        assert np.asarray(image).dtype == np.uint8

    def read(folder: Path) -> Image.Image:
        try:
            return decode((folder / "x").read_bytes(), side)
        except (TimeoutError, MemoryError):
            raise
        except Exception as error:
            raise UnreadableImage("x", "damaged") from error

    check(full)
    return Reader({"x": IMAGES[name]}, read, check, also=(UnreadableImage,), names=("x",))


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it then reads
@pytest.mark.parametrize("side", [None, 32], ids=["whole", "reduced"])
@pytest.mark.parametrize("name", IMAGES)
def test_damaged_images(name: str, side: int | None) -> None:
    attack(decoded(name, side), times(10, 100 if "large" in name else 200))


@pytest.mark.usefixtures("fresh_accelerator")
@pytest.mark.filterwarnings("ignore")
def test_damaged_images_are_counted(small_model: Path, tmp_path: Path) -> None:
    """Through the loader to the embeddings: those of the other images are the same, to the bit."""
    write_images(tmp_path / "test", 2)
    encoder, runtime, options = load_encoder(str(small_model)), start("cpu"), LoadOptions(batch_size=8, num_workers=0, max_skipped=1)
    whole = embed_images(runtime, encoder, load_task(f"imagefolder:{tmp_path}", "test"), options).embeddings
    victim = "test/blue/01.png"

    def read(folder: Path) -> Any:
        return embed_images(runtime, encoder, load_task(f"imagefolder:{folder}", "test"), options)

    def check(found: Any) -> None:
        assert len(found.indices) + len(found.skipped.entries) == len(whole)
        assert np.isfinite(found.embeddings).all()
        rows = [row for row, index in enumerate(found.indices) if index != 1]
        np.testing.assert_allclose(found.embeddings[rows], whole[[i for i in found.indices if i != 1]], atol=1e-6)

    attack(Reader(files_in(tmp_path), read, check, (victim,), names=("blue", "imagefolder")), times(10, 150))


@pytest.mark.usefixtures("fresh_accelerator")
def test_damaged_pixel_caches(small_model: Path, tmp_path: Path) -> None:
    """The pixels have no checksum, being mapped and not read; what is around them is looked at."""
    write_images(tmp_path / "images/test", 2)
    encoder, runtime = load_encoder(str(small_model)), start("cpu")
    task = load_task(f"imagefolder:{tmp_path / 'images'}", "test")

    def read(folder: Path) -> Any:
        cached = with_cached_pixels(runtime, encoder.preprocess.geometry, task, LoadOptions(8, 0, pixel_cache=folder))
        return cached.samples.pixels_at(np.arange(len(task)))  # type: ignore[attr-defined]

    def check(pixels: Any) -> None:
        assert pixels.shape == (len(task), 3, *encoder.preprocess.geometry.size)
        assert pixels.dtype == np.uint8

    (tmp_path / "cache").mkdir()
    read(tmp_path / "cache")
    attack(Reader(files_in(tmp_path / "cache"), read, check), times(15, 300))
