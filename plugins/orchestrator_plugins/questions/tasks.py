"""From a table to tasks: wrong rows told at once, training and held-out questions kept apart."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from random import Random
from typing import Any

from orchestrator.api import ConfigError, Problem

from .config import QuestionsConfig
from .questions import Question, question_of, wrong
from .rows import Bad, Row, read_rows

logger = logging.getLogger(__name__)

MOST_TOLD = 10
"""Bad rows told one by one; the rest is counted."""

_told: set[str] = set()  # what was said once in this process


@dataclass(slots=True)
class _Trouble:
    """What is wrong, by the option that it concerns."""

    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, option: str, message: object) -> None:
        self.found.append((option, str(message)))

    def raise_all(self) -> None:
        """:raises ConfigError: the first ten things, and how many more there are"""
        told = list(dict.fromkeys(self.found))
        problems = [Problem(f"environment.{option}", message) for option, message in told[:MOST_TOLD]]
        if len(told) > MOST_TOLD:
            problems.append(Problem("environment.path", f"... and {len(told) - MOST_TOLD} more; {len(told)} in all"))
        if problems:
            raise ConfigError(problems)


def read_questions(config: QuestionsConfig) -> tuple[list[Question], list[Question]]:
    """The training questions, shuffled where that is asked for, and those held out.

    :raises ConfigError: rows are not as the options say, or a part is empty
    """
    trouble = _Trouble()
    train, held = _parts(config, trouble)
    trouble.raise_all()
    for option, name, part in (("path", "training", train), ("eval_path", "held-out", held)):
        if not part:
            option = option if option == "path" or config.eval_path else "split" if config.split else "eval_share"
            trouble.add(option, f"{config.path}: no {name} question is left; {_remedy(config)}")
    trouble.raise_all()
    if config.shuffle:
        Random(f"questions {config.seed}").shuffle(train)
    return train[: config.train_tasks], held[: config.eval_tasks]


def _remedy(config: QuestionsConfig) -> str:
    if config.eval_path is not None:
        return f"every question of path is in {config.eval_path} too, or one of them is empty"
    if config.split is not None and config.split.column is not None:
        return f"split looks for {config.split.train!r} and {config.split.eval!r} in column {config.split.column}"
    return "give more rows, or eval_path"


def _parts(config: QuestionsConfig, trouble: _Trouble) -> tuple[list[Question], list[Question]]:
    if config.eval_path is not None:
        train = _distinct(_questions(config, "path", config.path, "train", trouble), trouble)
        held = _distinct(_questions(config, "eval_path", config.eval_path, "train", trouble), trouble)
        return _apart(train, held), held
    split = config.split
    if split is not None and split.column is None:
        train = _distinct(_questions(config, "path", config.path, split.train, trouble), trouble)
        held = _distinct(_questions(config, "path", config.path, split.eval, trouble), trouble)
        return _apart(train, held), held
    if split is not None:
        parts = dict[str, list[Question]]({split.train: [], split.eval: []})
        for value, question in _read(config, "path", config.path, "train", trouble):
            if value in parts:
                parts[value].append(question)
        train, held = (_distinct(part, trouble) for part in parts.values())
        return _apart(train, held), held
    every = _distinct(_questions(config, "path", config.path, "train", trouble), trouble)
    return _shared_out(every, config.eval_share, config.seed)


def _shared_out(every: list[Question], share: float, seed: int) -> tuple[list[Question], list[Question]]:
    """Hold out a share, at least one and not all; whether a question is among them depends on it and the seed, not its place."""
    count = min(max(1, round(share * len(every))), len(every) - 1)
    drawn = sorted(every, key=lambda one: hashlib.sha256(f"{seed} {one.key}".encode()).digest())[: max(0, count)]
    held = {one.key for one in drawn}
    return [one for one in every if one.key not in held], [one for one in every if one.key in held]


def _apart(train: list[Question], held: list[Question]) -> list[Question]:
    """Training questions without those held out."""
    keys = {one.key: one.place for one in held}
    both = [one for one in train if one.key in keys]
    if both:
        first = both[0]
        _tell(
            f"{len(both)} training questions are held out too, and are not trained on: {first.place} is "
            f"{keys[first.key]}" + (", ..." if len(both) > 1 else "")
        )
    return [one for one in train if one.key not in keys]


def _distinct(questions: Iterable[Question], trouble: _Trouble) -> list[Question]:
    """Each question once; one that comes again with another answer is trouble."""
    first: dict[str, Question] = {}
    again: list[Question] = []
    for question in questions:
        known = first.setdefault(question.key, question)
        if known is question:
            continue
        if known.reference != question.reference:
            said = f"asks what {known.place} asks, with another answer; where both are right, give a list of answers"
            trouble.add("answer", f"{question.place}: {said}")
        again.append(question)
    if again:
        one = again[0]
        _tell(
            f"{len(again)} rows ask again what an earlier row asks, and count once: {one.place} is "
            f"{first[one.key].place}" + (", ..." if len(again) > 1 else "")
        )
    return list(first.values())


def _tell(said: str) -> None:
    """Log a warning, once in a process however often the rows are read."""
    if said not in _told:
        _told.add(said)
        logger.warning("%s", said)


def _questions(config: QuestionsConfig, option: str, path: str, split: str, trouble: _Trouble) -> Iterator[Question]:
    return (question for _, question in _read(config, option, path, split, trouble))


def _read(
    config: QuestionsConfig, option: str, path: str, split: str, trouble: _Trouble
) -> Iterator[tuple[Any, Question]]:
    """The questions of a file or of a dataset's split, each with what ``split.column`` says; bad rows are trouble."""
    column = None if config.split is None else config.split.column
    parts = () if config.split is None else (config.split.train, config.split.eval)
    empty = True
    try:
        for row in read_rows(path, config.subset, split):
            empty = False
            if isinstance(row, Bad):
                trouble.add(option, row)
                continue
            lacking = [name for name in config.columns() if name not in row.values]
            if lacking:
                _lacking(config, row, lacking, trouble)
                if not row.alone:
                    return  # of a table every row lacks it
                continue
            if column is not None and row.values[column] not in parts:
                continue
            found = list(wrong(config, row))
            if found:
                for where, message in found:
                    trouble.add(where, f"{row.place}: {message}")
                continue
            yield row.values[column] if column else None, question_of(config, row)
    except ValueError as error:
        trouble.add(option, error)
        return
    if empty:
        trouble.add(option, f"{path}: nothing in it")


def _lacking(config: QuestionsConfig, row: Row, lacking: list[str], trouble: _Trouble) -> None:
    have = list(row.values)
    for name in lacking:
        near = get_close_matches(name, have, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        trouble.add(_option_of(config, name), f"{row.place}: no column {name!r}{hint} Columns: {', '.join(have)}")


def _option_of(config: QuestionsConfig, column: str) -> str:
    for option in ("prompt", "answer", "demonstration", "choices", "metadata"):
        named = getattr(config, option)
        if named == column or (isinstance(named, list) and column in named):
            return option
    return "split.column" if config.split is not None and config.split.column == column else "template"
