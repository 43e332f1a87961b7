"""The environment ``gymnasium``: a task is a seed, a play is one episode of the simulator.

Simulators are kept and reused, since making one costs more than a hundred steps of a small one. A play that a time limit
ends is reported as truncated, with the state it was cut off at, so that a critic may value what would have followed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np

from orchestrator.api import Action, ConfigError, Features, Feedback, Problem, Speaks, Split, Task

from .config import GymnasiumConfig
from .simulators import make_simulator


class GymnasiumEnvironment:
    """Plays of one registered simulator.

    ``features`` and ``actions`` are the sizes of an observation and of the action space. Observations that are no flat
    box are flattened as ``gymnasium.spaces.flatten`` does (a discrete one becomes one-hot).
    """

    speaks = Speaks.FEATURES

    def __init__(self, config: GymnasiumConfig):
        """Make the first simulator.

        :raises ConfigError: it is not registered, refuses its arguments, or its spaces do not fit
        """
        self.config = config
        self._idle: list[gymnasium.Env] = []
        simulator = make_simulator(config.id, config.kwargs, config.max_steps)
        space = simulator.action_space
        if not isinstance(space, gymnasium.spaces.Discrete):
            raise ConfigError(
                [
                    Problem(
                        "environment.id",
                        f"{config.id} has the action space {space}; expected Discrete: the policies over features choose one of "
                        f"a fixed number of actions. Discretise it with a wrapper and register that under a new name",
                    )
                ]
            )
        try:
            self.features = int(gymnasium.spaces.flatdim(simulator.observation_space))
        except (NotImplementedError, ValueError) as error:
            raise ConfigError(
                [Problem("environment.id", f"the observations of {config.id} have no fixed size: {error}")]
            ) from None
        self.actions = int(space.n)
        self.first_action = int(space.start)
        self.flatten = _flattener(simulator.observation_space)
        self._idle.append(simulator)

    def tasks(self, split: Split) -> Iterator[Task]:
        """Endless; the seeds of the two splits are drawn apart."""
        stream = list(Split).index(split)
        for index in itertools.count():
            seed = int(np.random.SeedSequence((self.config.seed, stream, index)).generate_state(1)[0])
            yield Task(id=f"{self.config.id}/{split}/{index}", metadata={"seed": seed})

    def start(self, task: Task, seed: int) -> GymnasiumEpisode:
        """Play from the task's seed. The task fixes the simulator's chance entirely; ``seed`` is the policy's alone."""
        simulator = (
            self._idle.pop()
            if self._idle
            else make_simulator(self.config.id, self.config.kwargs, self.config.max_steps)
        )
        return GymnasiumEpisode(self, simulator, int(task.metadata["seed"]))

    def give_back(self, simulator: gymnasium.Env) -> None:
        """Keep a simulator for a later play."""
        self._idle.append(simulator)


class GymnasiumEpisode:
    """One play. Its last feedback carries ``return`` and ``length``."""

    def __init__(self, environment: GymnasiumEnvironment, simulator: gymnasium.Env, seed: int):
        self._environment = environment
        self._simulator: gymnasium.Env | None = simulator
        self._seed = seed
        self._all_legal = np.ones(environment.actions, dtype=bool)
        self._return, self._length = 0.0, 0

    def open(self) -> Features:
        assert self._simulator is not None
        observation, info = self._simulator.reset(seed=self._seed)
        return self._features(observation, info)

    def step(self, action: Action) -> Feedback:
        """Apply one action.

        :raises ValueError: it is not an index of the action space
        """
        (index,) = action.tokens
        if not 0 <= index < self._environment.actions:
            raise ValueError(f"action {index}: expected an index from 0 to {self._environment.actions - 1}")
        assert self._simulator is not None
        observation, reward, terminated, truncated, info = self._simulator.step(index + self._environment.first_action)
        reward = float(reward)
        self._return += reward
        self._length += 1
        done = bool(terminated or truncated)
        return Feedback(
            observation=self._features(observation, info),
            reward=reward,
            done=done,
            metrics={"return": self._return, "length": float(self._length)} if done else {},
            truncated=bool(truncated and not terminated),
        )

    def close(self) -> None:
        if self._simulator is not None:
            self._environment.give_back(self._simulator)
            self._simulator = None

    def _features(self, observation: Any, info: dict[str, Any]) -> Features:
        mask = info.get("action_mask")  # Gymnasium's convention, as in Taxi
        legal = self._all_legal if mask is None else np.asarray(mask, dtype=bool)
        return Features(values=self._environment.flatten(observation), legal=legal)


def _flattener(space: gymnasium.Space) -> Callable[[Any], np.ndarray]:
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return lambda observation: np.array(observation, dtype=np.float32)
    return lambda observation: np.asarray(gymnasium.spaces.flatten(space, observation), dtype=np.float32)
