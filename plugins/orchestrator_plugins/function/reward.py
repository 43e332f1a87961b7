"""The reward: a function of the user's, its answers checked, its errors named by file and line."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.api import ConfigError, Problem, Rollout, RolloutGroup, Score, Task, live_function

from .calling import Call
from .config import FunctionConfig
from .loading import load, where


class FunctionReward:
    """Scores each answer by what a function returns for its text; also in ``Score.parts`` under the function's name."""

    def __init__(self, config: FunctionConfig):
        """Import the file.

        :raises ConfigError: it cannot be imported, or has no such function
        """
        self.function = load(config.path) if config.path is not None else live_function(str(config.live))
        file, _, self.name = config.path.rpartition(":") if config.path is not None else ("", "", _name(self.function))
        self.file = Path(file or _file(self.function)).expanduser().absolute()
        try:
            self._call = Call(self.function, config.batch)
        except ValueError as error:
            raise ConfigError([Problem("reward.path", f"{self._whom}: {error}")]) from None

    def check_task(self, task: Task) -> Sequence[str]:
        """Parameters that the task has nothing for."""
        return [f"{self._whom}: {said}" for said in self._call.problems(task)]

    def score(self, group: RolloutGroup) -> Sequence[Score]:
        """Score the answers to one task.

        :raises TypeError: the function asks for what is not known of the task, or returns no numbers
        :raises RuntimeError: the function raised; names its file and line
        :raises ValueError: what it returns is not finite, or not one number for each answer
        """
        wrong = self.check_task(group.task)
        if wrong:
            raise TypeError("; ".join(wrong))
        texts = [_text(rollout) for rollout in group.rollouts]
        if self._call.batch:
            values = self._many(self._called([self._call.arguments(group, texts)], group)[0], len(texts), group)
        else:
            values = self._called([self._call.arguments(group, [text]) for text in texts], group)
        numbers = [self._number(value, group, place) for place, value in enumerate(values)]
        return [Score(value=number, parts={self.name: number}) for number in numbers]

    @property
    def _whom(self) -> str:
        return f"{self.file}:{self.name}"

    def _called(self, calls: Sequence[tuple[list[Any], dict[str, Any]]], group: RolloutGroup) -> list[Any]:
        try:
            made = [self.function(*ordered, **named) for ordered, named in calls]
            return _awaited(made) if any(map(inspect.isawaitable, made)) else made
        except Exception as error:
            raise RuntimeError(
                f"{where(error, self.file)}: {self.name}() raised {type(error).__name__}: {error}, for task {group.task.id!r}"
            ) from error

    def _many(self, values: Any, count: int, group: RolloutGroup) -> list[Any]:
        if hasattr(values, "tolist"):  # of numpy and torch
            values = values.tolist()
        if isinstance(values, str | bytes | dict) or not hasattr(values, "__iter__"):
            raise TypeError(self._returned(_short(values), group, f"{count} numbers, one for each text"))
        values = list(values)
        if len(values) != count:
            raise ValueError(self._returned(f"{len(values)} values", group, f"{count}, one for each text"))
        return values

    def _number(self, value: Any, group: RolloutGroup, place: int) -> float:
        expected = "a finite number" if not self._call.batch else f"a finite number for text {place}"
        if isinstance(value, str | bytes) or value is None or not hasattr(value, "__float__"):
            raise TypeError(self._returned(_short(value), group, expected))
        try:
            number = float(value)
        except (TypeError, ValueError) as error:  # an array of several
            raise TypeError(self._returned(_short(value), group, expected)) from error
        if not math.isfinite(number):
            raise ValueError(self._returned(_short(value), group, expected))
        return number

    def _returned(self, shown: str, group: RolloutGroup, expected: str) -> str:
        line = getattr(getattr(inspect.unwrap(self.function), "__code__", None), "co_firstlineno", 0)
        at = f"{self.file}:{line}" if line else str(self.file)
        return f"{at}: {self.name}() returned {shown} for task {group.task.id!r}; expected {expected}"


class _Loop:
    """An event loop in a thread of its own: it outlives a call, and works where the caller runs one already."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="reward-functions", daemon=True).start()

    def run(self, awaitables: Sequence[Any]) -> list[Any]:
        async def together() -> list[Any]:
            return list(await asyncio.gather(*awaitables))

        future = asyncio.run_coroutine_threadsafe(together(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


_loops: list[_Loop] = []  # none, or the process's one


def _awaited(awaitables: Sequence[Any]) -> list[Any]:
    if not _loops:
        _loops.append(_Loop())
    return _loops[0].run(awaitables)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _text(rollout: Rollout) -> str:
    """What a rollout said, turn below turn."""
    return "\n".join(turn.action.text or "" for turn in rollout.turns)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _file(function: Callable[..., Any]) -> str:
    return getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", "function")
