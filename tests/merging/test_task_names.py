"""Names of the merging benchmarks' tasks: the published order, the sets and the prompts that they stand for."""

from argparse import Namespace
from pathlib import Path

import pytest

from common.errors import UserError
from datasets.facts import facts
from datasets.prompts import MERGING_KEYS
from datasets.sources.hub_sets import HUB_SETS
from merging import task_names
from merging.task_names import GROUPS, PUBLISHED, asked_names, expand, load_tasks

TA8 = ("sun397", "stanford-cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
EXTRAS = ("oxford_flowers102", "pcam", "fer2013", "oxford-iiit-pet", "stl10", "cifar100")
LAST = ("cifar10", "food101", "fashion_mnist", "emnist_letters", "kmnist", "rendered-sst2")
TEMPLATES = {"sun397": 2, "stanford-cars": 8, "resisc45": 18, "eurosat": 3, "svhn": 1, "gtsrb": 3, "mnist": 1, "dtd": 8}
CLASSES = {"sun397": 397, "stanford-cars": 196, "resisc45": 45, "eurosat": 10, "svhn": 10, "gtsrb": 43, "mnist": 10, "dtd": 47}


def arguments(**more):
    flags = {"data_dir": Path("data"), "val_p": 0.1, "template": None, "prompts": None}
    return Namespace(**{**flags, "corruption": None, "severity": None, "corruption_style": None, **more})


def test_groups_are_in_the_published_order():
    assert GROUPS["TA8"] == TA8
    assert GROUPS["TALL14"] == TA8 + EXTRAS
    assert GROUPS["TALL20"] == TA8 + EXTRAS + LAST
    assert {name: len(members) for name, members in GROUPS.items() if name != "TA8"} == {f"TALL{n}": n for n in (10, 12, 14, 16, 18, 20)}


def test_every_published_name_is_a_set_of_the_hub_with_published_classes_and_prompts():
    for key, name in expand(["TALL20"]).items():
        base, _, convention = name.partition("@")
        assert (base, convention) == (PUBLISHED[key], "hub")
        assert base in HUB_SETS
        assert facts()[MERGING_KEYS[base]]["templates"]


def test_the_repositories_are_those_of_the_published_names():
    """``tanganke/stanford_cars`` for stanford-cars, with no mix-up of two names."""
    for key, base in PUBLISHED.items():
        repository = HUB_SETS[base].repository.rpartition("/")[2].lower().replace("_", "-")
        expected = {"pcam": "patchcamelyon", "fer2013": "wds-fer2013"}.get(key, key.replace("_", "-"))
        assert repository == expected


def test_classes_and_templates_are_as_many_as_published():
    for key in TA8:
        listed = facts()[MERGING_KEYS[PUBLISHED[key]]]
        assert (len(listed["classnames"]), len(listed["templates"])) == (CLASSES[key], TEMPLATES[key])
    assert sum(CLASSES.values()) == 758
    assert sum(CLASSES[key] * TEMPLATES[key] for key in TA8) == 3727


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stanford_cars", {"stanford-cars": "Cars@hub"}),
        ("fashion-mnist", {"fashion_mnist": "FashionMNIST@hub"}),
        ("mnist+contrast-3", {"mnist+contrast-3": "MNIST@hub+contrast-3"}),
        ("gtsrb@hub-spatter", {"gtsrb@hub-spatter": "GTSRB@hub-spatter"}),
        ("dtd@standard", {"dtd@standard": "DTD"}),
        ("Shapes-Kind", {"Shapes-Kind": "Shapes-Kind"}),
        ("DTD@hub", {"DTD@hub": "DTD@hub"}),
        ("imagefolder:x/y@z", {"imagefolder:x/y@z": "imagefolder:x/y@z"}),
    ],
)
def test_what_a_word_means(word, expected):
    assert expand([word]) == expected


def test_order_is_kept_and_nothing_comes_twice():
    assert list(expand(["Digits", "TA8", "stanford_cars", "Digits"])) == ["Digits", *TA8]
    assert list(expand(["TA8+contrast-1"])) == [f"{key}+contrast-1" for key in TA8]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("stanford-car", "did you mean 'stanford-cars'"),
        ("TA9", "did you mean 'TA8'"),
        ("mnist@hub-contrast", "no 'hub-contrast' splits"),
        ("imagefold:x", "imagefolder:x"),
        ("tests", "write 'imagefolder:tests'"),
    ],
)
def test_unknown_names_are_told(word, hint):
    with pytest.raises(UserError, match=hint):
        expand([word])


def test_a_corruption_of_the_flags_is_part_of_both_names():
    args = arguments(corruption="pixelate", severity=2)
    assert asked_names(args, ["dtd", "Digits"]) == {"dtd+pixelate-2": "DTD@hub+pixelate-2", "Digits+pixelate-2": "Digits+pixelate-2"}


def test_prompts_are_the_flags_or_the_benchmarks_or_the_sets_own(monkeypatch):
    monkeypatch.setattr(task_names, "load_task", lambda name, split, **more: (name, split, more["templates"]))
    loaded = load_tasks(arguments(), ["dtd", "EuroSAT", "Digits"], "test")
    assert loaded["dtd"] == ("DTD@hub", "test", tuple(t.replace("{}", "{c}") for t in facts()["dtd"]["templates"]))
    assert loaded["EuroSAT"][2][0] == "a centered satellite photo of {c}."
    assert loaded["Digits"][2] is None
    assert load_tasks(arguments(template=["{c}!"]), ["dtd"], "test")["dtd"][2] == ("{c}!",)
    assert load_tasks(arguments(prompts="iimm"), ["dtd"], "test")["dtd"][2] == ("a photo of a {c} texture",)


def test_drawn_tasks_load_as_they_are():
    task = load_tasks(arguments(), ["Shapes-Kind"], "val")["Shapes-Kind"]
    assert (task.name, task.split, task.templates) == ("Shapes-Kind", "val", ("a photo of a {c}.",))
