"""Stop in an orderly way when the scheduler asks: SIGTERM, and SIGUSR1, with which SLURM warns before the time limit."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """While the block runs, SIGTERM and SIGUSR1 are noted in the yielded :class:`StopRequest` instead of ending the process."""
    request = StopRequest()
    earlier = {number: signal.signal(number, request.note) for number in STOPPING}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
