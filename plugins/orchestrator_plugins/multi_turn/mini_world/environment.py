"""The environment ``mini_world``: a quest through rooms, in words, with the goal's last step as the only instruction."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from random import Random

from orchestrator.api import Action, Feedback, Finish, Messages, Speaks, Split, Task

from ..ranges import Remembered, drawn, wanted_range
from .config import MiniWorldConfig
from .generation import World, generate
from .play import Play
from .words import CANNOT, DIRECTIONS, DOOR, SUPPORTERS, UNKNOWN, VERBS

PERMUTED = dict(zip(VERBS, (*VERBS[1:], VERBS[0]), strict=True))
"""With ``commands: permuted``, the verb that says each verb: ``open north`` walks."""


class MiniWorld:
    """Generated worlds; ranges of tasks share none.

    A task's metadata hold ``number`` (the world's, from which it is made again) and ``level`` (``w2-o3-q4``).
    """

    speaks = Speaks.MESSAGES

    def __init__(self, config: MiniWorldConfig):
        self.config = config
        self.level = f"w{config.rooms}-o{config.objects}-q{config.quest_length}"
        self.world = lru_cache(4096)(self._world)
        self._evaluation = Remembered(self._tasks(Split.EVAL))

    def tasks(self, split: Split) -> Iterator[Task]:
        """Worlds in a fixed order; training is endless unless ``train_tasks`` bounds it."""
        return iter(self._evaluation) if Split(split) is Split.EVAL else self._tasks(Split.TRAIN)

    def start(self, task: Task, seed: int) -> MiniWorldEpisode:
        """Play one world; nothing in it is random."""
        return MiniWorldEpisode(self.config, self.world(task.metadata["number"]))

    def _tasks(self, split: Split) -> Iterator[Task]:
        name = wanted_range(self.config, split)
        numbers = drawn(self.config, split, count(), lambda number: repr(self.world(number)))
        for index, number in enumerate(numbers):
            world = self.world(number)
            yield Task(
                id=f"mini-{self.level}-{name}-{index}",
                prompt=_said(Play(world).tell()),
                demonstration=tuple(self._demonstrate(world, number)),
                metadata={"number": number, "level": self.level},
            )

    def _world(self, number: int) -> World:
        config = self.config
        return generate(
            Random(f"mini_world {config.seed} {self.level} {number}"),
            rooms=config.rooms,
            objects=config.objects,
            quest_length=config.quest_length,
        )

    def _demonstrate(self, world: World, number: int) -> Iterator[str]:
        """Play an expert that knows the way and, now and then, says any command that comes to its mind instead."""
        random = Random(f"mini_world expert {self.config.seed} {self.level} {number}")
        play, left = Play(world), self.config.turns
        while not play.won and left:
            wanders = random.random() < self.config.expert_error
            command = any_command(random, world) if wanders else play.advice()
            play.do(command.split())
            left -= 1
            yield spoken(command, permuted=self.config.commands == "permuted")


class MiniWorldEpisode:
    """One play; pays a point where a sub-goal that counts is reached for the first time.

    Metrics: ``correct`` (won, 0 or 1), ``max_score`` (the points there are), ``sub_goals`` (reached so far),
    ``impossible`` and ``malformed`` (commands that did nothing, and that were none). The limit on turns is a rule of
    the game: who reaches it has lost, no more would have followed.
    """

    def __init__(self, config: MiniWorldConfig, world: World):
        self._play = Play(world)
        self._left = config.turns
        self._cut_ends = config.cut_action == "ends"
        self._meaning = {PERMUTED[verb]: verb for verb in VERBS} if config.commands == "permuted" else {}
        self._counts = [pays(place, len(world.quest), config.score_every) for place in range(1, len(world.quest) + 1)]
        self._impossible = self._malformed = 0

    def open(self) -> Messages:
        return _said(self._play.tell())

    def step(self, action: Action) -> Feedback:
        play, before = self._play, self._play.reached
        self._left -= 1
        cut = action.finish is Finish.LENGTH
        verb, *rest = (action.text or "").split() or [""]
        result = UNKNOWN if cut else play.do([self._meaning.get(verb, verb), *rest])
        self._malformed += result == UNKNOWN
        self._impossible += result == CANNOT
        done = play.won or not self._left or (cut and self._cut_ends)
        return Feedback(
            observation=None if done else _said(play.tell(result)),
            reward=float(sum(self._counts[before : play.reached])),
            done=done,
            metrics={
                "correct": float(play.won),
                "max_score": float(sum(self._counts)),
                "sub_goals": float(play.reached),
                "impossible": float(self._impossible),
                "malformed": float(self._malformed),
            },
        )

    def close(self) -> None:
        pass


def pays(place: int, length: int, every: int) -> bool:
    """Whether the sub-goal at a place (from 1) is worth a point: the last always, others by density."""
    return place == length or (every > 0 and place % every == 0)


def spoken(command: str, *, permuted: bool) -> str:
    """A command as it must be said."""
    verb, rest = command.split(" ", 1)
    return f"{PERMUTED[verb] if permuted else verb} {rest}"


def any_command(random: Random, world: World) -> str:
    """A command in good form about this world's things, sensible or not; each verb is equally likely."""
    shut = [*world.containers, *([DOOR] if world.door else [])]
    thing = random.choice(list(world.objects))
    match random.choice(VERBS):
        case "go":
            return f"go {random.choice(list(DIRECTIONS))}"
        case "open":
            return f"open {random.choice(shut)}"
        case "unlock":
            keys = [name for name in world.objects if name.endswith("-key")]
            return f"unlock {random.choice(shut)} with {random.choice(keys or [thing])}"
        case "take":
            return f"take {thing}"
    place = random.choice([*world.supporters, *world.containers])
    return f"put {thing} {'on' if place in SUPPORTERS else 'in'} {place}"


def _said(text: str) -> Messages:
    return ({"role": "user", "content": text},)
