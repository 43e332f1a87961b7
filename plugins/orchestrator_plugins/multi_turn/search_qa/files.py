"""Passages and questions from JSONL files; everything wrong with them is said at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .scoring import normalise

R = TypeVar("R")

BUILT_IN_PASSAGES = Path(__file__).with_name("data") / "passages.jsonl"
BUILT_IN_QUESTIONS = Path(__file__).with_name("data") / "questions.jsonl"

MOST_PROBLEMS = 20
"""Problems told one by one; the rest is counted."""

PASSAGE_LINE = '{"id": "p1", "title": "Long Candle", "text": "The Long Candle is a lighthouse ..."}'
QUESTION_LINE = '{"question": "How high is ...?", "answers": ["61 metres", "61"], "passages": ["p1"]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One text that can be found."""

    id: str
    title: str  # may be empty
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question; any of its answers is right."""

    question: str
    answers: tuple[str, ...]
    passages: tuple[str, ...] = ()  # ids of those that answer it, in reading order; none: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What is searched and what is asked."""

    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]
    eval_questions: tuple[Question, ...] | None  # None: held out of ``questions``


def read_corpus(passages: Path | None, questions: Path | None, eval_questions: Path | None = None) -> Corpus:
    """Read and check the files of one corpus.

    :param passages: None: those that come along, an invented country's
    :param questions: None: those about the built-in passages
    :raises ValueError: naming every malformed line as ``file:line: problem``
    """
    passages, questions = passages or BUILT_IN_PASSAGES, questions or BUILT_IN_QUESTIONS
    problems: list[str] = []
    found: list[Passage] = []
    known: dict[str, int] = {}
    for line, passage in _rows(passages, _passage, PASSAGE_LINE, problems):
        if passage.id in known:
            problems.append(f"{passages}:{line}: id {passage.id!r} is taken by line {known[passage.id]}")
        known.setdefault(passage.id, line)
        found.append(passage)
    asked = _questions(questions, known, passages, problems)
    held = _questions(eval_questions, known, passages, problems) if eval_questions is not None else None
    if problems:
        more = [f"... and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        raise ValueError("\n".join([*problems[:MOST_PROBLEMS], *more]))
    return Corpus(passages=tuple(found), questions=asked, eval_questions=held)


def _questions(path: Path, known: dict[str, int], passages: Path, problems: list[str]) -> tuple[Question, ...]:
    found, lines = [], dict[str, int]()
    for line, question in _rows(path, _question, QUESTION_LINE, problems):
        strange = [name for name in question.passages if name not in known]
        if strange and known:
            problems.append(f"{path}:{line}: passages {', '.join(map(repr, strange))}: no such id in {passages}")
        if question.question in lines:
            problems.append(f"{path}:{line}: the question of line {lines[question.question]} again")
        lines.setdefault(question.question, line)
        found.append(question)
    return tuple(found)


def _rows(path: Path, build: Callable[[Any], R], example: str, problems: list[str]) -> Iterator[tuple[int, R]]:
    """Lines of a file with their numbers; what cannot be read becomes a problem."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # some editors begin files with a mark
    except FileNotFoundError:
        problems.append(f"{path}: no such file; expected lines such as {example}")
        return
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: {error}; expected a file of JSON lines in UTF-8")
        return
    empty = True
    for number, line in enumerate(lines, start=1):
        if line.strip():
            empty = False
            try:
                yield number, build(json.loads(line))
            except ValueError as error:  # JSONDecodeError is a ValueError
                problems.append(f"{path}:{number}: {error}")
    if empty:
        problems.append(f"{path}: nothing in it; expected lines such as {example}")


def _passage(row: Any) -> Passage:
    row = _object(row, PASSAGE_LINE)
    return Passage(id=_text(row, "id"), title=_text(row, "title", default=""), text=_text(row, "text"))


def _question(row: Any) -> Question:
    row = _object(row, QUESTION_LINE)
    answers = _texts(row, "answers")
    if not answers:
        raise ValueError("answers is empty; expected at least one right answer")
    bare = [answer for answer in answers if not normalise(answer)]
    if bare:
        raise ValueError(
            f"answers holds {bare[0]!r}, and articles and punctuation do not count, so any answer without a word would "
            f"be right; spell it out, as in 'option {bare[0]}'"
        )
    return Question(question=_text(row, "question"), answers=answers, passages=_texts(row, "passages", default=()))


def _object(row: Any, example: str) -> dict[str, Any]:
    """A line's object; keys nobody asks for are let be."""
    if not isinstance(row, dict):
        raise ValueError(f"got a {type(row).__name__}; expected an object such as {example}")
    return row


def _text(row: dict[str, Any], key: str, default: str | None = None) -> str:
    value = row.get(key, default)
    if not isinstance(value, str) or (not value.strip() and default is None):
        raise ValueError(f"{key} is {value!r}; expected text")
    return value.strip()


def _texts(row: dict[str, Any], key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
    values = row.get(key, default)
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) and value.strip() for value in values):
        raise ValueError(f"{key} is {values!r}; expected a list of texts")
    return tuple(value.strip() for value in values)
