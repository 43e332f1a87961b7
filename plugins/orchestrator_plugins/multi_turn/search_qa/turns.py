"""The form of a turn: ``<think>...</think>`` and then either ``<search>...</search>`` or ``<answer>...</answer>``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from .files import Passage

_INNER = r"(?:(?!</?(?:think|search|answer)>).)+"  # nothing that opens or closes a part
_TURN = re.compile(
    rf"\s*(?:<think>(?P<thought>(?:(?!</think>).)*)</think>)?\s*<(?P<act>search|answer)>(?P<text>{_INNER})</(?P=act)>\s*",
    re.DOTALL,
)


class Act(StrEnum):
    """What a turn does."""

    SEARCH = "search"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Said:
    """A turn in the right form."""

    act: Act
    text: str  # the query or the answer


def read_turn(text: str, *, think: bool) -> Said | None:
    """Read a turn; None where its form is wrong.

    :param think: a turn without a thought is wrong
    """
    found = _TURN.fullmatch(text)
    if found is None or not found["text"].strip() or (think and found["thought"] is None):
        return None
    return Said(Act(found["act"]), found["text"].strip())


def write_turn(thought: str, act: Act, text: str) -> str:
    """A turn in the right form."""
    return f"<think>{thought}</think><{act}>{text}</{act}>"


def write_passages(passages: list[Passage], limit: int) -> str:
    """What a search shows: numbered passages, cut to so many characters at a word's end."""
    lines = [f"[{place}] {passage.title}: {passage.text}" for place, passage in enumerate(passages, start=1)]
    shown = "\n".join(lines) or "Nothing was found."
    if len(shown) > limit:
        kept = shown[: limit + 1]
        shown = (kept if kept[-1].isspace() else kept.rsplit(maxsplit=1)[0][:limit]).rstrip() + " ..."
    return f"<information>\n{shown}\n</information>"
