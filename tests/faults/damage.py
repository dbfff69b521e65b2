"""Files damaged at random, and what may come of reading them: a refusal in one sentence, or a value that can be vouched for.

A :class:`Reader` is a function that reads a file (or a folder), the whole files that it reads, and what a value must be where it is
given. :func:`attack` damages the files one at a time and many times over: cut off, bits flipped, pieces lost, repeated, moved or
replaced, by bytes and by what is awkward in the format's own terms (:data:`AWKWARD`).
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.memory import peak_mib, restart_peak
from common.errors import UserError, of_file_system
from tests.faults.scale import SEED, count

SECONDS = 30  # of one case, on a busy machine; a whole one takes milliseconds
MEMORY = 1024  # MiB, of one case
ROOM = 1 << 20  # a number no file of these tests is long

# What is well formed and yet awkward, in numbers, tables, JSON, TOML and text.
AWKWARD = (
    *(b"", b"0", b"-1", b"1e999", b"-1e-999", b"NaN", b"Infinity", b"nan", b"9" * 30, b"9" * 5000, b"1.5", b"0x10", b"1_0"),
    *(b"null", b"true", b"[]", b"{}", b"[[[]]]", b'""', b'"a"', b'{"a": 1}', b"[" * 3000, b'{"a":' * 3000, b"'''", b'"""', b"["),
    *(b",", b";", b'"', b"'", b"\n", b"\r", b"\r\n", b"\n\n", b"\t", b"\0", b"#", b"=", b"\\", b"/", b"../", b"\\ud800", b"\\u0000"),
    *("é".encode(), "\u2028".encode(), "\ufeff".encode(), "٣".encode(), b"\xff", b"\xed\xa0\x80", b"\x1b[31m", b"a" * 300, b"x," * 300),
    *(b"\0" * 8, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\0" * 600),
)

Edit = tuple[str, int, int, bytes]
Damage = list[Edit]


def damages() -> st.SearchStrategy[Damage]:
    """One to three edits of a file of any length: (what, place, length, bytes), places to be taken modulo the file's length."""
    place, few = st.integers(0, ROOM), st.integers(1, 40)
    edits = st.one_of(
        st.tuples(st.just("cut off"), place, st.just(0), st.just(b"")),
        st.tuples(st.just("flip"), st.integers(0, 8 * ROOM), st.just(0), st.just(b"")),
        st.tuples(st.just("flip"), st.integers(0, 8 * ROOM), st.just(0), st.just(b"")),
        st.tuples(st.just("put"), place, st.one_of(st.just(0), few), st.one_of(st.sampled_from(AWKWARD), st.binary(max_size=9))),
        st.tuples(st.just("word"), place, st.just(0), st.sampled_from(AWKWARD)),
        st.tuples(st.just("repeat"), place, st.integers(1, 200), st.just(b"")),
        st.tuples(st.just("move"), place, st.integers(1, 200), st.just(b"")),
    )
    return st.lists(edits, min_size=1, max_size=3)


def damaged(content: bytes, damage: Damage) -> bytes:
    """``content`` after the edits, one after the other."""
    for what, place, length, new in damage:
        content = _edited(content, what, place, length, new)
    return content


def _edited(content: bytes, what: str, place: int, length: int, new: bytes) -> bytes:
    at = (place // 8 if what == "flip" else place) % (len(content) + (what == "put") or 1)
    if what == "cut off":
        return content[:at]
    if what == "flip":
        return content[:at] + bytes([content[at] ^ 1 << place % 8]) + content[at + 1 :] if content else b""
    if what == "word":
        at, end = _word(content, at)
        return content[:at] + new + content[end:]
    if what == "put":
        return content[:at] + new + content[at + length :]
    piece, rest = content[at : at + length], content[:at] + content[at + length :]
    other = (place * 31) % (len(rest) + 1)
    return content[:at] + piece + content[at:] if what == "repeat" else rest[:other] + piece + rest[other:]


def _word(content: bytes, at: int) -> tuple[int, int]:
    """Where the number or word that ``at`` lies in begins and ends."""
    begin = end = at
    while begin and (content[begin - 1 : begin].isalnum() or content[begin - 1 : begin] in b"._-+"):
        begin -= 1
    while end < len(content) and (content[end : end + 1].isalnum() or content[end : end + 1] in b"._-+"):
        end += 1
    return begin, end


@dataclass(frozen=True)
class Reader:
    """``read(folder)`` reads the ``files`` in a folder; ``check`` makes sure of the value that was given for damaged ones.

    ``damage`` names the files that are damaged, all by default. ``also`` are exceptions that count as a refusal, such as an unreadable
    image. ``names`` are words of which a refusal must have one; by default, the names of the files.
    """

    files: Mapping[str, bytes]
    read: Callable[[Path], Any]
    check: Callable[[Any], None]
    damage: tuple[str, ...] = ()
    also: tuple[type[Exception], ...] = ()
    names: tuple[str, ...] = ()

    @property
    def refusals(self) -> tuple[type[Exception], ...]:
        """What reading may raise."""
        return (UserError, *self.also)

    def tried(self, folder: Path) -> bool:
        """Read the files in ``folder``; whether they were accepted."""
        try:
            with time_limit(), memory_limit():
                value = self.read(folder)
        except self.refusals as error:
            refused: Exception | None = error
        except OSError as error:
            refused = of_file_system(error)  # which every command tells in a sentence; it names what a file calls for
            if refused is None:
                raise
            one_sentence(str(refused), (str(error.filename)[:50],))
            return False
        else:
            self.check(value)
            return True
        one_sentence(str(refused), self.names or tuple(Path(name).name.split(".")[0] for name in self.files))
        return False


def one_sentence(text: str, names: tuple[str, ...]) -> None:
    """A refusal stands on one line, has no control characters, and names what it is about."""
    assert text, "an empty refusal"
    assert not any(ord(sign) < 32 or sign in "\x7f\x85\u2028\u2029" for sign in text), f"not one line: {text!r}"
    assert any(name in text for name in names), f"names none of {names}: {text!r}"
    assert len(text) < 2000, f"too long: {text[:500]!r}"


@contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    """A TimeoutError after ``seconds``."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


@contextmanager
def memory_limit(mib: int = MEMORY) -> Iterator[None]:
    """An AssertionError when the process has ``mib`` more at its peak than it had at its earlier one."""
    before = peak_mib()
    try:
        yield
    finally:
        more = peak_mib() - before
        assert more < mib, f"took {more:,.0f} MiB"


def written(files: Mapping[str, bytes], folder: Path) -> Path:
    """The files, in ``folder``."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    """What :func:`written` takes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def attack(reader: Reader, cases: int) -> int:
    """Read ``reader``'s files whole, then damaged in ``cases`` ways; how many of these were accepted."""
    accepted = 0
    restart_peak()
    with tempfile.TemporaryDirectory() as whole:
        assert reader.tried(written(reader.files, Path(whole)))

    @settings(
        max_examples=cases,
        derandomize=not SEED,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(name=st.sampled_from(reader.damage or tuple(reader.files)), damage=damages())
    def read_damaged(name: str, damage: Damage) -> None:
        nonlocal accepted
        count("damaged inputs")
        folder = Path(tempfile.mkdtemp())
        try:
            accepted += reader.tried(written({**reader.files, name: damaged(reader.files[name], damage)}, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    (seed(SEED)(read_damaged) if SEED else read_damaged)()
    return accepted
