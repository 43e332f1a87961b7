"""A limit on the seconds that a check may take, kept against calls that never return."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any


class TookTooLong(BaseException):
    """A call had not returned when the time was up; no ``except Exception`` of a plugin swallows it."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Interrupt the block, wherever it is in Python or in a call that waits, once its time is up.

    Only in the main thread, where alarms are heard; elsewhere, and with None, nothing is limited. An alarm that was set
    before, as one by pytest-timeout, goes on afterwards with the time it has left.

    :raises TookTooLong: the time is up
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TookTooLong(f"it had not returned after {seconds:g} s")

    began = time.monotonic()
    handler: Any = signal.signal(signal.SIGALRM, ring)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again and again: a bare except may swallow one
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-3), every)


def innermost(trace: TracebackType | None) -> str:
    """Where a traceback ends, as ``step, world.py:12``; of the frames above the alarm's own."""
    frames = [frame for frame in traceback.extract_tb(trace) if Path(frame.filename) != Path(__file__)]
    return f"{frames[-1].name}, {frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
