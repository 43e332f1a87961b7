"""Which generated tasks are for what: four ranges that share no task, told apart by the task's own content."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any, TypeVar

from orchestrator.api import Split

from .worlds_config import SearchQAConfig, WorldConfig

T = TypeVar("T")

_END: Any = object()


class Range(StrEnum):
    """What a task is for."""

    TRAINING = "training"
    DEMONSTRATIONS = "demonstrations"
    VALIDATION = "validation"
    TEST = "test"


_SHARES = {Range.TRAINING: 60, Range.DEMONSTRATIONS: 20, Range.VALIDATION: 10, Range.TEST: 10}


def range_of(content: str, *, training: bool = True, evaluation: bool = True) -> Range:
    """Place a task by its content: equal tasks are in one range, whatever generated them and with which seed.

    :param training: whether it may be for training or demonstrations
    :param evaluation: whether it may be for validation or test
    :raises ValueError: when it may be for neither
    """
    if not (training or evaluation):
        raise ValueError("a task must be for something: training or evaluation")
    open_to = {Range.TRAINING: training, Range.DEMONSTRATIONS: training}
    shares = {name: share for name, share in _SHARES.items() if open_to.get(name, evaluation)}
    place = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") % sum(shares.values())
    ends = itertools.accumulate(shares.values())
    return next(name for name, end in zip(shares, ends, strict=True) if place < end)


def wanted_range(config: WorldConfig | SearchQAConfig, split: Split) -> Range:
    """The range a split draws from under these options."""
    return Range(config.train_on if Split(split) is Split.TRAIN else config.evaluate_on)


def drawn(config: WorldConfig, split: Split, stream: Iterable[T], content: Callable[[T], str]) -> Iterator[T]:
    """The tasks of a stream that belong to a split, as many as the options ask for."""
    most = config.train_tasks if Split(split) is Split.TRAIN else config.eval_tasks
    wanted = wanted_range(config, split)
    return itertools.islice((task for task in stream if range_of(content(task)) is wanted), most)


class Remembered(Iterable[T]):
    """A stream whose items are made once, however often it is read from the front."""

    def __init__(self, stream: Iterable[T]):
        self._stream, self._made = iter(stream), list[T]()

    def __iter__(self) -> Iterator[T]:
        for place in itertools.count():
            if place == len(self._made):
                made = next(self._stream, _END)
                if made is _END:
                    return
                self._made.append(made)
            yield self._made[place]
