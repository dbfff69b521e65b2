"""The renderer: pure, visible, and faithful to what a drawing says."""

import pickle
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest

from datasets.sources.drawings import COLORS, INKS, PAPERS, PLACES, SIDE, SIZES, Drawing, contrasting, render
from datasets.sources.masks import FONTS, KINDS, MASK_SIDE, PICTOGRAMS, RARE_FONTS, TEXTURES, glyph_mask, outline, shape_mask, texture_mask

STAR = Drawing("star", "red", "white", seed=3)


def pixels(drawing: Drawing) -> np.ndarray:
    return np.asarray(render(drawing)).astype(int)


def ink(drawing: Drawing) -> np.ndarray:
    """Where a black-on-white drawing is dark."""
    return pixels(drawing).sum(axis=2) < 3 * 128


def test_image_is_rgb_of_the_native_side():
    image = render(STAR)
    assert image.mode == "RGB" and image.size == (SIDE, SIDE)


def test_rendering_is_a_pure_function_of_the_drawing():
    noisy = replace(STAR, noise=30.0, gradient=True)
    assert render(noisy).tobytes() == render(pickle.loads(pickle.dumps(noisy))).tobytes()


def test_rendering_is_the_same_in_another_process():
    code = "from datasets.sources.drawings import *; import hashlib; d = Drawing('star', 'red', 'white', seed=3, noise=9.0)"
    code += "; print(hashlib.sha256(render(d).tobytes()).hexdigest())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    import hashlib

    assert other.strip() == hashlib.sha256(render(replace(STAR, noise=9.0)).tobytes()).hexdigest()


CHANGES = {
    "thing": "heart",
    "color": "blue",
    "background": "yellow",
    "seed": 4,
    "font": "DejaVuSans",
    "texture": "dotted",
    "size": "small",
    "position": "top left",
    "count": 3,
    "turn": 90.0,
    "noise": 20.0,
    "gradient": True,
    "outlined": True,
    "mirrored": True,
    "inverted": True,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Drawing)])
def test_every_field_changes_pixels_and_digest(name):
    before = replace(STAR, thing="A") if name == "font" else STAR
    after = replace(before, **{name: CHANGES[name]})
    assert before.digest() != after.digest()
    if name != "font":  # a character without a font is no drawing
        assert render(before).tobytes() != render(after).tobytes()


def test_digest_depends_on_the_version_of_the_renderer(monkeypatch):
    before = STAR.digest()
    monkeypatch.setattr("datasets.sources.drawings.RENDERER_VERSION", 10**6)
    assert STAR.digest() != before


GOLDEN_RED = [[221, 202, 175], [222, 215, 184], [221, 199, 176]]


def test_golden_drawing():
    """3 x 3 means of one drawing, as of renderer version 1; coarse, so that another Pillow's rounding does not matter."""
    means = pixels(replace(STAR, gradient=True)).reshape(3, 16, 3, 16, 3).mean(axis=(1, 3))
    assert np.allclose(means[..., 0].round(), GOLDEN_RED, atol=2)


@pytest.mark.parametrize("size", SIZES)
def test_the_side_of_a_thing_is_that_of_its_size(size):
    for seed in range(20):
        dark = ink(Drawing("circle", "black", "white", seed, size=size, turn=0))
        extent = dark.any(axis=0).sum()
        least, most = SIZES[size]
        assert 0.75 * least <= extent <= most


@pytest.mark.parametrize("position", PLACES)
def test_the_thing_lies_where_its_position_says(position):
    from datasets.sources.drawings import POSITIONS

    for seed in range(20):
        rows, columns = np.nonzero(ink(Drawing("circle", "black", "white", seed, size="medium", position=position)))
        offset = np.array([columns.mean(), rows.mean()]) - (SIDE - 1) / 2
        assert tuple(np.where(np.abs(offset) < 5, 0, np.sign(offset)).astype(int)) == POSITIONS[position]


@pytest.mark.parametrize("count", range(1, 7))
def test_as_many_things_as_counted(count):
    from scipy.ndimage import label

    for seed in range(20):
        assert label(ink(Drawing("square", "black", "white", seed, count=count)))[1] == count


@pytest.mark.parametrize("color", COLORS)
def test_every_colour_has_several_contrasting_backgrounds(color):
    assert color not in contrasting(color) and len(contrasting(color)) >= 4


def test_glyph_inks_show_on_every_paper():
    assert all(paper in contrasting(ink) for ink in INKS for paper in PAPERS)


@pytest.mark.parametrize("mask", [shape_mask(kind) for kind in (*KINDS, *PICTOGRAMS)] + [outline(kind) for kind in KINDS])
def test_shape_masks_are_neither_empty_nor_full(mask):
    share = np.asarray(mask).mean() / 255
    assert mask.size == (MASK_SIDE, MASK_SIDE) and 0.05 < share < 0.85


def test_masks_of_different_kinds_differ():
    assert len({shape_mask(kind).tobytes() for kind in (*KINDS, *PICTOGRAMS)}) == len(KINDS) + len(PICTOGRAMS)


@pytest.mark.parametrize("font", (*FONTS, *RARE_FONTS))
def test_every_font_has_every_letter_and_digit(font):
    glyphs = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    assert len({glyph_mask(glyph, font).tobytes() for glyph in glyphs}) == len(glyphs)


def test_textures_differ_and_leave_enough_ink():
    shares = {texture: np.asarray(texture_mask(texture)).mean() / 255 for texture in TEXTURES}
    assert shares.pop("solid") == 1
    assert all(0.3 < share < 0.7 for share in shares.values())
    assert len({texture_mask(texture).tobytes() for texture in TEXTURES}) == len(TEXTURES)
