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
from orchestrator.testing.scripted import ScriptedPolicy
from orchestrator.testing.worlds import EchoEnvironment


def check_reward(build: Callable[[], Any], *, group: RolloutGroup | None, **_: Any) -> list[str]:
    """Broken rules of a reward."""
    if group is None:
        world = EchoEnvironment()
        collect = Collector(world, ScriptedPolicy(("ab", "a", " ab ", "c d")), (), sampling=Sampling())
        group = collect([RolloutRequest(task=next(iter(world.tasks(Split.TRAIN))), count=4)])[0]
    group = replace(group, scores=())
    scores = list(build().score(group))
    if len(scores) != len(group.rollouts):
        return [f"score() gave {len(scores)} scores for {len(group.rollouts)} rollouts; expected one each"]
    problems = []
    for place, (score, rollout) in enumerate(zip(scores, group.rollouts, strict=True)):
        where = f"score {place}"
        if not math.isfinite(score.value):
            problems.append(f"{where} has the value {score.value}")
        if not all(math.isfinite(part) for part in score.parts.values()):
            problems.append(f"{where} has parts that are not finite: {dict(score.parts)}")
        if score.turns is not None:
            if len(score.turns) != len(rollout.turns):
                problems.append(f"{where} has {len(score.turns)} turn values for {len(rollout.turns)} turns")
            elif not math.isclose(sum(score.turns), score.value, rel_tol=1e-6, abs_tol=1e-6):
                problems.append(f"{where} has turn values that sum to {sum(score.turns)}, not to {score.value}")
        if score.against is not None:
            if len(score.against) != len(scores) or not all(0 <= chance <= 1 for chance in score.against):
                problems.append(f"{where} has against={score.against}; expected a chance for each of {len(scores)}")
            elif not math.isclose(score.against[place], 0.5, abs_tol=1e-6):
                problems.append(f"{where} beats itself with chance {score.against[place]}; expected 0.5")
    alone = replace(group, rollouts=group.rollouts[:1])
    if len(list(build().score(alone))) != 1:
        problems.append("score() of a group of one did not give one score")
    return problems
