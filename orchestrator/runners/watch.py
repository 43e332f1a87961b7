"""Shows steps between reports: reads the newest row of every metrics file that is being written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.runners.progress import Progress
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.ledger import last_row
from orchestrator.runs.results import read_result

SECONDS = 1.0  # between looks


def look(directory: Path, trials: Iterable[str], progress: Progress) -> None:
    """Tell the watcher where the given trials and the shared start phases stand.

    :param directory: the run's directory
    :param trials: those that run now
    """
    run = RunFolder(directory)
    for trial in trials:
        row = last_row(run.trial(trial).metrics)
        if row is not None:
            progress.trial_update(trial, "running", row["step"], row["metrics"])
    for phase in run.starts():
        row, result = last_row(phase.metrics), read_result(phase)
        if row is not None:
            status = "running" if result is None else result.status
            progress.trial_update(f"start-{phase.path.name}", status, row["step"], row["metrics"])


@contextmanager
def watching(directory: Path, trials: Callable[[], Iterable[str]], progress: Progress) -> Iterator[None]:
    """Look every second while the block runs, from a thread of its own."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SECONDS):
            look(directory, trials(), progress)

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
