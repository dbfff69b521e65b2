"""Grids of options, and that every point of a sweep is, to the bit, the merge that would be written."""

import pytest
import torch
from safetensors.torch import save_file

from common.errors import UserError
from merging.candidates import Place, of_points
from merging.evaluate import tower_names
from merging.inputs import open_inputs
from merging.merge import merge
from merging.options import MergeOptions
from merging.sources import open_weights
from merging.sweep import MOST, grid, parse_axis
from merging.table import METHODS
from models.huggingface import to_huggingface_vision_state_dict
from models.loading import load_encoder
from tests.helpers import VISION

CONFIG = {"embed_dim": 32, "vision_cfg": VISION}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scaling=0.1:1.0:0.1", ("scaling", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])),
        ("scaling=0.1:0.35:0.1", ("scaling", [0.1, 0.2, 0.3])),
        ("scaling=1:-1:-0.5", ("scaling", [1.0, 0.5, 0.0, -0.5, -1.0])),
        ("density=0.2", ("density", [0.2])),
        ("drop-rate=0.5,0.9,0.5", ("drop_rate", [0.5, 0.9])),
        ("seed=0:3:1", ("seed", [0, 1, 2, 3])),
    ],
)
def test_values_of_an_axis(text, expected):
    assert parse_axis(text) == expected


@pytest.mark.parametrize("text", ["scaling", "scaling=", "=0.1", "scaling=a", "scaling=0:1:0", "scaling=0:1:-0.1", "t=0:1", "t=nan,1"])
def test_what_is_no_axis_is_told(text):
    with pytest.raises(UserError, match=r"is not NAME=FROM:TO:STEP or NAME=VALUE,VALUE"):
        parse_axis(text)


def test_a_whole_number_is_asked_for_where_an_option_is_one():
    with pytest.raises(UserError, match="seed takes whole numbers"):
        parse_axis("seed=0:1:0.5")


def test_several_axes_are_all_combinations_with_the_other_options_as_they_are():
    points = grid(["density=0.1,0.2", "scaling=0.3,1"], MergeOptions(merge_func="mean"), METHODS["ties"])
    assert [point.label for point in points] == [f"density={d} scaling={s}" for d in ("0.1", "0.2") for s in ("0.3", "1")]
    assert points[1].options == MergeOptions(merge_func="mean", density=0.1, scaling=1.0)


@pytest.mark.parametrize(
    ("axes", "method", "reason"),
    [
        (["density=0.1,0.2"], "task_arithmetic", r"Unknown numeric option of task_arithmetic 'density'"),
        (["merge_func=1,2"], "ties", r"Unknown numeric option of ties 'merge-func'"),
        (["scaling=1", "scaling=2"], "ties", "gives scaling twice"),
        (["density=0.5:1.5:0.5"], "ties", "--density is 1.5"),
        (["scaling=0:1:0.0001"], "ties", f"at most {MOST}"),
    ],
)
def test_axes_without_a_meaning_are_refused(axes, method, reason):
    with pytest.raises(UserError, match=reason):
        grid(axes, MergeOptions(), METHODS[method])


def test_an_option_that_is_given_and_swept_is_refused():
    with pytest.raises(UserError, match="--scaling and --sweep both say"):
        grid(["scaling=0.1,0.2"], MergeOptions(scaling=0.5), METHODS["ties"])


@pytest.fixture(scope="module")
def encoder(small_model):
    return load_encoder(str(small_model))


def moved(encoder, seed):
    generator = torch.Generator().manual_seed(seed)
    own = {name: tensor for name, tensor in encoder.model.state_dict().items() if name in tower_names(encoder) and name != "visual.proj"}
    return {name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator) for name, tensor in own.items()}


@pytest.fixture(scope="module")
def open_clip_inputs(encoder, small_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("open_clip")
    for seed in range(3):
        save_file(moved(encoder, seed), folder / f"m{seed}.safetensors")
    return open_inputs(f"local-dir:{small_model}", [str(folder / f"m{seed}.safetensors") for seed in range(3)])


@pytest.fixture(scope="module")
def hugging_face_inputs(encoder, tmp_path_factory):
    """The same models under Hugging Face's names, where queries, keys and values are three tensors; the base in half precision."""
    folder = tmp_path_factory.mktemp("hugging_face")
    own = {name: tensor for name, tensor in encoder.model.state_dict().items() if name.startswith("visual.")}
    for name, tensors in [("base", own), *((f"m{seed}", moved(encoder, seed)) for seed in range(3))]:
        converted = to_huggingface_vision_state_dict(tensors, CONFIG)
        save_file({key: tensor.to(torch.bfloat16) for key, tensor in converted.items()}, folder / f"{name}.safetensors")
    return open_inputs(str(folder / "base.safetensors"), [str(folder / f"m{seed}.safetensors") for seed in range(3)])


@pytest.mark.parametrize(
    ("method", "axes"),
    [
        ("task_arithmetic", ["scaling=0.3,1,-0.5"]),
        ("ties", ["density=0.2,0.6", "scaling=0.3,0.7"]),
        ("dare_average", ["seed=1:2:1"]),
        ("simple_average", ["scaling=1,0.5"]),
    ],
)
@pytest.mark.parametrize(("inputs", "resident"), [("open_clip_inputs", 10), ("hugging_face_inputs", 1)])
def test_a_sweep_is_as_many_merges(encoder, inputs, method, axes, resident, request, tmp_path):
    inputs, method = request.getfixturevalue(inputs), METHODS[method]
    names = tower_names(encoder)
    place = Place(encoder, names, torch.device("cpu"), resident)
    points = grid(axes, MergeOptions(), method)
    for number, (point, candidate) in enumerate(zip(points, of_points(inputs, method, points, place), strict=True)):
        out = tmp_path / f"{number}.safetensors"
        merge(inputs, method, point.options, out)
        (written,) = place.put([open_weights(str(out), inputs.reference)])
        assert candidate.name == point.label
        for name in (name for name in names if name in written.specs):
            assert torch.equal(candidate.read(name), written.read(name)), name
