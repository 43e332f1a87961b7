"""Runs the trials of a plan one after another, without Ray: in this process, or where calls may hang in a child."""

from __future__ import annotations

import functools
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.contract.types import TrialResult
from orchestrator.errors import Failure, PluginContractError, TrialError, TrialInterrupted
from orchestrator.runners import supervise
from orchestrator.runners.leaving import Leave, leaving
from orchestrator.runners.looks import Looks
from orchestrator.runners.progress import Silent
from orchestrator.runners.trial import run_spec
from orchestrator.runners.watch import watching
from orchestrator.runners.watchdog import OURS
from orchestrator.runs import journal as journals
from orchestrator.runs.fence import Fence, driving
from orchestrator.runs.journal import Journal, look_record, trials_record
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.results import read_finished, read_result, write_result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.contract.plan import Plan, TrialSpec
    from orchestrator.contract.settings import Settings
    from orchestrator.plugging.registry import Registry
    from orchestrator.runners.progress import Progress

logger = logging.getLogger(__name__)

_NO_RESULT = "its result could not be written, as where the disk is full; make room, then resume"


def run(
    plan: Plan,
    directory: Path,
    registry: Registry,
    progress: Progress | None = None,
    *,
    held: Fence | None = None,
) -> list[TrialResult]:
    """Run every trial that has not ended yet; called again on the same directory, it resumes.

    The caller announces the sweep to observers (``on_sweep_start``, ``on_sweep_end``).

    :param directory: the run's directory
    :param held: the caller's hold of it; None: it is taken here
    :raises OrchestratorError: another process drives the run
    :raises KeyboardInterrupt: the run was asked to end, by a signal or the user; it can be resumed
    """
    with driving(directory, held), leaving(RunFolder(directory)) as leave:
        return run_here(plan, directory, registry, progress or Silent(), leave)


def run_watched(plan: Plan, directory: Path, progress: Progress, *, held: Fence | None = None) -> list[TrialResult]:
    """Run as ``run`` does, but in a child process, which is ended where a call of a component does not return.

    :raises LostError: the child was lost once too often
    :raises OrchestratorError: another process drives the run
    :raises KeyboardInterrupt: as ``run``
    """
    with driving(directory, held), leaving(RunFolder(directory)) as leave:
        supervise.run("local", plan, directory, progress, leave)
    specs = {spec.id: spec for spec in plan.trials}
    specs |= {trial: history.spec for trial, history in journals.read(directory).trials.items()}
    found = ((spec, read_result(RunFolder(directory).trial(trial))) for trial, spec in specs.items())
    return [result or _failed(spec, TrialError(_NO_RESULT)) for spec, result in found]


def hangs_are_watched(plan: Plan, registry: Registry) -> bool:
    """Whether a run without Ray needs a process that may be ended.

    It does where the file sets a limit, or where components of other distributions run and nobody sits at the terminal
    who might debug them.
    """
    unseen = sys.stdin is None or not sys.stdin.isatty()
    return any(_limited(spec.settings, registry, unseen) for spec in plan.trials)


def _limited(settings: Settings, registry: Registry, unseen: bool) -> bool:
    failures = settings.failures
    if (
        failures.step_seconds
        or failures.reward_seconds
        or failures.method_seconds
        or settings.budget.seconds is not None
    ):
        return True
    asked = [("environment", settings.environment.use, failures.step_seconds)]
    asked += [("reward", reward.use, failures.reward_seconds) for reward in settings.rewards]
    methods = (("sampler", settings.sampler), ("advantage", settings.advantage), ("objective", settings.objective))
    asked += [(role, spec.use, failures.method_seconds) for role, spec in methods if spec is not None]
    return unseen and any(
        seconds is None and registry.plugin_of(role, name).distribution != OURS for role, name, seconds in asked
    )


def run_here(
    plan: Plan, directory: Path, registry: Registry, progress: Progress, leave: Leave, *, watch: bool = False
) -> list[TrialResult]:
    """Run the open trials of a plan one after another; the caller holds the run.

    :param watch: keep the limits on what may hang
    :raises RunInterrupted: the run was asked to end
    """
    results = []
    for spec, again in _trials(plan, directory, progress):
        folder = RunFolder(directory).trial(spec.id)
        result = read_finished(folder) or (None if again else read_result(folder))
        if result is None:
            progress.trial_update(spec.id, "running", 0, {})
            try:
                with watching(directory, functools.partial(list, [spec.id]), progress):
                    result = _outcome(spec, directory, plan, registry, leave, watch)
            except TrialInterrupted:
                raise leave.interrupted() from None
        progress.trial_update(spec.id, result.status, result.step, result.metrics)
        results.append(result)
    return results


def _trials(plan: Plan, directory: Path, progress: Progress) -> Iterator[tuple[TrialSpec, bool]]:
    """Trials in turn, those that follow from looks and those added later included; whether one that failed is run again."""
    if plan.experiment.sequential is None and not RunFolder(directory).journal.exists():
        yield from ((spec, True) for spec in plan.trials)
        return
    journal = Journal(directory)
    try:
        history = journal.history
        looks = Looks(plan, directory, history)
        known = {spec.id: spec for spec in (*plan.trials, *(entry.spec for entry in history.trials.values()))}
        if history.looks:
            progress.looked(looks.said())
        yield from ((spec, looks.counts(spec)) for spec in known.values())
        while not looks.over:
            added = [spec for spec in looks.following() if spec.id not in known]
            if added:
                journal.append([trials_record(added)])
            for spec in added:
                known[spec.id] = spec
                history.add(spec)
                yield spec, True
            look = looks.make()
            if look is None:
                return
            journal.append([look_record(look)])
            history.looks.append(look)
            progress.looked(looks.said())
    finally:
        journal.close()


def _outcome(
    spec: TrialSpec, directory: Path, plan: Plan, registry: Registry, leave: Leave, watch: bool
) -> TrialResult:
    """Run one trial; whatever it raises ends this trial only."""
    try:
        return run_spec(spec, directory, plan.fingerprint, registry=registry, leaving=leave, watch=watch)
    except TrialError as error:  # another process runs it, and writes how it ended
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
