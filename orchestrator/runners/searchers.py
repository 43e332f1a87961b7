"""Which configuration to try next, and which was best: decided from the journal alone, so nothing needs restoring."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from orchestrator.experiment.search import Kind, Space
from orchestrator.maths.seeding import derive_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One configuration of an arm and how it did over its tuning seeds."""

    index: int
    values: Mapping[str, Any]  # dotted path to value
    status: str  # running, done, stopped, failed
    value: float | None  # mean of the last values measured; more is better
    cost: float = 0.0  # at which it was measured


def suggest(space: Space, tried: Sequence[Tried], *, samples: int, seed: int, arm: str, index: int) -> dict[str, Any]:
    """Propose the ``index``-th configuration of an arm with Optuna's tree-structured Parzen estimator.

    The study is made anew from what was tried, and its generator is seeded by arm and index: the same history gives
    the same proposal, in an unbroken sweep and in a resumed one. Configurations still running count as poor, which
    keeps parallel proposals apart; stopped ones count with the value they were stopped at.

    :param samples: configurations the arm gets in all; the first third of them (2 to 10) are drawn at random
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {dimension.path: _distribution(dimension) for dimension in space.dimensions}
    sampler = optuna.samplers.TPESampler(
        seed=derive_seed(seed, arm, index) % 2**32,
        n_startup_trials=min(10, max(2, math.ceil(samples / 3))),
        constant_liar=True,
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    states = {"done": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
    for sample in tried:
        state = states.get(sample.status, TrialState.RUNNING)
        if state in (TrialState.COMPLETE, TrialState.PRUNED) and (sample.value is None or math.isnan(sample.value)):
            state = TrialState.FAIL
        params = {d.path: _encode(d, sample.values[d.path]) for d in space.dimensions}
        study.add_trial(
            create_trial(
                state=state,
                params=params,
                distributions=distributions,
                value=sample.value if state is TrialState.COMPLETE else None,
                intermediate_values={int(sample.cost): float(sample.value or 0.0)}
                if state is TrialState.PRUNED
                else None,
            )
        )
    proposed = study.ask(distributions).params
    return {d.path: _decode(d, proposed[d.path]) for d in space.dimensions}


def best(tried: Sequence[Tried]) -> Tried | None:
    """The configuration to confirm: of those that ran to their end the one with the highest value, the earlier of equals.

    Those stopped early are considered only when none ran to its end; those that failed never are.
    """
    for status in ("done", "stopped"):
        candidates = [t for t in tried if t.status == status and t.value is not None and not math.isnan(t.value)]
        if candidates:
            return max(candidates, key=lambda t: (t.value, -t.index))
    return None


def summarise(index: int, values: Mapping[str, Any], trials: Sequence[tuple[str, float | None, float]]) -> Tried:
    """Make one entry of a configuration's tuning trials, given as (status, value, cost) each.

    It failed if one of them did, runs while one does, and was stopped if one was.
    """
    statuses = [status for status, _, _ in trials]
    for status in ("failed", "running", "pending", "stopped"):
        if status in statuses:
            break
    else:
        status = "done"
    measured = [value for _, value, _ in trials if value is not None]
    complete = len(measured) == len(trials)
    return Tried(
        index=index,
        values=values,
        status="running" if status == "pending" else status,
        value=mean(measured) if complete and measured else None,
        cost=max((cost for _, _, cost in trials), default=0.0),
    )


def _distribution(dimension: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match dimension.kind:
        case Kind.CHOICE:
            return CategoricalDistribution(list(range(len(dimension.values))))  # by place: values may be lists
        case Kind.UNIFORM:
            return FloatDistribution(dimension.low, dimension.high)
        case Kind.LOGUNIFORM:
            return FloatDistribution(dimension.low, dimension.high, log=True)
        case Kind.QUNIFORM:
            return IntDistribution(0, len(dimension.finite_values()) - 1)
        case Kind.INT:
            return IntDistribution(int(dimension.low), int(dimension.high))
        case Kind.LOGINT:
            return IntDistribution(int(dimension.low), int(dimension.high), log=True)


def _encode(dimension: Any, value: Any) -> Any:
    if dimension.kind in (Kind.CHOICE, Kind.QUNIFORM):
        return list(dimension.finite_values()).index(value)
    return value


def _decode(dimension: Any, value: Any) -> Any:
    if dimension.kind in (Kind.CHOICE, Kind.QUNIFORM):
        return dimension.finite_values()[value]
    return value
