"""Carries out a run in a child process: hears of its trials, ends it when it must end, starts it anew when it was lost."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from orchestrator.contract.plan import Plan
from orchestrator.errors import ConfigError, Failure, LostError, OrchestratorError, Problem, caused_by
from orchestrator.runners import losses
from orchestrator.runners.leaving import Leave
from orchestrator.runners.losses import Kind, Loss
from orchestrator.runners.progress import Progress
from orchestrator.runs.hangs import Hang, read_hangs
from orchestrator.runs.layout import RunFolder

logger = logging.getLogger(__name__)

_START = 240.0  # seconds until the child gives its first sign of life; Ray needs 3 to 60
_SILENCE = 180.0  # seconds between signs of life afterwards, of which there is one a second
_ENDING = 15.0  # seconds a child that has said its last word may take to end
_NAMES = {"ray": "Ray", "local": "the trial"}  # what a task runs with, as messages say it
_BACK_OFF = 2.0  # seconds before the child is started anew, doubled each time
_SLOW_STARTS = 2  # attempts at a start that failed, besides the first


def run(task: str, plan: Plan, directory: Path, progress: Progress, leave: Leave) -> None:
    """Carry out a run in a child process until it is done.

    A child that is lost, or loses Ray, is started anew, ``failures.restarts`` times in a row without a trial's end.

    :param task: see ``runners.child``
    :raises ConfigError: what the child says is wrong with the request
    :raises LostError: the child was lost once too often
    :raises OSError: the run's files cannot be written
    :raises RunInterrupted: the run was asked to end
    """
    lost: dict[Kind, int] = {}
    while True:
        child, hangs = _Child(progress, _NAMES[task]), len(_hangs(directory))
        loss = child.run(task, plan, directory, leave)
        if loss is None:
            return
        loss = next((Loss(Kind.HANG, str(hang)) for hang in _hangs(directory)[hangs:][-1:]), loss)
        if leave():
            raise leave.interrupted()
        if child.trials_ended:
            lost.clear()
        lost[loss.kind] = lost.get(loss.kind, 0) + 1
        allowed = _SLOW_STARTS if loss.kind is Kind.START else plan.experiment.failures.restarts
        said = f". What it said: {RunFolder(directory).driver_log}" if task == "ray" else ""
        if lost[loss.kind] > allowed:
            raise LostError(f"{loss.message}, {_times(lost[loss.kind])}. Next: {loss.next}{said}", loss.kind)
        logger.warning(
            "%s; starting %s anew (%d of %d), trials go on from their last checkpoints%s",
            loss.message,
            _NAMES[task],
            lost[loss.kind],
            allowed,
            said,
        )
        _wait(_BACK_OFF * 2 ** (lost[loss.kind] - 1), leave)


class _Child:
    """One child process, from its start to its end."""

    def __init__(self, progress: Progress, name: str):
        self._progress, self._name = progress, name
        self._began = time.monotonic()
        self._heard = 0.0  # when it gave the last sign of life; 0: it has given none
        self._end: str | None = None
        self._loss: Loss | None = None
        self.trials_ended = False

    def run(self, task: str, plan: Plan, directory: Path, leave: Leave) -> Loss | None:
        """Let it play; None when it finished, else what was lost."""
        with _started(task, plan, directory) as (process, messages):
            ends = self._listen(process, messages, leave)
            if self._end is None and self._loss is None:
                self._loss = self._silent(ends) if ends is not None else self._died(process)
            elif self._end is not None:
                with suppress(subprocess.TimeoutExpired):  # whatever Ray does while it shuts down, the run is done
                    process.wait(_ENDING)
        if self._end == "left":
            raise leave.interrupted()
        return self._loss

    def _listen(self, process: subprocess.Popen[bytes], messages: int, leave: Leave) -> str | None:
        """Hear it out; returns why it was not heard to its end, None where it ended."""
        buffer = b""
        while True:
            ready, _, _ = select.select([messages], [], [], 0.25)
            if ready:
                read = os.read(messages, 1 << 16)
                *lines, buffer = (buffer + read).split(b"\n")
                for line in lines:
                    self._hear(json.loads(line))
                if not read or self._end is not None or self._loss is not None:
                    return None
                continue
            now = time.monotonic()
            if not self._heard and now - self._began > _START:
                return f"{self._name} gave no sign of life for {_START:.0f} s after its start"
            if self._heard and now - self._heard > _SILENCE:
                return f"{self._name} gave no sign of life for {_SILENCE:.0f} s"

    def _hear(self, message: Mapping[str, Any]) -> None:
        match message:
            case {"update": update}:
                self.trials_ended |= bool(self._heard) and update["status"] in ("done", "stopped", "failed")
                self._progress.trial_update(**update)
            case {"looked": said}:
                self._progress.looked(said)
            case {"beat": _}:
                self._heard = time.monotonic()
            case {"log": {"name": name, "level": level, "text": text}}:
                logging.getLogger(name).log(level, "%s", text)
            case {"end": end}:
                self._end = end
            case {"lost": [kind, said]}:
                self._loss = Loss(Kind(kind), said)
            case {"wrong": problems}:
                raise ConfigError([Problem(path, said) for path, said in problems])
            case {"unwritable": [number, reason, file]}:
                raise OSError(number, reason, file)
            case {"failed": failure, "meant": meant}:
                made = Failure.from_json(failure)
                assert made is not None
                said = made.message if meant else f"the process that carries out the run failed: {made.reason}"
                raise caused_by(OrchestratorError(said), made)

    def _silent(self, said: str) -> Loss:
        return Loss(Kind.SILENCE if self._heard else Kind.START, said)

    def _died(self, process: subprocess.Popen[bytes]) -> Loss:
        try:
            code = process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            return Loss(Kind.DRIVER, "the process that carries out the run said nothing more and does not end")
        said = f"the process that carries out the run {losses.ending(code)}"
        return Loss(Kind.DRIVER if self._heard else Kind.START, said)


@contextmanager
def _started(task: str, plan: Plan, directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a child with this process's imports and a log of its own; whatever happens, it is gone afterwards."""
    folder = RunFolder(directory)
    asked = {
        "plan": plan.to_json(),
        "directory": str(directory),
        "level": logging.getLogger().getEffectiveLevel(),
    }
    hear, tell = os.pipe()
    alive, lifeline = os.pipe()
    directory.mkdir(parents=True, exist_ok=True)
    alone = task == "local"  # it stays at the terminal, where a plugin may be debugged
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as request,
        nullcontext() if alone else folder.driver_log.open("ab") as log,
    ):
        json.dump(asked, request)
        request.flush()
        request.seek(0)
        given = (request.fileno(), tell, alive)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestrator.runners.child", task, *map(str, given)],
            env=os.environ | {"PYTHONPATH": python_path()},
            stdin=None if alone else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=given,
            start_new_session=not alone,  # a terminal's interrupt comes here alone
        )
    os.close(tell)
    os.close(alive)
    try:
        yield process, hear
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(hear)
        os.close(lifeline)


def python_path() -> str:
    """``PYTHONPATH`` that lets a child import what this process can."""
    return os.pathsep.join(os.path.abspath(entry) for entry in sys.path)


def _hangs(directory: Path) -> list[Hang]:
    """Calls that hung in the run so far, those of the trial that hung last at the end."""
    folder = RunFolder(directory)
    there = [trial for trial in (*folder.starts(), *folder.trials()) if trial.hung.exists()]
    return [hang for trial in sorted(there, key=lambda trial: trial.hung.stat().st_mtime) for hang in read_hangs(trial)]


def _wait(seconds: float, leave: Leave) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if leave():
            raise leave.interrupted()
        time.sleep(0.1)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times in a row"
