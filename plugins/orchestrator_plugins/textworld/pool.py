"""Processes that make and play games side by side, each request under a time limit.

A process that hangs or dies takes only the request with it that it was working on: the others are asked again of the
process that takes its place, which repeats the commands of a game it does not hold. Nothing outlives this process: a
worker ends itself when its requests end, and a finaliser ends it when the pool is dropped or the interpreter exits.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORKER = (sys.executable, "-P", str(Path(__file__).with_name("worker.py")))
START_SECONDS = 60.0  # more for the first answer of a process, which has to load the library
AHEAD = 2  # requests given to a process before it has answered, so that it need not wait for the next


class GameError(RuntimeError):
    """A game, or the process it was in, failed."""


@dataclass(slots=True, eq=False)
class Ask:
    """One request. ``limit`` seconds count from when its process takes it up."""

    message: Mapping[str, Any]
    limit: float
    what: str  # for error messages
    game: int | None = None  # goes to the process that holds the game
    revive: Mapping[str, Any] = field(default_factory=dict)  # added to the message where the process does not hold it
    revive_limit: float = 0.0  # added to the limit then
    place: int = 0


class Pool:
    """A fixed number of worker processes, started when first needed."""

    def __init__(self, processes: int, command: Sequence[str] = WORKER):
        """Remember what to start.

        :param command: of a worker: reads a JSON line a request, writes one an answer
        """
        self._size, self._command = processes, tuple(command)
        self._workers: list[_Worker] = []
        self._homes: dict[int, _Worker] = {}
        self._finalizer: weakref.finalize | None = None

    @property
    def processes(self) -> tuple[int, ...]:
        """Ids of the worker processes that are there now."""
        return tuple(worker.process.pid for worker in self._workers)

    @property
    def size(self) -> int:
        """How many requests are worked on at once."""
        return self._size

    def run(self, asks: Sequence[Ask]) -> list[dict[str, Any] | GameError]:
        """Answer requests side by side; an error in the place of one that failed."""
        answers: list[Any] = [None] * len(asks)
        waiting: deque[Ask] = deque()
        self._fill(len(asks))
        for place, ask in enumerate(asks):
            ask.place = place
            home = None if ask.game is None else self._homes.get(ask.game)
            (waiting if home is None else home.waiting).append(ask)
        try:
            self._work(waiting, answers)
        except BaseException:  # an interrupt, say: what is in flight would answer the next call's requests
            self.close()
            raise
        return answers

    def drop(self, game: int) -> None:
        """Forget a game; its process hears of it with the next request."""
        home = self._homes.pop(game, None)
        if home is not None:
            home.dropped.append(game)

    def close(self) -> None:
        """End all processes."""
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None
        self._workers, self._homes = [], {}

    def _work(self, waiting: deque[Ask], answers: list[Any]) -> None:
        while waiting or any(worker.busy for worker in self._workers):
            for depth in range(AHEAD):
                for worker in self._workers:
                    self._give(worker, waiting, depth)
            for worker in _ready(self._workers):
                for line in worker.read():
                    ask = worker.sent.popleft()
                    worker.since = time.monotonic()
                    answer = json.loads(line)
                    failed = answer.get("error")
                    answers[ask.place] = GameError(f"{ask.what}: {failed}") if failed else answer
            for worker in [worker for worker in self._workers if worker.ended or worker.overdue]:
                waiting.extend(self._replace(worker, answers))

    def _give(self, worker: _Worker, waiting: deque[Ask], depth: int) -> None:
        """Give a process its next request, where it has no more than ``depth`` to do."""
        if worker.ended or len(worker.sent) > depth:
            return
        source = worker.waiting or waiting
        if not source:
            return
        ask = source.popleft()
        message, limit = dict(ask.message), ask.limit
        if ask.game is not None and self._homes.get(ask.game) is not worker:
            self._homes[ask.game] = worker
            message |= ask.revive
            limit += ask.revive_limit
        worker.give(ask, message, limit)

    def _replace(self, worker: _Worker, answers: list[Any]) -> list[Ask]:
        """End a process, blame the request it was at, start another; returns what is to be asked again."""
        if worker.sent:
            ask = worker.sent.popleft()
            if worker.ended:
                why = f"its process {worker.describe_end()}"
            else:
                why = f"no answer within {worker.limits[0]:g} s; its process was ended"
            answers[ask.place] = GameError(f"{ask.what}: {why}")
        again = [*worker.sent, *worker.waiting]
        self._remove(worker)
        self._fill(len(self._workers) + bool(again))
        return again

    def _fill(self, wanted: int) -> None:
        """Start processes up to the pool's size; put those that ended in idleness out of the way."""
        for worker in [worker for worker in self._workers if not worker.busy and worker.process.poll() is not None]:
            self._remove(worker)
        while len(self._workers) < min(self._size, wanted):
            self._workers.append(_Worker(self._command))
        if self._finalizer is None:
            self._finalizer = weakref.finalize(self, _end_all, self._workers, os.getpid())

    def _remove(self, worker: _Worker) -> None:
        _end(worker)
        self._workers.remove(worker)
        self._homes = {game: home for game, home in self._homes.items() if home is not worker}


class _Worker:
    """One process with what it was asked."""

    def __init__(self, command: Sequence[str]):
        self.folder = tempfile.mkdtemp(prefix="textworld-")
        self._log = (Path(self.folder) / "stderr.txt").open("w+")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # an interrupt from the keyboard is the trial's, and compilers can be ended too
            env=os.environ
            | {"PYTHONHASHSEED": "0", "TMPDIR": self.folder, "TEXTWORLD_POOL_FOLDER": self.folder, **ONE_THREAD},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self.stdout = self.process.stdin, self.process.stdout
        self.sent: deque[Ask] = deque()
        self.limits: deque[float] = deque()
        self.waiting: deque[Ask] = deque()
        self.dropped: list[int] = []
        self.since = 0.0
        self.ended = self.answered = False
        self._rest = b""

    @property
    def busy(self) -> bool:
        return bool(self.sent or self.waiting)

    @property
    def deadline(self) -> float:
        return self.since + self.limits[0]

    @property
    def overdue(self) -> bool:
        return bool(self.sent) and not self.ended and time.monotonic() > self.deadline

    def give(self, ask: Ask, message: dict[str, Any], limit: float) -> None:
        if self.dropped:
            message["drop"], self.dropped = self.dropped, []
        if not self.sent:
            self.since = time.monotonic()
        try:
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()
        except BrokenPipeError:  # it ended before this request, which is not to blame
            self.waiting.appendleft(ask)
            self.ended = self.ended or not self.sent  # else what it answered is read first
            return
        self.sent.append(ask)
        self.limits.append(limit if self.answered or len(self.sent) > 1 else limit + START_SECONDS)

    def read(self) -> list[bytes]:
        """Whole answers that have come; ``ended`` is set when no more will."""
        read = os.read(self.stdout.fileno(), 1 << 16)
        self.ended = self.ended or not read
        *lines, self._rest = (self._rest + read).split(b"\n")
        self.answered = self.answered or bool(lines)
        for _ in lines:
            self.limits.popleft()
        return lines

    def describe_end(self) -> str:
        try:
            code = self.process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:  # it closed its output and goes on
            return "stopped answering"
        self._log.seek(0)
        said = self._log.read().strip().splitlines()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return how + (f": {said[-1]}" if said else "")


# Games are many small calculations; threads of numerical libraries would only wait for each other.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _ready(workers: Sequence[_Worker]) -> list[_Worker]:
    """The processes that have answered or ended, waiting for one until the first time limit passes."""
    busy = [worker for worker in workers if worker.sent]
    if not busy:
        return []
    with selectors.DefaultSelector() as selector:
        for worker in busy:
            selector.register(worker.stdout, selectors.EVENT_READ, worker)
        patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
        return [key.data for key, _ in selector.select(patience)]


def _end(worker: _Worker) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    for pipe in (worker._stdin, worker.stdout, worker._log):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    shutil.rmtree(worker.folder, ignore_errors=True)


def _end_all(workers: list[_Worker], owner: int) -> None:
    """End the processes, unless this is a fork of the one that started them."""
    if os.getpid() == owner:
        for worker in workers:
            _end(worker)
        workers.clear()
