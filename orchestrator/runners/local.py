"""Plays the trials of a plan one after another in this process."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.runners.progress import Silent
from orchestrator.runners.trial import run_spec
from orchestrator.runners.watch import watching
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.results import FINISHED, read_result

if TYPE_CHECKING:
    from orchestrator.contract.plan import Plan
    from orchestrator.contract.types import TrialResult
    from orchestrator.plugging.registry import Registry
    from orchestrator.runners.progress import Progress


def run(plan: Plan, directory: Path, registry: Registry, progress: Progress | None = None) -> list[TrialResult]:
    """Play every trial that has not ended yet; called again on the same directory, it resumes.

    The caller announces the sweep to observers (``on_sweep_start``, ``on_sweep_end``).

    :param directory: the run's directory
    """
    progress = progress or Silent()
    results = []
    for spec in plan.trials:
        result = read_result(RunFolder(directory).trial(spec.id))
        if result is None or result.status not in FINISHED:
            progress.trial_update(spec.id, "running", 0, {})
            with watching(directory, functools.partial(list, [spec.id]), progress):
                result = run_spec(spec, directory, plan.fingerprint, registry=registry)
        progress.trial_update(spec.id, result.status, result.step, result.metrics)
        results.append(result)
    return results
