"""The environment ``mixture``: several environments as levels of one, for mixtures, curricula and tests of transfer."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from orchestrator.api import (
    Action,
    Environment,
    Episode,
    Evaluates,
    Feedback,
    MultiAgentEpisode,
    Observation,
    RolloutGroup,
    Speaks,
    Split,
    Stateful,
    StepsTogether,
    Task,
)

from .config import MixtureConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One environment of a mixture."""

    name: str
    world: Environment
    weight: float  # of its training tasks; 0: only tested
    evaluated: bool = True


class Levels:
    """Training tasks by level and number, for samplers that choose levels themselves; every task carries it.

    Numbers count from 0 and go on where a world's tasks are exhausted: it then starts over.
    """

    def __init__(self, levels: Sequence[Level]):
        self._worlds = {level.name: level.world for level in levels}
        self._streams: dict[str, tuple[int, Iterator[Task]]] = {}
        self.names = tuple(self._worlds)

    def task(self, level: str, number: int) -> Task:
        """The training task of that number. Asking in ascending order is cheap, going back starts over.

        :raises ValueError: when there is no such level, or it has no training task
        """
        if level not in self._worlds:
            raise ValueError(f"no level {level!r} in this mixture; its levels: {', '.join(self.names)}")
        reached, stream = self._streams.get(level, (0, iter(())))
        if number < reached or level not in self._streams:
            reached, stream = 0, _endless(self._worlds[level], level)
        found = next(itertools.islice(stream, number - reached, None))
        self._streams[level] = number + 1, stream
        return labelled(found, level, self)


class Mixture:
    """Several environments as one: training tasks interleaved by weight, evaluation tasks level by level in turn.

    A task's id starts with its level, as in ``w2-o3-q4/train-17``; its metadata are the world's own with ``level``
    (the name), ``levels`` (all training tasks of all levels, for samplers that choose) and ``task`` (the world's own
    task) in addition. Success in evaluation is reported by level: one trial then says how far it carries over.
    """

    def __init__(self, levels: Sequence[Level]):
        """Wire a mixture.

        :raises ValueError: when the worlds speak different languages, or in numbers of different sizes
        """
        self._levels = {level.name: level for level in levels}
        self._handle = Levels(levels)  # for those who choose; what is drawn in order has streams of its own
        self.speaks = _shared(levels, "speaks")
        if self.speaks == Speaks.FEATURES:
            self.features, self.actions = _shared(levels, "features"), _shared(levels, "actions")

    def tasks(self, split: Split) -> Iterable[Task]:
        """Training tasks without end, each world starting over by itself; evaluation tasks until all are through."""
        return self._training() if split == Split.TRAIN else self._evaluation()

    def start(self, task: Task, seed: int) -> Placed:
        """Play a task in its own world."""
        level = task.metadata["level"]
        world = self._levels[level].world
        return Placed(level, world.start(task.metadata["task"], seed))

    def evaluate(self, groups: Sequence[RolloutGroup]) -> Mapping[str, float]:
        """Success and mean score of each level, and what its world measures itself, as ``<level>/<name>``."""
        by_level: dict[str, list[RolloutGroup]] = defaultdict(list)
        for group in groups:
            by_level[group.task.metadata["level"]].append(group)
        found: dict[str, float] = {}
        for name, members in by_level.items():
            own = [replace(group, task=group.task.metadata["task"]) for group in members]
            world = self._levels[name].world
            if isinstance(world, Evaluates):
                measured = world.evaluate(own)
                found |= {f"{name}/{metric}": value for metric, value in measured.items()}
            rollouts = [rollout for group in members for rollout in group.rollouts]
            known = [float(rollout.metrics["correct"] > 0) for rollout in rollouts if "correct" in rollout.metrics]
            if known:
                found[f"{name}/success"] = fmean(known)
            scores = [score.value for group in members for score in group.scores]
            if scores:
                found[f"{name}/reward"] = fmean(scores)
        return found

    def state_dict(self) -> dict[str, Any]:
        """States of the worlds that have one, by level."""
        return {n: level.world.state_dict() for n, level in self._levels.items() if isinstance(level.world, Stateful)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the worlds' states."""
        for name, own in state.items():
            world = self._levels[name].world
            assert isinstance(world, Stateful)
            world.load_state_dict(own)

    def _training(self) -> Iterator[Task]:
        weights = {name: level.weight for name, level in self._levels.items() if level.weight > 0}
        streams = {name: _endless(self._levels[name].world, name) for name in weights}
        taken = dict.fromkeys(weights, 0)
        while True:
            name = next_level(weights, taken)
            yield labelled(next(streams[name]), name, self._handle)
            taken[name] += 1

    def _evaluation(self) -> Iterator[Task]:
        streams = {name: iter(level.world.tasks(Split.EVAL)) for name, level in self._levels.items() if level.evaluated}
        while streams:
            for name in list(streams):
                task = next(streams[name], None)
                if task is None:
                    del streams[name]
                else:
                    yield labelled(task, name, self._handle)


class MixtureTogether(Mixture):
    """A mixture some of whose worlds open and step their episodes together: each world gets one call."""

    def open_together(self, episodes: Sequence[Placed]) -> Sequence[Observation | Exception]:
        """Begin episodes, those of one level together where their world can."""
        return self._together(episodes, "open")

    def step_together(self, episodes: Sequence[Placed], actions: Sequence[Action]) -> Sequence[Feedback | Exception]:
        """Apply one action to each episode, those of one level together where their world can."""
        return self._together(episodes, "step", actions)

    def _together(self, episodes: Sequence[Placed], method: str, *arguments: Sequence[Any]) -> list[Any]:
        answers: list[Any] = [None] * len(episodes)
        by_level: dict[str, list[int]] = defaultdict(list)
        for place, episode in enumerate(episodes):
            by_level[episode.level].append(place)
        for name, places in by_level.items():
            world = self._levels[name].world
            own = [
                [episodes[place].inner for place in places],
                *([each[place] for place in places] for each in arguments),
            ]
            for place, answer in zip(places, _ask(world, method, own), strict=True):
                answers[place] = answer
        return answers


class Placed:
    """An episode with the level it is played in."""

    __slots__ = ("inner", "level")

    def __init__(self, level: str, inner: Episode | MultiAgentEpisode):
        self.level, self.inner = level, inner

    def open(self) -> Any:
        """Begin."""
        return self.inner.open()

    def step(self, action: Any) -> Any:
        """Apply one action, or those of several agents."""
        return self.inner.step(action)

    def close(self) -> None:
        """Free what the play holds."""
        self.inner.close()


def mixture(config: MixtureConfig) -> Mixture:
    """Build the mixture of the worlds its options name."""
    worlds = config.worlds
    return mixed([Level(name=w.level, world=w.build(), weight=w.weight, evaluated=w.evaluated) for w in worlds])


def mixed(levels: Sequence[Level]) -> Mixture:
    """Build a mixture, with calls for many episodes at once where one of its worlds takes them."""
    together = any(isinstance(level.world, StepsTogether) for level in levels)
    return (MixtureTogether if together else Mixture)(levels)


def next_level(weights: Mapping[str, float], taken: Mapping[str, int]) -> str:
    """The level that lags most behind its share; of equals the first. Weight 0 is never taken.

    :param weights: by level, at least one above 0
    :param taken: tasks drawn so far, by level
    """
    total = sum(weights.values())
    drawn = 1 + sum(taken.get(name, 0) for name in weights)
    return max(
        (name for name, weight in weights.items() if weight > 0),
        key=lambda name: weights[name] / total * drawn - taken.get(name, 0),
    )


def labelled(task: Task, level: str, levels: Levels) -> Task:
    """A world's task as the mixture hands it out."""
    metadata = {**task.metadata, "level": level, "levels": levels, "task": task}
    return replace(task, id=f"{level}/{task.id}", metadata=metadata)


def _endless(world: Environment, level: str) -> Iterator[Task]:
    while True:
        empty = True
        for task in world.tasks(Split.TRAIN):
            empty = False
            yield task
        if empty:
            raise ValueError(f"the world of level {level!r} has no training task")


def _shared(levels: Sequence[Level], name: str) -> Any:
    found = {level.name: getattr(level.world, name, None) for level in levels}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{level}: {value}" for level, value in found.items())
        raise ValueError(f"the worlds of a mixture must have the same {name}; given {listed}")
    return next(iter(found.values()))


def _ask(world: Environment, method: str, arguments: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """One answer an episode: in one call where the world takes it, else one by one; exceptions stand as answers."""
    episodes = arguments[0]
    if isinstance(world, StepsTogether):
        try:
            answers = getattr(world, f"{method}_together")(*arguments)
            if len(answers) != len(episodes):
                raise ValueError(f"{method}_together returned {len(answers)} answers for {len(episodes)} episodes")
            return answers
        except Exception as error:  # of this world's episodes; the other levels go on
            return [error] * len(episodes)
    answers = []
    for episode, *rest in zip(*arguments, strict=True):
        try:
            answers.append(getattr(episode, method)(*rest))
        except Exception as error:  # an answer that fails its own episode alone
            answers.append(error)
    return answers
