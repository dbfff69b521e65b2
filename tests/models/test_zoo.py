"""Names of models: what they mean, and one sentence for each way to get one wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import nn

from common.errors import UserError
from models.loading import load_encoder
from models.zoo import TINY_FOLDER, ZOO, ModelSource, canonical_name, resolve
from tests.models import small


def test_short_names_mean_the_published_weights() -> None:
    assert resolve("clip") == ModelSource("clip", "open_clip", "ViT-B-32-quickgelu", "openai")
    assert resolve("siglip") == ModelSource("siglip", "open_clip", "ViT-B-16-SigLIP", "webli")
    assert resolve("coca") == ModelSource("coca", "open_clip", "coca_ViT-B-32", "laion2b_s13b_b90k")
    assert resolve("eva02") == ModelSource("eva02", "open_clip", "EVA02-B-16", "merged2b_s8b_b131k")
    assert resolve("tiny") == ModelSource("tiny", "local-dir", str(TINY_FOLDER))


@pytest.mark.parametrize("name", [name for name in ZOO if name != "tiny"])
def test_short_names_are_listed_by_open_clip(name: str) -> None:
    source = resolve(name)
    assert (source.architecture, source.pretrained) in open_clip.list_pretrained()


def test_other_kinds_of_names(tmp_path: Path) -> None:
    assert resolve("RN50-quickgelu/openai").kind == "open_clip"
    assert resolve("hf-hub:timm/ViT-B-16-SigLIP") == ModelSource("hf-hub:timm/ViT-B-16-SigLIP", "hf-hub", "timm/ViT-B-16-SigLIP")
    assert resolve("openai/clip-vit-base-patch32") == ModelSource(
        "openai/clip-vit-base-patch32", "huggingface", "openai/clip-vit-base-patch32"
    )
    (tmp_path / "config.json").write_text("{}")
    assert resolve(str(tmp_path)).kind == "huggingface"
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert resolve(str(tmp_path)).kind == resolve(f"local-dir:{tmp_path}").kind == "local-dir"
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    assert resolve(f"ViT-B-32/{weights}").pretrained == str(weights)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clipp", r"^Unknown model 'clipp'; did you mean 'clip'\?$"),
        ("zzz", r"^Unknown model 'zzz'; known: clip, coca, eva02, siglip, tiny\.$"),
        ("ViT-B-32/openai", r"^The weights 'openai' were made with QuickGELU, .* use 'ViT-B-32-quickgelu/openai'\.$"),
        ("ViT-B-32-quickgelu/laion2b_s34b_b79k", r"^open_clip has no weights 'laion2b_s34b_b79k' for 'ViT-B-32-quickgelu'; known: openai,"),
        ("ViT-B-32/laion2b_s34b_b80k", r"^open_clip has no weights .* for 'ViT-B-32'; did you mean 'laion2b_s34b_b79k'\?$"),
        ("ViT-B-32", r"^'ViT-B-32' is an architecture without weights; name them too, e\.g\. 'ViT-B-32/"),
        ("ViT-B-23/openai", r"^Unknown architecture 'ViT-B-23'; did you mean 'ViT-B-(32|16)'\?$"),
        ("local-dir:/no/such/folder", r"^The model folder '/no/such/folder' does not exist\.$"),
        ("/no/such/folder", r"^The model folder '/no/such/folder' does not exist\.$"),
        ("./no/such", r"^The model folder './no/such' does not exist\.$"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(name)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a model folder"):
        resolve(str(tmp_path))


def test_the_suggested_architecture_is_one_that_can_be_used() -> None:
    for wrong in ("ViT-B-32/openai", "RN50/openai", "ViT-L-14/metaclip_fullcc"):
        with pytest.raises(UserError) as error:
            resolve(wrong)
        assert resolve(str(error.value).split("'")[-2]).kind == "open_clip"


def test_clip_runs_quickgelu() -> None:
    """Plain ViT-B-32 would run GELU on weights that were made with QuickGELU, and open_clip only warns."""
    encoder = load_encoder(f"{resolve('clip').architecture}/random")
    activations = [type(module) for module in encoder.modules() if isinstance(module, QuickGELU | nn.GELU)]
    assert activations == [QuickGELU] * 24


def test_random_weights_are_the_same_every_time() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = load_encoder("ViT-S-32-alt/random").model.state_dict()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(6)
    again = load_encoder("ViT-S-32-alt/random").model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())


def test_a_local_folder_is_loaded_frozen(tmp_path: Path) -> None:
    encoder = load_encoder(small.write_local_dir(tmp_path))
    assert encoder.embed_dim == small.WIDTH and not any(parameter.requires_grad for parameter in encoder.parameters())


def test_a_local_folder_without_weights(tmp_path: Path) -> None:
    name = small.write_local_dir(tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no weights; open_clip_model\.safetensors is expected"):
        load_encoder(name)


def test_a_local_folder_with_damaged_weights(tmp_path: Path) -> None:
    name = small.write_local_dir(tmp_path)
    weights = tmp_path / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged or not safetensors"):
        load_encoder(name)


def test_a_local_folder_with_weights_of_another_shape(tmp_path: Path) -> None:
    name = small.write_local_dir(tmp_path)
    save_file({"logit_scale": torch.zeros(())}, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UserError, match="Cannot load"):
        load_encoder(name)


def test_canonical_names_keep_what_has_no_short_one(tmp_path: Path) -> None:
    name = small.write_local_dir(tmp_path)
    assert canonical_name(name) == name
    for short, long in ZOO.items():
        assert canonical_name(long) == canonical_name(short) == short


def test_the_zoo_can_be_listed_without_torch() -> None:
    code = "import sys, models.zoo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0
