"""The GSM8K environment: one problem, one answer, right when its number is."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fractions import Fraction
from random import Random

from orchestrator.api import (
    Action,
    Feedback,
    Finish,
    Message,
    Messages,
    Speaks,
    Split,
    Task,
    last_number,
    marked_number,
    same_number,
    write_number,
)

from .config import Gsm8kConfig
from .problems import BUILT_IN, Problem, read


class Gsm8k:
    """Word problems; ``Task.reference`` is the right number, the demonstration the worked solution."""

    speaks = Speaks.MESSAGES

    def __init__(self, config: Gsm8kConfig):
        self.config = config
        train, held = _splits(config)
        if config.shuffle:
            Random(f"gsm8k {config.seed}").shuffle(train)
        self._problems = {Split.TRAIN: train[: config.train_tasks], Split.EVAL: held[: config.eval_tasks]}

    def tasks(self, split: Split) -> Iterator[Task]:
        """The problems of a split, in a fixed order."""
        split = Split(split)
        for index, problem in enumerate(self._problems[split]):
            demonstration = problem.demonstration(keep_calculations=self.config.keep_calculations)
            yield Task(
                id=f"{split}-{index}",
                prompt=self._prompt(problem),
                reference=write_number(problem.answer),
                demonstration=(demonstration,),
            )

    def start(self, task: Task, seed: int) -> Gsm8kEpisode:
        """Play one problem; nothing in it is random."""
        return Gsm8kEpisode(self.config, task)

    def _prompt(self, problem: Problem) -> Messages:
        question: Message = {"role": "user", "content": self.config.template.replace("{question}", problem.question)}
        if self.config.system is None:
            return (question,)
        return ({"role": "system", "content": self.config.system}, question)


class Gsm8kEpisode:
    """One answer to one problem, worth 1 or 0.

    Metrics: ``correct``; ``format_ok``, whether the answer marks a number; ``answer_id``, which names the number and
    is absent where there is none.
    """

    def __init__(self, config: Gsm8kConfig, task: Task):
        assert isinstance(task.prompt, tuple)
        assert task.reference is not None
        self._config, self._prompt = config, task.prompt
        self._right = Fraction(task.reference)

    def open(self) -> Messages:
        return self._prompt

    def step(self, action: Action) -> Feedback:
        text = action.text or ""
        marked = marked_number(text)
        ended = action.finish is not Finish.LENGTH  # the last number of half an answer is no answer
        number = last_number(text) if marked is None and ended and self._config.last_number else marked
        correct = number is not None and same_number(number, self._right)
        metrics = {"correct": float(correct), "format_ok": float(marked is not None)}
        if number is not None:
            metrics["answer_id"] = float(zlib.crc32(write_number(number).encode()))
        return Feedback(observation=None, reward=float(correct), done=True, metrics=metrics)

    def close(self) -> None:
        pass


def _splits(config: Gsm8kConfig) -> tuple[list[Problem], list[Problem]]:
    """Training and evaluation problems; a question held out for evaluation is dropped from training."""
    if config.path is None:
        problems = read(BUILT_IN)
        return problems[: len(problems) * 2 // 3], problems[len(problems) * 2 // 3 :]
    problems = read(config.path)
    if config.eval_path is not None:
        held = read(config.eval_path)
        questions = {problem.question for problem in held}
        train = [problem for problem in problems if problem.question not in questions]
        if not train:
            raise ValueError(
                f"every problem of {config.path} is in {config.eval_path} too, so that none is left to train on"
            )
    else:
        held = [problem for problem in problems if problem.held_out(config.eval_share)]
        train = [problem for problem in problems if not problem.held_out(config.eval_share)]
    for name, part in (("training", train), ("evaluation", held)):
        if not part:
            raise ValueError(
                f"{config.path}: no {name} problem is left of {len(problems)}; change environment.eval_share "
                f"({config.eval_share}) or give environment.eval_path"
            )
    return train, held
