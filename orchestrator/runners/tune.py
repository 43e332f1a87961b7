"""Runs a sweep on Ray Tune, in parallel: Ray lives in a process of its own, so that whatever becomes of it ends no run.

A caller who has started Ray keeps it: the sweep is run in the caller's own process then.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from orchestrator.contract.plan import Plan
from orchestrator.contract.types import TrialResult
from orchestrator.runners import supervise
from orchestrator.runners.leaving import leaving
from orchestrator.runners.progress import Progress, Silent, Unwatched
from orchestrator.runs import journal
from orchestrator.runs.fence import Fence, driving
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.results import read_result


def run(
    plan: Plan, directory: Path, *, progress: Progress | None = None, held: Fence | None = None
) -> list[TrialResult]:
    """Run every trial of a plan, in parallel, each in a worker process; continue where an earlier driver ended.

    A trial that fails does not stop the others. A trial whose worker dies is restarted from its last checkpoint,
    ``failures.restarts`` times, and so is a Ray of our own that is lost.

    :param directory: the run's directory; workers must see it under the same path
    :param held: the caller's hold of the run; None: it is taken here
    :returns: one result per trial, failed ones included
    :raises OrchestratorError: another process drives the run
    :raises ConfigError: the cluster cannot be reached, or has no room for a single trial
    :raises LostError: Ray was lost once too often; the run can be resumed
    :raises KeyboardInterrupt: the run was asked to end, by a signal or the user; it can be resumed
    """
    directory = Path(directory).resolve()
    progress = progress or Silent()
    folder = RunFolder(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with driving(directory, held), leaving(folder) as leave:
        try:
            if not _callers_own():
                supervise.run("ray", plan, directory, progress, leave)
            else:
                from orchestrator.runners import driver

                if not driver.run(plan, directory, progress, Unwatched()):
                    raise leave.interrupted()
        finally:
            shutil.rmtree(folder.scratch, ignore_errors=True)
    found = (read_result(folder.trial(trial)) for trial in journal.read(directory).trials)
    return [result for result in found if result is not None]


def resume(directory: Path, *, progress: Progress | None = None) -> list[TrialResult]:
    """Continue the run in a directory from its ``plan.json`` and journal.

    :raises ConfigError: there is no plan in the directory
    """
    from orchestrator.runs.store import load_plan

    return run(load_plan(Path(directory)), directory, progress=progress)


def _callers_own() -> bool:
    """Whether the caller has started Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
