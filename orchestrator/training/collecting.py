"""The two collectors of a trial: what it trains on, and what it is evaluated on."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import fields

from orchestrator.contract.plan import Components, Trial
from orchestrator.contract.types import Sampling
from orchestrator.rollout.collector import Collector


def collectors(trial: Trial, components: Components, labels: Mapping[str, str]) -> tuple[Collector, Collector]:
    """Collectors for training and for evaluation, which differ in their seeds alone.

    :param labels: who to blame, by role
    """
    sampling = trial.settings.sampling
    make = functools.partial(
        Collector,
        components.environment,
        components.policy,
        components.rewards,
        sampling=Sampling(**{field.name: getattr(sampling, field.name) for field in fields(Sampling)}),
        max_turns=sampling.max_turns,
        concurrent=sampling.concurrent,
        seed=trial.seed,
        labels=labels,
        limits=trial.limits,
    )
    return make(phase="train"), make(phase="evaluation")
