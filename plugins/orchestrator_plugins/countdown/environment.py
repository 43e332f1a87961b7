"""The countdown environment: one puzzle, one answer, right or wrong."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

from orchestrator.api import Action, Feedback, Messages, Speaks, Split, Task

from .config import CountdownConfig, Prompt, Style
from .expressions import Expression, canonical, write
from .puzzles import Puzzle, distinct, generate, judge, only, read, wrong_expression

INSTRUCTION = (
    "Write an arithmetic expression that equals {target}. Use each of the numbers {numbers} exactly once, only the "
    "operations {operations} and brackets. Think first if you like, then give the expression between <answer> and "
    "</answer>, for example <answer>(1+2)*3</answer>."
)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class Countdown:
    """Puzzles with guaranteed solutions; training and evaluation never share one.

    A task's metadata hold ``numbers`` (as shown), ``target`` and ``key`` (the puzzle regardless of order).
    """

    speaks = Speaks.MESSAGES

    def __init__(self, config: CountdownConfig):
        self.config = config
        self._files: dict[Split, list[Puzzle]] = {}
        if config.path is not None:
            self._files = _read_splits(config, config.path)

    def tasks(self, split: Split) -> Iterator[Task]:
        """Puzzles in a fixed order; the training stream is endless unless ``train_tasks`` or ``path`` bounds it."""
        for index, puzzle in enumerate(self._puzzles(Split(split))):
            yield self._task(f"{split}-{index}", puzzle)

    def start(self, task: Task, seed: int) -> CountdownEpisode:
        """Play one puzzle; nothing in it is random."""
        return CountdownEpisode(self.config, task)

    def _puzzles(self, split: Split) -> Iterator[Puzzle]:
        if self._files:
            return iter(self._files[split])
        config = self.config
        stream = generate(
            Random(f"countdown {split} {config.seed}"),
            numbers=config.numbers,
            max_number=config.max_number,
            operations=config.operations,
            target=config.target,
        )
        wanted = only(stream, share=config.eval_share, held_out=split is Split.EVAL)
        most = config.eval_tasks if split is Split.EVAL else config.train_tasks
        return wanted if most is None else distinct(wanted, most)

    def _task(self, name: str, puzzle: Puzzle) -> Task:
        config = self.config
        demonstration = None
        if puzzle.solution is not None:
            text = write(
                self._shown(name, puzzle, puzzle.solution), blank=" " if config.expression_style is Style.SPACED else ""
            )
            demonstration = (f"<answer>{text}</answer>" if config.prompt is Prompt.INSTRUCT else text,)
        return Task(
            id=name,
            prompt=_prompt(config, puzzle),
            demonstration=demonstration,
            metadata={"numbers": list(puzzle.numbers), "target": puzzle.target, "key": puzzle.key},
        )

    def _shown(self, name: str, puzzle: Puzzle, solution: Expression) -> Expression:
        """The solution, or now and then a wrong expression; the same for the same task."""
        config, random = self.config, Random(f"demonstration {name} {self.config.seed}")
        if random.random() >= config.wrong_demonstrations:
            return solution
        return wrong_expression(random, puzzle, config.operations) or solution


class CountdownEpisode:
    """One answer to one puzzle.

    Metrics: ``correct`` and ``format_ok`` (it parses), 0 or 1; ``answer_id`` names the expression up to order and
    brackets, and is absent where nothing parses.
    """

    def __init__(self, config: CountdownConfig, task: Task):
        assert isinstance(task.prompt, tuple)
        self._config, self._prompt = config, task.prompt
        self._puzzle = Puzzle(numbers=tuple(task.metadata["numbers"]), target=task.metadata["target"])

    def open(self) -> Messages:
        return self._prompt

    def step(self, action: Action) -> Feedback:
        verdict = judge(self._answer(action.text or ""), self._puzzle, self._config.operations)
        expression = verdict.expression
        parsed = expression is not None
        metrics = {"correct": float(verdict.correct), "format_ok": float(parsed)}
        if expression is not None:
            metrics["answer_id"] = float(zlib.crc32(canonical(expression).encode()))
        reward = 1.0 if verdict.correct else self._config.format_reward if parsed else 0.0
        return Feedback(observation=None, reward=reward, done=True, metrics=metrics)

    def close(self) -> None:
        pass

    def _answer(self, text: str) -> str:
        """The expression inside a policy's text; with the instruct prompt, the last one it marked."""
        if self._config.prompt is Prompt.PLAIN:
            return text
        marked = _ANSWER.findall(text)
        return marked[-1] if marked else ""


def _prompt(config: CountdownConfig, puzzle: Puzzle) -> Messages:
    numbers = [str(number) for number in puzzle.numbers]
    if config.prompt is Prompt.PLAIN:
        content = f"{' '.join(numbers)} = {puzzle.target}\n"
    else:
        content = (config.template or INSTRUCTION).format(
            numbers=", ".join(numbers), operations=" ".join(config.operations), target=puzzle.target
        )
    return ({"role": "user", "content": content},)


def _read_splits(config: CountdownConfig, path: Path) -> dict[Split, list[Puzzle]]:
    """Puzzles of the files by split; a puzzle held out for evaluation is dropped from training."""
    puzzles = read(path)
    if config.eval_path is not None:
        held = read(config.eval_path)
        keys = {puzzle.key for puzzle in held}
        train = [puzzle for puzzle in puzzles if puzzle.key not in keys]
        if not train:
            raise ValueError(f"every puzzle of {path} is in {config.eval_path} too, so that none is left to train on")
    else:
        held = [puzzle for puzzle in puzzles if puzzle.held_out(config.eval_share)]
        train = [puzzle for puzzle in puzzles if not puzzle.held_out(config.eval_share)]
    for name, part in (("training", train), ("evaluation", held)):
        if not part:
            raise ValueError(
                f"{path}: no {name} puzzle is left of {len(puzzles)}; change environment.eval_share "
                f"({config.eval_share}) or give environment.eval_path"
            )
    train = list(distinct(iter(train), config.train_tasks)) if config.train_tasks else train
    return {Split.TRAIN: train, Split.EVAL: list(distinct(iter(held), config.eval_tasks))}
