"""Files of what was learnt: the same merge again, and what does not fit is refused."""

import pytest
import torch

from common.errors import UserError
from merging.coefficients import Columns
from merging.learnt import Learnt, check_new, load
from merging.weights import TensorWeights, make_pool
from models.tensors import write_safetensors
from tests.merging.small_objective import SHAPES

COLUMNS = Columns.layer_wise(SHAPES)


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def pool(names=("a", "b")):
    return make_pool(TensorWeights("base", draw(0)), [TensorWeights(name, draw(ord(name))) for name in names])


def learnt(masked=True):
    masks = {name: tensor.abs() for name, tensor in draw(1).items()} if masked else {}
    return Learnt("method", torch.randn(2, len(COLUMNS.names), generator=torch.Generator().manual_seed(2)), masks, (1.5, 0.5))


@pytest.mark.parametrize("masked", [False, True])
def test_the_merge_is_the_formula(masked):
    of, what = pool(), learnt(masked)
    merge = what.merge(of, COLUMNS)
    for name in of.merged:
        lam = what.coefficients[:, COLUMNS.of[name]]
        tau = of.task_vectors(name).reshape(2, len(lam.T), -1)
        summed = sum(lam[k][:, None] * tau[k] for k in range(2)).reshape(SHAPES[name])
        expected = of.base.read(name) + (what.masks[name] * summed if masked else summed)
        torch.testing.assert_close(merge(name), expected, rtol=1e-6, atol=1e-6)
        assert merge(name).dtype == torch.float32


@pytest.mark.parametrize("masked", [False, True])
def test_a_file_gives_the_same_merge_to_the_bit(masked, tmp_path):
    of, what = pool(), learnt(masked)
    what.save(tmp_path / "learnt.safetensors", of, COLUMNS)
    again = load(tmp_path / "learnt.safetensors", "method", of, COLUMNS)
    assert again.entropies == what.entropies
    for name in of.merged:
        assert torch.equal(again.merge(of, COLUMNS)(name), what.merge(of, COLUMNS)(name))


def test_models_and_tensors_may_come_in_another_order(tmp_path):
    what = learnt()
    what.save(tmp_path / "learnt.safetensors", pool(), COLUMNS)
    turned, columns = pool(("b", "a")), Columns.layer_wise(reversed(SHAPES))
    again = load(tmp_path / "learnt.safetensors", "method", turned, columns)
    for name in SHAPES:
        torch.testing.assert_close(again.merge(turned, columns)(name), what.merge(pool(), COLUMNS)(name))


def refused(path, message, method="method", of=None, columns=COLUMNS):
    with pytest.raises(UserError, match=message):
        load(path, method, of or pool(), columns)


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "learnt.safetensors"
    learnt().save(path, pool(), COLUMNS)
    refused(path, "learnt by method; merge by it with --method method", method="another")
    refused(path, "other models: 'b' is only there", of=pool(("a",)))
    refused(path, "other models: 'c' is only here", of=pool(("a", "b", "c")))
    refused(path, "other tensors: .* is only there", columns=Columns.layer_wise(list(SHAPES)[1:]))
    refused(path, "other tensors", columns=Columns.task_wise(SHAPES))
    refused(tmp_path / "absent.safetensors", "No such file")


def test_other_files_are_refused(tmp_path):
    write_safetensors(tmp_path / "model.safetensors", draw(0))
    refused(tmp_path / "model.safetensors", "holds no learnt merge; --weights-file takes what --save-weights wrote")
    (tmp_path / "merging_weights.pt").write_bytes(b"\x80\x02")
    refused(tmp_path / "merging_weights.pt", "pickle")


def test_a_file_that_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "there.safetensors").touch()
    with pytest.raises(UserError, match="exists; name another file"):
        check_new(tmp_path / "there.safetensors")
    with pytest.raises(UserError, match=r"does not end in \.safetensors"):
        check_new(tmp_path / "weights.pt")
    with pytest.raises(UserError, match="Cannot create the output folder"):
        check_new(tmp_path / "there.safetensors" / "deeper.safetensors")
    check_new(tmp_path / "new" / "fresh.safetensors")
