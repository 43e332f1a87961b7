"""The worker's side of a sweep on Ray Tune: runs one trial after another in a process that is kept."""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import logging
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Trainable

from orchestrator.contract.plan import TrialSpec
from orchestrator.errors import Failure, TrialError, TrialInterrupted, TrialStopped, caused_by
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.results import read_result

if TYPE_CHECKING:
    from orchestrator.plugging.registry import Registry

logger = logging.getLogger(__name__)

_UNWIND_WAIT = 300.0  # seconds a stopped trial may take to clean up


class TrialWorker(Trainable):
    """Runs a trial in a thread that waits at each report until the driver has judged it.

    A step of Tune's is one message: a report or the end. Since the trial stands still in between, an early stop takes
    effect at the very step that was judged, and every report the trial went past is in the driver's journal.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start the trial that came with the process."""
        self._play = _Play(config)

    def step(self) -> dict[str, Any]:
        """Let the trial go on to its next message."""
        return {"message": json.dumps(self._play.next_message())}  # no "done": Tune would not show it to the judge

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave the trial, wherever it stands, and start another in the same process."""
        left = self._play.leave()
        if left:
            self._play = _Play(new_config)
        return left

    def cleanup(self) -> None:
        """Leave the trial before the process ends."""
        self._play.leave()


class _Play:
    """One trial in its thread."""

    def __init__(self, config: Mapping[str, Any]):
        self._spec = TrialSpec.from_json(json.loads(config["spec"]))
        self._run = Path(config["directory"])
        self._folder = RunFolder(self._run).trial(self._spec.id)
        self._fingerprint = config["fingerprint"]
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=1)
        self._go = threading.Semaphore(0)
        self._leaving = False
        self._thread: threading.Thread | None = None

    def next_message(self) -> dict[str, Any]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name=f"trial {self._spec.id}", daemon=True)
            self._thread.start()
        else:
            self._go.release()
        return self._messages.get()

    def leave(self) -> bool:
        """Unwind the trial's thread; False when it does not end."""
        if self._thread is None:
            return True
        self._leaving = True
        self._go.release()
        self._thread.join(_UNWIND_WAIT)
        return not self._thread.is_alive()

    def _main(self) -> None:
        from orchestrator.runners.trial import run_spec

        ending: dict[str, Any]
        self._folder.path.mkdir(parents=True, exist_ok=True)
        try:
            # TrialStopped never comes out of run_spec: it ends the trial there, with its hooks and its result.
            with _log_to(self._folder.log):
                result = run_spec(self._spec, self._run, self._fingerprint, self._report, _registry(), watch=True)
            ending = {"kind": "end", "status": result.status, "error": result.error and result.error.to_json()}
        except TrialInterrupted:
            ending = {"kind": "left"}
        except BaseException as raised:
            # Whatever a trial raises ends this trial only; the driver writes it into the result.
            ending = {"kind": "end", "status": "failed", "error": Failure.of(raised).to_json()}
        _return_memory()
        if not self._leaving:
            self._messages.put(ending)

    def _report(self, step: int, metrics: Mapping[str, float]) -> None:
        self._leave_if_told()
        numbers = {name: float(value) for name, value in metrics.items()}
        self._messages.put({"kind": "report", "step": int(step), "metrics": numbers})
        self._go.acquire()
        self._leave_if_told()

    def _leave_if_told(self) -> None:
        if not self._leaving:
            return
        result = read_result(self._folder)
        if result is not None and result.status == "stopped":  # the driver writes it before it lets the worker go
            raise TrialStopped
        if result is not None and result.status == "failed" and result.error is not None:
            raise caused_by(TrialError(result.error.message), result.error)
        raise TrialInterrupted


def _return_memory() -> None:
    """Give back to the system what a trial freed.

    glibc keeps a heap per thread and gives little of it back by itself; each trial has a thread of its own, so a worker
    would grow with every trial it runs. Elsewhere there is nothing to ask.
    """
    gc.collect()  # components refer to each other
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@functools.cache
def _registry() -> Registry:
    """The plugins of this process, found once: what was imported stays, whatever happens to the files."""
    from orchestrator.plugging.registry import load_registry

    return load_registry()


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Keep what the process logs while the trial runs, plugins' and libraries' messages too; Ray does not show it."""
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO))
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
