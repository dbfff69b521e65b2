"""Measures of a stream: those of the whole, whatever the batches, their order, their type and the number of processes."""

import doctest
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torchmetrics import MetricCollection

from common.errors import UserError
from engine import streaming
from engine.moments import Layout
from engine.streaming import StreamedMeasures
from metrics.metric import GEOMETRY
from metrics.statistics import MetricError
from metrics.sums import OF_SUMS
from metrics.table import METRICS
from tests.metrics import pairs

NAMES = list(OF_SUMS)
WITHOUT_INVERSE = [name for name in NAMES if name not in ("hscore", "hscore_regularized", "logme")]


def instance(seed=0, images=200, **more):
    return pairs.random_instance(
        seed, images=images, classes=more.pop("classes", 6), dimensions=more.pop("dimensions", 12), empty=1, **more
    )


def streamed(names, images, texts, labels, batches, **options):
    measures = StreamedMeasures(names, texts, **options)
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    for chosen in batches:
        measures.update(images[chosen], labels[chosen])
    return measures


def values(measures):
    return {name: value.item() for name, value in measures.compute().items()}


def whole(names, images, texts, labels):
    return {name: METRICS[name](images, texts, labels) for name in names}


def batches_of(count, size, seed=None):
    order = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
    return [order[start : start + size] for start in range(0, count, size)]


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_equals_the_measure_of_all_images(size, seed):
    of = instance()
    assert values(streamed(NAMES, *of, batches_of(200, size, seed))) == pytest.approx(whole(NAMES, *of), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("spread", [0.03, 100.0])
@pytest.mark.parametrize("name", NAMES)
def test_each_by_itself_of_narrow_and_wide_images(name, spread):
    """Images that nearly coincide, of which sums of squares about the origin would have lost half of the digits."""
    of = instance(3, spread=spread)
    tolerance = 1e-12 if name in WITHOUT_INVERSE and name not in ("total_variance", "between_within_ratio") else 1e-9
    assert values(streamed([name], *of, batches_of(200, 13))) == pytest.approx(whole([name], *of), rel=tolerance, abs=1e-13)


def test_a_class_whose_images_are_equal_is_a_point_here_too():
    images, texts, labels = instance(4)
    images[labels == labels[0]] = images[0]
    images[1:4], labels[1:4] = images[5], [0, 1, 2]
    names = ["gbc_spherical", "gbc_diagonal"]
    assert values(streamed(names, images, texts, labels, batches_of(200, 9))) == pytest.approx(
        whole(names, images, texts, labels), rel=1e-12
    )


def test_fewer_images_than_dimensions():
    of = pairs.random_instance(5, images=20, classes=4, dimensions=40)
    assert values(streamed(NAMES, *of, batches_of(20, 3))) == pytest.approx(whole(NAMES, *of), rel=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_is_summed_in_float64(dtype):
    """Rows of many dimensions are unit to 0.001 in bfloat16 too, since the roundings of their entries cancel."""
    images, texts, labels = instance(6, images=400, dimensions=128)
    rows = torch.as_tensor(images).to(dtype)
    measures = streamed(NAMES, rows, texts, labels, batches_of(400, 32))
    assert values(measures) == pytest.approx(whole(NAMES, rows.double().numpy(), texts, labels), rel=1e-11)
    assert measures.class_sums.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_any_integer_type(dtype):
    images, texts, labels = instance(7)
    expected = values(streamed(NAMES, images, texts, labels, batches_of(200, 50)))
    assert values(streamed(NAMES, images, texts, torch.as_tensor(labels).to(dtype), batches_of(200, 50))) == expected


def test_empty_batches_change_nothing():
    of = instance(8)
    expected = values(streamed(NAMES, *of, batches_of(200, 50)))
    empty = [np.zeros(0, int)]
    assert values(streamed(NAMES, *of, [*empty, *batches_of(200, 50), *empty])) == expected


def test_inputs_are_left_alone_and_carry_no_gradient():
    images, texts, labels = instance(9)
    rows = torch.tensor(images, requires_grad=True)
    before = rows.detach().clone()
    measures = streamed(NAMES, rows, texts, labels, batches_of(200, 50))
    assert torch.equal(rows, before)
    assert not any(value.requires_grad for value in measures.compute().values())


def test_the_table_of_what_can_be_streamed_is_complete():
    """A new measure is put into it, or here, on purpose."""
    assert set(METRICS) - set(OF_SUMS) == {
        *("overlap", "proxy_a_distance", "bhattacharyya", "auroc", "parc", "knn"),  # pairs
        *("leep", "sfda", "ncti", "zero_shot"),  # look at images again
        *("nleep", "emms", "linear_probe"),  # fit a model
    }


def test_only_what_is_needed_is_kept():
    texts = np.eye(6)
    sizes = [
        sum(value.numel() for value in StreamedMeasures([name], texts).metric_state.values())
        for name in ("iimm", "gbc_diagonal", "hscore", "transrate")
    ]
    first, square = 6 + 36 + 3, 36
    assert sizes == [first, first + 6 + 2 * square, first + 6 + 2 * square + square + 8, first + 6 + 2 * square + 6 * square + 8]


# --- torchmetrics ----------------------------------------------------------------------------------------------------


def test_reset_begins_anew():
    of = instance(10)
    measures = streamed(NAMES, *of, batches_of(200, 50))
    expected = values(measures)
    measures.reset()
    assert not any(value.any() for value in measures.metric_state.values())
    for chosen in batches_of(200, 50):
        measures.update(torch.as_tensor(of[0])[chosen], torch.as_tensor(of[2])[chosen])
    assert values(measures) == expected


def test_state_dict_carries_all(tmp_path):
    images, texts, labels = instance(11)
    half, rest = batches_of(200, 100)
    begun = streamed(NAMES, images, texts, labels, [half])
    torch.save(begun.state_dict(), tmp_path / "state.pt")
    resumed = StreamedMeasures(NAMES, np.roll(texts, 1, axis=0))  # texts are part of the state
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.update(torch.as_tensor(images)[rest], torch.as_tensor(labels)[rest])
    assert values(resumed) == values(streamed(NAMES, images, texts, labels, [half, rest]))


def test_merged_states():
    images, texts, labels = of = instance(12)
    parts = [streamed(NAMES, images, texts, labels, [part]) for part in batches_of(200, 70, seed=0)]
    first, *others = parts
    for other in others:
        first.merge_state(other)
    assert values(first) == pytest.approx(whole(NAMES, *of), rel=1e-12)


def test_forward_gives_the_batch_and_keeps_the_whole():
    images, texts, labels = of = instance(13, classes=3)
    measures = StreamedMeasures(NAMES, texts)
    for chosen in batches_of(200, 100):
        now = measures(torch.as_tensor(images)[chosen], torch.as_tensor(labels)[chosen])
        assert {name: value.item() for name, value in now.items()} == pytest.approx(
            whole(NAMES, images[chosen], texts, labels[chosen]), rel=1e-10
        )
    assert values(measures) == pytest.approx(whole(NAMES, *of), rel=1e-11)


def test_in_a_collection_and_pickled():
    of = instance(14)
    collection = MetricCollection({"cheap": StreamedMeasures(["iimm"], of[1]), "all": StreamedMeasures(["gap", "hscore"], of[1])})
    collection.update(torch.as_tensor(of[0]), torch.as_tensor(of[2]))
    found = {name: value.item() for name, value in pickle.load(io.BytesIO(pickle.dumps(collection))).compute().items()}
    assert found == pytest.approx(whole(["iimm", "gap", "hscore"], *of), rel=1e-12)


# --- processes -------------------------------------------------------------------------------------------------------


def one_of_the_processes(rank, world, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    images, texts, labels = instance(15)
    share = (np.arange(130), np.arange(130, 200), np.arange(0))[rank]
    measures = streamed(NAMES, images, texts, labels, [share[part] for part in batches_of(len(share), 16)])
    torch.save([measures.compute(), measures.compute()], f"{folder}/{rank}.pt")
    assert measures.class_counts.sum() == len(share)  # after compute, each process has its own state back
    with measures.sync_context():
        assert measures.class_counts.sum() == 200
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_give_the_numbers_of_one(tmp_path: Path, processes):
    """The third has no image."""
    torch.multiprocessing.start_processes(one_of_the_processes, (processes, tmp_path), processes, start_method="fork")
    expected = whole(NAMES, *instance(15))
    for rank in range(processes):
        for computed in torch.load(tmp_path / f"{rank}.pt", weights_only=True):
            assert {name: value.item() for name, value in computed.items()} == pytest.approx(expected, rel=1e-12)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_measures_that_need_all_embeddings():
    with pytest.raises(UserError, match=r"knn needs all embeddings at once; keep the embeddings and measure the file .* iimm, image_image"):
        StreamedMeasures(["iimm", "knn"], np.eye(3))


def test_unknown_measure():
    with pytest.raises(UserError, match="Unknown metric 'aligment'; did you mean 'alignment'"):
        StreamedMeasures(["aligment"], np.eye(3))


def test_scatters_of_too_many_classes():
    with pytest.raises(UserError, match=r"transrate of 1000 classes in 512 dimensions needs 2\.1 GB of sums, more than 1\.1 GB"):
        streaming.step_of(["gap", "transrate"], 1000, 512)
    assert streaming.step_of(["gap", "hscore"], 1000, 512) == streaming.SCATTER


def test_released_names_are_accepted():
    of = instance(16)
    found = values(streamed(["IIMM", "uniformity_image"], *of, batches_of(200, 50)))
    assert found == pytest.approx({"IIMM": METRICS["iimm"](*of), "uniformity_image": METRICS["wrong_label"](*of)})


def test_undefined_as_from_a_file():
    images, texts, _ = instance(17)
    for name in NAMES:
        if METRICS[name].family != GEOMETRY:
            with pytest.raises(MetricError, match=f"{name} is undefined for 1 class with images"):
                streamed([name], images, texts, np.zeros(200, int), batches_of(200, 50)).compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_image():
    with pytest.raises(MetricError, match="iimm is undefined for 0 images"):
        StreamedMeasures(["iimm"], np.eye(3)).compute()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, labels: images.__setitem__(7, 2 * images[7]), "length of a row of image_embeddings is 1 off 1"),
        (lambda images, labels: images.__setitem__((7, 2), np.nan), "not finite"),
        (lambda images, labels: labels.__setitem__(3, 6), r"1 labels are not in 0\.\.5"),
        (lambda images, labels: labels.__setitem__(slice(3, 5), -1), r"2 labels are not in 0\.\.5"),
    ],
)
def test_invalid_images_are_told_at_the_end(change, message):
    images, texts, labels = instance(18)
    change(images, labels)
    measures = streamed(NAMES, images, texts, labels, batches_of(200, 50))
    with pytest.raises(MetricError, match=message):
        measures.compute()


def test_texts_that_are_not_unit():
    with pytest.raises(MetricError, match="Row 0 of text_embeddings has length 2"):
        StreamedMeasures(["iimm"], 2 * np.eye(3))


def test_scatters_are_as_large_as_the_layout_says():
    assert Layout(5, 3, 5).zeros().numel() == 5 + 2 * 15 + 5 * 9


def test_examples_in_docstrings():
    result = doctest.testmod(streaming)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_as_on_the_cpu():
    images, texts, labels = of = instance(19, images=2000)
    measures = StreamedMeasures(NAMES, texts).to("cuda")
    for chosen in batches_of(2000, 256):
        measures.update(torch.as_tensor(images)[chosen].cuda(), torch.as_tensor(labels)[chosen].cuda())
    assert all(value.is_cuda for value in measures.compute().values())
    assert values(measures) == pytest.approx(whole(NAMES, *of), rel=1e-11)
