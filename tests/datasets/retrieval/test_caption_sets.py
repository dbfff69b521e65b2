"""COCO, Flickr30k and nocaps, on miniature copies."""

import json

import pytest

from common.errors import UserError
from datasets.retrieval.options import Options
from datasets.retrieval.table import load_retrieval
from tests.datasets.sources.listed_copies import color, paint, text

SIDES = {"both text": Options(), "by text": Options("text", "image"), "by image": Options("image", "text")}


def judged(task):
    """Which ids are relevant to which query's."""
    relevance = task.protocols[""]
    return {task.query.ids[q]: [task.gallery.ids[g] for g in relevance.positives[q]] for q in range(len(task.query))}


# --- COCO --------------------------------------------------------------------------------------------------------

COCO = [  # (split, imgid, COCO's number, sentids)
    ("test", 0, 391895, (770337, 771687, 772707)),
    ("restval", 1, 522418, (681330, 686718)),
    ("val", 2, 184613, (474921, 479322)),
    ("train", 3, 57870, (787980,)),
    ("test", 4, 318219, (8, 9)),
]


def coco_image(split, number, coco, sentences, light):
    folder = "train2014" if split == "train" else "val2014"
    image = {
        "sentids": list(sentences),
        "imgid": number,
        "split": split,
        "sentences": [{"tokens": ["x"], "raw": f"Caption {key} of {number}.", "imgid": number, "sentid": key} for key in sentences],
    }
    named = {"filepath": folder, "filename": f"COCO_{folder}_{coco:012d}.jpg", "cocoid": coco}
    return image if light else image | named


def write_coco(data_dir, light=False, images=COCO, below=""):
    listed = [coco_image(*image, light) for image in images]
    path = data_dir / "COCO2014" / ("dataset_coco_light.json" if light else "dataset_coco.json")
    text(path, json.dumps({"images": listed, "dataset": "coco"}))
    for image in listed if not light else ():
        paint(data_dir / "COCO2014" / below, f"{image['filepath']}/{image['filename']}")
    return path


@pytest.mark.parametrize("light", [True, False])
def test_first_captions_find_the_others(light, tmp_path):
    write_coco(tmp_path, light)
    task = load_retrieval("COCO", data_dir=tmp_path)
    assert (task.name, task.split, task.query.modality, task.gallery.modality) == ("COCO", "test", "text", "text")
    assert judged(task) == {"770337": ["771687", "772707"], "8": ["9"]}
    assert task.gallery.ids == ["771687", "772707", "9"] and task.gallery.labels.tolist() == [0, 0, 4]
    assert task.query.texts == ("Caption 770337 of 0.", "Caption 8 of 4.")


def test_restval_is_for_training_and_one_caption_is_not_enough(tmp_path):
    write_coco(tmp_path)
    task = load_retrieval("COCO", "train", tmp_path)
    assert judged(task) == {"681330": ["686718"], "787980": []}
    assert task.protocols[""].without_positives == 1
    assert judged(load_retrieval("COCO", "val", tmp_path)) == {"474921": ["479322"]}


@pytest.mark.parametrize("below", ["", "images"])
@pytest.mark.parametrize("split", ["test", "train"])
def test_captions_find_images(split, below, tmp_path):
    write_coco(tmp_path, below=below)
    task = load_retrieval("COCO", split, tmp_path, SIDES["by text"])
    images = {each[3]: each for each in COCO if each[0] in (("train", "restval") if split == "train" else ("test",))}
    names = {
        sentences: f"{coco_image(*each, False)['filepath']}/{coco_image(*each, False)['filename']}" for sentences, each in images.items()
    }
    assert judged(task) == {str(key): [name] for sentences, name in names.items() for key in sentences}
    assert task.gallery.items.image(1).getpixel((0, 0)) == pytest.approx(color(task.gallery.ids[1]), abs=12)
    back = load_retrieval("COCO", split, tmp_path, SIDES["by image"])
    assert judged(back) == {name: list(map(str, sentences)) for sentences, name in names.items()}


def test_the_light_list_names_no_images(tmp_path):
    write_coco(tmp_path, light=True)
    with pytest.raises(UserError, match="do not name the files of 2 of 2 images"):
        load_retrieval("COCO", data_dir=tmp_path, options=SIDES["by text"])


def test_captions_without_the_images(tmp_path):
    text(write_coco(tmp_path, light=True).with_name("dataset_coco.json"), json.dumps({"images": [coco_image(*COCO[0], False)]}))
    with pytest.raises(UserError, match="COCO2014/val2014' is missing"):
        load_retrieval("COCO", data_dir=tmp_path, options=SIDES["by image"])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"images": [{"split": "test", "imgid"', "dataset_coco.json' is not readable JSON"),
        ('{"images": [{"split": "test", "sentences": []}]}', "is not Karpathy's list of captions: KeyError 'imgid'"),
        ("[]", "is not Karpathy's list of captions"),
        ('{"images": []}', "The queries of COCO, split test, are empty"),
        (json.dumps({"images": [coco_image(*COCO[0], True)] * 2}), "hold '770337' twice"),
    ],
)
def test_torn_lists_of_captions(content, sentence, tmp_path):
    text(tmp_path / "COCO2014/dataset_coco.json", content)
    with pytest.raises(UserError, match=sentence):
        load_retrieval("COCO", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["COCO", "Flickr30k", "nocaps"])
def test_what_is_not_there(name, tmp_path):
    with pytest.raises(UserError, match=f"{name} is not in .* --(datasets|list) {name} "):
        load_retrieval(name, data_dir=tmp_path)


@pytest.mark.parametrize("name", ["COCO", "Flickr30k", "nocaps"])
def test_images_do_not_find_images(name, tmp_path):
    write_coco(tmp_path)
    write_flickr(tmp_path)
    write_nocaps(tmp_path)
    with pytest.raises(UserError, match=f"{name} has one image per label"):
        load_retrieval(name, data_dir=tmp_path, options=Options("image", "image"))


# --- Flickr30k -----------------------------------------------------------------------------------------------------

FLICKR = (
    "image_name| comment_number| comment",
    "1000092795.jpg| 0| Two young guys with shaggy hair look at their hands .",
    "1000092795.jpg| 1| Two young , White males are outside near many bushes .",
    "2199200615.jpg| 3| A dog in the grass .",
    "2199200615.jpg| 4   A dog runs across the grass .",
    "10002456.jpg| 0| Several men | women in hard hats .",
    "10002456.jpg| 1|A man , 3 | 4 of a group , works .",
)


def write_flickr(data_dir, *lines, val=("1000092795", "2199200615"), test=("10002456.jpg",)):
    root = data_dir / "Flickr30K"
    text(root / "results.csv", *(lines or FLICKR))
    text(root / "karpathy_val.txt", *val)
    text(root / "karpathy_test.txt", *test)
    for image in ("1000092795", "2199200615", "10002456"):
        paint(root, f"flickr30k_images/{image}.jpg")
    return root / "results.csv"


def test_flickr_and_its_row_without_a_delimiter(tmp_path):
    path = write_flickr(tmp_path)
    before = path.read_bytes()
    task = load_retrieval("Flickr30k", data_dir=tmp_path)
    assert task.split == "val"
    assert judged(task) == {"1000092795.jpg#0": ["1000092795.jpg#1"], "2199200615.jpg#3": ["2199200615.jpg#4"]}
    assert task.gallery.texts == ("Two young , White males are outside near many bushes .", "A dog runs across the grass .")
    assert path.read_bytes() == before


def test_a_stroke_in_a_comment_is_part_of_it(tmp_path):
    write_flickr(tmp_path)
    task = load_retrieval("Flickr30k", "test", tmp_path)
    assert task.query.texts == ("Several men | women in hard hats .",)
    assert task.gallery.texts == ("A man , 3 | 4 of a group , works .",)


def test_all_of_flickr_in_the_order_of_the_file_with_one_label_in_every_split(tmp_path):
    write_flickr(tmp_path)
    task = load_retrieval("Flickr30k", "all", tmp_path, SIDES["by image"])
    assert task.query.ids == ["1000092795.jpg", "2199200615.jpg", "10002456.jpg"]
    assert judged(task)["10002456.jpg"] == ["10002456.jpg#0", "10002456.jpg#1"]
    assert task.query.labels.tolist() == [0, 1, 2]
    assert load_retrieval("Flickr30k", "test", tmp_path).query.labels.tolist() == [2]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (("image,comment",), "does not begin with 'image_name"),
        ((*FLICKR, "1.jpg| x| y"), "damaged: line 8 is no"),
        ((*FLICKR, "1.jpg| 2|"), "damaged: line 8 is no"),
        (FLICKR[:3], "no captions of 1 of 2 images of the split val, e.g. 2199200615.jpg"),
        ((*FLICKR, FLICKR[-5]), "hold '1000092795.jpg#1' twice"),
    ],
)
def test_torn_captions_of_flickr(lines, sentence, tmp_path):
    write_flickr(tmp_path, *lines)
    with pytest.raises(UserError, match=sentence):
        load_retrieval("Flickr30k", data_dir=tmp_path)


def test_a_split_of_flickr_that_is_not_there(tmp_path):
    write_flickr(tmp_path)
    with pytest.raises(UserError, match=r"karpathy_train.txt' is missing"):
        load_retrieval("Flickr30k", "train", tmp_path)


# --- nocaps --------------------------------------------------------------------------------------------------------


def write_nocaps(data_dir, images=(0, 1), owners=(0, 1, 0, 1, 0)):
    content = {
        "licenses": [],
        "info": {"split": "val"},
        "images": [{"id": key, "file_name": f"{key:016x}.jpg", "domain": "near-domain", "height": 5, "width": 7} for key in images],
        "annotations": [{"image_id": owner, "id": key, "caption": f"Caption {key}."} for key, owner in enumerate(owners)],
    }
    text(data_dir / "nocaps/nocaps_val_4500_captions.json", json.dumps(content))
    for image in content["images"]:
        paint(data_dir / "nocaps", f"images/{image['file_name']}")


def test_nocaps(tmp_path):
    write_nocaps(tmp_path)
    task = load_retrieval("nocaps", data_dir=tmp_path)
    assert task.split == "val" and judged(task) == {"0": ["2", "4"], "1": ["3"]}
    assert task.query.texts == ("Caption 0.", "Caption 1.")
    pictures = load_retrieval("nocaps", data_dir=tmp_path, options=SIDES["by text"])
    assert judged(pictures)["3"] == ["0000000000000001.jpg"]
    assert pictures.gallery.items.image(0).getpixel((0, 0)) == pytest.approx(color("images/0000000000000000.jpg"), abs=12)


def test_captions_of_no_image(tmp_path):
    write_nocaps(tmp_path, owners=(0, 1, 2))
    with pytest.raises(UserError, match="is not nocaps's list of captions: KeyError 2"):
        load_retrieval("nocaps", data_dir=tmp_path)
