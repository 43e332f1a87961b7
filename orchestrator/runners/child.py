"""A process that carries out a run for the one that started it: here is what it needs of its parent, and what it tells it.

The parent stays clear of whatever may hang or end the process (Ray, a plugin's code): it hears messages, waits with a
limit, and may start another child, which goes on from the run's folder.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.contract.plan import Plan
from orchestrator.errors import ConfigError, Failure, LostError, OrchestratorError, TrialInterrupted
from orchestrator.runners.leaving import Leave, RunInterrupted
from orchestrator.runners.losses import Loss
from orchestrator.runs.layout import RunFolder

TASKS = ("ray", "local")

_PR_SET_PDEATHSIG = 1


class Messages:
    """What the child tells its parent, one JSON object a line. Implements ``runners.progress.Progress``."""

    def __init__(self, descriptor: int):
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._lock = threading.Lock()

    def send(self, **message: Any) -> None:
        """Tell the parent; a child whose parent is gone ends here."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            with self._lock:
                while line:
                    line = line[self._file.write(line) :]
        except OSError:
            os._exit(1)

    def trial_update(self, trial: str, status: str, step: int, metrics: Mapping[str, float]) -> None:
        """Pass on that a trial moved on."""
        numbers = {name: float(value) for name, value in metrics.items()}
        self.send(update={"trial": trial, "status": status, "step": int(step), "metrics": numbers})

    def looked(self, said: str) -> None:
        """Pass on what a look decided."""
        self.send(looked=said)


class _Watch:
    """Tells the parent how the driver of Ray fares. Implements ``runners.progress.Watch``."""

    def __init__(self, messages: Messages):
        self._messages = messages

    def beat(self) -> None:
        """Give a sign of life."""
        self._messages.send(beat=True)

    def lost(self, loss: Loss) -> None:
        """Say what was lost, and end: whatever waits for it would wait for long."""
        self._messages.send(lost=[loss.kind, loss.message])
        os._exit(1)

    def over(self, finished: bool) -> None:
        """Say the last word; the parent waits no longer than a moment for Ray's shutdown."""
        self._messages.send(end="done" if finished else "left")


class _ToParent(logging.Handler):
    """Sends what is logged to the parent, which shows it where it shows its own."""

    def __init__(self, messages: Messages):
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
        self._messages.send(log={"name": record.name, "level": record.levelno, "text": text})


def main(task: str, request: int, messages: int, lifeline: int) -> None:
    """The child: end with the parent, read what to run, run it, say how it ended.

    :param request: descriptor of a file with the plan and the run's directory
    :param messages: descriptor of the pipe to the parent
    :param lifeline: descriptor of a pipe that closes when the parent ends
    """
    _end_with_parent(lifeline)
    heard = Messages(messages)
    with os.fdopen(request, encoding="utf-8") as file:
        asked = json.load(file)
    logging.basicConfig(level=asked["level"], handlers=[_ToParent(heard)], force=True)
    directory = Path(asked["directory"])
    _ask_to_leave_on_signals(RunFolder(directory))
    try:
        finished = _run(task, Plan.from_json(asked["plan"]), directory, heard)
    except (TrialInterrupted, RunInterrupted):
        heard.send(end="left")
    except LostError as lost:
        heard.send(lost=[lost.kind, str(lost)])
    except ConfigError as error:
        heard.send(wrong=[[problem.path, problem.message] for problem in error.problems])
    except OrchestratorError as error:
        heard.send(failed=Failure.of(error).to_json(), meant=True)
    except OSError as error:  # the disk is full, or the folder is gone
        heard.send(unwritable=[error.errno, error.strerror or str(error), error.filename])
    except Exception as error:
        traceback.print_exc()  # to the driver's log
        heard.send(failed=Failure.of(error).to_json(), meant=False)
    else:
        heard.send(end="done" if finished else "left")


def _run(task: str, plan: Plan, directory: Path, messages: Messages) -> bool:
    assert task in TASKS
    if task == "local":
        from orchestrator.plugging.registry import load_registry
        from orchestrator.runners import local

        messages.send(beat=True)
        threading.Thread(target=_beat, args=(messages,), name="beat", daemon=True).start()
        local.run_here(plan, directory, load_registry(), messages, Leave(RunFolder(directory)), watch=True)
        return True
    from orchestrator.runners import driver

    return driver.run(plan, directory, messages, _Watch(messages))


def _beat(messages: Messages) -> None:
    """Say once a second that this process lives; what it runs has limits of its own."""
    while True:
        time.sleep(1.0)
        messages.send(beat=True)


def _ask_to_leave_on_signals(folder: RunFolder) -> None:
    """A signal to this process alone asks the run to end, as one to its parent does; an interrupt goes to the parent."""

    def ask(number: int, frame: Any) -> None:
        folder.leave.touch()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), ask)


def _end_with_parent(lifeline: int) -> None:
    """End as soon as the parent does, however it ends, also where this process is stopped or busy."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def wait() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
