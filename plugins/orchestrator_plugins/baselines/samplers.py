"""Samplers that ask once: the same number of rollouts for every task, or its demonstration."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.api import Collect, Facts, RolloutGroup, RolloutRequest, Task

from .config import DemonstrationsConfig, GroupConfig


class Group:
    """Gives every task the same number of rollouts."""

    def __init__(self, config: GroupConfig):
        self.count, self.facts = config.count, Facts(most_siblings=config.count)

    def sample(self, tasks: Sequence[Task], collect: Collect) -> Sequence[RolloutGroup]:
        return collect([RolloutRequest(task=task, count=self.count) for task in tasks])


class Demonstrations:
    """Plays each task's demonstration through the real episode; nothing is generated."""

    def __init__(self, config: DemonstrationsConfig):
        self.count, self.facts = config.count, Facts(most_siblings=config.count, demonstrates=True)

    def sample(self, tasks: Sequence[Task], collect: Collect) -> Sequence[RolloutGroup]:
        """Play the demonstrations.

        :raises ValueError: when a task has none
        """
        for task in tasks:
            if task.demonstration is None:
                raise ValueError(
                    f"task {task.id!r} has no demonstration; the sampler `demonstrations` needs one for every task. "
                    f"Choose an environment that gives Task.demonstration, or another sampler"
                )
        return collect([RolloutRequest(task=task, count=self.count, demonstrate=True) for task in tasks])
