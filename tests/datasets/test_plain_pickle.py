"""Pickles of plain data: read whichever Python wrote them, and nothing that they name is ever called."""

import collections
import contextlib
import os
import pickle
import pickletools
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import UserError
from datasets import plain_pickle
from datasets.plain_pickle import read_plain_pickle
from tests.datasets.array_files import python2_pickle

PROTOCOLS = range(6)
ARRAYS = [
    np.arange(6, dtype=np.uint8).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24, dtype="<i8").reshape(2, 3, 4).transpose(2, 0, 1),
    np.arange(3, dtype=">i4"),
    np.array([True, False]),
    np.array(["Radcliffe Camera", "すし"]),
    np.array([b"all", b"souls"]),
    np.array([1 + 2j], dtype=np.complex64),
    np.array(3.5, dtype=np.float16),
    np.empty((0, 4), dtype=np.int32),
]
GROUND_TRUTH = {
    "gnd": [
        {"bbx": [136.5, 34.1, 648.5, 955.7], "easy": [1, 2], "hard": [3], "junk": []},
        {"bbx": np.array([0.0, 1.0, 2.0, 3.0]), "easy": np.array([], np.int64), "hard": np.array([7, 9]), "junk": np.array([4])},
    ],
    "imlist": ["all_souls_000013", "oxford_002985"],
    "qimlist": ["all_souls_000013"],
}  # the shape of the revisited Oxford and Paris


def read(tmp_path, data):
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    return read_plain_pickle(path)


def same(left, right):
    """Equal with equal types, arrays included."""
    if isinstance(right, np.ndarray):
        return type(left) is np.ndarray and left.dtype == right.dtype and left.shape == right.shape and np.array_equal(left, right)
    if isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in right)
    if isinstance(right, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_every_protocol(protocol, core, tmp_path):
    plain = {"a": [1, -1, 2**70, 1.5, 2j, None, True], b"bytes\xff": b"", "é": (b"\x00\xff", ()), 3: {"": []}}
    scalars = [np.float64(0.1), np.int16(-3), np.bool_(True), np.str_("x"), np.bytes_(b"x")]
    value = {"plain": plain, "arrays": ARRAYS, "scalars": scalars, "gnd": GROUND_TRUTH}
    data = pickle.dumps(value, protocol)
    assert b"numpy._core" in data or protocol > 3
    if protocol < 4:  # later ones count the letters of a name
        data = data.replace(b"numpy._core", core)
    assert same(read(tmp_path, data), value)


@pytest.mark.parametrize("name", ["_core", "core"])
def test_protocol_5_of_either_numpy(name, tmp_path):
    module, other = b"numpy._core.numeric", f"numpy.{name}.numeric".encode()
    data = pickle.dumps(ARRAYS[0], 5)
    data = data[:2] + data[11:]  # without the frame, which counts bytes
    data = data.replace(bytes([len(module)]) + module, bytes([len(other)]) + other)
    assert same(read(tmp_path, data), ARRAYS[0])


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_python_2(core, tmp_path):
    value = {**GROUND_TRUTH, "data": ARRAYS[0], "long": np.arange(300, dtype=">u2"), "text": "x" * 300}
    assert same(read(tmp_path, python2_pickle(value, core)), value)


def test_python_2_text_keeps_its_bytes(tmp_path):
    assert read(tmp_path, b"S'caf\\xc3\\xa9'\n.").encode("latin-1").decode() == "café"
    assert read(tmp_path, b"(lp0\nS'a'\np1\naI1\naL5L\na.") == ["a", 1, 5]


def test_arrays_can_be_written_to(tmp_path):
    for protocol in PROTOCOLS:
        read(tmp_path, pickle.dumps(ARRAYS[0], protocol))[0, 0] = 9


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=20,
    ),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_what_was_written_is_read(value, protocol, tmp_path):
    assert same(read(tmp_path, pickle.dumps(value, protocol)), value)


def test_one_thing_in_many_places(tmp_path):
    shared, array = [1], np.arange(3)
    bomb = [array]
    for _ in range(60):
        bomb = [bomb, bomb]  # 2 ** 60 paths to one array
    result = read(tmp_path, pickle.dumps([shared, shared, (array,), (array,)]))
    assert result[0] is result[1]
    assert same(result[2], (array,)) and same(result[3], (array,))
    assert isinstance(read(tmp_path, pickle.dumps(bomb)), list)
    own = [array]
    own.append(own)
    result = read(tmp_path, pickle.dumps(own))
    assert result[1] is result and same(result[0], array)


# What is refused


class Call:
    """Is pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A command that leaves a mark when it is run; afterwards there must be none."""
    monkeypatch.chdir(tmp_path)
    yield "touch mark"
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_calls_are_refused(protocol, trap, tmp_path):
    system = "posix.system" if os.name == "posix" else "nt.system"
    builtins = "__builtin__" if protocol < 3 else "builtins"
    code = f"__import__('os').system({trap!r})"
    for function, argument, name in [(os.system, trap, system), (eval, code, f"{builtins}.eval"), (exec, code, f"{builtins}.exec")]:
        for value in (Call(function, argument), {"gnd": [Call(function, argument)]}, (1, [Call(function, argument)])):
            with pytest.raises(UserError, match=f"file.pkl' holds a reference to {name}; refused, because only plain data"):
                read(tmp_path, pickle.dumps(value, protocol))


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\n(S'u1'\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
CALLED = b"cos\nsystem\n(S'touch mark'\ntR"


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'touch mark'\ntR.",
        b"(S'touch mark'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch mark'\no.",
        b"\x80\x02cos\nsystem\n(S'touch mark'\nt\x81.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\ntouch mark\x85R.",
        RECONSTRUCT + b"(cos\nsystem\n(I0\ntS'b'\ntR.",
        RECONSTRUCT + b"(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I3\nt" + DTYPE + b"I00\n" + CALLED + b"tb.",
        b"cnumpy.core.multiarray\nscalar\n(" + DTYPE + CALLED + b"tR.",
        b"cnumpy\ndtype\n(" + CALLED + b"tR.",
        b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
        b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"\x80\x04\x8c\x04a\nb\x1b\x8c\x01c\x93.",
        b"\x80\x04\x8c\x18numpy._core.multiarray\x8c\x00\x93.",
        b"\x80\x04\x8c\x15datasets.plain_pickle\x8c\tUserError\x93.",
    ],
)
def test_calls_by_every_opcode_are_refused(data, trap, tmp_path):
    with pytest.raises(UserError, match=r"file.pkl' (holds a reference to|is no whole pickle)") as caught:
        read(tmp_path, data)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (collections.OrderedDict(a=1), "a reference to collections.OrderedDict"),
        (np.ma.masked_array([1], [0]), "a reference to numpy.ma"),
        (np.array([None, 1]), "an array of 'O8'"),
        (np.zeros(2, dtype="i4,f4"), "an array of 'V8'"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "an array of 'M8'"),
        (np.dtype("f4"), "an object of the type _Dtype"),
        ([np.ndarray], "an object of the type object"),
        ({1, 2}, "an object of the type set"),
        ({np.ndarray: 1}, "an object of the type object"),
    ],
)
def test_what_is_not_plain_is_named(value, found, tmp_path):
    with pytest.raises(UserError, match=f"file.pkl' holds {found}.*; refused"):
        read(tmp_path, pickle.dumps(value))


def test_references_outside_the_file(tmp_path):
    for data in (b"Pname\n.", b"\x80\x02U\x04nameQ."):
        with pytest.raises(UserError, match="holds a reference to something outside of it"):
            read(tmp_path, data)
    buffers = []
    data = pickle.dumps(ARRAYS[0], 5, buffer_callback=buffers.append)
    with pytest.raises(UserError, match="is no whole pickle"):
        read(tmp_path, data)


MADE = RECONSTRUCT + b"(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n"


@pytest.mark.parametrize(
    "state",
    [
        b"(I4\nt" + DTYPE + b"I00\nS'abc'\ntb.",
        b"(I2\nt" + DTYPE + b"I00\nS'abc'\ntb.",
        b"(I-1\nI-3\nt" + DTYPE + b"I00\nS'abc'\ntb.",
        b"(I3\nt" + DTYPE + b"I00\n(lI1\naI2\naI3\natb.",
        b"(I3\ntS'u1'\nI00\nS'abc'\ntb.",
        b"(I3\nt" + DTYPE + b"I00\nI3\ntb.",
        b"(I99999999999999999999\nt" + DTYPE + b"I00\nS''\ntb.",
        b"(I1000000000000\ntcnumpy\ndtype\n(S'S0'\ntRI00\nS''\ntb.",
        b"tb.",
    ],
)
def test_arrays_that_lie_about_their_size(state, tmp_path):
    with pytest.raises(UserError, match=r"file.pkl' (is no whole pickle of plain data|holds an array of 'S0')"):
        read(tmp_path, MADE + state)


def test_a_file_cannot_change_the_reader(tmp_path):
    before = dict(plain_pickle.CONSTRUCTORS)
    attributes = b"(N}S'__call__'\ncnumpy\ndtype\nstb."
    for name in (b"cnumpy\ndtype\n", RECONSTRUCT, b"cnumpy\nndarray\n", b"c_codecs\nencode\n", b"cnumpy\ndtype\n(S'u1'\ntR"):
        for state in (attributes, b"}S'x'\nI1\nsb."):
            with pytest.raises(UserError):
                read(tmp_path, name + state)
    assert before == plain_pickle.CONSTRUCTORS
    for function in (plain_pickle._dtype, plain_pickle._reconstruct, plain_pickle._encode):
        assert not vars(function)
    assert same(read(tmp_path, pickle.dumps(ARRAYS, 2)), ARRAYS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_truncated_anywhere(protocol, tmp_path):
    data = pickle.dumps({"data": ARRAYS[0], "labels": [1, 2], "b": b"x"}, protocol)
    for end in range(len(data)):
        with pytest.raises(UserError, match=r"file.pkl' (is no whole pickle|holds)"):
            read(tmp_path, data[:end])


def test_damaged_bytes_never_do_more_than_raise(trap, tmp_path):
    generator = np.random.default_rng(0)
    data = pickle.dumps({"data": ARRAYS[:3], "labels": [1, 2]}, 2)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[generator.integers(len(data))] = generator.choice([byte for byte in range(256) if byte != pickle.LONG_BINPUT[0]])
        with contextlib.suppress(UserError):
            read(tmp_path, bytes(damaged))


@pytest.mark.parametrize("data", [b"", b"<html>", zlib.compress(b"x" * 100), b"(" * 9 + b"]" * 20_000, struct.pack("<I", 0)])
def test_no_pickle(data, tmp_path):
    with pytest.raises(UserError, match=r"file.pkl' is no whole pickle of plain data"):
        read(tmp_path, data)


def test_nested_too_deeply(tmp_path):
    with pytest.raises(UserError, match=r"file.pkl' is no whole pickle of plain data .*recursion"):
        read(tmp_path, b"]" * 50_000 + b"a" * 49_999 + b".")


def test_missing(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read '.*absent.pkl': No such file"):
        read_plain_pickle(tmp_path / "absent.pkl")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value", [GROUND_TRUTH, ARRAYS, {"long": 10**400, "bytes": b"b" * 300, "text": "é" * 300}, [[f"{n}"] for n in range(300)]]
)
def test_places_are_those_of_the_standard_library(value, protocol):
    data, put = pickle.dumps(value, protocol), ("PUT", "BINPUT", "LONG_BINPUT")
    assert list(plain_pickle._places(data)) == [place for opcode, place, _ in pickletools.genops(data) if opcode.name in put]


@pytest.mark.parametrize(("data", "reason"), [(b"", "Ran out of input"), (b"}q\x01U\x03ab", "pickle data was truncated")])
def test_an_end_too_early_is_told_as_one(tmp_path, data, reason):
    with pytest.raises(UserError, match=rf"file\.pkl' is no whole pickle of plain data \({reason}\); get it anew\."):
        read(tmp_path, data)
