"""The environment ``gymnasium_text``: simulators whose observations and actions are texts, as a conversation.

A task is a seed of ``reset``. Simulators are kept and reused, but for those that raised.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from orchestrator.api import Action, ConfigError, Feedback, Finish, Messages, Problem, Speaks, Split, Task

from .config import Cut, GymnasiumTextConfig
from .simulators import make_simulator

REFUSED = "This is not a possible action."
_STREAMS = ("train", "validation", "test")


class GymnasiumText:
    """Plays of one registered simulator, one message a turn."""

    speaks = Speaks.MESSAGES

    def __init__(self, config: GymnasiumTextConfig):
        """Import the module that registers the simulator, and make the first.

        :raises ConfigError: it cannot be imported or made, or its observations or actions are no texts
        """
        self.config = config
        self._idle: list[gymnasium.Env] = []
        if config.module is not None:
            try:
                importlib.import_module(config.module)
            except Exception as error:  # whatever a module of the user's does wrong, it is the module that is named
                reason = error if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
                raise ConfigError(
                    [Problem("environment.module", f"{config.module} cannot be imported: {reason}")]
                ) from error
        simulator = self._make()
        problems = _space_problems(simulator, config)
        if problems:
            raise ConfigError(problems)
        self._idle.append(simulator)

    def tasks(self, split: Split) -> Iterator[Task]:
        """Seeds, drawn apart for training, validation and test; without end, but for ``train_tasks``."""
        config = self.config
        kind = "train" if split is Split.TRAIN else str(config.evaluate_on)
        most = config.train_tasks if split is Split.TRAIN else None
        for index in itertools.count() if most is None else range(most):
            words = (config.seed, _STREAMS.index(kind), index)
            seed = int(np.random.SeedSequence(words).generate_state(1)[0])
            yield Task(
                id=f"{config.id}/{kind}/{index}", metadata={"seed": seed, "kind": kind, "max_score": config.max_score}
            )

    def start(self, task: Task, seed: int) -> GymnasiumTextEpisode:
        """Play from the task's seed, which fixes the simulator's chance entirely."""
        return GymnasiumTextEpisode(self, self._idle.pop() if self._idle else self._make(), task)

    def give_back(self, simulator: gymnasium.Env) -> None:
        """Keep a simulator for a later play."""
        self._idle.append(simulator)

    def text_of(self, observation: Any) -> str:
        """The text in an observation.

        :raises TypeError: there is none
        """
        key = self.config.observation_key
        text = observation if key is None else observation[key]
        if not isinstance(text, str):
            raise TypeError(f"{self.config.id} showed a {type(text).__name__} where its observation space has a text")
        return text

    def _make(self) -> gymnasium.Env:
        return make_simulator(self.config.id, self.config.kwargs, self.config.max_turns)


class GymnasiumTextEpisode:
    """One play.

    Metrics of every feedback: ``correct`` (has succeeded), ``max_score``, ``return``, ``length`` and
    ``invalid_actions``, the actions that did not reach the simulator.
    """

    def __init__(self, environment: GymnasiumText, simulator: gymnasium.Env, task: Task):
        self._environment, self._config = environment, environment.config
        self._simulator: gymnasium.Env | None = simulator
        self._task = task
        self._return, self._length, self._invalid = 0.0, 0, 0
        self._succeeded = False
        self._sound = False  # not while a call of the simulator may raise

    def open(self) -> Messages:
        assert self._simulator is not None
        options = self._config.reset_options.get(self._task.metadata["kind"])
        observation, _ = self._simulator.reset(seed=self._task.metadata["seed"], options=options)
        first = self._message(self._config.prompt, self._environment.text_of(observation))
        self._sound = True
        return first

    def step(self, action: Action) -> Feedback:
        """Say a text to the simulator, if it is one of its actions."""
        assert self._simulator is not None
        self._length += 1
        text = (action.text or "").strip()
        cut = action.finish is Finish.LENGTH
        if cut or (self._config.check_actions and not self._simulator.action_space.contains(text)):
            self._invalid += 1
            return self._feedback(REFUSED, 0.0, over=cut and self._config.cut_action is Cut.ENDS, truncated=False)
        self._sound = False
        observation, reward, terminated, truncated, info = self._simulator.step(text)
        shown = self._environment.text_of(observation)
        self._return += float(reward)
        self._succeeded = self._success(info)
        self._sound = True
        return self._feedback(shown, float(reward), over=bool(terminated), truncated=bool(truncated))

    def close(self) -> None:
        if self._simulator is not None:
            if self._sound:
                self._environment.give_back(self._simulator)
            else:
                self._simulator.close()
            self._simulator = None

    def _success(self, info: dict[str, Any]) -> bool:
        key = self._config.success_key
        if key is None:
            return self._return >= self._config.success_at
        if key not in info:
            raise KeyError(
                f"the info of {self._config.id} has no {key!r} (environment.success_key); it has "
                f"{', '.join(map(repr, sorted(info))) or 'nothing'}"
            )
        return bool(info[key])

    def _feedback(self, shown: str, reward: float, *, over: bool, truncated: bool) -> Feedback:
        # A refused action never reaches the simulator's own time limit, so turns are counted here too.
        spent = self._config.max_turns is not None and self._length >= self._config.max_turns
        cut_off = not over and (truncated or spent)
        return Feedback(
            observation=None if over else self._message(self._config.reply, shown),
            reward=reward,
            done=over or cut_off,
            truncated=cut_off,
            metrics={
                "correct": float(self._succeeded),
                "max_score": self._config.max_score,
                "return": self._return,
                "length": float(self._length),
                "invalid_actions": float(self._invalid),
            },
        )

    @staticmethod
    def _message(template: str, text: str) -> Messages:
        return ({"role": "user", "content": template.format(observation=text)},)


def _space_problems(simulator: gymnasium.Env, config: GymnasiumTextConfig) -> list[Problem]:
    """What keeps a simulator's spaces from being texts, all of it."""
    text, problems = gymnasium.spaces.Text, []
    if not isinstance(simulator.action_space, text):
        problems.append(
            Problem(
                "environment.id",
                f"{config.id} has the action space {simulator.action_space}; expected Text. For a fixed number of actions "
                f"use the environment gymnasium; otherwise register it with a wrapper whose action_space is Text",
            )
        )
    space, key = simulator.observation_space, config.observation_key
    texts = [part for part, inner in _parts(space) if isinstance(inner, text)]
    if key is None and not isinstance(space, text):
        hint = f"choose its text with observation_key: {' or '.join(map(str, texts))}" if texts else "it has no text"
        problems.append(
            Problem("environment.observation_key", f"{config.id} has the observation space {space}; {hint}")
        )
    elif key is not None and key not in texts:
        has = f"texts at {', '.join(map(repr, texts))}" if texts else "no part that is a text"
        problems.append(Problem("environment.observation_key", f"{key!r}: the observations of {config.id} have {has}"))
    return problems


def _parts(space: gymnasium.Space) -> list[tuple[str | int, gymnasium.Space]]:
    if isinstance(space, gymnasium.spaces.Dict):
        return list(space.spaces.items())
    return list(enumerate(space.spaces)) if isinstance(space, gymnasium.spaces.Tuple) else []
