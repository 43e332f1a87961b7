"""A world for tests of sweeps: one turn, two actions, and a reward that tells good configurations from bad ones.

The reward of an action is ``quality``, plus ``bonus`` for the first action: how soon the bonus is learnt depends on the
learning rate, which a search can vary. Each training episode takes ``seconds`` of sleep.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import numpy as np

from orchestrator.api import Component, Features, Feedback, PluginConfig, Speaks, Split, Task, hookimpl

logger = logging.getLogger(__name__)


class LadderConfig(PluginConfig):
    """Options of the environment ``ladder``."""

    quality: float = 0.0
    bonus: float = 0.01
    seconds: float = 0.0  # slept in each training episode
    raise_at: int | None = None  # the environment's n-th training episode in this process raises
    die_at: int | None = None  # the process is killed at that training episode, unless the mark says it was before
    mark: str | None = None  # file that remembers a death; None: it dies every time


class Ladder:
    """Tasks without end; features say nothing of the reward."""

    speaks = Speaks.FEATURES
    features = 2
    actions = 2

    def __init__(self, config: LadderConfig):
        self.config = config
        self.played = 0

    def tasks(self, split: Split):
        for index in range(4 if split is Split.EVAL else 1_000_000):
            yield Task(id=f"{split}-{index}")

    def start(self, task: Task, seed: int) -> Play:
        return Play(self, task)


class Play:
    def __init__(self, world: Ladder, task: Task):
        self.world, self.task = world, task

    def open(self) -> Features:
        if self.task.id.startswith("train"):
            self._train()
        place = int(self.task.id.rpartition("-")[2])
        return Features(values=np.array([1.0, place % 3], dtype=np.float32), legal=np.ones(2, dtype=bool))

    def step(self, action) -> Feedback:
        config = self.world.config
        bonus = config.bonus if action.tokens[0] == 0 else 0.0
        return Feedback(observation=None, reward=config.quality + bonus, done=True)

    def close(self) -> None:
        pass

    def _train(self) -> None:
        config, world = self.world.config, self.world
        world.played += 1
        time.sleep(config.seconds)
        if config.raise_at is not None and world.played >= config.raise_at:
            raise RuntimeError(f"no rung at {world.played}")
        died = config.mark is not None and Path(config.mark).exists()
        if config.die_at is not None and world.played >= config.die_at and not died:
            if config.mark is not None:
                Path(config.mark).touch()
            logger.info("dying at episode %s", world.played)
            os.kill(os.getpid(), signal.SIGKILL)


@hookimpl
def provide_environments() -> list[Component]:
    return [Component(name="ladder", config=LadderConfig, build=Ladder, speaks=Speaks.FEATURES)]
