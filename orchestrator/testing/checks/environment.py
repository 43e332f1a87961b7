"""The contract of an environment and its episodes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any
from zlib import crc32

from orchestrator.contract.metrics import number
from orchestrator.contract.roles import MultiAgentEpisode, StepsTogether
from orchestrator.contract.types import (
    Action,
    Features,
    Observation,
    Speaks,
    Split,
    Task,
)
from orchestrator.rollout.handed import (
    LARGEST_REWARD,
    Language,
    expect_feedback,
    expect_metrics,
    expect_tasks,
    sent_back,
)
from orchestrator.testing.checks.metrics import metric_problems

STEPS = 12  # actions per play of an environment


def check_environment(build: Callable[[], Any], **_: Any) -> list[str]:
    """Broken rules of an environment and its episodes."""
    environment, problems = build(), []
    by_split = {split: list(islice(environment.tasks(split), 4)) for split in Split}
    for split, tasks in by_split.items():
        if not tasks:
            problems.append(f"tasks({split.name}) gives none")
        expect_tasks(tasks, split.name)
        if tasks != list(islice(environment.tasks(split), 4)):
            problems.append(f"tasks({split.name}) gives other tasks when called again")
        if [task.id for task in tasks] != [task.id for task in islice(build().tasks(split), 4)]:
            problems.append(f"tasks({split.name}) differ between two environments with the same options")
        if len({task.id for task in tasks}) < len(tasks):
            problems.append(f"tasks({split.name}) repeats an id")
    if {task.id for task in by_split[Split.TRAIN]} & {task.id for task in by_split[Split.EVAL]}:
        problems.append("TRAIN and EVAL share task ids")
    if environment.speaks == Speaks.FEATURES:
        problems += [
            f"an environment of features needs the attribute {name!r}, a positive number"
            for name in ("features", "actions")
            if not (isinstance(getattr(environment, name, None), int) and getattr(environment, name) > 0)
        ]
    if problems:
        return problems
    for task in by_split[Split.TRAIN][:2]:
        first, again = _Play(environment, task, seed=7), _Play(environment, task, seed=7)
        problems += first.problems
        if first.log != again.log:
            problems.append(f"two plays of task {task.id!r} with one seed and the same actions differ")
        if isinstance(environment, StepsTogether):
            together = _Play(environment, task, seed=7, together=True)
            if together.log != first.log:
                problems.append(f"task {task.id!r} plays otherwise through open_together and step_together")
        if task.demonstration is not None and not first.several:
            told = _Play(environment, task, seed=7, texts=task.demonstration)
            problems += told.problems
            if not told.done or told.steps != len(task.demonstration):
                problems.append(
                    f"the demonstration of task {task.id!r} has {len(task.demonstration)} actions, but its episode "
                    f"{'ended' if told.done else 'had not ended'} after {told.steps}"
                )
    return list(dict.fromkeys(problems))


class _Play:
    """One play with random legal actions, or with given texts; keeps a log that can be compared."""

    def __init__(
        self,
        environment: Any,
        task: Task,
        *,
        seed: int,
        texts: Sequence[str] | None = None,
        together: bool = False,
    ):
        self.problems: list[str] = []
        self.log: list[str] = []
        self.steps, self.done = 0, False
        self._environment, self._random, self._texts = environment, random.Random(seed), texts
        self._together, self._language = together, Language.of(environment)
        self._first: dict[str | None, Observation] = {}
        self._said: dict[str | None, list[str | None]] = {}
        episode = environment.start(task, seed)
        try:
            opened = self._one(environment.open_together([episode])) if together else episode.open()
            self.several = isinstance(opened, Mapping)
            self._run(episode, dict(opened) if self.several else {None: opened})
        finally:
            episode.close()

    def _run(self, episode: Any, pending: dict[str | None, Observation]) -> None:
        limit = STEPS if self._texts is None else len(self._texts)
        if self.several and not isinstance(episode, MultiAgentEpisode):
            self.problems.append("open() names agents but the episode is no MultiAgentEpisode")
            return
        while pending and self.steps < limit:
            for agent, observation in pending.items():
                self._look(agent, observation)
            if self.problems:
                return
            actions = {agent: self._choose(observation) for agent, observation in pending.items()}
            given = actions if self.several else actions[None]
            if self._together:
                answer = self._one(self._environment.step_together([episode], [given]))
            else:
                answer = episode.step(given)
            if self.several and not isinstance(answer, Mapping):
                self.problems.append(f"step() gave a {type(answer).__name__}; expected a mapping of agents to Feedback")
                return
            answers = answer if self.several else {None: answer}
            self.steps += 1
            for agent, action in actions.items():
                self._said.setdefault(agent, []).append(action.text)
            for agent, answer in answers.items():
                self._read(agent, answer)
            if self.problems:
                return
            pending = {a: f.observation for a, f in answers.items() if not f.done and f.observation is not None}
        self.done = not pending

    @staticmethod
    def _one(answers: Sequence[Any]) -> Any:
        [answer] = answers
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _choose(self, observation: Observation) -> Action:
        if isinstance(observation, Features):
            legal = [place for place, allowed in enumerate(observation.legal) if allowed]
            return Action(tokens=(self._random.choice(legal) if legal else 0,), logprobs=(0.0,))
        text = self._random.choice(("a", "1 + 1", "look", "")) if self._texts is None else self._texts[self.steps]
        return Action(tokens=(*text.encode(), 256), logprobs=(0.0,) * (len(text.encode()) + 1), text=text)

    def _look(self, agent: str | None, observation: Observation) -> None:
        first = self._first.setdefault(agent, observation)
        found = [self._language.problem(observation)]
        if self._language.speaks == Speaks.MESSAGES:
            found.append(sent_back(first, self._said.get(agent, ()), observation))
        self.problems += [problem for problem in found if problem]
        if not self.problems:
            self.log.append(_told(observation))

    def _read(self, agent: str | None, answer: Any) -> None:
        try:
            expect_feedback(answer, several=self.several)
            number(answer.reward, f"the reward of step {self.steps - 1}", largest=LARGEST_REWARD)
            expect_metrics(answer.metrics)
        except ValueError as error:
            self.problems.append(str(error))
            return
        self.log.append(f"{agent} {answer.reward} {answer.done} {sorted(answer.metrics.items())}")
        self.problems += metric_problems(answer.metrics)


def _told(observation: Observation) -> str:
    if isinstance(observation, Features):
        return f"features {crc32(observation.values.tobytes())} {crc32(observation.legal.tobytes())}"
    return json.dumps(observation, default=str)
