"""How far a trial has come and what it has spent: the part of a checkpoint that is neither weights nor state of a component."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.contract.settings import Budget, Resources
from orchestrator.rollout.collector import Cost
from orchestrator.training.distributed import Workers


@dataclass(slots=True, kw_only=True)
class Progress:
    """Counters of a trial; equal to what its checkpoint holds of them."""

    step: int = 0  # the last one taken
    evaluated: int = -1  # the last step that was evaluated after
    tasks: int = 0  # training tasks taken from the environment
    trained_tokens: int = 0
    observer_errors: dict[str, int] = field(default_factory=dict)  # of plugins that watch, when it was saved
    cost: Cost = field(default_factory=Cost)  # of training rollouts
    evaluation_cost: Cost = field(default_factory=Cost)
    seconds: float = 0.0  # of earlier processes of this trial
    began: float = field(default_factory=time.perf_counter, compare=False, repr=False)  # this process, on its own clock

    def elapsed(self) -> float:
        """Wall-clock seconds of the trial, earlier processes included."""
        return self.seconds + time.perf_counter() - self.began

    def spent(self, budget: Budget, workers: Workers) -> bool:
        """Whether the budget is used up, over all workers."""
        tokens = budget.generated_tokens
        if tokens is not None and workers.sum(self.cost.generated_tokens) >= tokens:
            return True
        return budget.seconds is not None and self.elapsed() >= budget.seconds

    def metrics(self, resources: Resources, workers: Workers) -> dict[str, float]:
        """The cost counters as every row of metrics has them, over all workers."""
        seconds, cost = self.elapsed(), self.cost
        return {
            "cost/generated_tokens": workers.sum(cost.generated_tokens),
            "cost/prompt_tokens": workers.sum(cost.prompt_tokens),
            "cost/trained_tokens": workers.sum(self.trained_tokens),
            "cost/rollouts": workers.sum(cost.rollouts),
            "cost/failed_rollouts": workers.sum(cost.failed_rollouts),
            "cost/evaluation_tokens": workers.sum(self.evaluation_cost.generated_tokens),
            "cost/seconds": seconds,
            "cost/device_seconds": seconds * (resources.gpus or resources.cpus) * workers.size,
        }

    def state_dict(self) -> dict[str, Any]:
        """The counters as plain JSON; a checkpoint keeps the step itself."""
        return {
            "evaluated": self.evaluated,
            "cost": asdict(self.cost),
            "evaluation_cost": asdict(self.evaluation_cost),
            "trained_tokens": self.trained_tokens,
            "observer_errors": self.observer_errors,
            "seconds": self.elapsed(),
            "tasks": self.tasks,
        }

    @classmethod
    def from_state(cls, step: int, state: Mapping[str, Any]) -> Progress:
        """Read what ``state_dict`` gave."""
        return cls(
            step=step,
            evaluated=state["evaluated"],
            cost=Cost(**state["cost"]),
            evaluation_cost=Cost(**state["evaluation_cost"]),
            trained_tokens=state["trained_tokens"],
            observer_errors=state.get("observer_errors", {}),  # earlier versions forgot them
            seconds=state["seconds"],
            tasks=state["tasks"],
        )
