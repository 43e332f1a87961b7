"""Puzzles: generated from random expressions, or read from a JSONL file."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeGuard

from .expressions import Expression, ExpressionError, Operation, numbers_of, operators_of, parse, value, write

_BARREN_DRAWS = 5_000  # fruitless draws in a row after which there is nothing to find
_WRONG_DRAWS = 100  # right expressions in a row after which no wrong one is looked for
_REPEATS = 300  # known puzzles in a row after which hardly a new one is left


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle:
    """Numbers, a target, and one right expression where it is known."""

    numbers: tuple[int, ...]  # in the order they are shown
    target: int
    solution: Expression | None = None

    @property
    def key(self) -> str:
        """The puzzle regardless of the order of its numbers."""
        return f"{','.join(map(str, sorted(self.numbers)))}={self.target}"

    def held_out(self, share: float) -> bool:
        """Whether the puzzle belongs to evaluation; the same for every seed, process and machine."""
        return zlib.crc32(self.key.encode()) % 10_000 < round(share * 10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is right and wrong with one answer."""

    expression: Expression | None  # None: it does not parse
    correct: bool
    reason: str = ""  # why it is not correct


def judge(text: str, puzzle: Puzzle, operations: Sequence[str]) -> Judgement:
    """Decide whether a text is a right expression for a puzzle.

    Right means: the whole text parses, every given number is used exactly once and no other, only the allowed
    operations occur, and the exact value is the target.
    """
    try:
        expression = parse(text)
    except ExpressionError as error:
        return Judgement(expression=None, correct=False, reason=str(error))
    if Counter(numbers_of(expression)) != Counter(puzzle.numbers):
        given = ", ".join(map(str, puzzle.numbers))
        return Judgement(expression=expression, correct=False, reason=f"uses other numbers than {given}, each once")
    forbidden = operators_of(expression) - set(operations)
    if forbidden:
        return Judgement(expression=expression, correct=False, reason=f"uses {' '.join(sorted(forbidden))}")
    try:
        result = value(expression)
    except ExpressionError as error:
        return Judgement(expression=expression, correct=False, reason=str(error))
    if result != puzzle.target:
        return Judgement(expression=expression, correct=False, reason=f"is {result}, not {puzzle.target}")
    return Judgement(expression=expression, correct=True)


def generate(
    random: Random,
    *,
    numbers: tuple[int, int],
    max_number: int,
    operations: Sequence[str],
    target: tuple[int, int],
) -> Iterator[Puzzle]:
    """Draw puzzles without end from random expressions, so that each has a solution.

    Every step of the generating expression is a whole number. Numbers are shown in ascending order, which keeps
    the solution's order out of the prompt.

    :raises ValueError: when the options leave (almost) no expression
    """
    while True:
        for _ in range(_BARREN_DRAWS):
            count = random.randint(*numbers)
            drawn = [random.randint(1, max_number) for _ in range(count)]
            expression = _random_expression(random, drawn, operations)
            result = _whole_value(expression)
            if result is not None and target[0] <= result <= target[1]:
                yield Puzzle(numbers=tuple(sorted(drawn)), target=result, solution=expression)
                break
        else:
            raise ValueError(
                f"{_BARREN_DRAWS} random expressions of {numbers[0]} to {numbers[1]} numbers up to {max_number} with "
                f"{' '.join(operations)} gave no target in {target[0]}..{target[1]}; widen environment.target, "
                f"environment.operations or environment.max_number"
            )


def wrong_expression(random: Random, puzzle: Puzzle, operations: Sequence[str]) -> Expression | None:
    """Draw an expression of a puzzle's numbers that misses its target; None where there seems to be none."""
    for _ in range(_WRONG_DRAWS):
        expression = _random_expression(random, puzzle.numbers, operations)
        if not judge(write(expression), puzzle, operations).correct:
            return expression
    return None


def only(puzzles: Iterator[Puzzle], *, share: float, held_out: bool) -> Iterator[Puzzle]:
    """Pass on the puzzles held out for evaluation, or the others, of an endless stream.

    :raises ValueError: when the stream seems to have none of them
    """
    missed = 0
    for puzzle in puzzles:
        if puzzle.held_out(share) == held_out:
            missed = 0
            yield puzzle
        else:
            missed += 1
            if missed == _BARREN_DRAWS:
                raise ValueError(
                    f"{missed} puzzles in a row, none for {'evaluation' if held_out else 'training'}; too few "
                    f"different puzzles for environment.eval_share = {share}: change it, or widen the puzzles"
                )


def distinct(puzzles: Iterator[Puzzle], most: int) -> Iterator[Puzzle]:
    """Pass puzzles on, each once, at most so many; end early where new ones have become rare."""
    seen: set[str] = set()
    barren = 0
    for puzzle in puzzles:
        if puzzle.key in seen:
            barren += 1
            if barren == _REPEATS:
                return
            continue
        barren = 0
        seen.add(puzzle.key)
        yield puzzle
        if len(seen) == most:
            return


def read(path: Path) -> list[Puzzle]:
    """Read puzzles from a JSONL file.

    A line is ``{"numbers": [3, 5, 7], "target": 56, "solution": "(3+5)*7"}``; ``nums`` is understood for
    ``numbers``, the solution is optional, other keys are ignored, blank lines skipped.

    :raises ValueError: naming file and line of the first malformed line, or an empty file
    :raises FileNotFoundError: when there is no such file
    """
    puzzles = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    puzzles.append(_puzzle(json.loads(line)))
                except ValueError as error:  # JSONDecodeError and ExpressionError are ValueErrors
                    raise ValueError(f"{path}:{number}: {error}") from error
    if not puzzles:
        raise ValueError(f"{path}: no puzzle; expected lines such as {_EXAMPLE}")
    return puzzles


_EXAMPLE = '{"numbers": [3, 5, 7], "target": 56}'


def _puzzle(row: Any) -> Puzzle:
    if not isinstance(row, dict):
        raise ValueError(f"got a {type(row).__name__}; expected an object such as {_EXAMPLE}")
    numbers = row.get("numbers", row.get("nums"))
    if not (isinstance(numbers, list) and len(numbers) >= 2 and all(_is_whole(n) and n >= 0 for n in numbers)):
        raise ValueError(f"numbers is {numbers!r}; expected a list of two or more whole numbers, none negative")
    target = row.get("target")
    if not _is_whole(target):
        raise ValueError(f"target is {target!r}; expected a whole number")
    puzzle = Puzzle(numbers=tuple(numbers), target=target)
    solution = row.get("solution")
    if solution is None:
        return puzzle
    verdict = judge(str(solution), puzzle, "+-*/")
    if not verdict.correct:
        raise ValueError(f"solution {solution!r} {verdict.reason}")
    return Puzzle(numbers=puzzle.numbers, target=target, solution=verdict.expression)


def _is_whole(candidate: Any) -> TypeGuard[int]:
    return isinstance(candidate, int) and not isinstance(candidate, bool)


def _random_expression(random: Random, numbers: Sequence[int], operations: Sequence[str]) -> Expression:
    """Join the numbers, pair by random pair."""
    parts: list[Expression] = list(numbers)
    while len(parts) > 1:
        left = parts.pop(random.randrange(len(parts)))
        right = parts.pop(random.randrange(len(parts)))
        parts.append(Operation(random.choice(operations), left, right))
    return parts[0]


def _whole_value(expression: Expression) -> int | None:
    """The value where every step is a whole number, else None."""
    if isinstance(expression, int):
        return expression
    left, right = _whole_value(expression.left), _whole_value(expression.right)
    if left is None or right is None:
        return None
    match expression.operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
    return None if right == 0 or left % right else left // right
