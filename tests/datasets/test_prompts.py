"""The prompt sets against the publications, what --prompts may name, and class names as words."""

import pytest
import torch

from common.errors import UserError
from datasets.facts import classnames
from datasets.prompts import IIMM, MERGING_KEYS, PROMPT_SETS, chosen_templates, default_templates, prompt_names
from datasets.registry import SOURCES, task_names
from datasets.task import fill
from engine.classifier import average_templates
from models.loading import load_encoder

BUILT_IN = {name for name in task_names() if name == "Digits" or name.startswith(("Shapes-", "Glyphs-"))}
TA8 = ("SUN397", "Cars", "RESISC45", "EuroSAT", "SVHN", "GTSRB", "MNIST", "DTD")
MERGING_COUNTS = {
    **{"SUN397": (397, 2), "Cars": (196, 8), "RESISC45": (45, 18), "EuroSAT": (10, 3), "SVHN": (10, 1), "GTSRB": (43, 3)},
    **{"MNIST": (10, 1), "DTD": (47, 8), "Flowers102": (102, 1), "PCAM": (2, 1), "FER2013": (7, 6), "OxfordPets": (37, 1)},
    **{"STL10": (10, 2), "CIFAR100": (100, 18), "CIFAR10": (10, 18), "Food101": (101, 1), "FashionMNIST": (10, 2)},
    **{"EMNISTLetters": (26, 1), "KMNIST": (10, 1), "RenderedSST2": (2, 1), "CUB": (200, 2)},
}  # (classes, templates) of the merging benchmarks
OPENAI_COUNTS = {
    **{"Caltech101": 34, "UCF101": 48, "ImageNet": 80, "FGVCAircraft": 2, "CIFAR10": 18, "CIFAR100": 18, "DTD": 8, "EuroSAT": 3},
    **{"FER2013": 6, "Flowers102": 1, "Food101": 1, "GTSRB": 3, "MNIST": 1, "OxfordPets": 1, "PCAM": 1, "RenderedSST2": 1},
    **{"RESISC45": 18, "STL10": 2, "SUN397": 2, "Cars": 8},
}
COOP = {
    "OxfordPets": "a photo of a {c}, a type of pet.",
    "Flowers102": "a photo of a {c}, a type of flower.",
    "FGVCAircraft": "a photo of a {c}, a type of aircraft.",
    "DTD": "{c} texture.",
    "EuroSAT": "a centered satellite photo of {c}.",
    "Food101": "a photo of {c}, a type of food.",
    "UCF101": "a photo of a person doing {c}.",
    "CUB": "a photo of a {c}, a type of bird.",
    **dict.fromkeys(("Cars", "SUN397", "Caltech101", "PlantDoc", "StanfordDogs"), "a photo of a {c}."),
    **dict.fromkeys(("ImageNetV2", "ImageNetSketch", "ImageNetRendition", "ImageNetAdversarial"), "a photo of a {c}."),
}
OF_IIMM = {
    "Cars": "a photo of a {c}",
    "DTD": "a photo of a {c} texture",
    "EuroSAT": "a centered satellite photo of a {c}",
    "GTSRB": 'a photo of a "{c}" traffic sign',
    "MNIST": 'a photo of the number: "{c}"',
    "SVHN": 'a photo of the number: "{c}"',
    "RESISC45": "satellite imagery of {c}",
}


@pytest.mark.parametrize(("name", "counts"), MERGING_COUNTS.items(), ids=MERGING_COUNTS)
def test_the_merging_lists(name, counts):
    assert (len(classnames(MERGING_KEYS[name])), len(chosen_templates(name, "merging"))) == counts


def test_the_merging_lists_are_of_these_data_sets():
    assert MERGING_COUNTS.keys() == MERGING_KEYS.keys()


def test_the_eight_merging_tasks_have_their_published_number_of_prompts():
    prompts = [fill(template, c) for name in TA8 for c in classnames(MERGING_KEYS[name]) for template in chosen_templates(name, "merging")]
    assert len(prompts) == 3727
    assert sum(len(classnames(MERGING_KEYS[name])) for name in TA8) == 758


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SUN397", ["a photo of a {c}.", "a photo of the {c}."]),
        ("STL10", ["a photo of a {c}.", "a photo of the {c}."]),
        ("CUB", ["a photo of a {c}.", "a photo of the {c}."]),
        ("FashionMNIST", ["a photo of a {c}.", "a photo of the {c}."]),
        ("EuroSAT", [f"a centered satellite photo of {article}{{c}}." for article in ("", "a ", "the ")]),
        ("GTSRB", [f'a {how} photo of a "{{c}}" traffic sign.' for how in ("zoomed in", "centered", "close up")]),
        (
            "DTD",
            [f"a photo of {article} {{c}} {thing}." for article in ("a", "the") for thing in ("texture", "pattern", "thing", "object")],
        ),
        ("MNIST", ['a photo of the number: "{c}".']),
        ("SVHN", ['a photo of the number: "{c}".']),
        ("EMNISTLetters", ['a photo of the digit character: "{c}".']),
        ("KMNIST", ["a photo of the character {c}."]),
        ("PCAM", ["this is a photo of {c}"]),
        ("RenderedSST2", ["a {c} review of a movie."]),
        ("Food101", ["a photo of {c}, a type of food."]),
        (
            "Cars",
            [f"a photo of {which} {{c}}." for which in ("a", "the", "my", "my dirty", "my clean", "my new", "my old")] + ["i love my {c}!"],
        ),
        (
            "RESISC45",
            [
                f"{view} {what} of {article}{{c}}."
                for view in ("satellite", "aerial")
                for what in ("imagery", "photo", "view")
                for article in ("", "a ", "the ")
            ],
        ),
    ],
)
def test_the_merging_prompts(name, expected):
    assert sorted(chosen_templates(name, "merging")) == sorted(expected)


@pytest.mark.parametrize(("name", "count"), OPENAI_COUNTS.items(), ids=OPENAI_COUNTS)
def test_the_openai_ensembles(name, count):
    templates = chosen_templates(name, "openai")
    assert len(templates) == len(set(templates)) == count


def test_openai_prompts_of_made_lists():
    """Those that are put together from parts, by examples of the published lists."""
    assert {"a plastic {c}.", "the plushie {c}.", "graffiti of the {c}.", "a {c} in a video game."} <= set(
        chosen_templates("Caltech101", "openai")
    )
    assert {"a photo of a person {c}.", "a example of the person during {c}.", "a video of a person practicing {c}."} <= set(
        chosen_templates("UCF101", "openai")
    )
    assert {"itap of a {c}.", "a tattoo of the {c}."} <= set(chosen_templates("ImageNetAdversarial", "openai"))


@pytest.mark.parametrize(("name", "template"), COOP.items(), ids=COOP)
def test_the_coop_prompts(name, template):
    assert chosen_templates(name, "coop") == (template,)


@pytest.mark.parametrize(("name", "template"), {**COOP, "ImageNet": "a photo of a {c}."}.items())
def test_the_prompts_of_cross_the_gap(name, template):
    """Section 5 of its specification: CoOp's, and of ImageNet and its variants one."""
    assert chosen_templates(name, "cross_the_gap") == (template,)


def test_the_seven_of_imagenet():
    seven = chosen_templates("ImageNet", "coop")
    assert len(seven) == 7
    assert set(seven) <= set(chosen_templates("ImageNet", "openai"))


@pytest.mark.parametrize(("name", "template"), OF_IIMM.items(), ids=OF_IIMM)
def test_the_iimm_prompts(name, template):
    assert chosen_templates(name, "iimm") == default_templates(name) == (template,)


def test_iimm_prompts_are_single_and_without_a_full_stop():
    assert all(len(templates) == 1 and not templates[0].endswith(".") for templates in IIMM.values())


@pytest.mark.parametrize("name", sorted(set(SOURCES) - BUILT_IN))
def test_every_set_has_a_default_and_templates_have_one_place(name):
    for templates in [*(chosen_templates(name, prompts) for prompts in prompt_names(name)), default_templates(name)]:
        assert all(template.count("{c}") == 1 and "{}" not in template for template in templates)
        assert len(set(templates)) == len(templates)


def test_data_sets_of_other_papers_have_the_prompts_of_those():
    assert default_templates("OxfordPets") == chosen_templates("OxfordPets", "coop")
    assert default_templates("CIFAR10") == chosen_templates("CIFAR10", "merging")
    assert default_templates("OpenImages") == ("a photo of a {c}",)


def test_the_default_of_imagenet_imports_no_torch():
    import subprocess
    import sys

    code = "import sys; from datasets.prompts import default_templates; default_templates('ImageNet'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_prompts_from_a_file(tmp_path):
    listed = tmp_path / "mine.txt"
    listed.write_text("a {c}\n\nthe {}\n")
    assert chosen_templates("DTD", str(listed)) == ("a {c}", "the {c}")
    assert chosen_templates("imagefolder:photos", str(listed)) == ("a {c}", "the {c}")
    listed.rename(tmp_path / "openai-like")
    assert chosen_templates("DTD", str(tmp_path / "openai-like")) == ("a {c}", "the {c}")


def test_a_file_called_as_a_set_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openai").write_text("a {c}")
    assert len(chosen_templates("DTD", "openai")) == 8
    with pytest.raises(UserError, match="MNIST has no 'coop' prompts"):
        chosen_templates("MNIST", "coop")


@pytest.mark.parametrize(
    ("name", "prompts", "message"),
    [
        ("MNIST", "coop", "MNIST has no 'coop' prompts; known: iimm, openai, merging; a text file"),
        ("PlantDoc", "merging", "PlantDoc has no 'merging' prompts; known: coop, cross_the_gap; a text file"),
        ("imagefolder:photos", "openai", "imagefolder:photos has no 'openai' prompts; a text file"),
        ("DTD", "opnai", "Unknown prompts 'opnai' for DTD; known: iimm, openai, coop, merging, cross_the_gap; a text file"),
        ("DTD", "absent.txt", "Cannot read 'absent.txt': No such file or directory."),
    ],
)
def test_prompts_that_there_are_not(name, prompts, message):
    with pytest.raises(UserError) as error:
        chosen_templates(name, prompts)
    assert message in str(error.value)


@pytest.mark.parametrize("key", sorted({*MERGING_KEYS.values(), "fmow"}))
def test_class_names_are_words(key):
    """No underscore, no number in front as in CUB's "001.Black_footed_Albatross", no two alike."""
    names = classnames(key)
    assert len(set(names)) == len(names)
    assert not [name for name in names if "_" in name or "." in name.split()[0] or name != name.strip()]


def test_names_that_were_wrong_elsewhere():
    assert "race track" in classnames("fmow")
    assert classnames("cub_200_2011")[0] == "Black footed Albatross"
    assert classnames("oxford_iiit_pet")[1] == "american bulldog"
    assert classnames("stanford_cars")[0] == "AM General Hummer SUV 2000"


def test_the_prompt_sets_are_those_that_the_flag_names():
    from common.arguments import add_data_arguments
    from common.cli import Parser

    parser = Parser("")
    add_data_arguments(parser, val_p=None)
    assert f"({', '.join(PROMPT_SETS)})" in " ".join(parser.format_help().split())


@torch.no_grad()
@pytest.mark.parametrize("name", ["MNIST", "EuroSAT", "FER2013"])
def test_the_head_is_built_class_by_class(small_model, name):
    """Merging benchmarks: per class the unit embeddings of all prompts, their mean, at unit length."""
    encoder = load_encoder(str(small_model))
    templates, names = chosen_templates(name, "merging"), classnames(MERGING_KEYS[name])
    expected = []
    for c in names:
        embeddings = encoder.text_features(encoder.tokenize([fill(template, c) for template in templates]))
        mean = sum(each / each.norm() for each in embeddings) / len(templates)
        expected.append(mean / mean.norm())
    prompts = [fill(template, c) for c in names for template in templates]
    head = average_templates(encoder.text_features(encoder.tokenize(prompts)), len(templates))
    assert head.shape == (len(names), encoder.embed_dim)
    torch.testing.assert_close(head, torch.stack(expected), atol=2e-6, rtol=0)
