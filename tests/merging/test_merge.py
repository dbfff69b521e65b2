"""What a merge writes: values, names, dtypes, form and record; and that nothing is left when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.errors import UserError
from common.files import sha256_of_file
from merging.inputs import Inputs, open_inputs
from merging.merge import merge
from merging.method import Method
from merging.options import MergeOptions
from merging.output import RECORD
from merging.stream import TensorFile
from merging.table import METHODS
from merging.weights import Pool
from models.checkpoint import base_sha256, load_checkpoint, read_header
from models.loading import load_encoder
from tests.helpers import files_below, write_model
from tests.merging import hugging_face as hf

AVERAGE, ARITHMETIC, EMR = METHODS["simple_average"], METHODS["task_arithmetic"], METHODS["emr"]


def failing(error: BaseException) -> Method:
    """A method that ends after its first tensor."""

    def start(pool: Pool, options: MergeOptions) -> object:
        def merge(name: str) -> Tensor:
            if name != pool.merged[0]:
                raise error
            return pool.stack(name)[0]

        return merge

    return Method("failing", "", "", (), None, start)  # type: ignore[arg-type]


@pytest.fixture
def clips(tmp_path: Path) -> Inputs:
    """A Hugging Face CLIP and two vision towers tuned from it."""
    base = hf.clip(0)
    towers = [hf.write(tmp_path / name, hf.vision(hf.tuned(base, seed), spelling=5)) for seed, name in enumerate(("sun", "dtd"))]
    return open_inputs(hf.write(tmp_path / "base", base), towers)


def plain(folder: Path, name: str, **tensors: Tensor) -> str:
    save_file(tensors, folder / f"{name}.safetensors", {"format": "pt", "owner": name})
    return str(folder / f"{name}.safetensors")


def expected_average() -> hf.Tensors:
    base = hf.clip(0)
    tuned = [hf.tuned(base, seed) for seed in (0, 1)]
    return {name: (tuned[0][name] + tuned[1][name]) / 2 if name.startswith("vision_model.") else tensor for name, tensor in base.items()}


def test_a_hugging_face_base_gives_a_folder_that_transformers_loads(clips: Inputs, tmp_path: Path) -> None:
    from transformers import CLIPModel

    out = tmp_path / "merged"
    result = merge(clips, AVERAGE, MergeOptions(), out)
    assert result.paths == (out,)
    assert result.tensors == len(clips.pool.merged) == 39
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "merges.txt", "model.safetensors"]
    assert (out / "config.json").read_bytes() == (tmp_path / "base" / "config.json").read_bytes()
    found = CLIPModel.from_pretrained(out).state_dict()
    for name, tensor in expected_average().items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-7)
    assert torch.equal(found["text_projection.weight"], hf.clip(0)["text_projection.weight"])


def test_a_hugging_face_base_gives_a_file_where_one_is_named(clips: Inputs, tmp_path: Path) -> None:
    merge(clips, AVERAGE, MergeOptions(), tmp_path / "merged.safetensors")
    found = load_file(tmp_path / "merged.safetensors")
    assert found.keys() == hf.clip(0).keys()
    assert TensorFile(tmp_path / "merged.safetensors").metadata["format"] == "pt"


def test_a_model_of_the_zoo_gives_a_checkpoint_that_loads(tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "base"))
    encoder = load_encoder(folder)
    base = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    files = [plain(tmp_path, f"model{seed}", **hf.tuned(base, seed)) for seed in (1, 2)]
    merge(open_inputs(folder, files), ARITHMETIC, MergeOptions(scaling=0.5), tmp_path / "merged.safetensors")
    loaded, header = load_checkpoint(tmp_path / "merged.safetensors")
    assert (header.tuning, header.base_sha256) == ("full", base_sha256(load_encoder(folder)))
    assert header.settings[RECORD]["method"] == "task_arithmetic"
    for name, tensor in loaded.model.state_dict().items():
        taus = [hf.tuned(base, seed)[name] - base[name] for seed in (1, 2)]
        merged = base[name] + 0.5 * (taus[0] + taus[1]) if name.startswith("visual.") else base[name]
        torch.testing.assert_close(tensor, merged, rtol=0, atol=1e-6)


def test_a_merged_checkpoint_can_be_merged_again(tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "base"))
    base = dict(load_encoder(folder).model.state_dict())
    inputs = open_inputs(folder, [plain(tmp_path, "tuned", **hf.tuned(base, 1))])
    merge(inputs, ARITHMETIC, MergeOptions(scaling=1.0), tmp_path / "once.safetensors")
    again = open_inputs(None, [str(tmp_path / "once.safetensors"), f"same={tmp_path / 'once.safetensors'}"])
    assert again.remarks == ("'once' and 'same' are equal in every merged tensor.",)
    merge(again, AVERAGE, MergeOptions(), tmp_path / "twice.safetensors")
    once, twice = (load_file(tmp_path / f"{name}.safetensors") for name in ("once", "twice"))
    assert all(torch.equal(once[name], twice[name]) for name in once)
    assert read_header(tmp_path / "twice.safetensors").model == read_header(tmp_path / "once.safetensors").model


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_names_dtypes_and_what_is_no_number_are_the_bases(tmp_path: Path, dtype: torch.dtype) -> None:
    def tensors(seed: int) -> hf.Tensors:
        drawn = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed))
        return {"w": drawn.to(dtype), "ids": torch.tensor([seed]), "flag": torch.tensor(seed == 0)}

    files = [plain(tmp_path, str(seed), **tensors(seed)) for seed in range(3)]
    merge(open_inputs(files[0], files[1:]), ARITHMETIC, MergeOptions(scaling=0.3), tmp_path / "merged.safetensors")
    found, (base, one, two) = load_file(tmp_path / "merged.safetensors"), (tensors(seed)["w"].float() for seed in range(3))
    assert found["w"].dtype == dtype
    torch.testing.assert_close(found["w"], (base + 0.3 * (one + two - 2 * base)).to(dtype), rtol=1e-2, atol=1e-6)
    assert (found["ids"].tolist(), found["flag"].item()) == ([0], True)


def test_the_header_says_what_was_merged_how(clips: Inputs, tmp_path: Path) -> None:
    merge(clips, METHODS["ties"], MergeOptions(density=0.3), tmp_path / "merged.safetensors")
    record = json.loads(TensorFile(tmp_path / "merged.safetensors").metadata[RECORD])
    assert record["method"] == "ties"
    assert record["options"] == {"scaling": 0.3, "density": 0.3, "merge_func": "sum", "scope": "model"}
    assert record["merged_tensors"] == 39
    assert [model["name"] for model in record["models"]] == ["sun", "dtd"]
    for model, place in ((record["base"], "base"), (record["models"][1], "dtd")):
        assert model["source"] == str(tmp_path / place)
        assert model["sha256"] == {"model.safetensors": sha256_of_file(tmp_path / place / "model.safetensors")}


def test_one_encoder_for_each_model(clips: Inputs, tmp_path: Path) -> None:
    result = merge(clips, EMR, MergeOptions(), tmp_path / "each", per_model=True)
    assert result.paths == (tmp_path / "each" / "sun", tmp_path / "each" / "dtd")
    assert EMR.per_model is not None
    tensors = EMR.per_model(clips.pool, MergeOptions())
    for number, path in enumerate(result.paths):
        found = load_file(path / "model.safetensors")
        assert (path / "config.json").is_file()
        assert all(torch.equal(found[name], tensors(number, name)) for name in clips.pool.merged)
    with pytest.raises(UserError, match="simple_average gives one encoder for all models; leave --per-model out"):
        merge(clips, AVERAGE, MergeOptions(), tmp_path / "each", per_model=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), RuntimeError("defect")], ids=["interrupt", "signal", "defect"])
@pytest.mark.parametrize("out", ["merged.safetensors", "new/merged", "new/deep/merged.safetensors"])
def test_an_interrupted_merge_leaves_nothing(clips: Inputs, tmp_path: Path, error: BaseException, out: str) -> None:
    before = files_below(tmp_path)
    with pytest.raises(type(error)):
        merge(clips, failing(error), MergeOptions(), tmp_path / out)
    assert files_below(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_an_interrupted_merge_for_each_model_leaves_nothing(clips: Inputs, tmp_path: Path) -> None:
    def start(pool: Pool, options: MergeOptions) -> object:
        def merge(model: int, name: str) -> Tensor:
            if model:
                raise KeyboardInterrupt
            return pool.stack(name)[0]

        return merge

    method = Method("failing", "", "", (), None, AVERAGE.start, per_model=start)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        merge(clips, method, MergeOptions(), tmp_path / "each", per_model=True)
    assert not (tmp_path / "each").exists()


def test_a_model_with_nan_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    files = [plain(tmp_path, name, w=torch.tensor([1.0, value])) for name, value in (("base", 2.0), ("sun", 3.0), ("dtd", float("nan")))]
    for method in METHODS.values():
        if method.name not in ("slerp", "weighted_average"):
            with pytest.raises(UserError, match="The tensor 'w' of 'dtd' holds NaN or infinity"):
                merge(open_inputs(files[0], files[1:]), method, MergeOptions(), tmp_path / "merged.safetensors")
    assert not (tmp_path / "merged.safetensors").exists()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_result_that_overflows_the_bases_dtype_is_told(tmp_path: Path) -> None:
    files = [plain(tmp_path, name, w=torch.tensor([value]).half()) for name, value in (("base", -5e4), ("sun", 5e4))]
    with pytest.raises(UserError, match=r"The merged tensor 'w' holds NaN or infinity as torch.float16; a smaller --scaling"):
        merge(open_inputs(files[0], files[1:]), ARITHMETIC, MergeOptions(scaling=5.0), tmp_path / "merged.safetensors")
    assert not (tmp_path / "merged.safetensors").exists()


def test_what_exists_is_replaced_only_when_asked(clips: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    out.write_text("earlier")
    with pytest.raises(UserError, match=r"merged.safetensors' exists; --overwrite replaces it"):
        merge(clips, AVERAGE, MergeOptions(), out)
    assert out.read_text() == "earlier"
    merge(clips, AVERAGE, MergeOptions(), out, overwrite=True)
    assert load_file(out)
    merge(clips, AVERAGE, MergeOptions(), tmp_path / "folder")
    with pytest.raises(UserError, match="folder' exists"):
        merge(clips, AVERAGE, MergeOptions(), tmp_path / "folder")
    merge(clips, ARITHMETIC, MergeOptions(), tmp_path / "folder", overwrite=True)


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    files = [plain(tmp_path, name, w=torch.tensor([value])) for name, value in (("one", 1.0), ("two", 3.0))]
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "two.safetensors")
    before = files_below(tmp_path)
    for out in ("two.safetensors", "link.safetensors"):
        with pytest.raises(UserError, match=f"{out}' is the model 'two', which is merged; name another --out"):
            merge(open_inputs(None, files), AVERAGE, MergeOptions(), tmp_path / out, overwrite=True)
    assert files_below(tmp_path) == before


def test_outputs_of_other_forms_are_told(clips: Inputs, tmp_path: Path) -> None:
    files = [plain(tmp_path, name, w=torch.ones(2)) for name in "ab"]
    others = open_inputs(files[0], files[1:])
    with pytest.raises(UserError, match=r"merged.pt' does not end in .safetensors, .* or a folder for a Hugging Face model"):
        merge(clips, AVERAGE, MergeOptions(), tmp_path / "merged.pt")
    with pytest.raises(UserError, match=r"merged' does not end in .safetensors"):
        merge(others, AVERAGE, MergeOptions(), tmp_path / "merged")
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(UserError, match=r"x.safetensors' is a folder; --out names a file"):
        merge(others, AVERAGE, MergeOptions(), tmp_path / "x.safetensors", overwrite=True)
    with pytest.raises(UserError, match=r"should be a folder: --per-model writes one encoder for each model"):
        merge(others, EMR, MergeOptions(), tmp_path / "each.safetensors", per_model=True)
