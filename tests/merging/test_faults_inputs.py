"""What can be wrong with models: each is one sentence that names the thing, with status 2, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from merging.inputs import open_inputs
from tests.helpers import Ended, files_below, run_here
from tests.merging import hugging_face as hf

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A base and two models of it, as files."""
    paths = [tmp_path / "in" / f"{name}.safetensors" for name in ("base", "sun", "dtd")]
    paths[0].parent.mkdir()
    for seed, path in enumerate(paths):
        generator = torch.Generator().manual_seed(seed)
        save_file({"a.w": torch.randn(6, 4, generator=generator), "a.b": torch.randn(6, generator=generator)}, path)
    return paths


def merge(tmp_path: Path, base: object, *models: object, out: str = "out/merged.safetensors") -> Ended:
    """Merge by TIES; whatever is refused leaves all as it was."""
    before = files_below(tmp_path)
    ended = run_here("merge", "--method", "ties", "--base", base, "--models", *models, "--out", tmp_path / out)
    assert ended.status == 0 or (files_below(tmp_path) == before and not (tmp_path / "out").exists())
    return ended


def edited(path: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


CHANGES: dict[str, tuple[int, Callable[[Tensors], object], str]] = {
    "NaN in a model": (2, lambda t: t["a.w"][1].fill_(float("nan")), "The tensor 'a.w' of 'dtd' holds NaN or infinity"),
    "infinity in a model": (1, lambda t: t["a.b"][:1].fill_(float("-inf")), "The tensor 'a.b' of 'sun' holds NaN or infinity"),
    "NaN in the base": (0, lambda t: t["a.b"].fill_(float("nan")), "The tensor 'a.b' of 'base' holds NaN or infinity"),
    "infinity in the base": (0, lambda t: t["a.w"].fill_(float("inf")), "The tensor 'a.w' of 'base' holds NaN or infinity"),
    "unknown tensor": (2, lambda t: t.update(c=torch.ones(3)), "'dtd' has a tensor 'c' (3 float32), which 'base' has not"),
    "missing tensor": (1, lambda t: t.pop("a.b"), "'sun' lacks the tensor 'a.b' (6 float32), which 'dtd' has"),
    "missing everywhere but in a model": (0, lambda t: t.pop("a.b"), "'sun' has a tensor 'a.b' (6 float32), which 'base' has not"),
    "wrong shape": (
        2,
        lambda t: t.update({"a.w": torch.ones(4, 6)}),
        "'a.w' of 'dtd' is 4x6 float32; 6x4 float32 is expected, as in 'base'",
    ),
    "wrong dtype": (1, lambda t: t.update({"a.w": t["a.w"].half()}), "'a.w' of 'sun' is 6x4 float16; 6x4 float32 is expected"),
    "no tensor": (2, lambda t: t.clear(), "'dtd' lacks the tensor 'a."),
}


@pytest.mark.parametrize("how", CHANGES)
def test_models_that_cannot_be_merged(files: list[Path], tmp_path: Path, how: str) -> None:
    number, change, words = CHANGES[how]
    edited(files[number], change)
    merge(tmp_path, *files).refused(words)


def test_nan_in_what_is_copied_from_the_base_is_told_and_a_mask_is_not(files: list[Path], tmp_path: Path) -> None:
    for path in files:
        edited(path, lambda tensors: tensors.update({"mask": torch.tensor([0.0, float("-inf")])}))
    words = ["merge", "--method", "simple_average", "--base", files[0], "--models", *files[1:], "--only", "a.w", "--out"]
    run_here(*words, tmp_path / "good.safetensors").succeeded()
    edited(files[0], lambda tensors: tensors["a.b"][0].fill_(float("nan")))
    run_here(*words, tmp_path / "bad.safetensors").refused("The tensor 'a.b' of 'base' holds NaN; fetch or train that model anew.")
    assert not (tmp_path / "bad.safetensors").exists()


def test_a_file_cut_off_anywhere(files: list[Path], tmp_path: Path) -> None:
    content = files[2].read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for length in {*range(0, len(content), 7), header - 1, header, header + 1, len(content) - 1}:
        files[2].write_bytes(content[:length])
        merge(tmp_path, *files).refused(f"'{files[2]}' is not a whole safetensors file", "fetch or write it again")


def test_a_base_cut_off(files: list[Path], tmp_path: Path) -> None:
    files[0].write_bytes(files[0].read_bytes()[:-3])
    merge(tmp_path, *files).refused(f"'{files[0]}' is not a whole safetensors file")


def test_equal_models_are_merged_and_told(files: list[Path], tmp_path: Path) -> None:
    ended = merge(tmp_path, files[0], files[1], f"same={files[0]}").succeeded()
    assert ended.stderr == "merge.py: 'same' equals the base 'base' in every merged tensor: its task vector is 0.\n"


def test_models_of_one_name_and_models_that_are_not_there(files: list[Path], tmp_path: Path) -> None:
    merge(tmp_path, files[0], f"a={files[1]}", f"a={files[2]}").refused("Two models are named 'a'; every model needs a name of its own.")
    merge(tmp_path, files[0], tmp_path / "absent.safetensors").refused(f"No such file: '{tmp_path / 'absent.safetensors'}'")


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]], ids=["plainly", "overwriting"])
@pytest.mark.parametrize("number", [0, 2])
def test_an_output_that_is_an_input(files: list[Path], tmp_path: Path, number: int, overwrite: list[str]) -> None:
    before = files_below(tmp_path)
    words = ["--method", "ties", "--base", files[0], "--models", *files[1:], "--out", files[number], *overwrite]
    run_here("merge", *words).refused(f"'{files[number]}' is the model '{files[number].stem}', which is merged; name another --out.")
    assert files_below(tmp_path) == before


# --- folders -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """The base and a model as Hugging Face folders."""
    return [hf.write(tmp_path / "in" / name, hf.clip(0) if name == "base" else hf.tuned(hf.clip(0), 1)) for name in ("base", "sun")]


@pytest.mark.parametrize("length", [0, 1, 40])
def test_a_truncated_configuration_of_the_base(folders: list[str], tmp_path: Path, length: int) -> None:
    path = Path(folders[0]) / "config.json"
    path.write_bytes(path.read_bytes()[:length])
    merge(tmp_path, *folders, out="out").refused(f"'{path}' is not readable JSON")
    run_here("merge", "--method", "ties", "--base", folders[0], "--models", folders[1], "--out", tmp_path / "x.safetensors").succeeded()


def test_folders_that_are_not_whole(folders: list[str], tmp_path: Path) -> None:
    (Path(folders[0]) / "config.json").unlink()
    merge(tmp_path, *folders, out="out").refused(f"'{folders[0]}' lacks its config.json; fetch it")
    weights = Path(folders[1]) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    merge(tmp_path, *folders).refused(f"'{weights}' is not a whole safetensors file")
    weights.unlink()
    merge(tmp_path, *folders).refused(f"There are no weights in '{folders[1]}'; expected model.safetensors")


@pytest.fixture
def shards(tmp_path: Path, files: list[Path]) -> Path:
    """The last of the models in two shards; gives the index."""
    tensors, folder = load_file(files[2]), tmp_path / "in" / "shards"
    folder.mkdir()
    places = {"a.w": "model-1-of-2.safetensors", "a.b": "model-2-of-2.safetensors"}
    for name, file in places.items():
        save_file({name: tensors[name]}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder / "model.safetensors.index.json"


INDICES: dict[str, tuple[Callable[[str], str], str]] = {
    "cut off": (lambda text: text[:30], "is not readable JSON"),
    "empty": (lambda text: "", "is not readable JSON"),
    "no map": (lambda text: '{"weight_map": 3}', "names no shards"),
    "a shard left out": (lambda text: text.replace(', "a.b": "model-2-of-2.safetensors"', ""), "'in' lacks the tensor 'a.b'"),
    "a tensor more": (lambda text: text.replace('"a.b"', '"a.c": "model-2-of-2.safetensors", "a.b"'), "only the index has 'a.c'"),
    "another tensor": (lambda text: text.replace('"a.b"', '"a.c"'), "do not fit: only a shard has 'a.b'"),
    "an absent shard": (lambda text: text.replace("2-of-2", "3-of-2"), "model-3-of-2.safetensors"),
}


@pytest.mark.parametrize("how", INDICES)
def test_a_damaged_index_of_shards(files: list[Path], shards: Path, tmp_path: Path, how: str) -> None:
    change, words = INDICES[how]
    shards.write_text(change(shards.read_text()))
    for spelled in (shards, shards.parent):
        merge(tmp_path, files[0], f"in={spelled}").refused(words)


# --- LoRA ----------------------------------------------------------------------------------------------------------

MODULE = "vision_model.encoder.layers.0.self_attn.q_proj"


@pytest.fixture
def lora(tmp_path: Path, folders: list[str]) -> Path:
    """A LoRA of one matrix; gives its configuration."""
    folder = tmp_path / "in" / "lora"
    folder.mkdir()
    keys = {f"base_model.model.{MODULE}.lora_{letter}.weight": shape for letter, shape in (("A", (2, 16)), ("B", (16, 2)))}
    save_file({name: torch.ones(shape) for name, shape in keys.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    return folder / "adapter_config.json"


CONFIGURATIONS: dict[str, tuple[str, str]] = {
    "cut off": ('{"peft_type": "LORA", "r": 2', "is not readable JSON"),
    "empty": ("", "is not readable JSON"),
    "a list": ("[]", "is not that of a LoRA"),
    "no rank": ('{"lora_alpha": 4}', "gives no r"),
    "alpha of words": ('{"r": 2, "lora_alpha": "4"}', "gives no lora_alpha"),
    "alpha NaN": ('{"r": 2, "lora_alpha": NaN}', "gives no lora_alpha"),
    "infinite alpha": ('{"r": 2, "lora_alpha": Infinity}', "gives no lora_alpha"),
    "endless alpha": ('{"r": 2, "lora_alpha": 1' + "0" * 400 + "}", "gives no lora_alpha"),
    "another rank": ('{"r": 3, "lora_alpha": 4}', "says rank 3; they belong to two adapters"),
    "a list of patterns": ('{"r": 2, "lora_alpha": 4, "rank_pattern": ["q"]}', "The rank_pattern in"),
    "a pattern that is none": ('{"r": 2, "lora_alpha": 4, "alpha_pattern": {"(": 3}}', "The alpha_pattern in"),
    "a pattern of words": ('{"r": 2, "lora_alpha": 4, "alpha_pattern": {"q_proj": "x"}}', "The alpha_pattern in"),
}


@pytest.mark.parametrize("how", CONFIGURATIONS)
def test_a_damaged_configuration_of_a_lora(folders: list[str], lora: Path, tmp_path: Path, how: str) -> None:
    text, words = CONFIGURATIONS[how]
    lora.write_text(text)
    merge(tmp_path, folders[0], lora.parent, out="out").refused(words)


def test_a_lora_that_is_not_whole(folders: list[str], lora: Path, tmp_path: Path) -> None:
    merge(tmp_path, folders[0], lora.parent, out="whole").succeeded()
    adapter = lora.parent / "adapter_model.safetensors"
    for shapes in (((2, 16), (16, 3)), ((2, 16), (16,)), ((2,), (16, 2)), ((2, 16), ())):
        keys = zip("AB", shapes, strict=True)
        save_file({f"{MODULE}.lora_{letter}.weight": torch.ones(shape) for letter, shape in keys}, adapter)
        merge(tmp_path, folders[0], lora.parent, out="out").refused(f"'{adapter}' is damaged: A and B of '{MODULE}'", "fetch it again")
    lora.unlink()
    merge(tmp_path, folders[0], lora.parent, out="out").refused(f"No such file: '{lora}'")


def test_a_result_that_overflows_is_told(files: list[Path], tmp_path: Path) -> None:
    for path in files:
        edited(path, lambda t: t.update({name: tensor.half() for name, tensor in t.items()}))
    words = [
        "--method",
        "task_arithmetic",
        "--scaling",
        1e6,
        "--base",
        files[0],
        "--models",
        *files[1:],
        "--out",
        tmp_path / "x.safetensors",
    ]
    run_here("merge", *words).refused("The merged tensor 'a.", "holds NaN or infinity as torch.float16; a smaller --scaling may be meant")


def test_nothing_is_opened_twice_under_two_names(files: list[Path]) -> None:
    """A model given twice is told, not counted silently."""
    assert open_inputs(str(files[0]), [str(files[1]), str(files[1])]).remarks == ("'sun' and 'sun-2' are equal in every merged tensor.",)
    with pytest.raises(UserError, match="No such file"):
        open_inputs(str(files[0]), [str(files[1].with_name("absent.safetensors"))])
