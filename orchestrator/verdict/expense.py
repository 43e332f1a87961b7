"""What a plan's trials will take: time and memory, measured on this machine or as in an earlier run."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.contract.plan import Phase, Plan
from orchestrator.contract.settings import Resources, Settings
from orchestrator.experiment.estimate import Estimate, evaluations
from orchestrator.runs.measurements import Measurement
from orchestrator.runs.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialExpense:
    """What one trial of an arm is expected to take; None where nothing is known."""

    seconds: float | None
    memory: int | None  # bytes, at the peak
    gpu_memory: int | None
    source: str | None  # who says so; None: nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Expense:
    """What all trials of a plan are expected to take."""

    arms: Mapping[str, TrialExpense]
    seconds: float | None  # one after another; None: an arm's trials are unknown
    places: int | None  # trials at once; None: a cluster decides
    seconds_at_once: float | None
    at_most: bool  # trials may be stopped early, or never be needed


def expect(
    plan: Plan,
    estimates: Mapping[str, Estimate],
    measured: Mapping[str, Measurement | None],
    like: Study | None = None,
    places: int | None = 1,
) -> Expense:
    """Say what the trials of a plan will take, those of its search included, start phases left out.

    :param estimates: sizes of a trial by arm
    :param measured: by arm; searched options cost what the arm's own do
    :param like: an earlier run, whose word on time wins over a measurement
    :param places: trials at once; None: unknown
    """
    spent = spent_in(like)
    arms = {
        arm: _of_a_trial(settings, estimates[arm], measured.get(arm), like, spent)
        for arm, settings in plan.arms.items()
    }
    searching = {arm: _tuning_trials(plan, arm) for arm in arms}
    confirming = {arm: len(plan.experiment.seeds_of(arm)) for arm in arms}
    seconds = at_once = None
    known = {arm: found.seconds for arm, found in arms.items() if found.seconds is not None}
    if len(known) == len(arms):
        seconds = sum(known[arm] * (searching[arm] + confirming[arm]) for arm in arms)
        if places is not None:  # the best of a search are confirmed once it has ended
            at_once = sum(_side_by_side(_in_turns(known, counts), places) for counts in (searching, confirming))
    return Expense(
        arms=arms,
        seconds=seconds,
        places=places,
        seconds_at_once=at_once,
        at_most=plan.experiment.tune.scheduler != "none" or plan.experiment.sequential is not None,
    )


def places(resources: Resources, cores: int, gpus: int) -> int | None:
    """How many trials run at once on a machine; None: a cluster decides."""
    if resources.address is not None:
        return resources.concurrent
    shares = [cores / (resources.cpus * resources.workers)]
    if resources.gpus:
        shares.append(gpus / (resources.gpus * resources.workers))
    fit = max(1, int(min(shares) + 1e-9))
    return fit if resources.concurrent is None else min(fit, resources.concurrent)


def spent_in(like: Study | None) -> dict[str, float]:
    """Mean over the finished trials of an earlier run: its counters, its steps, tokens of an evaluation's answer."""
    trials = [trial for trial in (like.confirmations if like else ()) if trial.status == "done" and trial.step > 0]
    if not trials:
        return {}
    found = {"steps": float(np.mean([trial.step for trial in trials]))}
    for name in ("cost/generated_tokens", "cost/seconds"):
        if all(name in trial.last for trial in trials):
            found[name] = float(np.mean([trial.last[name] for trial in trials]))
    per_rollout = [trial.last.get("eval/tokens_per_rollout/mean") for trial in trials]
    if all(value is not None for value in per_rollout):
        found["answer"] = float(np.mean([value for value in per_rollout if value is not None]))
    return found


def _of_a_trial(
    settings: Settings, size: Estimate, measured: Measurement | None, like: Study | None, spent: Mapping[str, float]
) -> TrialExpense:
    seconds, sources = None, []
    if like is not None and "cost/seconds" in spent:
        seconds = spent["cost/seconds"] * size.steps / spent["steps"]
        sources.append(f"as in {like.name}")
    elif measured is not None:
        seconds = _seconds(settings, size, measured)
    if measured is not None:
        sources.append(f"{'memory ' if sources else ''}measured on {measured.date}")
    return TrialExpense(
        seconds=seconds,
        memory=None if measured is None else measured.memory,
        gpu_memory=None if measured is None else measured.gpu_memory,
        source="; ".join(sources) or None,
    )


def _seconds(settings: Settings, size: Estimate, measured: Measurement) -> float:
    """Of one trial, to its schedule's end or its budget's."""
    steps, evaluation, every = size.steps, settings.evaluation, settings.checkpoints.every
    if size.budget is not None and measured.step_tokens > 0:
        steps = min(steps, math.ceil(size.budget / measured.step_tokens))
    played = evaluations(settings, steps) * evaluation.tasks * evaluation.samples
    saves = steps // every + (steps % every > 0 or steps == 0) if every else 1
    own = steps * measured.step_seconds + played * measured.evaluation_seconds + saves * measured.save_seconds
    limit = settings.budget.seconds
    return measured.start_seconds + (own if limit is None else min(own, limit))


def _tuning_trials(plan: Plan, arm: str) -> int:
    """Of one arm; a searcher that proposes as it goes takes as many as it may."""
    listed = sum(trial.arm == arm and trial.phase is Phase.TUNE for trial in plan.trials)
    tune = plan.experiment.tune
    return tune.samples * tune.seeds if plan.experiment.search and not listed else listed


def _in_turns(seconds: Mapping[str, float], counts: Mapping[str, int]) -> Iterable[float]:
    """Trials in the order a sweep starts them: each arm's next."""
    for turn in range(max(counts.values(), default=0)):
        yield from (seconds[arm] for arm, count in counts.items() if turn < count)


def _side_by_side(trials: Iterable[float], places: int) -> float:
    """When the last of them ends, where each takes the first place that is free."""
    free = [0.0] * places
    for seconds in trials:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)
