"""Keeps limits on what may hang from a process beside this one, which ends it and notes why."""

from __future__ import annotations

import functools
import hashlib
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from orchestrator.contract.parts import Part
from orchestrator.contract.settings import Failures
from orchestrator.runners import watcher
from orchestrator.runs.hangs import Hang, read_hangs
from orchestrator.runs.layout import TrialFolder

OTHERS = 600.0  # seconds components of other distributions may take where the file says nothing
OURS = "rl-orchestrator"  # this distribution, as plugins are named by theirs
_GRACE = 60.0  # seconds a step may go on beyond the budget, or a tenth of the budget if that is more
_LONGEST_KEY = 200
_CALL, _METHOD, _STEP = range(watcher.SLOTS)
_METHODS = ("sampler", "advantage", "objective")


class Watchdog:
    """Limits of one trial. Implements ``contract.limits.Limits``."""

    def __init__(self, folder: TrialFolder):
        self._folder = folder
        hangs = read_hangs(folder)
        self._before = {hang.key: hang for hang in hangs}
        self.spent = any(hang.what == "budget" for hang in hangs)
        self._seconds: Mapping[str, float] = {}
        self._whom: Mapping[str, str] = {}
        self._method: tuple[Hang, float] | None = None  # under way, and when its time is over

    def limit(self, failures: Failures, parts: Mapping[str, Part]) -> None:
        """Take the limits from the settings, and from who provides the components."""
        seconds, whom = {}, {}
        for path, part in parts.items():
            if path == "policy":  # how long it may act depends on its size and the machine's
                continue
            what = f"reward/{part.name}" if path.startswith("reward") else path
            asked = failures.method_seconds
            if path not in _METHODS:
                asked = failures.step_seconds if path == "environment" else failures.reward_seconds
            seconds[what] = asked if asked is not None else (OTHERS if foreign(part) else 0.0)
            whom[what] = part.whom or ""
        self._seconds, self._whom = seconds, whom

    @contextmanager
    def watched(self, what: str, key: str) -> Iterator[None]:
        """Watch a call of a component, if it has a limit."""
        seconds = self._seconds.get(what, 0.0)
        if not seconds:
            yield
            return
        if len(key) > _LONGEST_KEY:  # a task's id may be of any length
            key = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        if key in self._before:
            raise TimeoutError(f"{self._before[key]} when it was called before")
        hang = Hang(what, key, seconds, self._whom.get(what, ""))
        if what not in _METHODS:
            with self._armed(_CALL, hang):
                yield
            return
        self._method = hang, time.monotonic() + seconds
        try:
            with self._armed(_METHOD, hang):
                yield
        finally:
            self._method = None

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Stop the clock of the sampler that asked for the block, if it has a limit."""
        if self._method is None:
            yield
            return
        hang, over = self._method
        left = over - time.monotonic()
        self._method = None  # who collects within a collection stopped the clock already
        _page().write(_METHOD, 0.0, b"", b"")
        try:
            yield
        finally:
            left = max(left, 0.01)
            self._method = hang, time.monotonic() + left
            _page().write(_METHOD, left, os.fsencode(self._folder.hung), hang.line())

    @contextmanager
    def budget(self, seconds: float) -> Iterator[None]:
        """Watch a step that begins with so many seconds of the budget left."""
        with self._armed(_STEP, Hang("budget", "budget", seconds + max(_GRACE, seconds / 10))):
            yield

    @contextmanager
    def _armed(self, slot: int, hang: Hang) -> Iterator[None]:
        page = _page()
        page.write(slot, hang.seconds, os.fsencode(self._folder.hung), hang.line())
        try:
            yield
        finally:
            page.write(slot, 0.0, b"", b"")


def foreign(part: Part) -> bool:
    """Whether a component, or one inside it, comes from another distribution than this one."""
    return any(inner.plugin is not None and f"({OURS} " not in inner.plugin for _, inner in part.walk(""))


class _Page:
    """The memory this process shares with its watcher."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.truncate(watcher.SLOTS * watcher.SIZE)
            self._memory = mmap.mmap(file.fileno(), watcher.SLOTS * watcher.SIZE)
            self._counters = [0] * watcher.SLOTS
            self._lock = threading.Lock()
            self._watcher = subprocess.Popen(
                [sys.executable, "-I", "-S", watcher.__file__, str(file.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(file.fileno(),),
                start_new_session=True,
            )

    def write(self, slot: int, seconds: float, path: bytes, note: bytes) -> None:
        """Say what begins in a slot, or with 0 seconds that it is over."""
        start = slot * watcher.SIZE
        room = watcher.SIZE - watcher.HEAD.size - len(path)
        assert len(note) <= room, (path, note)
        with self._lock:
            counter = self._counters[slot] + 2
            self._counters[slot] = counter
            watcher.HEAD.pack_into(self._memory, start, counter - 1, 0.0, 0.0, 0, 0)
            body = start + watcher.HEAD.size
            self._memory[body : body + len(path) + len(note)] = path + note
            watcher.HEAD.pack_into(self._memory, start, counter - 1, time.monotonic(), seconds, len(path), len(note))
            watcher.HEAD.pack_into(self._memory, start, counter, time.monotonic(), seconds, len(path), len(note))


@functools.cache
def _page() -> _Page:
    return _Page()
