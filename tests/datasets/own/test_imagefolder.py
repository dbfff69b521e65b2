"""Own images as folders: layouts, splits, class names, decoding, and one test per thing that can be wrong."""

import builtins
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from datasets.decoding import decode
from datasets.image_files import ImageFiles, printable
from datasets.own.imagefolder import divide, imagefolder_task
from datasets.samples import UnreadableImage


def put(root, *names, colour=0):
    """Write small images, of different shades unless told otherwise."""
    for position, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (colour or position % 250 + 1,) * 3).save(path)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def load(root, split="test", val_p=0.25):
    return imagefolder_task(root, split, val_p)


def ids(root, split, **options):
    return load(root, split, **options).sample_ids


def flat(root, per_class=10, classes=("cat", "dog")):
    touch(root, *(f"{name}/{i:03d}.jpg" for name in classes for i in range(per_class)))
    return root


# --- layouts and splits ------------------------------------------------------------------------------------------


def test_split_folders_with_all_three(tmp_path):
    touch(tmp_path, "train/b_c/1.jpg", "train/a/2.PNG", "train/a/1.jpeg", "val/a/3.webp", "test/b_c/x/4.tif", "test/b_c/4.bmp")
    train, val, test = (load(tmp_path, split) for split in ("train", "val", "test"))
    assert train.sample_ids == ["train/a/1.jpeg", "train/a/2.PNG", "train/b_c/1.jpg"]
    assert train.labels.tolist() == [0, 0, 1]
    assert train.labels.dtype == np.int64
    assert val.sample_ids == ["val/a/3.webp"]
    assert (test.sample_ids, test.labels.tolist()) == (["test/b_c/4.bmp", "test/b_c/x/4.tif"], [1, 1])
    assert train.classnames == val.classnames == test.classnames == ("a", "b c")
    assert (test.name, test.split, test.templates) == (f"imagefolder:{tmp_path}", "test", ("a photo of a {c}",))


@pytest.mark.parametrize("spelling", ["valid", "validation", "Val"])
def test_spellings_of_the_validation_folder(tmp_path, spelling):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{spelling}/a/2.jpg")
    assert ids(tmp_path, "val") == [f"{spelling}/a/2.jpg"]
    assert len(load(tmp_path, "train")) == 2


def test_validation_is_drawn_from_train_without_a_folder(tmp_path):
    flat(tmp_path / "train", 4)
    train, val = ids(tmp_path, "train"), ids(tmp_path, "val")
    assert (len(train), len(val)) == (6, 2)
    assert sorted(train + val) == [f"train/{name}/{i:03d}.jpg" for name in ("cat", "dog") for i in range(4)]


def test_without_split_folders_a_fifth_of_each_class_is_the_test_split(tmp_path):
    flat(tmp_path, 10)
    touch(tmp_path, "rare/1.jpg", "two/1.jpg", "two/2.jpg")
    train, val, test = (load(tmp_path, split) for split in ("train", "val", "test"))
    assert np.bincount(test.labels).tolist() == [2, 2, 0, 1]
    assert sorted(train.sample_ids + val.sample_ids + test.sample_ids) == sorted(
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg")
    )
    assert test.classnames == ("cat", "dog", "rare", "two")


def test_the_division_depends_on_relative_names_only(tmp_path):
    first, second = flat(tmp_path / "x", 50), tmp_path / "y"
    for path in sorted(first.rglob("*.jpg"), reverse=True):  # another order of creation
        put(second, path.relative_to(first))
    assert ids(first, "test") == ids(second, "test")
    assert divide([b"cat/%d.jpg" % i for i in range(9, -1, -1)], "test") == divide([b"cat/%d.jpg" % i for i in range(10)], "test")


def test_a_new_image_leaves_most_of_the_division_as_it_was():
    names = [b"cat/%d.jpg" % i for i in range(100)]
    before, after = set(divide(names, "test")), set(divide([*names, b"cat/new.jpg"], "test"))
    assert len(before) == 20
    assert len(before & after) >= 19


def test_train_only_serves_train_and_val(tmp_path):
    flat(tmp_path / "train", 4)
    with pytest.raises(UserError, match=r"has no test/ folder; expected images in '.*/test/<class>/'"):
        load(tmp_path, "test")


def test_test_only_serves_test(tmp_path):
    flat(tmp_path / "test", 2)
    assert len(load(tmp_path, "test")) == 4
    for split in ("train", "val"):
        with pytest.raises(UserError, match="has no train/ folder"):
            load(tmp_path, split)


def test_train_can_be_a_class(tmp_path):
    flat(tmp_path, 5, ("bus", "car", "train"))
    assert load(tmp_path).classnames == ("bus", "car", "train")


def test_other_folders_beside_split_folders_do_not_count(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "annotations/x.jpg", "scripts/deep/y.jpg")
    assert load(tmp_path).classnames == ("a", "b")


def test_order_is_by_class_and_then_by_code_point(tmp_path):
    touch(tmp_path, *(f"test/{name}" for name in ("cat/2.jpg", "cat/10.jpg", "cat/Z.jpg", "cat/a/1.jpg", "cat-big/1.jpg", "Zoo/1.jpg")))
    task = load(tmp_path)
    assert task.sample_ids == [f"test/{n}" for n in ("Zoo/1.jpg", "cat/10.jpg", "cat/2.jpg", "cat/Z.jpg", "cat/a/1.jpg", "cat-big/1.jpg")]
    assert task.labels.tolist() == [0, 1, 1, 1, 1, 2]


def test_hidden_files_and_other_files_do_not_count(tmp_path):
    touch(tmp_path, "test/a/1.jpg", "test/a/._1.jpg", "test/a/notes.txt", "test/a/.cache/2.jpg", "test/a/__MACOSX/3.jpg", "test/b/1.jpg")
    touch(tmp_path, "test/.hidden/1.jpg", "__MACOSX/test/1.jpg", ".git/1.jpg")
    assert ids(tmp_path, "test") == ["test/a/1.jpg", "test/b/1.jpg"]


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    touch(tmp_path, "elsewhere/1.jpg", "data/test/a/1.jpg")
    (tmp_path / "data/test/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/test/a/up").symlink_to(tmp_path / "data/test/a")
    (tmp_path / "data/test/a/itself.jpg").symlink_to("itself.jpg")
    task = load(tmp_path / "data")
    assert task.sample_ids == ["test/a/1.jpg", "test/a/itself.jpg", "test/b/1.jpg"]
    with pytest.raises(UnreadableImage, match=r"test/a/itself.jpg: "):
        task.samples.image(1)


def test_a_folder_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    flat(tmp_path / "own", 2)
    assert len(load(Path("~/own"))) == 2


def test_a_relative_folder_stays_found_when_the_working_folder_changes(tmp_path, monkeypatch):
    put(tmp_path, "own/test/a/1.png", "own/test/b/1.png")
    monkeypatch.chdir(tmp_path)
    task = load(Path("own"))
    monkeypatch.chdir("/")
    assert task.samples.image(0).getpixel((0, 0)) == (1, 1, 1)


# --- what is wrong with a folder ---------------------------------------------------------------------------------


def fails(root, sentence, split="test"):
    with pytest.raises(UserError, match=sentence) as caught:
        load(root, split)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_missing_folder(tmp_path):
    fails(tmp_path / "nothing", "nothing' is missing; expected a folder of images")


def test_a_file_is_no_folder(tmp_path):
    touch(tmp_path, "a.zip")
    fails(tmp_path / "a.zip", "a.zip' is not a folder")


def test_empty_folder(tmp_path):
    fails(tmp_path, "holds no class folders; expected '.*/<class>/")


def test_images_without_class_folders(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg")
    fails(tmp_path, "holds images, but no class folders")


def test_images_without_class_folders_in_every_split_folder(tmp_path):
    touch(tmp_path, "train/1.jpg", "test/2.jpg")
    fails(tmp_path, "/train' holds images, but no class folders")


def test_test_images_without_class_folders(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/1.jpg")
    fails(tmp_path, "/test' holds no image in a class folder")


def test_one_class(tmp_path):
    flat(tmp_path, 5, ("cat",))
    fails(tmp_path, "holds only one class folder, 'cat'; at least two classes are needed")


def test_class_folder_without_images(tmp_path):
    flat(tmp_path)
    touch(tmp_path, "owl/1.heic")
    fails(tmp_path, r"owl' holds no image \(\.jpg")


def test_class_without_test_images_is_fine(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/b/readme.txt")
    assert load(tmp_path).labels.tolist() == [0]


def test_split_without_any_image(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/readme.txt")
    fails(tmp_path, "/test' holds no image in a class folder")


def test_class_that_only_the_test_split_has(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/cc/1.jpg")
    fails(tmp_path, "test/cc' is a class that '.*/train' does not have")


def test_two_folders_for_one_split(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "valid/a/1.jpg")
    fails(tmp_path, "has two folders of the val split, '(val|valid)' and '(val|valid)'; keep one", "train")


def test_validation_folder_only(tmp_path):
    touch(tmp_path, "val/a/1.jpg", "val/b/1.jpg")
    fails(tmp_path, "has a val/ folder only")


def test_unknown_split(tmp_path):
    with pytest.raises(UserError, match="Unknown split 'tests'; did you mean 'test'"):
        load(flat(tmp_path), "tests")


def test_folder_that_cannot_be_read(tmp_path, monkeypatch):
    flat(tmp_path)
    scandir = os.scandir

    def denied(folder):
        if os.fsencode(folder).endswith(b"cat"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    fails(tmp_path, "Cannot read the folder '.*cat': Permission denied")


# --- class names and templates -----------------------------------------------------------------------------------


def named(root, text, classes=("n01", "n02", "n03")):
    flat(root, 2, classes)
    (root / "classnames.txt").write_text(text, encoding="utf-8")
    return root


def test_class_names_in_the_order_of_folders(tmp_path):
    assert load(named(tmp_path, "tench\ngold_fish\nStar Wars: a shark\n")).classnames == ("tench", "gold_fish", "Star Wars: a shark")


def test_class_names_by_folder(tmp_path):
    text = "n02: goldfish\nn09: not here\n\nn01\ttench: Tinca tinca\nn03 :shark"
    assert load(named(tmp_path, text)).classnames == ("tench: Tinca tinca", "goldfish", "shark")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tench\ngoldfish\n", "has 2 class names for 3 class folders"),
        ("", "has no line for the class folder 'n01'"),
        ("n01: tench\nn02: goldfish\n", "has no line for the class folder 'n03'"),
        ("m01\ttench\nm02\tgoldfish\nm03\tshark", "has no line for the class folder 'n01'"),
        ("n01: tench\nn02: goldfish\nshark\n", "has the line 'shark' without a class name"),
        ("n01: tench\nn01: goldfish\nn02: a\nn03: b\n", "names a class folder twice"),
        ("fish\nfish\nshark\n", "Two classes of '.*' are named 'fish'"),
    ],
)
def test_wrong_class_names(tmp_path, text, sentence):
    fails(named(tmp_path, text), sentence)


def test_folders_of_one_name(tmp_path):
    fails(flat(tmp_path, 2, ("a_b", "a b")), "are named 'a b'")


def test_templates_file(tmp_path):
    (flat(tmp_path) / "templates.txt").write_text("a drawing of a {}.\n\nthe {c}\n")
    task = load(tmp_path)
    assert task.templates == ("a drawing of a {c}.", "the {c}")
    assert task.prompts()[0] == ["a drawing of a cat.", "the cat"]


def test_templates_file_without_a_place_for_the_class(tmp_path):
    (flat(tmp_path) / "templates.txt").write_text("a drawing\n")
    fails(tmp_path, "'a drawing' has no place for the class name")


# --- starting fast and small -------------------------------------------------------------------------------------


def test_no_file_is_opened_at_the_start(tmp_path, monkeypatch):
    """100 000 empty files: reading any of them would fail, and opening any is caught."""
    for name in (f"{side}/{c}" for side in ("train", "test") for c in range(10)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(5000):
            os.mknod(f"{tmp_path}/{name}/{i}.jpg")

    def opened(*arguments, **options):
        raise AssertionError(f"opened {arguments[0]}")

    for module, name in ((Image, "open"), (builtins, "open"), (io, "open")):
        monkeypatch.setattr(module, name, opened)
    train, test = load(tmp_path, "train"), load(tmp_path, "test")
    monkeypatch.undo()
    assert (len(train), len(test)) == (45_000, 50_000)  # at most 5000 go to validation
    assert test.samples.sample_id(49_999) == "test/9/999.jpg"
    assert len(pickle.dumps(test)) < 50_000 * 40  # a name and two integers for each


def test_samples_hold_no_list_of_names(tmp_path):
    samples = load(flat(tmp_path / "test").parent).samples
    assert {type(value) for value in vars(samples).values()} == {str, bytes, np.ndarray}


def test_a_task_survives_a_pickle(tmp_path):
    put(tmp_path, "test/a/1.png", "test/b/2.png")
    copy = pickle.loads(pickle.dumps(load(tmp_path)))
    assert copy.sample_ids == ["test/a/1.png", "test/b/2.png"]
    assert copy.samples.image(1).getpixel((0, 0)) == (2, 2, 2)
    assert copy.fingerprint == load(tmp_path).fingerprint


def test_index_out_of_range(tmp_path):
    samples = load(flat(tmp_path / "test", 2).parent).samples
    for index in (4, -1):
        with pytest.raises(IndexError, match=f"sample {index} of 4"):
            samples.sample_id(index)


# --- reading images ----------------------------------------------------------------------------------------------


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


MODES = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA"), "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"), "JPEG": ("L", "RGB", "CMYK")}


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes])
def test_every_mode_becomes_rgb(form, mode):
    image = decode(encoded(Image.new("RGB", (3, 2), "white").convert(mode), form))
    assert (image.mode, image.size) == ("RGB", (3, 2))
    assert np.asarray(image).min() >= 250


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_not_clipped(form):
    grey = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    image = Image.fromarray(grey if form != "PPM" else grey.astype(np.int32))
    assert np.asarray(decode(encoded(image, form)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_palette_with_transparency_shows_the_palette(recwarn):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    for transparency in (0, bytes([0, 128])):
        read = decode(encoded(image, "PNG", transparency=transparency))
        assert [read.getpixel((x, 0)) for x in range(2)] == [(10, 20, 30), (200, 100, 50)]
    assert not recwarn.list


def test_exif_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(Image.new("RGB", (3, 2)), "JPEG", exif=exif)).size == (3, 2)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("white", "black")]
    assert decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((0, 0)) == (255, 255, 255)


def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def bomb():
    """A PNG whose header claims 60 000 x 60 000 pixels."""
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image of a known format"),
        (encoded(noise(), "JPEG")[:1500], "truncated"),
        (encoded(noise(), "PNG")[:1500], "."),
        (encoded(noise(), "PNG")[:40] + bytes(9000), "."),
        (encoded(noise(), "WEBP")[:1500], "."),
        (bomb(), "decompression bomb"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "floating-point"),
    ],
    ids=["empty", "text", "truncated jpeg", "truncated png", "broken png", "truncated webp", "bomb", "float"],
)
def test_unreadable_images(tmp_path, data, reason):
    put(tmp_path, "test/a/1.png", "test/b/2.png")
    (tmp_path / "test/a/1.png").write_bytes(data)
    samples = load(tmp_path).samples
    with pytest.raises(UnreadableImage, match=rf"test/a/1.png: .*{reason}") as caught:
        samples.image(0)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert samples.image(1).size == (4, 4)


def test_file_that_vanishes_after_the_scan(tmp_path):
    put(tmp_path, "test/a/1.png", "test/b/2.png")
    task = load(tmp_path)
    (tmp_path / "test/a/1.png").unlink()
    with pytest.raises(UnreadableImage, match=r"test/a/1.png: No such file"):
        task.samples.image(0)
    assert len(task.fingerprint) == 64


def test_fingerprint_follows_the_bytes(tmp_path):
    put(tmp_path, "test/a/1.png", "test/b/2.png")
    before = load(tmp_path).fingerprint
    assert load(tmp_path).fingerprint == before
    put(tmp_path, "test/a/1.png", colour=99)
    assert load(tmp_path).fingerprint != before


# --- odd names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("café 東.jpg".encode(), "café 東.jpg"),
        ("a\u3000b.jpg".encode(), "a\u3000b.jpg"),
        (b"caf\xe9.jpg", r"caf\xe9.jpg"),
        (b"two\nlines.jpg", r"two\nlines.jpg"),
        ("a\u2028b.jpg".encode(), r"a\u2028b.jpg"),
    ],
)
def test_names_fit_on_a_line(name, shown):
    assert printable(name) == shown
    assert len(shown.splitlines()) == 1


def test_file_names_that_are_no_text(tmp_path):
    put(tmp_path, "a/1.png", "b/2.png", "b/3.png")
    try:
        (tmp_path / "a/1.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/a/caf\xe9\n.png"))
    except OSError:
        pytest.skip("the file system keeps text only")
    task = load(tmp_path, "train", val_p=0.4)
    assert load(tmp_path, "train", val_p=0.4).fingerprint == task.fingerprint
    files = ImageFiles.of(tmp_path, [b"a/caf\xe9\n.png"])
    assert files.sample_id(0) == r"a/caf\xe9\n.png"
    assert files.image(0).getpixel((0, 0)) == (1, 1, 1)
