"""CUB, Stanford Online Products and the revisited Oxford and Paris, on miniature copies."""

import pickle

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from datasets.registry import load_task
from datasets.retrieval.options import Options
from datasets.retrieval.table import load_retrieval
from datasets.samples import UnreadableImage
from tests.datasets.sources.listed_copies import COPIES, color, paint, text

# --- CUB ---------------------------------------------------------------------------------------------------------


def test_birds(tmp_path):
    COPIES["CUB"].write(tmp_path)
    task = load_retrieval("CUB", data_dir=tmp_path)
    listed = [line.split()[1] for line in (tmp_path / "CUB_200_2011/images.txt").read_text().splitlines()]
    assert (task.name, task.split, task.leave_one_out) == ("CUB", "all", True)
    assert task.query is task.gallery
    assert task.query.ids == [f"images/{path}" for path in listed]
    assert [task.query.classnames[label] for label in task.query.labels] == [bird_of(path) for path in listed]
    relevance = task.protocols[""]
    assert relevance.counts.sum() == 2 and relevance.without_positives == 2  # two of the four are of one class
    assert task.query.items.image(0).getpixel((0, 0)) == pytest.approx(color(f"images/{listed[0]}"), abs=12)


def bird_of(path):
    return path.split("/")[0].split(".")[1].replace("_", " ")


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_of_birds_are_those_of_the_classification_data_set(split, tmp_path):
    COPIES["CUB"].write(tmp_path)
    images, task = load_retrieval("CUB", split, tmp_path).query, COPIES["CUB"].splits[split]
    assert images.ids == [path for path, _ in task]
    if split == "test":
        assert images.fingerprint == load_task("CUB", "test", data_dir=tmp_path).fingerprint


def test_torn_lists_of_birds(tmp_path):
    root = COPIES["CUB"].write(tmp_path)
    text(root / "image_class_labels.txt", "1 1", "2 1")
    with pytest.raises(UserError, match=r"image_class_labels.txt' is damaged: it does not list the 4 images"):
        load_retrieval("CUB", data_dir=tmp_path)


# --- Stanford Online Products --------------------------------------------------------------------------------------

PRODUCTS = {
    "train": ["1 1 1 bicycle_final/111085122871_0.JPG", "2 1 1 bicycle_final/111085122871_1.JPG", "3 2 4 coffee_maker_final/22_0.JPG"],
    "test": ["59552 11319 3 chair_final/33_0.JPG", "59553 11319 3 chair_final/33_1.JPG", "59554 11320 12 toaster_final/44_0.JPG"],
}
HEADER = "image_id class_id super_class_id path"


def write_products(data_dir, header=HEADER, **lists):
    root = data_dir / "Stanford_Online_Products"
    for split, rows in (PRODUCTS | lists).items():
        text(root / f"Ebay_{split}.txt", header, *rows)
        for row in rows:
            paint(root, row.split()[-1])


@pytest.mark.parametrize(
    ("split", "labels", "kinds"),
    [
        (None, [11318, 11318, 11319], ["chair", "chair", "toaster"]),
        ("train", [0, 0, 1], ["bicycle", "bicycle", "coffee maker"]),
        ("all", [0, 0, 1, 11318, 11318, 11319], ["bicycle", "bicycle", "coffee maker", "chair", "chair", "toaster"]),
    ],
)
def test_products(split, labels, kinds, tmp_path):
    write_products(tmp_path)
    task = load_retrieval("SOP", split, tmp_path)
    rows = [row for part in (("train", "test") if split == "all" else (split or "test",)) for row in PRODUCTS[part]]
    assert task.split == (split or "test") and task.leave_one_out
    assert task.gallery.ids == [row.split()[3] for row in rows]
    assert task.gallery.labels.tolist() == labels
    assert task.gallery.groups.kind == "super-class"
    assert [task.gallery.groups.names[kind] for kind in task.gallery.groups.labels] == kinds
    assert task.protocols[""].without_positives == len(labels) // 3
    assert task.gallery.items.image(1).getpixel((3, 3)) == pytest.approx(color(task.gallery.ids[1]), abs=12)


def test_an_image_that_is_not_there_is_named_when_it_is_read(tmp_path):
    write_products(tmp_path)
    (tmp_path / "Stanford_Online_Products/chair_final/33_1.JPG").unlink()
    items = load_retrieval("SOP", data_dir=tmp_path).gallery.items
    with pytest.raises(UnreadableImage, match=r"chair_final/33_1.JPG: No such file"):
        items.image(1)
    assert items.image(0).size == (7, 5)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["1 1 1"], "has 3 of 4 columns"),
        (["1 1 x a.JPG"], "'x' stands where a whole number"),
        (["1 1 1 a.JPG", "3 1 1 b.JPG"], "image 3 stands where image 2 is expected"),
        (["1 1 13 a.JPG"], "image 1 is of class 1 and super-class 13"),
        (["1 0 1 a.JPG"], "image 1 is of class 0"),
        (["1 1 1 a.JPG", "2 1 1 a.JPG"], "The queries of SOP, split train, hold 'a.JPG' twice"),
        ([], "The queries of SOP, split train, are empty"),
    ],
)
def test_torn_lists_of_products(rows, sentence, tmp_path):
    write_products(tmp_path)
    text(tmp_path / "Stanford_Online_Products/Ebay_train.txt", HEADER, *rows)
    with pytest.raises(UserError, match=sentence):
        load_retrieval("SOP", "train", tmp_path)


def test_another_list_of_products(tmp_path):
    write_products(tmp_path, header="id class super path")
    with pytest.raises(UserError, match="does not begin with 'image_id class_id super_class_id path'"):
        load_retrieval("SOP", "train", tmp_path)
    text(tmp_path / "Stanford_Online_Products/Ebay_train.txt")
    with pytest.raises(UserError, match="does not begin with"):
        load_retrieval("SOP", "train", tmp_path)


# --- revisited Oxford and Paris ------------------------------------------------------------------------------------

GALLERY = [f"all_souls_{number:06d}" for number in range(6)]
QUERIES = ["magdalen_000058", "bodleian_000108"]
JUDGED = [
    {"bbx": [2.0, 1.0, 6.0, 4.0], "easy": np.array([0, 3]), "hard": np.array([1]), "junk": np.array([5, 2])},
    {"bbx": [0.4, 0.0, 7.0, 4.6], "easy": [], "hard": [4, 2], "junk": [0]},
]


def write_oxford(data_dir, judged=JUDGED, name="roxford5k", protocol=2, **other):
    truth = {"gnd": judged, "imlist": GALLERY, "qimlist": QUERIES} | other
    root = data_dir / name
    for image in (*GALLERY, *QUERIES):
        paint(root, f"jpg/{image}.jpg")
    (root / f"gnd_{name}.pkl").write_bytes(pickle.dumps(truth, protocol))
    return root


def listed(lists):
    return [lists[query].tolist() for query in range(len(lists))]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["ROxford5k", "RParis6k"])
def test_the_three_protocols(name, protocol, tmp_path):
    write_oxford(tmp_path, name=name.lower(), protocol=protocol)
    task = load_retrieval(name, data_dir=tmp_path)
    assert (task.name, task.split, task.leave_one_out) == (name, "test", False)
    assert task.query.ids == [f"{name.lower()}/jpg/{query}.jpg" for query in QUERIES]
    assert task.gallery.ids == [f"{name.lower()}/jpg/{image}.jpg" for image in GALLERY]
    found = {protocol: (listed(each.positives), listed(each.junk)) for protocol, each in task.protocols.items()}
    assert found == {
        "easy": ([[0, 3], []], [[1, 2, 5], [0, 2, 4]]),
        "medium": ([[0, 1, 3], [2, 4]], [[2, 5], [0]]),
        "hard": ([[1], [2, 4]], [[0, 2, 3, 5], [0]]),
    }
    assert [each.without_positives for each in task.protocols.values()] == [1, 0, 0]
    assert task.gallery.items.image(4).getpixel((0, 0)) == pytest.approx(color(f"jpg/{GALLERY[4]}.jpg"), abs=12)


def test_cropped_queries(tmp_path):
    root = write_oxford(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for query in QUERIES:
        Image.fromarray(pixels).save(root / f"jpg/{query}.jpg", quality=95)
    whole, cut = (load_retrieval("ROxford5k", data_dir=tmp_path, options=Options(crop=crop)) for crop in (False, True))
    assert cut.name == "ROxford5k-cropped"
    assert cut.query.ids == whole.query.ids
    first, second = (np.asarray(cut.query.items.image(query)) for query in (0, 1))
    assert (first == np.asarray(whole.query.items.image(0))[1:4, 2:6]).all()
    assert (second == np.asarray(whole.query.items.image(1))).all()  # 0.4 and 4.6 are rounded
    assert cut.gallery.fingerprint == whole.gallery.fingerprint
    assert cut.query.fingerprint != whole.query.fingerprint
    assert pickle.loads(pickle.dumps(cut.query)).fingerprint == cut.query.fingerprint


def test_another_box_is_another_fingerprint(tmp_path):
    prints = []
    for right in (6.0, 6.0, 5.0):
        write_oxford(tmp_path, [JUDGED[0] | {"bbx": np.array([2.0, 1.0, right, 4.0])}, JUDGED[1]])
        prints.append(load_retrieval("ROxford5k", data_dir=tmp_path, options=Options(crop=True)).query.fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_distractors_are_those_of_the_list(tmp_path):
    write_oxford(tmp_path)
    names = ["ab/ab12.jpg", "cd/cd34.jpg"]
    text(tmp_path / "revisitop1m/revisitop1m.txt", names[0], f"jpg/{names[1]}")
    for name in (*names, "ef/not-listed.jpg"):
        paint(tmp_path / "revisitop1m", f"jpg/{name}")
    plain, task = (load_retrieval("ROxford5k", data_dir=tmp_path, options=Options(distractors=more)) for more in (False, True))
    assert task.name == "ROxford5k+1M"
    assert task.gallery.ids == [*plain.gallery.ids, *(f"revisitop1m/jpg/{name}" for name in names)]
    assert task.gallery.items.image(7).getpixel((0, 0)) == pytest.approx(color(f"jpg/{names[1]}"), abs=12)
    assert listed(task.protocols["hard"].positives) == listed(plain.protocols["hard"].positives)


def test_distractors_that_are_not_there(tmp_path):
    write_oxford(tmp_path)
    with pytest.raises(UserError, match=r"--(datasets|list) revisitop1m "):
        load_retrieval("ROxford5k", data_dir=tmp_path, options=Options(distractors=True))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"judged": JUDGED[:1]}, "names 2 queries but judges 1"),
        ({"judged": [JUDGED[0], {"bbx": [0, 0, 1, 1], "easy": [1], "hard": []}]}, "easy, hard and junk"),
        ({"judged": [JUDGED[0], 7]}, "easy, hard and junk"),
        ({"judged": [JUDGED[0], JUDGED[1] | {"junk": [6]}]}, "not among its 6"),
        ({"judged": [JUDGED[0], JUDGED[1] | {"junk": [-1]}]}, "not among its 6"),
        ({"judged": [JUDGED[0], JUDGED[1] | {"junk": [4]}]}, "judges an image twice"),
        ({"imlist": None}, "holds no lists 'gnd', 'imlist' and 'qimlist'"),
        ({"qimlist": [QUERIES[0]] * 2}, r"queries of ROxford5k, split test, hold 'roxford5k/jpg/magdalen_000058.jpg' twice"),
    ],
)
def test_ground_truth_that_contradicts_itself(changes, sentence, tmp_path):
    write_oxford(tmp_path, **changes)
    with pytest.raises(UserError, match=sentence):
        load_retrieval("ROxford5k", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("box", "sentence"),
    [([1.0, 2.0, 3.0], "four sides"), (None, "four sides"), ([3.0, 1.0, 3.2, 4.0], "box is empty")],
)
def test_boxes_that_cannot_be_cut(box, sentence, tmp_path):
    write_oxford(tmp_path, [JUDGED[0], JUDGED[1] | {"bbx": box}])
    load_retrieval("ROxford5k", data_dir=tmp_path)
    with pytest.raises(UserError, match=sentence):
        load_retrieval("ROxford5k", data_dir=tmp_path, options=Options(crop=True))


class Run:
    def __reduce__(self):
        return print, ("executed",)


def test_nothing_in_the_pickle_is_executed(tmp_path, capsys):
    write_oxford(tmp_path, imlist=[*GALLERY[:5], Run()])
    with pytest.raises(UserError, match="only plain data"):
        load_retrieval("ROxford5k", data_dir=tmp_path)
    assert capsys.readouterr().out == ""


def test_a_torn_pickle(tmp_path):
    path = write_oxford(tmp_path) / "gnd_roxford5k.pkl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="no whole pickle"):
        load_retrieval("ROxford5k", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["CUB", "SOP", "ROxford5k", "RParis6k"])
def test_what_is_not_there(name, tmp_path):
    with pytest.raises(UserError, match=f"{name} is not in .* --(datasets|list) {name} "):
        load_retrieval(name, data_dir=tmp_path)


def test_the_ground_truth_without_its_images(tmp_path):
    root = write_oxford(tmp_path)
    (root / "jpg").rename(root / "elsewhere")
    with pytest.raises(UserError, match=r"roxford5k/jpg' is missing"):
        load_retrieval("ROxford5k", data_dir=tmp_path)
