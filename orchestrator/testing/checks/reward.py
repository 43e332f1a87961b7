"""The contract of a reward."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orchestrator.contract.types import (
    RolloutGroup,
    RolloutRequest,
    Sampling,
    Split,
)
from orchestrator.rollout.collector import Collector
from orchestrator.rollout.handed import expect_scores
from orchestrator.testing.scripted import ScriptedPolicy
from orchestrator.testing.worlds import EchoEnvironment


def check_reward(build: Callable[[], Any], *, name: str, group: RolloutGroup | None, **_: Any) -> list[str]:
    """Broken rules of a reward."""
    if group is None:
        world = EchoEnvironment()
        collect = Collector(world, ScriptedPolicy(("ab", "a", " ab ", "c d")), (), sampling=Sampling())
        group = collect([RolloutRequest(task=next(iter(world.tasks(Split.TRAIN))), count=4)])[0]
    group = replace(group, scores=())
    try:
        scores = expect_scores(build().score(group), group, name)
    except ValueError as error:
        return [str(error)]
    problems = []
    for place, score in enumerate(scores):
        if score.against is not None and not math.isclose(score.against[place], 0.5, abs_tol=1e-6):
            problems.append(f"score {place} beats itself with chance {score.against[place]}; expected 0.5")
    alone = replace(group, rollouts=group.rollouts[:1])
    if len(list(build().score(alone))) != 1:
        problems.append("score() of a group of one did not give one score")
    return problems
