"""The contract of a sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from orchestrator.contract.metrics import from_plugin
from orchestrator.contract.roles import Evaluates, Reports, Stateful
from orchestrator.contract.types import (
    Context,
    Features,
    Sampling,
    Speaks,
    Split,
    Task,
)
from orchestrator.rollout.collector import Collector
from orchestrator.rollout.handed import expect_groups
from orchestrator.testing.checks.environment import STEPS
from orchestrator.testing.checks.state import state_problems
from orchestrator.testing.scripted import ScriptedChoices, ScriptedPolicy
from orchestrator.testing.worlds import CorridorEnvironment, EchoEnvironment


def check_sampler(build: Callable[[], Any], *, environment: Any, **_: Any) -> list[str]:
    """Broken rules of a sampler."""
    if environment is not None:
        return _sampler_problems(build(), environment)
    try:
        return _sampler_problems(build(), EchoEnvironment())
    except (TypeError, ValueError) as error:  # a sampler may be for worlds of features only
        if "features" not in str(error):
            raise
        return _sampler_problems(build(), CorridorEnvironment())


def _sampler_problems(sampler: Any, world: Any) -> list[str]:
    tasks = list(islice(world.tasks(Split.TRAIN), 4))
    collect = Collector(world, player(world, tasks), (), sampling=Sampling(), max_turns=STEPS)
    problems: list[str] = []
    trained = 0
    for step in (1, 2):
        collect.begin(step)
        try:
            groups = expect_groups(sampler.sample(tasks, collect))
            if isinstance(sampler, Reports):
                from_plugin(sampler.report(), "report()")
        except ValueError as error:
            if "features" in str(error) and world.speaks == Speaks.MESSAGES:
                raise
            return [str(error)]
        for group in groups:
            where = f"the group of task {group.task.id!r}"
            trained += len(group.rollouts)
            if group.task.id not in {task.id for task in tasks}:
                problems.append(f"{where} is of no task it was given")
            if len(group.scores) not in (0, len(group.rollouts)):
                problems.append(f"{where} has {len(group.scores)} scores for {len(group.rollouts)} rollouts")
        if isinstance(sampler, Evaluates):
            from_plugin(sampler.evaluate(groups), "evaluate()", area="eval/")
    if not trained:
        problems.append("it returned no rollout to train on in two steps")
    if isinstance(sampler, Stateful):
        problems += state_problems(sampler)
    return list(dict.fromkeys(problems))


def player(world: Any, tasks: Sequence[Task]) -> Any:
    """Make a policy that is now right, now wrong; in worlds of features it takes a legal action by its seed."""
    if world.speaks == Speaks.MESSAGES:
        texts = [*(task.reference or "a" for task in tasks), "a", "b"]
        return ScriptedPolicy(lambda context: texts[context.seed % len(texts)])

    def choose(context: Context) -> int:
        seen = context.observations[-1]
        assert isinstance(seen, Features)
        legal = [place for place, allowed in enumerate(seen.legal) if allowed]
        return legal[context.seed % len(legal)]

    policy = ScriptedChoices(choose)
    policy.prepare(world, frozenset())
    return policy
