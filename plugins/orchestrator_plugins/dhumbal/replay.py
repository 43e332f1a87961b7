"""The sampler ``replay``: plays each task once, remembers the rollouts, trains on remembered ones.

With the objective ``q_learning`` it makes deep Q-learning out of the core's loop. Exploration is a softmax over action
values whose temperature falls with every step.

Deviation: the study explores epsilon-greedily and draws single transitions. A policy here samples from its own
distribution, and the batch holds whole rollouts; the loss still counts every decision alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from orchestrator.api import (
    Action,
    Collect,
    Facts,
    Features,
    Rollout,
    RolloutGroup,
    RolloutRequest,
    Sampling,
    Score,
    Stop,
    Task,
    Turn,
)

from .config import ReplayConfig


class Replay:
    """A buffer of rollouts of feature policies; its whole content travels in checkpoints."""

    facts = Facts(most_siblings=1)  # remembered rollouts stand alone

    def __init__(self, config: ReplayConfig):
        self.config = config
        self.temperature = config.temperature_start
        self._groups: deque[RolloutGroup] = deque()
        self._decisions = 0
        self._fresh = 0

    def sample(self, tasks: Sequence[Task], collect: Collect) -> list[RolloutGroup]:
        """Play the tasks, remember them, draw what to train on.

        :raises TypeError: a rollout's observations are no features
        """
        sampling = Sampling(temperature=self.temperature)
        played = collect([RolloutRequest(task=task, count=1, sampling=sampling) for task in tasks])
        self._fresh = 0
        for group in played:
            for rollout, score in zip(group.rollouts, group.scores, strict=True):
                self._remember(RolloutGroup(task=group.task, rollouts=(rollout,), scores=(score,)))
        self.temperature = max(self.config.temperature_end, self.temperature * self.config.decay)
        count = min(self.config.rollouts, len(self._groups))
        # The core seeds torch's generator for every step, so a resumed trial draws as an uninterrupted one.
        return [self._groups[index] for index in torch.randperm(len(self._groups))[:count].tolist()]

    def report(self) -> Mapping[str, float]:
        """Size of the buffer and exploration, for the step's metrics."""
        return {
            "dhumbal/replay_decisions": float(self._decisions),
            "dhumbal/replay_rollouts": float(len(self._groups)),
            "dhumbal/explore_temperature": self.temperature,
        }

    def state_dict(self) -> dict[str, Any]:
        """The buffer as tensors and JSON values."""
        turns = [turn for group in self._groups for turn in group.rollouts[0].turns]
        cuts = [group.rollouts[0].cut_at for group in self._groups]
        # the environments of this plugin speak in features
        seen = cast("list[Features]", [turn.observation for turn in turns] + [cut for cut in cuts if cut is not None])
        return {
            "temperature": self.temperature,
            "features": torch.from_numpy(np.stack([f.values for f in seen])) if seen else torch.zeros(0, 0),
            "legal": torch.from_numpy(np.stack([f.legal for f in seen])) if seen else torch.zeros(0, 0),
            "actions": torch.tensor([turn.action.tokens[0] for turn in turns], dtype=torch.int64),
            "logprobs": torch.tensor([turn.action.logprobs[0] for turn in turns], dtype=torch.float64),
            "rewards": torch.tensor([turn.reward for turn in turns], dtype=torch.float64),
            "rollouts": [_describe(group) for group in self._groups],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.temperature = state["temperature"]
        self._groups.clear()
        self._decisions = 0
        features, legal = state["features"].cpu().numpy(), state["legal"].cpu().numpy().astype(bool)
        numbers = zip(*(state[name].tolist() for name in ("actions", "logprobs", "rewards")), strict=True)
        seen = iter([Features(values=v, legal=allowed) for v, allowed in zip(features, legal, strict=True)])
        rows = []
        for described in state["rollouts"]:
            turns = tuple(
                Turn(
                    observation=next(seen),
                    action=Action(tokens=(action,), logprobs=(logprob,)),
                    reward=reward,
                    step=step,
                )
                for step, (action, logprob, reward) in zip(
                    described["steps"], numbers, strict=False
                )  # as many as the rollout has
            )
            rows.append((described, turns))
        for described, turns in rows:
            self._groups.append(_restore(described, turns, next(seen) if described["cut"] else None))
            self._decisions += len(turns)

    def _remember(self, group: RolloutGroup) -> None:
        rollout = group.rollouts[0]
        if not all(isinstance(turn.observation, Features) for turn in rollout.turns):
            raise TypeError("replay remembers features, not messages; use it with an environment that speaks features")
        self._groups.append(group)
        self._decisions += len(rollout.turns)
        while self._decisions > self.config.capacity and len(self._groups) > 1:
            self._decisions -= len(self._groups.popleft().rollouts[0].turns)


def _describe(group: RolloutGroup) -> dict[str, Any]:
    """What a rollout is beside its observations and numbers, as JSON."""
    rollout, score = group.rollouts[0], group.scores[0]
    return {
        "task": {"id": group.task.id, "metadata": dict(group.task.metadata)},
        "index": rollout.index,
        "seed": rollout.seed,
        "stop": str(rollout.stop),
        "version": rollout.weights_version,
        "metrics": dict(rollout.metrics),
        "temperature": rollout.sampling.temperature,
        "steps": [turn.step for turn in rollout.turns],
        "cut": rollout.cut_at is not None,
        "value": score.value,
        "turns": None if score.turns is None else list(score.turns),
    }


def _restore(described: Mapping[str, Any], turns: tuple[Turn, ...], cut: Features | None) -> RolloutGroup:
    task = Task(id=described["task"]["id"], metadata=described["task"]["metadata"])
    rollout = Rollout(
        task_id=task.id,
        index=described["index"],
        seed=described["seed"],
        turns=turns,
        stop=Stop(described["stop"]),
        weights_version=described["version"],
        metrics=described["metrics"],
        sampling=replace(Sampling(), temperature=described["temperature"]),
        cut_at=cut,
    )
    paid = None if described["turns"] is None else tuple(described["turns"])
    return RolloutGroup(task=task, rollouts=(rollout,), scores=(Score(value=described["value"], turns=paid),))
