"""Parts of embeddings: cut, named, written and read as one, and every way in which they do not belong together."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from common.errors import UserError
from datasets.fingerprint import Fingerprint
from engine.embedding_parts import PART, Place, UnreadableSample, named_as_wholes, part_path, parts_at, whole_path
from engine.embeddings import Embeddings, PartedEmbeddings, describe, load_embeddings, read_metadata, save_embeddings

N, D, CLASSES = 23, 6, ["cat", "dog", "nan"]
LOST = 7  # a sample that could not be read
IDS = [f"images/{number}\\of\n{number % 3}.jpg" for number in range(N)]  # with line ends, which the sidecar escapes
LABELS = np.arange(N) * 5 % 3
DIGESTS = np.random.default_rng(1).integers(0, 256, (N, 32), np.uint8)


def fingerprint(positions):
    of = Fingerprint()
    for position in positions:
        of.add(IDS[position], int(LABELS[position]), DIGESTS[position].tobytes())
    return of.hexdigest()


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


IMAGES, TEXTS = (unit(np.random.default_rng(seed).standard_normal((count, D))) for seed, count in ((2, N), (3, 3)))


def facts(**more):
    known = {"model": "clip", "dataset": "Pets", "split": "test", "classnames": CLASSES, "templates": ["a {c}"], "checkpoint_sha256": "c0"}
    return describe(**known | {"embedding_seconds": "1.5", "decode": "reduced"} | more)


def whole():
    kept = np.delete(np.arange(N), LOST)
    metadata = facts(fingerprint=fingerprint(range(N)), n_skipped="1")
    return Embeddings(IMAGES[kept], TEXTS, LABELS[kept], [IDS[position] for position in kept], metadata)


def part(number, of, **more):
    place = Place(number, of, N, "listing")
    lost = [UnreadableSample(LOST, IDS[LOST], int(LABELS[LOST]), "it is\tno image")] if LOST in place.samples else []
    place = replace(place, unreadable=tuple(lost))
    kept = [position for position in place.samples if position != LOST]
    metadata = facts(**{"fingerprint": fingerprint(place.samples), "n_skipped": str(len(lost))} | place.metadata() | more)
    return Embeddings(IMAGES[kept], TEXTS, LABELS[kept], [IDS[position] for position in kept], metadata, DIGESTS[list(place.samples)])


@pytest.fixture
def main(tmp_path):
    """The name of a whole of four parts."""
    return write(tmp_path / "Pets_test.safetensors", 4)


def write(main, of):
    for number in range(1, of + 1):
        save_embeddings(part_path(main, number, of), part(number, of))
    return main


def edited(path, **tensors):
    """Change tensors of a file under its header."""
    with safe_open(path, "numpy") as file:
        header = file.metadata()
    save_file(load_file(path) | tensors, path, header)


def refused(path, message):
    """All three ways to read refuse in the same words."""
    for read in (load_embeddings, read_metadata, lambda path: list(PartedEmbeddings(path))):
        with pytest.raises(UserError, match=message) as error:
            read(path)
        assert "\n" not in str(error.value)


@given(st.integers(1, 10**9), st.data())
def test_parts_cover_everything_once_in_sizes_that_differ_by_one(count, data):
    of = data.draw(st.integers(1, min(count, 10**4)))
    number = data.draw(st.integers(1, of))
    samples = Place(number, of, count, "").samples
    assert len(samples) in (count // of, -(-count // of))
    assert samples.start == (0 if number == 1 else Place(number - 1, of, count, "").samples.stop)
    assert (samples.stop == count) == (number == of)


@pytest.mark.parametrize("of", [1, 2, 3, 7, 11])
def test_parts_are_read_as_the_whole(tmp_path, of):
    found, expected = load_embeddings(write(tmp_path / "Pets_test.safetensors", of)), whole()
    for name in ("image_embeddings", "text_embeddings", "labels"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert found.sample_ids == expected.sample_ids
    ignored = {"created": "", "embedding_seconds": ""}
    assert found.metadata | ignored == expected.metadata | ignored | {"parts": str(of)}
    assert found.metadata["embedding_seconds"] == f"{1.5 * of:.3f}"
    assert found.sample_digests is None


def test_metadata_of_the_whole_without_the_embeddings(main):
    assert read_metadata(main) == load_embeddings(main).metadata


def test_one_part_is_that_part_alone(main):
    path = part_path(main, 2, 4)
    assert path.name == "Pets_test.part-00002-of-00004.safetensors"
    found = load_embeddings(path)
    assert found.sample_ids == part(2, 4).sample_ids
    assert found.metadata["fingerprint"] == fingerprint(range(5, 11))
    facts = json.loads(found.metadata[PART])
    assert [facts[key] for key in ("number", "of", "first_index", "n_samples", "whole")] == [2, 4, 5, 6, 23]


def test_the_file_itself_comes_before_its_parts(main):
    save_embeddings(main, part(1, 4))
    assert parts_at(main) == []
    assert len(load_embeddings(main).labels) == 5


def test_more_than_99999_parts_are_in_order(tmp_path):
    main = tmp_path / "x.safetensors"
    for number in (100_000, 2, 99_999):
        part_path(main, number, 100_000).touch()
    (tmp_path / "x_y.part-00001-of-00002.safetensors").touch()
    (tmp_path / "x.part-one-of-two.safetensors").touch()
    assert [path.name[7:-17] for path in parts_at(main)] == ["00002-of-1", "99999-of-1", "100000-of-1"]


def test_several_parts_of_one_data_set_stand_for_it(main):
    parts, other = parts_at(main), main.with_name("other.safetensors")
    assert named_as_wholes([other, *parts, other]) == [other, main]
    assert named_as_wholes(parts[1:]) == [main]  # what is missing is told when it is read
    assert named_as_wholes([parts[1], parts[1], other]) == [parts[1], other]
    assert whole_path(parts[0]) == main
    assert whole_path(main) is None


def test_a_missing_part(main):
    part_path(main, 3, 4).unlink()
    refused(main, r"is in 4 parts, of which part 3 is missing; run the .* command that made the others with --parts 4 --part 3\.$")


def test_missing_parts(main):
    part_path(main, 1, 4).unlink()
    part_path(main, 4, 4).unlink()
    refused(main, r"of which 2 parts are missing; .* with --parts 4 --part 1 4\.$")


def test_many_missing_parts_are_not_listed(tmp_path):
    save_embeddings(part_path(tmp_path / "x.safetensors", 1, 23), part(1, 23))
    refused(tmp_path / "x.safetensors", r"of which 22 parts are missing; .* with --parts 23\.$")


def test_no_part_at_all(tmp_path):
    refused(tmp_path / "x.safetensors", "No such file")


def test_parts_of_two_cuts(main):
    write(main, 5)
    refused(main, "there are parts of 4 and parts of 5; they do not belong together, delete those of one")


def test_a_copy_in_the_place_of_another(main):
    shutil.copy(part_path(main, 1, 4), part_path(main, 3, 4))
    refused(main, "part-00003-of-00004.safetensors' says of itself that it is part 1 of 4; it was renamed or copied")


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"checkpoint_sha256": "c1"}, "weights"),
        ({"templates": ["the {c}"]}, "prompts"),
        ({"classnames": ["cat", "dog", "fox"]}, "class names"),
        ({"precision": "bf16", "decode": "full"}, "precision and decoding"),
        ({"split": "val"}, "split"),
        ({"listing": "other"}, r"images \(their number, ids, order or labels\)"),
        ({"whole": 24}, r"images \(their .*\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_a_part_of_another_run(main, changed, what):
    path = part_path(main, 2, 4)
    place = {key: value for key, value in changed.items() if key in ("listing", "whole")}
    header = {PART: json.dumps(json.loads(part(2, 4).metadata[PART]) | place)} if place else changed
    save_embeddings(path, part(2, 4, **header))
    refused(main, rf"{path.name}' and 'Pets_test.part-00001-of-00004.safetensors' are of different {what}; make one of them again")


@pytest.mark.parametrize(
    "header",
    [
        *("", "[]", "{", '{"number": 2}'),
        '{"number": 5, "of": 4, "whole": 23, "listing": "", "unreadable": []}',
        '{"number": 2, "of": 4, "whole": 23, "listing": "listing", "unreadable": [[0, "id", 0, "why"]]}',
        '{"number": 2, "of": 4, "whole": 23, "listing": "listing", "unreadable": [[1]]}',
    ],
    ids=["empty", "list", "broken", "few", "beyond", "elsewhere", "short"],
)
def test_a_header_that_says_no_place(main, header):
    save_embeddings(part_path(main, 2, 4), part(2, 4, **{PART: header}))
    refused(main, "part-00002-of-00004.safetensors' does not say which part of a data set it is; make it again with --overwrite")


def test_a_file_that_is_no_part(main):
    save_embeddings(part_path(main, 2, 4), whole())
    refused(main, "does not say which part of a data set it is")


def test_a_truncated_part(main):
    path = part_path(main, 2, 4)
    path.write_bytes(path.read_bytes()[:-1])
    refused(main, "part-00002-of-00004.safetensors' is not a whole safetensors file")


def test_a_flipped_bit_in_the_numbers(main):
    path = part_path(main, 3, 4)
    rows = load_file(path)["image_embeddings"]
    rows[2, 3] = np.nextafter(rows[2, 3], np.float32(2))
    edited(path, image_embeddings=rows)
    with pytest.raises(UserError, match=r"part-00003-of-00004.safetensors' is damaged or was edited: its numbers"):
        load_embeddings(main)


def test_a_flipped_bit_in_the_digests(main):
    path = part_path(main, 3, 4)
    digests = load_file(path)["sample_digests"]
    digests[1, 1] ^= 4
    edited(path, sample_digests=digests)
    refused(main, "part-00003-of-00004.safetensors' is damaged or was edited: its samples do not have its fingerprint")


@pytest.mark.parametrize("digests", [DIGESTS[:4], DIGESTS[5:11, :31], DIGESTS[5:11].astype(np.int16)], ids=["few", "short", "type"])
def test_digests_that_are_none(main, digests):
    edited(part_path(main, 2, 4), sample_digests=np.ascontiguousarray(digests))
    refused(main, "lacks sample ids or digests of its 6 samples")


def test_ids_that_are_missing_or_of_another_part(main):
    ids = part_path(main, 2, 4).with_suffix(".ids.txt")
    shutil.copy(part_path(main, 1, 4).with_suffix(".ids.txt"), ids)
    refused(main, "The sample ids in .*part-00002-of-00004.ids.txt' are not those of the embeddings beside it")
    ids.unlink()
    refused(main, "part-00002-of-00004.safetensors' lacks sample ids")


def test_texts_of_another_shape(main):
    made = part(2, 4)
    save_embeddings(part_path(main, 2, 4), replace(made, image_embeddings=made.image_embeddings[:, :5], text_embeddings=TEXTS[:, :5]))
    with pytest.raises(UserError, match="text embeddings of another shape than the parts before it"):
        load_embeddings(main)
