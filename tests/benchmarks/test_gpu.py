"""benchmarks.gpu in miniature on the processor, and its refusals."""

import json

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_measures import medians, with_drawn_weights
from common.errors import UserError
from tests.helpers import forget_accelerator

SMALL = ["--models", "tiny", "--train-model", "tiny", "--images", "9", "--batch-size", "4", "--num-workers", "0"]
SMALL += ["--tunings", "probe", "bias", "--items", "2", "--steps", "1", "--repeats", "1", "--device", "cpu"]


@pytest.fixture
def measure(monkeypatch, tmp_path):
    """Run the benchmark with these words; returns what it has written."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["gpu.py", *words, "--results", str(tmp_path)])
        try:
            gpu.main()
        finally:
            forget_accelerator()
        (table,) = tmp_path.glob("gpu-*.md")
        return table.read_text(), json.loads(table.with_suffix(".json").read_text())

    return run


def test_every_part_is_measured_and_written(measure):
    text, content = measure(*SMALL)
    (embedding,), training, (oti, ovi) = (content["tables"][part] for part in gpu.PARTS)
    assert embedding["images"] == 9
    assert embedding["limit"] in ("decode", "transfer", "compute")
    assert embedding["ratio"] == pytest.approx(embedding["from files, 0 workers"] / embedding["bare"])
    assert [row["tuning"] for row in training] == ["probe", "bias"]
    assert (oti["kind"], ovi["kind"]) == ("oti", "ovi")
    rates = [embedding["bare"], embedding["compute"], *(row["steps/s"] for row in training), oti["items/s"], ovi["items/s"]]
    assert min(rates) > 0
    assert oti["items/s"] == pytest.approx(2 / (oti["ms per step"] / 1000 * 150))  # the published number of steps
    assert "a trial" in text.splitlines()[0]
    assert all(f"## {part}" in text for part in gpu.PARTS)
    with pytest.raises(UserError, match="exists; --overwrite replaces it"):
        measure(*SMALL)


def test_without_a_gpu_it_says_so_and_ends(measure, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"No CUDA device is visible to torch.*--device cpu"):
        measure()


def test_medians_leave_the_first_run_out(monkeypatch):
    took, now = {"one": [100.0, 1.0, 5.0, 3.0], "other": [50.0, 2.0, 2.0, 2.0]}, [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def way(name):
        return lambda: now.__setitem__(0, now[0] + took[name].pop(0))

    assert medians({name: way(name) for name in took}, 3) == {"one": 3.0, "other": 2.0}


def test_an_encoder_whose_tokenizer_is_on_the_hub_is_built_without_it(monkeypatch):
    """SigLIP's architecture, made small."""
    import open_clip

    config = open_clip.get_model_config("ViT-B-16-SigLIP")
    config["vision_cfg"] = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    config["text_cfg"] |= {"width": 32, "heads": 2, "layers": 1, "context_length": 8, "vocab_size": 50}
    config["embed_dim"] = 32
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-16-SigLIP", config)
    encoder = with_drawn_weights("ViT-B-16-SigLIP/random")
    with torch.inference_mode():
        assert encoder.encode_image(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 32)
        assert encoder.encode_text(encoder.tokenize(["a", "b"])).shape == (2, 32)


def test_links_stand_for_more_files_than_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "DIFFERENT", 2)
    gpu.draw_files(tmp_path, 5)
    files = sorted(tmp_path.glob("*/*.jpg"), key=lambda path: path.name)
    assert [path.parent.name for path in files] == list("abcde")
    assert [path.stat().st_nlink for path in files] == [3, 2, 3, 2, 3]
