"""Ends a run on a signal: trials save at their next step and leave, and after a while they are left.

SIGINT, SIGTERM and SIGHUP ask alike. Whoever runs trials reads the note that says so, in whatever process; what does
not leave in time is ended where it stands, and goes on from its last checkpoint when the run is resumed.
"""

from __future__ import annotations

import logging
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from orchestrator.runs.layout import RunFolder

logger = logging.getLogger(__name__)

GRACE = 18.0  # seconds trials may take to save; machines that are taken away leave 30, and a terminal less
_UNWIND = 4.0  # seconds this process may take to end once it no longer waits for them

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class RunInterrupted(KeyboardInterrupt):
    """The run was asked to end, and can be resumed.

    :ivar signal: what asked
    """

    def __init__(self, message: str = "", number: int = signal.SIGINT):
        super().__init__(message)
        self.signal = signal.Signals(number)


class Leave:
    """Whether a run was asked to end, in this process or in any that sees its folder."""

    def __init__(self, folder: RunFolder):
        self._note = folder.leave
        self.signal: signal.Signals | None = None  # that asked this process

    def __call__(self) -> bool:
        """Whether it was."""
        return self.signal is not None or self._note.exists()

    def ask(self, number: int) -> None:
        """Ask it to end; where the disk does not take the note, this process knows all the same."""
        self.signal = signal.Signals(number)
        with suppress(OSError):
            self._note.touch()

    def interrupted(self) -> RunInterrupted:
        """The exception that says so."""
        return RunInterrupted("the run was asked to end", self.signal or signal.SIGINT)


@contextmanager
def leaving(folder: RunFolder) -> Iterator[Leave]:
    """Turn signals into a wish to leave while the block carries out a run; a second one raises at once.

    A signal that is ignored (``nohup``) stays ignored. Outside the main thread no signal is caught.

    :raises RunInterrupted: out of the block, where what it runs does not leave in time, or at the second signal
    """
    folder.leave.unlink(missing_ok=True)  # an earlier driver's
    leave = Leave(folder)
    if threading.current_thread() is not threading.main_thread():
        yield leave
        return
    hear, tell = os.pipe()
    os.set_blocking(tell, False)

    def asked(number: int, frame: Any) -> None:
        if number == getattr(signal, "SIGHUP", None):
            _leave_dead_terminal()
        again = leave.signal is not None
        leave.ask(number)
        with suppress(OSError):
            os.write(tell, b"!")
        if again:
            raise leave.interrupted()

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    guard = threading.Thread(target=_guard, args=(hear, leave, folder), name="leaving", daemon=True)
    guard.start()
    for number in caught:
        signal.signal(number, asked)
    try:
        yield leave
    finally:
        for number in caught:
            signal.signal(number, before[number])
        with suppress(OSError):
            os.write(tell, b".")  # the guard's end
        guard.join(timeout=1.0)
        if not guard.is_alive():
            os.close(hear)
            os.close(tell)
        folder.leave.unlink(missing_ok=True)


@contextmanager
def raising() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise :class:`RunInterrupted`, as SIGINT raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number: int, frame: Any) -> None:
        if number == getattr(signal, "SIGHUP", None):
            _leave_dead_terminal()
        raise RunInterrupted("the run was asked to end", number)

    before = {number: signal.getsignal(number) for number in _SIGNALS if number != signal.SIGINT}
    caught = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for number in caught:
        signal.signal(number, asked)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])


def _guard(hear: int, leave: Leave, folder: RunFolder) -> None:
    """Say what happens, wait, then insist: first with the signal again, then by ending this process."""
    if os.read(hear, 1) != b"!" or leave.signal is None:
        return
    with suppress(OSError):
        logger.warning(
            "%s: trials save at their next step and leave, in at most %.0f s; a second signal ends them at once",
            leave.signal.name,
            GRACE,
        )
    if _ended(hear, GRACE):
        return
    os.kill(os.getpid(), leave.signal)  # raises in the main thread
    if _ended(hear, _UNWIND):
        return
    with suppress(OSError):  # nobody may be left to read
        print(f"ended by {leave.signal.name}; continue with: orchestrator resume {folder.path}", file=sys.stderr)
        sys.stderr.flush()
    os._exit(128 + leave.signal)


def _ended(hear: int, seconds: float) -> bool:
    """Whether the block ends within so many seconds."""
    import select

    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([hear], [], [], left)[0] and os.read(hear, 1) == b".":
            return True
    return False


def _leave_dead_terminal() -> None:
    """Write to nowhere from now on where the terminal is gone: each print would raise."""
    for number in (0, 1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, number)
                os.close(nowhere)
