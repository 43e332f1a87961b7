"""Whether an answer is right: as a text, as a number, by a regular expression, or as one of several choices."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from orchestrator.api import last_number, marked_number, numbers_in, same_number, write_number

from .config import Match, QuestionsConfig

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PHRASE = re.compile(r"answer\s*(?:is|:|=)\s*(?:option|choice)?\s*[(\[\"'*]*([A-Za-z])\b", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\s*\{\s*)?\(?([A-Za-z])\)?\s*\}")
_BEGINS = re.compile(r"^[ \t(\[\"*]*([A-Za-z])(?:[)\].:*\"]|[ \t]*$)", re.MULTILINE)  # of a line


class Found(NamedTuple):
    """What an answer was taken for.

    :ivar said: the answer in one form, equal for answers that are the same; None: no answer was found
    :ivar right: whether it is a right one
    :ivar marked: whether it stood where an answer is looked for, not just anywhere in the text
    """

    said: str | None
    right: bool
    marked: bool


class Judge(Protocol):
    """Tells right from wrong for one question.

    :ivar reference: the first right answer as text
    """

    @property
    def reference(self) -> str: ...

    def judge(self, text: str, *, ended: bool) -> Found:
        """Judge an answer.

        :param ended: the policy ended it; the last number of half an answer is no answer
        """


def judge_of(config: QuestionsConfig, given: Any, choices: Sequence[str] | None) -> Judge:
    """The judge of one row.

    :param given: what stands in its answer's column
    :raises ValueError: no answer can be compared with that
    """
    right = list(given) if isinstance(given, list | tuple) else [given]
    if not right:
        raise ValueError("the list of right answers is empty")
    if config.match is Match.CHOICE:
        return Choice(config.extract, tuple(_letter(one, choices) for one in right), tuple(choices or ()))
    texts = tuple(_text(one) for one in right)
    if config.match is Match.NUMBER:
        return Number(config.extract, tuple(map(_number, texts)))
    if config.match is Match.REGEX:
        return Pattern(config.extract, tuple(_pattern(text) for text in texts), config.ignore_case)
    return Exact(config.extract, texts, config.ignore_case)


@dataclass(frozen=True, slots=True)
class Exact:
    """Equal texts, white space aside."""

    extract: str | None
    right: tuple[str, ...]
    ignore_case: bool

    @property
    def reference(self) -> str:
        return self.right[0]

    def judge(self, text: str, *, ended: bool) -> Found:
        part, marked = _part(self.extract, text)
        if part is None or not (ended or marked):
            return Found(None, False, False)
        said = normalised(part, self.ignore_case)
        return Found(said, said in {normalised(one, self.ignore_case) for one in self.right}, True)


@dataclass(frozen=True, slots=True)
class Number:
    """Equal numbers: the one that the answer marks, else its last."""

    extract: str | None
    right: tuple[Fraction, ...]

    @property
    def reference(self) -> str:
        return write_number(self.right[0])

    def judge(self, text: str, *, ended: bool) -> Found:
        part, extracted = _part(self.extract, text)
        if part is None:
            return Found(None, False, False)
        number = marked_number(part)
        marked = extracted or number is not None
        if number is None and (ended or extracted):
            number = last_number(part)
        if number is None:
            return Found(None, False, False)
        return Found(write_number(number), any(same_number(number, one) for one in self.right), marked)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression found somewhere in the answer."""

    extract: str | None
    right: tuple[str, ...]
    ignore_case: bool

    @property
    def reference(self) -> str:
        return self.right[0]

    def judge(self, text: str, *, ended: bool) -> Found:
        part, _ = _part(self.extract, text)
        if part is None:
            return Found(None, False, False)
        flags = re.IGNORECASE if self.ignore_case else 0
        found = next((match for one in self.right if (match := re.search(one, part, flags))), None)
        return Found(normalised(part if found is None else found[0], self.ignore_case), found is not None, True)


@dataclass(frozen=True, slots=True)
class Choice:
    """The letter that the answer names; where it names none, the one choice whose text stands in it."""

    extract: str | None
    right: tuple[str, ...]
    choices: tuple[str, ...]

    @property
    def reference(self) -> str:
        return self.right[0]

    def judge(self, text: str, *, ended: bool) -> Found:
        part, extracted = _part(self.extract, text)
        if part is None:
            return Found(None, False, False)
        said = self._marked(part)
        marked = extracted or said is not None
        if said is None and (ended or extracted):
            said = self._named(part)
        return Found(said, said in self.right, marked and said is not None)

    def _marked(self, text: str) -> str | None:
        known = LETTERS[: len(self.choices)] if self.choices else LETTERS
        for expression in (_BOXED, _PHRASE, _BEGINS):
            letters = [letter.upper() for letter in expression.findall(text) if letter.upper() in known]
            if letters and (expression is not _BEGINS or len(set(letters)) == 1):  # choices gone through are no answer
                return letters[-1]
        return None

    def _named(self, text: str) -> str | None:
        whole = normalised(text, True)
        named = [
            letter
            for letter, choice in zip(LETTERS, self.choices, strict=False)
            if re.search(rf"(?<!\w){re.escape(normalised(choice, True))}(?!\w)", whole)
        ]
        return named[0] if len(named) == 1 else None


def normalised(text: str, ignore_case: bool) -> str:
    """A text in one form: composed characters, single spaces."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return text.casefold() if ignore_case else text


def _part(extract: str | None, text: str) -> tuple[str | None, bool]:
    """The part of a text that is the answer, and whether it was looked for."""
    if extract is None:
        return text, False
    last = None
    for match in re.finditer(extract, text):
        last = match
    if last is None:
        return None, False
    return last[1] if last.re.groups and last[1] is not None else last[0], True


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is no answer; expected a text or a number, or a list of them")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value!r} is no answer; expected a finite number")
    if isinstance(value, str) and not value.strip():
        raise ValueError("the answer is empty; expected a text")
    return value.strip() if isinstance(value, str) else str(value)


def _number(text: str) -> Fraction:
    marked = marked_number(text)
    if marked is not None:
        return marked
    found = numbers_in(text)
    if not found or any(number != found[0] for number in found):
        what = "several numbers" if found else "no number"
        raise ValueError(f"{text[:80]!r} holds {what}; expected one, or a solution that ends with #### and the number")
    return found[0]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text[:80]!r} is no regular expression: {error}") from None
    return text


def _letter(value: Any, choices: Sequence[str] | None) -> str:
    """The letter that a right answer means: a letter, the place of a choice from 0, or the text of a choice."""
    count = len(LETTERS) if choices is None else len(choices)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < count:
            raise ValueError(f"{value} is the place of no choice; expected 0 to {count - 1}, the first being 0")
        return LETTERS[value]
    text = _text(value)
    alike = [place for place, one in enumerate(choices or ()) if normalised(one, False) == normalised(text, False)]
    if len(alike) == 1:
        return LETTERS[alike[0]]
    bare = text.strip("().: ").upper()
    if len(bare) == 1 and bare in LETTERS[:count]:
        return bare
    if choices is None:
        raise ValueError(f"{text[:80]!r} is no letter; name the choices' column: choices: COLUMN, or write the letter")
    raise ValueError(f"{text[:80]!r} is none of the choices; expected a letter up to {LETTERS[count - 1]}, or a choice")
