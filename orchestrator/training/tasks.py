"""The tasks of a trial: the stream it trains on, and those it is evaluated on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from orchestrator.contract.types import Split, Task
from orchestrator.errors import blame
from orchestrator.rollout.handed import expect_tasks


class Tasks:
    """Training tasks in the environment's order; an exhausted split starts over."""

    def __init__(self, environment: Any, label: str | None):
        self._environment, self._label = environment, label
        self._stream: Iterator[Task] = iter(())
        self.taken = 0

    def take(self, count: int) -> list[Task]:
        """The next tasks.

        :raises ValueError: the environment has none, or gives what is no task
        """
        with blame(self._label):
            taken = list(itertools.islice(self._stream, count))
            while len(taken) < count:
                self._stream = iter(self._environment.tasks(Split.TRAIN))
                more = list(itertools.islice(self._stream, count - len(taken)))
                if not more:
                    raise ValueError("the environment has no training task")
                taken += more
            expect_tasks(taken, "TRAIN")
        self.taken += count
        return taken

    def held_out(self, count: int) -> list[Task]:
        """Tasks of an evaluation: as many as asked for, or all there are.

        :raises ValueError: the environment gives what is no task
        """
        with blame(self._label):
            held = list(itertools.islice(self._environment.tasks(Split.EVAL), count))
            expect_tasks(held, "EVAL")
            return held

    def skip(self, count: int) -> None:
        """Pass over those an earlier process of the trial took."""
        for _ in range(count // 1024):
            self.take(1024)
        self.take(count % 1024)
