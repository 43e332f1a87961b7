"""One holder at a time: the driver of a run, the player of a trial or of a shared start phase.

The holder of a lock file is who has it locked (``flock``): the kernel frees it when the process ends, however it ends, so
that a dead holder never blocks. The file says who holds it, and counts the attempts: each holder has a larger number
than all before it, so that a store without such locks can turn away one that should be dead.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.errors import OrchestratorError, TrialError
from orchestrator.runs.layout import RunFolder, TrialFolder

FOREVER = math.inf
_LOOKS = 0.1  # seconds between attempts to take what somebody holds
_DRIVER_WAIT = 2.0  # seconds; what a killed driver forked lets go once it gets to run
_TRIAL_WAIT = 120.0  # seconds; a worker whose driver was killed lives on for a few
_TRIES = 100  # at a lock file that others keep removing

_held: set[int] = set()  # file descriptors


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Who holds something.

    :ivar attempt: 1 for the first to hold it, larger for each one after
    :ivar pid: of its process
    :ivar host: where that runs
    :ivar since: local time, ISO 8601
    """

    attempt: int
    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def driving(directory: Path, held: Fence | None = None) -> Iterator[Fence]:
    """Hold a run, as its driver.

    :param held: the caller's own hold of it, which then stays
    :raises OrchestratorError: another process drives it, or its folder cannot be locked
    """
    if held is not None:
        yield held
        return
    with _holding(RunFolder(directory).lock, _DRIVER_WAIT) as taken:
        if isinstance(taken, Fence):
            yield taken
            return
    raise OrchestratorError(
        f"{directory} is being run by {taken}; wait until it has ended, or end that process, then resume. "
        f"How far it is: orchestrator report {directory}"
    )


@contextmanager
def running(folder: TrialFolder, wait: float | None = None) -> Iterator[Fence]:
    """Hold a trial, as the one that runs it.

    :param wait: seconds for who holds it to let go; None: as long as the worker of a killed driver lives on;
        ``FOREVER`` for a start phase that others run too
    :raises TrialError: another process keeps it, or its folder cannot be locked
    """
    wait = _TRIAL_WAIT if wait is None else wait
    with _holding(folder.lock, wait) as taken:
        if isinstance(taken, Fence):
            yield taken
            return
    raise TrialError(f"{folder.path} was still being run by {taken}, after {wait:.0f} s; end that process first")


@contextmanager
def _holding(path: Path, wait: float) -> Iterator[Fence | str]:
    """Hold a lock file; yields who holds it, as a text, where another process does."""
    deadline = time.monotonic() + wait
    while True:
        file = _locked(path)
        if file is not None:
            break
        if time.monotonic() >= deadline:
            before = _read(path)
            yield str(before) if before else "another process"
            return
        time.sleep(_LOOKS)
    _held.add(file)
    try:
        before = _read(path)
        fence = Fence(
            attempt=before.attempt + 1 if before else 1,
            pid=os.getpid(),
            host=socket.gethostname(),
            since=time.strftime("%Y-%m-%dT%H:%M:%S"),
        )
        _write(file, fence)
        yield fence
    finally:
        if file in _held:  # not in a fork, which has closed it
            _held.discard(file)
            os.close(file)


def _locked(path: Path) -> int | None:
    """Open and lock a file; None while somebody else has it locked.

    :raises OrchestratorError: it cannot be made, or its file system has no locks
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    kept, file = file, -1
                    return kept
            except BlockingIOError:
                return None
            except FileNotFoundError:
                continue  # it was removed meanwhile, by whoever cleans up: lock the one that takes its place
            finally:
                if file >= 0:
                    os.close(file)
        raise OSError("it is removed again and again")
    except OSError as error:
        raise OrchestratorError(
            f"{path} cannot be locked: {error}. A run needs a folder that can be written to, on a file system with locks"
        ) from error


def _read(path: Path) -> Fence | None:
    """Who holds a lock file, or held it last; None where it does not say."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Fence(
            attempt=int(found["attempt"]), pid=int(found["pid"]), host=str(found["host"]), since=str(found["since"])
        )
    except (OSError, ValueError, TypeError, LookupError, OverflowError):
        return None


def _write(file: int, fence: Fence) -> None:
    text = json.dumps(asdict(fence)).encode()
    os.ftruncate(file, 0)
    os.pwrite(file, text, 0)


def _let_go() -> None:
    """Close in a fork what its parent holds: a lock lives as long as any process has the file open."""
    for file in _held:
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
