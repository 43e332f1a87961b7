"""A sampler with a state: the number of rollouts a task gets follows from how many tasks it has sampled so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.api import Component, RolloutRequest, hookimpl


class Alternating:
    def __init__(self, config: Any):
        self.sampled = 0

    def sample(self, tasks: Sequence[Any], collect: Any) -> list[Any]:
        requests = [RolloutRequest(task=task, count=2 + (self.sampled + place) % 3) for place, task in enumerate(tasks)]
        self.sampled += len(tasks)
        return collect(requests)

    def state_dict(self) -> dict[str, Any]:
        return {"sampled": self.sampled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sampled = state["sampled"]


@hookimpl
def provide_samplers() -> list[Component]:
    return [Component(name="alternating", build=Alternating)]
