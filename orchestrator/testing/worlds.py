"""Two worlds small enough to foresee: one in words, one in numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from orchestrator.contract.types import Action, Features, Feedback, Messages, Observation, Speaks, Split, Task


class EchoEnvironment:
    """One turn: say the word you are told. Pays 1 for the exact word, white space around it aside."""

    speaks = Speaks.MESSAGES

    def __init__(self, words: Sequence[str] = ("ab", "cd", "ef", "gh")):
        """:param words: one training task each; evaluation asks for the same words written backwards"""
        self.words = tuple(words)

    def tasks(self, split: Split) -> Iterator[Task]:
        for place, word in enumerate(self.words):
            wanted = word if split == Split.TRAIN else word[::-1]
            prompt: Messages = ({"role": "user", "content": f"say {wanted}"},)
            yield Task(id=f"{split}-{place}", prompt=prompt, reference=wanted, demonstration=(wanted,))

    def start(self, task: Task, seed: int) -> _Echo:
        return _Echo(task)


class CorridorEnvironment:
    """Walk right to the end of a corridor; the leftmost place has no way left. Pays 1 at the end, -0.1 a step."""

    speaks = Speaks.FEATURES
    features = 2  # place and length, as shares of 10
    actions = 2  # left, right

    def tasks(self, split: Split) -> Iterator[Task]:
        for length in (2, 3) if split == Split.TRAIN else (4,):
            yield Task(id=f"{split}-{length}", metadata={"length": length})

    def start(self, task: Task, seed: int) -> _Walk:
        return _Walk(task.metadata["length"])


class _Echo:
    def __init__(self, task: Task):
        self._task = task

    def open(self) -> Observation:
        assert self._task.prompt is not None
        return self._task.prompt

    def step(self, action: Action) -> Feedback:
        right = float((action.text or "").strip() == self._task.reference)
        return Feedback(observation=None, reward=right, done=True, metrics={"correct": right})

    def close(self) -> None:
        pass


class _Walk:
    def __init__(self, length: int):
        self._length, self._place = length, 0

    def open(self) -> Observation:
        return self._seen()

    def step(self, action: Action) -> Feedback:
        self._place += 1 if action.tokens[0] == 1 else -1
        done = self._place == self._length
        return Feedback(
            observation=self._seen(), reward=1.0 if done else -0.1, done=done, metrics={"correct": float(done)}
        )

    def close(self) -> None:
        pass

    def _seen(self) -> Features:
        return Features(
            values=np.array([self._place, self._length], dtype=np.float32) / 10,
            legal=np.array([self._place > 0, True]),
        )
