"""Stop in an orderly way when the scheduler asks: SIGTERM, and SIGUSR1, with which SLURM warns before the time limit."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from common.errors import Interrupted

STOPPING = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Which signal has asked to stop, if any."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __bool__(self) -> bool:
        return self.name is not None

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: only remember, the loop looks between two steps."""
        self.name = signal.Signals(number).name


_unheeded: list[str] = []


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """While the block runs, SIGTERM and SIGUSR1 are noted in the yielded :class:`StopRequest` instead of ending the process.

    One that came too late to be heeded in the block is left for :func:`heed`.
    """
    request = StopRequest()
    with _handled_by(request.note):
        yield request
    if request.name is not None:
        _unheeded.append(request.name)


def heed() -> None:
    """Raise :class:`Interrupted` for a signal that came after a training's last step, for those who have more work to do."""
    if _unheeded:
        raise Interrupted(f"Stopped by {_unheeded.pop()}; run again with --resume.")


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """While the block runs, the same signals raise :class:`Interrupted` wherever it is, for work that is not saved in parts."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"Stopped by {signal.Signals(number).name}; run again with --resume.")

    _unheeded.clear()
    with _handled_by(stop):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    earlier = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)
