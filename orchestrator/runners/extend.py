"""Adds seeds to a run whose design has ended. They explore: no error is left to decide anything with them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.contract.plan import Phase, Plan
from orchestrator.errors import ConfigError, Problem
from orchestrator.experiment import planner as plans
from orchestrator.runs.journal import Extension, Journal, extension_record, trials_record
from orchestrator.runs.read import read
from orchestrator.runs.study import merge


def extend(plan: Plan, directory: Path, count: int) -> Extension:
    """Add as many seeds to every arm that enters the verdict; the caller holds the run, and runs it afterwards.

    :raises ConfigError: the design has not ended, or would grow beyond what the plan allows
    """
    run = read(directory, plan)
    study = merge([run])
    if not study.ended:
        said = "the run has not ended; resume it without --seeds first, so that its own verdict stands"
        raise ConfigError([Problem("--seeds", said)])
    chosen = {trial.spec.arm: trial.spec.searched for trial in run.trials if trial.phase is Phase.CONFIRM}
    taken = {trial.seed for trial in run.trials} | set(plan.experiment.all_seeds())
    first = max(seed for seed in taken if seed in {t.seed for t in study.confirmations}) + 1
    free = (seed for seed in range(first, first + count + len(taken) + 1) if seed not in taken)
    seeds = tuple(seed for seed, _ in zip(free, range(count), strict=False))
    most = plan.experiment.most_trials
    if len(run.trials) + count * len(chosen) > most:
        said = f"{len(run.trials) + count * len(chosen):,} trials, more than most_trials = {most:,}; add fewer"
        raise ConfigError([Problem("--seeds", said)])
    extension = Extension(arms=tuple(arm for arm in plan.arms if arm in chosen), seeds=seeds)
    specs = plans.confirmations(plan, chosen, seeds)
    journal = Journal(directory)
    try:
        journal.append([extension_record(extension), trials_record(specs)])
    finally:
        journal.close()
    return extension
