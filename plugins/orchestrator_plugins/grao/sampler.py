"""The sampler: another sampler's groups, each with its task's demonstration as one more row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.api import Collect, Facts, RolloutGroup, RolloutRequest, Sampler, Task, facts_of

from .config import WithDemonstrationConfig


class WithDemonstration:
    """Plays the demonstration of every group the base sampler returns and appends it to the siblings."""

    def __init__(self, base: Sampler):
        self.base, self.inner = base, {"base": base}
        most = facts_of(base).most_siblings
        self.facts = Facts(demonstrates=True, most_siblings=None if most is None else most + 1)

    def sample(self, tasks: Sequence[Task], collect: Collect) -> Sequence[RolloutGroup]:
        """Sample, then demonstrate.

        :raises ValueError: when a task has no demonstration
        """
        for task in tasks:
            if task.demonstration is None:
                raise ValueError(
                    f"task {task.id!r} has no demonstration; the sampler `with_demonstration` needs one for every "
                    f"task. Choose an environment that gives Task.demonstration, or another sampler"
                )
        groups = self.base.sample(tasks, collect)
        shown = collect([RolloutRequest(task=group.task, count=1, demonstrate=True) for group in groups])
        return [_joined(group, extra) for group, extra in zip(groups, shown, strict=True)]


def with_demonstration(config: WithDemonstrationConfig) -> WithDemonstration:
    """Build the sampler around the one its options name."""
    return WithDemonstration(config.base.build())


def _joined(group: RolloutGroup, shown: RolloutGroup) -> RolloutGroup:
    """One group, left unscored: a reward may compare rollouts with the demonstration, so the core scores it whole."""
    return replace(group, rollouts=group.rollouts + shown.rollouts, scores=())
