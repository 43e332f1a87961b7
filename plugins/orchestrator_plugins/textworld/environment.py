"""The environment ``textworld``: a task is a generated game, a play is one session with its interpreter.

Games are generated when their tasks are first asked for, and kept. A play's first message is known from the generation;
its process hears of it with the first command.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.api import Action, ConfigError, Feedback, Finish, Messages, Problem, Speaks, Split, Task

from .config import Cut, TextWorldConfig, default_cache, default_processes, seeds_of
from .games import Game, Games
from .pool import Ask, GameError, Pool
from .text import Situation, command_of, following, opening


class TextWorld:
    """Games by seed; those for training, demonstrations, validation and test never share one.

    A task's metadata hold ``seed`` (the generator's), ``level`` and ``max_score``.
    """

    speaks = Speaks.MESSAGES

    def __init__(self, config: TextWorldConfig, pool: Pool | None = None):
        """Name the folder and the processes; nothing is made or started yet.

        :param pool: where games are made and played; None: one of its own
        """
        self.config = config
        self.pool = pool or Pool(config.processes or default_processes())
        self.games = Games(config.generator(), config.cache or default_cache(), self.pool, config.make_seconds)
        self._names = itertools.count()

    def tasks(self, split: Split) -> Iterator[Task]:
        """Games in the order of their seeds; missing ones are generated some ahead.

        :raises ConfigError: no games can be generated with these options
        """
        config = self.config
        chosen = config.train_on if split is Split.TRAIN else config.evaluate_on
        most = config.train_tasks if split is Split.TRAIN else None
        games = self._wanted(self.games.take(seeds_of(chosen, config.seed)), str(chosen))
        return itertools.islice((self._task(game, str(chosen)) for game in games), most)

    def start(self, task: Task, seed: int) -> TextWorldEpisode:
        """Play one game; nothing in it is random.

        :raises GameError: the game has not been generated and cannot be
        """
        (game,) = self.games.take([task.metadata["seed"]])
        return TextWorldEpisode(self, game, next(self._names))

    def open_together(self, episodes: Sequence[TextWorldEpisode]) -> list[Messages]:
        return [episode.open() for episode in episodes]

    def step_together(
        self, episodes: Sequence[TextWorldEpisode], actions: Sequence[Action]
    ) -> list[Feedback | GameError]:
        """Give every game its command, side by side; a game that hangs or dies has an error in its place."""
        asks = [episode.ask(action) for episode, action in zip(episodes, actions, strict=True)]
        answers = iter(self.pool.run([ask for ask in asks if isinstance(ask, Ask)]))
        return [
            episode.hear(next(answers)) if isinstance(ask, Ask) else ask
            for episode, ask in zip(episodes, asks, strict=True)
        ]

    def _task(self, game: Game, kind: str) -> Task:
        config = self.config
        return Task(
            id=f"textworld-{config.level}-{kind}-{game.seed}",
            prompt=opening(game.objective, Situation.first(game.opening, game.inventory), config.prompt),
            demonstration=game.walkthrough,
            metadata={"seed": game.seed, "level": config.level, "max_score": game.max_score},
        )

    def _wanted(self, games: Iterator[Game], kind: str) -> Iterator[Game]:
        """Those a play of ``max_turns`` can win, and of the exact length where that is asked for."""
        config, missed = self.config, 0
        for game in _reported(games):
            length = len(game.walkthrough)
            if length <= config.turns and not (config.exact_length and length != config.quest_length):
                missed = 0
                yield game
                continue
            missed += 1
            if missed == MISSES:
                raise ConfigError(
                    [
                        Problem(
                            "environment",
                            f"{missed} {kind} games in a row do not fit: the last has a solution of {length} steps, with "
                            f"max_turns {config.turns}"
                            + (f" and {config.quest_length} steps wanted" * config.exact_length),
                        )
                    ]
                )


MISSES = 64  # games in a row that do not fit after which none will


class TextWorldEpisode:
    """One play. Rewards are the points a command gained.

    Metrics of every feedback: ``correct`` (1 once the game is won; over is not won), ``lost``, ``score``, ``max_score``.
    """

    def __init__(self, environment: TextWorld, game: Game, name: int):
        self._environment, self._game, self._name = environment, game, name
        self._config = environment.config
        self._situation = Situation.first(game.opening, game.inventory)
        self._commands: list[str] = []  # the game has heard these
        self._command = ""
        self._turns = self._score = 0
        self._won = self._lost = False

    def open(self) -> Messages:
        return opening(self._game.objective, self._situation, self._config.prompt)

    def step(self, action: Action) -> Feedback:
        """Give one command.

        :raises GameError: the game did not answer within its time, or its process died
        """
        (answer,) = self._environment.step_together([self], [action])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self._environment.pool.drop(self._name)

    def ask(self, action: Action) -> Ask | Feedback:
        """What to ask the game for an action; where it is not for the game, what follows."""
        self._turns += 1
        if action.finish is Finish.LENGTH:
            if self._config.cut_action is Cut.ENDS:
                return Feedback(observation=None, reward=0.0, done=True, metrics=self._metrics())
            command = None
        else:
            command = command_of(action.text or "")
        if command is None:
            self._situation = self._situation.refused()
            return self._feedback(0.0)
        self._command = command
        limit = self._config.step_seconds
        return Ask(
            message={"do": "play", "game": self._name, "command": command},
            limit=limit,
            what=f"game {self._game.seed}, command {command!r}",
            game=self._name,
            revive={"file": str(self._game.file), "history": tuple(self._commands)},
            revive_limit=limit * (2 + len(self._commands)),
        )

    def hear(self, answer: Mapping[str, Any] | GameError) -> Feedback | GameError:
        """Take in what the game answered to the command it was asked last."""
        if isinstance(answer, GameError):
            return answer
        self._commands.append(self._command)
        self._situation = self._situation.after(answer)
        gained, self._score = answer["score"] - self._score, answer["score"]
        self._won, self._lost = answer["won"], answer["lost"]
        return self._feedback(float(gained))

    def _feedback(self, reward: float) -> Feedback:
        over = self._won or self._lost or self._turns >= self._config.turns  # the budget is a rule: nothing follows
        return Feedback(
            observation=None if over else following(self._situation, self._config.prompt),
            reward=reward,
            done=over,
            metrics=self._metrics(),
        )

    def _metrics(self) -> dict[str, float]:
        return {
            "correct": float(self._won),
            "lost": float(self._lost),
            "score": float(self._score),
            "max_score": float(self._game.max_score),
        }


def _reported(games: Iterator[Game]) -> Iterator[Game]:
    """The games; an error in making them is one of the experiment, not of a rollout."""
    try:
        yield from games
    except GameError as error:
        raise ConfigError([Problem("environment", str(error))]) from error
