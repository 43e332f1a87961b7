"""Plays the trials of a plan one after another in this process."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.contract.types import TrialResult
from orchestrator.errors import Failure, PluginContractError, TrialError
from orchestrator.runners.progress import Silent
from orchestrator.runners.trial import run_spec
from orchestrator.runners.watch import watching
from orchestrator.runs.fence import Fence, driving
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.results import read_finished, write_result

if TYPE_CHECKING:
    from orchestrator.contract.plan import Plan, TrialSpec
    from orchestrator.plugging.registry import Registry
    from orchestrator.runners.progress import Progress

logger = logging.getLogger(__name__)


def run(
    plan: Plan,
    directory: Path,
    registry: Registry,
    progress: Progress | None = None,
    *,
    held: Fence | None = None,
) -> list[TrialResult]:
    """Play every trial that has not ended yet; called again on the same directory, it resumes.

    The caller announces the sweep to observers (``on_sweep_start``, ``on_sweep_end``).

    :param directory: the run's directory
    :param held: the caller's hold of it; None: it is taken here
    :raises OrchestratorError: another process drives the run
    """
    with driving(directory, held):
        return _run(plan, directory, registry, progress or Silent())


def _run(plan: Plan, directory: Path, registry: Registry, progress: Progress) -> list[TrialResult]:
    results = []
    for spec in plan.trials:
        result = read_finished(RunFolder(directory).trial(spec.id))
        if result is None:
            progress.trial_update(spec.id, "running", 0, {})
            with watching(directory, functools.partial(list, [spec.id]), progress):
                result = _outcome(spec, directory, plan, registry)
        progress.trial_update(spec.id, result.status, result.step, result.metrics)
        results.append(result)
    return results


def _outcome(spec: TrialSpec, directory: Path, plan: Plan, registry: Registry) -> TrialResult:
    """Play one trial; whatever it raises ends this trial only."""
    try:
        return run_spec(spec, directory, plan.fingerprint, registry=registry)
    except TrialError as error:  # another process plays it, and writes how it ended
        return _failed(spec, error)
    except PluginContractError:  # of every trial alike
        raise
    except Exception as error:
        result = _failed(spec, error)
        try:
            write_result(RunFolder(directory).trial(spec.id), result)
        except OSError as also:
            logger.error("trial %s failed, and that cannot be written down: %s", spec.id, also)
        return result


def _failed(spec: TrialSpec, error: Exception) -> TrialResult:
    return TrialResult(trial=spec.id, arm=spec.arm, seed=spec.seed, status="failed", step=0, error=Failure.of(error))
