"""The environment ``questions``: one question, one answer, right when it matches."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from orchestrator.api import Action, Feedback, Finish, Messages, Speaks, Split, Task

from .config import QuestionsConfig
from .matching import Judge
from .questions import judge_of_task
from .tasks import read_questions


class Questions:
    """Questions of one's own. ``Task.reference`` is the first right answer, ``Task.metadata`` the row's other columns."""

    speaks = Speaks.MESSAGES

    def __init__(self, config: QuestionsConfig):
        """Read every row.

        :raises ConfigError: rows are not as the options say, the first ten of them with file and line
        """
        self.config = config
        train, held = read_questions(config)
        self._questions = {Split.TRAIN: train, Split.EVAL: held}

    def tasks(self, split: Split) -> Iterator[Task]:
        """The questions of a split, in a fixed order; ids name the line or row."""
        split = Split(split)
        for question in self._questions[split]:
            yield Task(
                id=f"{split}-{question.number}",
                prompt=question.prompt,
                reference=question.reference,
                demonstration=None if question.demonstration is None else (question.demonstration,),
                metadata=question.metadata,
            )

    def start(self, task: Task, seed: int) -> QuestionEpisode:
        """Ask one question; nothing in it is random."""
        return QuestionEpisode(task, judge_of_task(self.config, task))


class QuestionEpisode:
    """One answer to one question, worth 1 or 0; without a right answer 0, and rewards judge.

    Metrics: ``correct``; ``format_ok``, whether the answer stood where it is looked for; ``answer_id``, equal for answers
    that are the same and absent where there is none. Without a right answer there are none of them.
    """

    def __init__(self, task: Task, judge: Judge | None):
        assert isinstance(task.prompt, tuple)
        self._prompt, self._judge = task.prompt, judge

    def open(self) -> Messages:
        return self._prompt

    def step(self, action: Action) -> Feedback:
        if self._judge is None:
            return Feedback(observation=None, reward=0.0, done=True)
        found = self._judge.judge(action.text or "", ended=action.finish is not Finish.LENGTH)
        metrics = {"correct": float(found.right), "format_ok": float(found.marked)}
        if found.said is not None:
            metrics["answer_id"] = float(zlib.crc32(found.said.encode("utf-8", "surrogatepass")))
        return Feedback(observation=None, reward=float(found.right), done=True, metrics=metrics)

    def close(self) -> None:
        pass
