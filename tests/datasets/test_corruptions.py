"""Corrupted images: formulas by hand, draws that only the sample id decides, and an effect that does not depend on the image's size."""

import io
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.cli import run
from common.errors import UserError
from datasets.corruptions import EFFECTS, CorruptedSamples, corrupt, generator
from datasets.corruptions import __main__ as sheet
from datasets.corruptions.constants import CONSTANTS
from datasets.corruptions.motion_blur import line_kernel
from datasets.corruptions.relative import REFERENCE, enlarged, reference_size
from datasets.corruptions.spatter import drops, equalized
from datasets.naming import CORRUPTIONS, SEVERITIES, STYLES, Corruption
from datasets.registry import load_task
from datasets.samples import RawSamples, Subset, UnreadableImage
from datasets.task import Task

DRAWN_KINDS = ("gaussian_noise", "impulse_noise", "motion_blur", "spatter")  # the others draw nothing
ALL = [Corruption(kind, severity, style) for style in STYLES for kind in CORRUPTIONS for severity in SEVERITIES]
LARGE = sheet.scene(1200, 900)
GOLDEN = [0.19070493955408707, 0.9136367571573695, 0.3403122492339251]  # of version 1


def photo(width=64, height=48, seed=0):
    """Smooth colours with some grain."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def numbers(image):
    return np.asarray(image, dtype=np.float64) / 255


def corrupted(image, kind, severity, style="relative", name="one"):
    corruption = Corruption(kind, severity, style)
    return corrupt(image, corruption, generator(name, corruption))


def distance(one, other):
    return np.sqrt(np.mean((numbers(one) - numbers(other)) ** 2))


@pytest.fixture
def samples():
    """Twelve images of 40 x 40 pixels."""
    return RawSamples(np.stack([np.asarray(photo(40, 40, seed)) for seed in range(12)]), "made")


def test_the_tables_are_complete():
    for table in (EFFECTS, CONSTANTS):
        assert tuple(table) == STYLES
        assert all(tuple(of_style) == CORRUPTIONS for of_style in table.values())
    assert all(len(constants) == len(SEVERITIES) for of_style in CONSTANTS.values() for constants in of_style.values())


@pytest.mark.parametrize("corruption", ALL, ids=str)
@pytest.mark.parametrize("size", [(64, 48), (28, 28), (300, 420)])
def test_size_mode_and_change(corruption, size):
    image = photo(*size)
    result = corrupt(image, corruption, generator("one", corruption))
    assert result.mode == "RGB"
    assert result.size == ((32, 32) if str(corruption).startswith("pixelate") and corruption.style == "cifar" else size)
    assert result.tobytes() != image.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (230, 3)])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_smallest_images(kind, size):
    assert corrupted(photo(*size), kind, 5).size == size


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("kind", ["contrast", "motion_blur", "pixelate"])
def test_an_even_image_stays(kind, value):
    """These move or average pixels, so they neither lighten nor darken."""
    image = Image.new("RGB", (320, 250), (value, 255 - value, value))
    assert corrupted(image, kind, 5).tobytes() == image.tobytes()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", [kind for kind in CORRUPTIONS if kind not in ("jpeg_compression", "spatter")])
def test_worse_with_severity(kind, style):
    """The distance from the clean image grows; that of pixelation to 32 pixels is measured there.

    CIFAR-10-C's motion blurs 3 and 4 hardly differ: their Gaussian is the same, and it ends before their radius does.
    """
    image = LARGE.resize((300, 225), Image.Resampling.BICUBIC)
    if (kind, style) == ("pixelate", "cifar"):
        image = image.resize((32, 32), Image.Resampling.BOX)
    distances = [distance(image, corrupted(image, kind, severity, style)) for severity in SEVERITIES]
    assert all(milder <= 1.001 * worse for milder, worse in pairwise(distances))
    assert distances[0] < 0.9 * distances[-1]


def test_worse_with_severity_jpeg_and_spatter():
    """These are not strictly ordered by the table (CIFAR-10-C's mud is milder than its water)."""
    jpeg = [distance(LARGE, corrupted(LARGE, "jpeg_compression", severity)) for severity in (1, 3, 5)]
    spatter = [distance(LARGE, corrupted(LARGE, "spatter", severity)) for severity in SEVERITIES]
    assert jpeg == sorted(jpeg)
    assert spatter == sorted(spatter)


@pytest.mark.parametrize("corruption", [c for c in ALL if c.kind == "contrast"], ids=str)
def test_contrast_in_closed_form(corruption):
    image = photo()
    factor = CONSTANTS[corruption.style]["contrast"][corruption.severity - 1]
    mean = numbers(image).mean(axis=(0, 1))
    expected = 255 * (mean + factor * (numbers(image) - mean))
    assert np.abs(np.asarray(corrupt(image, corruption, generator("", corruption))) - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("corruption", [c for c in ALL if c.kind == "jpeg_compression"], ids=str)
def test_jpeg_is_pillows(corruption):
    image, file = photo(100, 75), io.BytesIO()
    image.save(file, "JPEG", quality=CONSTANTS[corruption.style]["jpeg_compression"][corruption.severity - 1])
    assert corrupt(image, corruption, generator("", corruption)).tobytes() == Image.open(file).tobytes()


@pytest.mark.parametrize("corruption", [c for c in ALL if c.kind == "gaussian_noise"], ids=str)
def test_gaussian_noise_has_its_deviation_and_no_mean(corruption):
    """On grey, cut off at black and white."""
    std = CONSTANTS[corruption.style]["gaussian_noise"][corruption.severity - 1]
    grey = Image.new("RGB", (200, 200), (127, 127, 127))
    noise = numbers(corrupt(grey, corruption, generator("", corruption))) - 127 / 255
    cut_off = np.clip(127 / 255 + std * np.random.default_rng(5).standard_normal(10**6), 0, 1) - 127 / 255
    assert noise.std() == pytest.approx(cut_off.std(), rel=0.02)
    assert noise.mean() == pytest.approx(cut_off.mean(), abs=4 * std / np.sqrt(120_000))
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03  # channels are drawn apart
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.03  # and so are pixels


@pytest.mark.parametrize("corruption", [c for c in ALL if c.kind == "impulse_noise"], ids=str)
def test_impulse_noise_hits_its_share_with_salt_and_pepper_alike(corruption):
    amount = CONSTANTS[corruption.style]["impulse_noise"][corruption.severity - 1]
    result = np.asarray(corrupt(Image.new("RGB", (200, 200), (127, 127, 127)), corruption, generator("", corruption)))
    assert set(np.unique(result)) == {0, 127, 255}
    spread = 4 * np.sqrt(amount / result.size)
    assert np.mean(result == 0) == pytest.approx(amount / 2, abs=spread)
    assert np.mean(result == 255) == pytest.approx(amount / 2, abs=spread)


def test_severities_share_their_draw():
    """What is hit at one severity is hit at the next, and noise is the same times a factor."""
    grey = Image.new("RGB", (64, 64), (127, 127, 127))
    hit = [np.asarray(corrupted(grey, "impulse_noise", severity)) != 127 for severity in SEVERITIES]
    assert all((less <= more).all() for less, more in pairwise(hit))
    mild, double = (numbers(corrupted(grey, "gaussian_noise", severity, "cifar")) - 127 / 255 for severity in (1, 3))
    assert np.abs(double - 2 * mild).max() < 2 / 255


@pytest.mark.parametrize("angle", [-0.7, -0.2, 0.0, 0.4])
@pytest.mark.parametrize("scale", [0.2, 1.0, 2.6])
def test_the_kernel_lies_on_its_line(angle, scale):
    """Weights are positive, sum to 1, their mean lies on the line, at the distance that the weights of the definition give."""
    kernel = line_kernel(10, 3, angle, scale).astype(np.float64)
    reach = len(kernel) // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1)
    t = np.arange(0, 20.001, 1 / max(1, np.ceil(scale)))
    mean = scale * np.average(t, weights=np.exp(-(t**2) / 18))
    assert (kernel * x).sum() == pytest.approx(mean * np.cos(angle), abs=1e-5)
    assert (kernel * y).sum() == pytest.approx(mean * np.sin(angle), abs=1e-5)
    assert (kernel * (x * np.sin(angle) - y * np.cos(angle)) ** 2).sum() < 0.5  # no further from the line than a neighbour


def test_motion_blur_is_the_weighted_mean_along_the_line():
    """By brute force, pixel for pixel; beyond the border lie its own pixels."""
    image = photo(40, 30)
    radius, sigma = CONSTANTS["cifar"]["motion_blur"][4]
    rng = generator("one", Corruption("motion_blur", 5, "cifar"))
    angle = np.deg2rad(rng.uniform(-45, 45))
    kernel = line_kernel(radius, sigma, angle)
    reach, expected, pixels = len(kernel) // 2, np.zeros((30, 40, 3)), numbers(image)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            rows, columns = np.clip(np.arange(30) + dy, 0, 29), np.clip(np.arange(40) + dx, 0, 39)
            expected += kernel[reach + dy, reach + dx] * pixels[rows][:, columns]
    result = corrupted(image, "motion_blur", 5, "cifar")
    assert np.abs(np.asarray(result) - 255 * expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("severity", SEVERITIES)
def test_cifar_pixelation_is_32_pixels_of_anything(severity):
    """The flaw of the published table."""
    side, box = int(32 * (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]), Image.Resampling.BOX
    for image in (photo(32, 32), photo(500, 300)):
        expected = image.resize((side, side), box).resize((32, 32), box)
        assert corrupted(image, "pixelate", severity, "cifar").tobytes() == expected.tobytes()


@pytest.mark.parametrize(("severity", "share"), [(1, 0.6), (2, 0.5), (3, 0.4), (4, 0.3), (5, 0.25)])
def test_pixelation_of_224_pixels_is_that_of_imagenet_c(severity, share):
    image, side, box = photo(224, 224), int(224 * share), Image.Resampling.BOX
    expected = image.resize((side, side), box).resize((224, 224), box)
    assert corrupted(image, "pixelate", severity).tobytes() == expected.tobytes()
    large = np.asarray(corrupted(photo(1120, 1120), "pixelate", 5))
    cells = large.reshape(56, 20, 56, 20, 3)
    assert (cells == cells[:, :1, :, :1]).all()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_spatter_covers_where_its_layer_says(style, severity):
    """Mud takes the place of the image, water is added to it; elsewhere nothing changes."""
    constant = CONSTANTS[style]["spatter"][severity - 1]
    image = photo(224, 224)
    layer = drops((224, 224), constant, generator("one", Corruption("spatter", severity, style)))
    result, clean = numbers(corrupted(image, "spatter", severity, style)), numbers(image)
    cover = layer[..., None]
    is_mud = severity >= 4
    color = np.array([63, 42, 20] if is_mud else [175, 238, 238]) / 255
    expected = clean * (1 - cover) + color * cover if is_mud else np.minimum(clean + color * cover, 1)
    assert np.abs(result - expected).max() <= 0.51 / 255
    assert 0 < np.mean(layer > 0) < 0.7
    assert layer.max() == pytest.approx(constant[4] if not is_mud else 1, abs=0.2)
    assert (layer[layer > 0].min() >= 0.8) == is_mud


def test_no_drop_no_change():
    """A layer that never reaches the threshold, which a small image can have."""
    assert not drops((20, 20), (0.1, 0.01, 1, 0.69, 0.6, 0), np.random.default_rng(0)).any()
    assert not drops((20, 20), (0.1, 0.01, 1, 0.69, 0.6, 1), np.random.default_rng(0)).any()


def test_equalized_levels_have_a_straight_cumulative_histogram():
    levels = np.repeat([0, 1, 5, 20], [10, 20, 40, 30])
    assert equalized(levels).tolist() == np.repeat([0, np.rint(255 * 20 / 90), np.rint(255 * 60 / 90), 255], [10, 20, 40, 30]).tolist()
    assert equalized(np.full(7, 3)).tolist() == [3.0] * 7


def seen(image):
    """As an encoder of 224 pixels sees it."""
    return numbers(image.resize(reference_size(image.size), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("severity", [1, 5])
def test_the_effect_does_not_depend_on_the_size_of_the_image(kind, severity):
    """One picture at 400 x 300 and at 1200 x 900: after a resize to 224 the change is about the same, pixel for pixel."""
    changes = []
    for width in (400, 1200):
        image = LARGE.resize((width, width * 3 // 4), Image.Resampling.BICUBIC)
        changes.append(seen(corrupted(image, kind, severity)) - seen(image))
    small, large = (np.sqrt(np.mean(change**2)) for change in changes)
    assert small == pytest.approx(large, rel=0.08)
    assert np.corrcoef(changes[0].ravel(), changes[1].ravel())[0, 1] > (0.75 if kind == "pixelate" else 0.97)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_it_is_what_imagenet_c_does_at_224_pixels(kind):
    """Seen at 224 pixels, a large image is corrupted as its version of 224 pixels is."""
    clean = LARGE.resize((299, 224), Image.Resampling.BICUBIC)
    expected = numbers(corrupted(clean, kind, 3)) - numbers(clean)
    change = seen(corrupted(LARGE, kind, 3)) - seen(LARGE)
    # Edges soften a pixelation's cells and impulses beyond black and white are cut off.
    assert np.sqrt(np.mean(change**2)) == pytest.approx(np.sqrt(np.mean(expected**2)), rel=0.25)
    assert np.corrcoef(change.ravel(), expected.ravel())[0, 1] > (0.8 if kind == "pixelate" else 0.95)


def test_noise_of_the_other_style_vanishes_on_large_images():
    """What the relative style is for."""
    change = seen(corrupted(LARGE, "gaussian_noise", 5, "cifar")) - seen(LARGE)
    assert np.sqrt(np.mean(change**2)) < 0.3 * distance(photo(), corrupted(photo(), "gaussian_noise", 5, "cifar"))


@pytest.mark.parametrize("side", [250, 300, 448, 1000])
def test_an_enlarged_change_is_the_change_again_when_it_is_resized_back(side):
    change = np.random.default_rng(0).normal(size=(224, 224, 3)).astype(np.float32)
    large = enlarged(change, (side, side))
    back = [np.asarray(Image.fromarray(large[..., c].copy()).resize((224, 224), Image.Resampling.BICUBIC)) for c in range(3)]
    assert large.shape == (side, side, 3)
    assert np.stack(back, axis=2).std() == pytest.approx(1, abs=0.08)
    assert np.sqrt(np.mean((np.stack(back, axis=2) - change) ** 2)) < 0.15


@pytest.mark.parametrize(("size", "expected"), [((224, 224), (224, 224)), ((2000, 1500), (299, 224)), ((100, 50), (448, 224))])
def test_reference_size(size, expected):
    assert reference_size(size) == expected
    assert min(reference_size(size)) == REFERENCE


@pytest.mark.parametrize("corruption", [c for c in ALL if c.severity == 3], ids=str)
def test_same_id_same_image(samples, corruption):
    one, other = (CorruptedSamples(samples, corruption) for _ in range(2))
    assert one.image(4).tobytes() == other.image(4).tobytes()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", DRAWN_KINDS)
def test_another_id_another_draw(kind, style):
    image = LARGE.resize((160, 120))
    assert corrupted(image, kind, 5, style, "one").tobytes() != corrupted(image, kind, 5, style, "two").tobytes()


def test_the_first_numbers_of_a_stream():
    """They must not change between versions, or results could not be compared. Only id and kind decide them."""
    first = generator("made-000000", Corruption("gaussian_noise", 1)).random(3)
    assert first.tolist() == generator("made-000000", Corruption("gaussian_noise", 5, "cifar")).random(3).tolist()
    assert first.tolist() != generator("made-000000", Corruption("spatter", 1)).random(3).tolist()
    assert first == pytest.approx(GOLDEN, abs=1e-12)


def test_neither_order_nor_subset_changes_an_image(samples):
    corruption = Corruption("gaussian_noise", 3)
    whole = CorruptedSamples(samples, corruption)
    chosen = np.array([7, 2, 9])
    inside, outside = CorruptedSamples(Subset(samples, chosen), corruption), Subset(whole, chosen)
    backwards = {index: whole.image(index).tobytes() for index in reversed(range(12))}
    for position, index in enumerate(chosen.tolist()):
        assert inside.image(position).tobytes() == outside.image(position).tobytes() == backwards[index]
        assert inside.sample_id(position) == outside.sample_id(position) == samples.sample_id(index)
        assert inside.digest(position) == outside.digest(position) == whole.digest(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_neither_batches_nor_loader_processes_change_an_image(samples, workers):
    import torch

    from engine.loading import make_loader

    corrupted_samples = CorruptedSamples(samples, Corruption("impulse_noise", 4))
    task = Task("Made", "test", corrupted_samples, np.zeros(12, dtype=np.int64), ("a", "b"), ("a {c}",))
    batches = [[11, 3], [0, 1, 2, 4, 5], [6, 7, 8, 9, 10]]
    for batch in make_loader(task, pixels_of, batches, num_workers=workers):
        for pixels, index in zip(batch.pixels, batch.indices.tolist(), strict=True):
            assert torch.equal(pixels, pixels_of(corrupted_samples.image(index)))


def pixels_of(image):
    import torch

    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()


def test_digests_tell_corruptions_apart(samples, monkeypatch):
    digests = {CorruptedSamples(samples, corruption).digest(0) for corruption in ALL}
    assert len(digests | {samples.digest(0)}) == len(ALL) + 1
    before = CorruptedSamples(samples, ALL[0]).digest(0)
    assert before == CorruptedSamples(samples, ALL[0]).digest(0) != CorruptedSamples(samples, ALL[0]).digest(1)
    monkeypatch.setattr("datasets.corruptions.VERSION", 2)
    assert CorruptedSamples(samples, ALL[0]).digest(0) != before


def test_a_task_by_its_name():
    clean, task = load_task("Digits", "test"), load_task("Digits+contrast-3", "test")
    assert task.name == "Digits+contrast-3"
    assert task.sample_ids == clean.sample_ids
    assert task.labels.tolist() == clean.labels.tolist()
    assert task.fingerprint != clean.fingerprint
    assert task.fingerprint == load_task("Digits+contrast-3", "test").fingerprint
    assert task.samples.image(5).tobytes() == corrupted(clean.samples.image(5), "contrast", 3).tobytes()
    assert clean.samples.image(5).tobytes() == load_task("Digits", "test").samples.image(5).tobytes()  # severity 0 is no name


def test_an_unreadable_image_stays_one(tmp_path):
    for color in ("blue", "red"):
        (tmp_path / color).mkdir()
        for number in range(3):
            (tmp_path / color / f"{number}.png").write_bytes(b"no image")
    samples = load_task(f"imagefolder:{tmp_path}+contrast-1", "test").samples
    with pytest.raises(UnreadableImage, match="blue/"):
        samples.image(0)
    assert len(samples.digest(0)) == 32


def draw_sheet(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["corruptions", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        run(sheet.main)
    return end.value.code


def test_the_contact_sheet(tmp_path, monkeypatch):
    photo(120, 90).save(tmp_path / "photo.png")
    assert draw_sheet(monkeypatch, "--picture", tmp_path / "out/sheet.png", tmp_path / "photo.png", "--style", "cifar", "--width", 40) == 0
    with Image.open(tmp_path / "out/sheet.png") as drawn:
        assert drawn.format == "PNG"
        assert drawn.size == (6 * 44 + 4, 7 * 50)


def test_the_contact_sheet_of_no_image(tmp_path, monkeypatch, capsys):
    for wrong in (tmp_path / "absent.png", Path(__file__)):
        assert draw_sheet(monkeypatch, "--picture", tmp_path / "sheet.png", wrong) == 2
        assert f"Cannot read '{wrong}': " in capsys.readouterr().err
    assert not (tmp_path / "sheet.png").exists()


def test_severities_end_at_five():
    for severity in (0, 6):
        with pytest.raises(UserError, match="whole number from 1 to 5"):
            Corruption("contrast", severity)
