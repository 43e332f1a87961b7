"""What a policy reads of a game, and what of its answers a game gets to read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.api import Messages

from .config import Prompt

INSTRUCTION = (
    "You are playing a text adventure. Every message tells you where you are, what just happened and what you carry. "
    "Reply with the one command that brings you closer to the goal and nothing else. A command begins with a verb, as in: "
    "take lamp from shelf"
)
NO_GOAL = "Find out what there is to do, and do it."
MOST_CHARACTERS = 190  # of a command; the interpreter's buffer holds 198

# Commands to the interpreter instead of the game: they would end, save, undo or rewrite the play.
OUTSIDE = re.compile(
    r"(again|brief|full|fullscore|g|long|normal|noscript|notify|o|oops|q|quit|restart|restore|save|score|script|short|"
    r"superbrief|transcript|undo|unscript|verbose|verify|version|tw-.*)",
    re.IGNORECASE,
)
REFUSED = "This is no command of the game."

_CLAUSE_ENDS = re.compile(r'[,"]')  # "quit, please" and "me, quit" end the play too
# The interpreter knows ASCII. A control character hangs or ends it, and so does what a backslash makes of the next one.
_UNREADABLE = re.compile(r"[^\x20-\x7e\s]|\\")
_ROOM = re.compile(r"-= (.+?) =-")  # above a room's description, and in the status line behind the prompt
_STATUS = re.compile(r"\n>[ ]+-= .*\Z", re.DOTALL)
_POINTS = re.compile(r"Your score has just gone (?:up|down) by [^.]*\.")
_END = re.compile(r"\*\*\* .*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Situation:
    """Where the player is, what happened last, and what she carries."""

    room: str
    happened: str
    inventory: str

    @classmethod
    def first(cls, look: str, inventory: str) -> Situation:
        """Of a game that has just begun."""
        return cls._of(look, inventory, room="")

    def after(self, answer: Mapping[str, Any]) -> Situation:
        """What follows from the game's answer to a command."""
        return self._of(answer["text"], answer["inventory"], room=self.room)

    def refused(self) -> Situation:
        """What follows from a command that is not the game's."""
        return Situation(self.room, REFUSED, self.inventory)

    @classmethod
    def _of(cls, text: str, inventory: str, room: str) -> Situation:
        rooms = _ROOM.findall(text)
        happened = _POINTS.sub("", _ROOM.sub("", _END.sub("", _STATUS.sub("", text))))
        return cls(rooms[-1].strip().lower() if rooms else room, _one_line(happened), _one_line(inventory))

    def __str__(self) -> str:
        here = f"You are in the {self.room}."
        happened = self.happened.removeprefix(here).lstrip()
        return " ".join(part for part in (here, happened, self.inventory) if part)


def opening(objective: str, situation: Situation, prompt: Prompt) -> Messages:
    """The first message of a play."""
    objective = _one_line(objective)
    if prompt is Prompt.PLAIN:
        content = f"{objective}\n{situation}" if objective else str(situation)
    else:
        content = f"{INSTRUCTION}\nGoal: {objective or NO_GOAL}\n{_labelled(situation)}"
    return ({"role": "user", "content": content},)


def following(situation: Situation, prompt: Prompt) -> Messages:
    """A later message."""
    return ({"role": "user", "content": str(situation) if prompt is Prompt.PLAIN else _labelled(situation)},)


def command_of(text: str) -> str | None:
    """The one command in a policy's text as the interpreter may read it; None where it is not for the game.

    Of several lines or sentences the first counts: the interpreter would take them all in one turn.
    """
    lines = [line for line in text.strip().splitlines() if line.strip()]
    sentence = re.split(r"[.;]|\bthen\b", lines[0].strip(" >"), maxsplit=1)[0] if lines else ""
    command = " ".join(_UNREADABLE.sub("", sentence).split())[:MOST_CHARACTERS].strip()
    first_words = (clause.strip().partition(" ")[0] for clause in _CLAUSE_ENDS.split(command))
    return None if any(OUTSIDE.fullmatch(word) for word in first_words) else command


def _labelled(situation: Situation) -> str:
    return f"Situation: {situation}\nCommand:"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
