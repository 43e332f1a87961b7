"""Messages to token ids, turn by turn.

A rollout's tokens are built once and never re-read from text: the first observation is rendered in full, then each
action contributes the ids that were sampled, and each later observation only what it adds. So the ids a policy is
trained on are the ids it chose, even where the tokenizer would merge characters across the border of a turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol

from orchestrator.api import Action, Finish, Observation

from .tokenizer import CharacterTokenizer, concatenated

Ids = tuple[int, ...]
Lines = tuple[tuple[str, str], ...]  # (role, content), hashable


class Rendering(Protocol):
    """How one kind of tokenizer lays out a conversation."""

    stops: frozenset[int]  # end an action that is being sampled
    pad: int

    def first(self, messages: Lines) -> Ids:
        """The ids a policy continues in its first turn."""

    def following(self, messages: Lines, ended: int | None) -> Ids:
        """The ids between an action and the next one. ``ended``: the stop id the action ended with; None: it was cut."""

    def action(self, text: str) -> Ids:
        """The ids of an action given as text, with what ends it."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of an action, specials left out."""


class PlainRendering:
    """The presets' layout: ``<user>2 3 4 = 14<assistant>`` with one id per role, and ``<eos>`` after an action."""

    def __init__(self, tokenizer: CharacterTokenizer):
        self._tokenizer = tokenizer
        self.stops, self.pad = frozenset({tokenizer.eos}), tokenizer.pad

    def first(self, messages: Lines) -> Ids:
        known = self._tokenizer.role
        parts = []
        for role, content in messages:
            if role not in known:
                raise ValueError(f"message role {role!r}: expected one of {', '.join(known)}")
            end = (self._tokenizer.eos,) if role == "assistant" else ()
            parts.append((known[role], *self._tokenizer.encode(content), *end))
        return concatenated([*parts, (known["assistant"],)])

    def following(self, messages: Lines, ended: int | None) -> Ids:
        return (() if ended is not None else (self._tokenizer.eos,)) + self.first(messages)

    def action(self, text: str) -> Ids:
        return (*self._tokenizer.encode(text), self._tokenizer.eos)

    def decode(self, ids: Iterable[int]) -> str:
        return self._tokenizer.decode(ids)


class Renderer:
    """Renders conversations, remembering what it rendered: siblings and later turns ask for the same again."""

    def __init__(self, rendering: Rendering, *, remember: int = 8192):
        self.rendering = rendering
        self._first = lru_cache(remember)(rendering.first)
        self._following = lru_cache(remember)(rendering.following)

    def context(self, observations: Sequence[Observation], actions: Sequence[Action]) -> Ids:
        """The ids a policy continues: every observation but the first follows an action."""
        return concatenated([part for pair in self.turns(observations, actions) for part in pair])

    def turns(self, observations: Sequence[Observation], actions: Sequence[Action]) -> list[tuple[Ids, Ids]]:
        """What was read and what was said, by turn; nothing said yet where there are fewer actions."""
        rendered = []
        for index, observation in enumerate(observations):
            assert isinstance(observation, tuple)  # of messages: this policy speaks nothing else
            lines = tuple((message["role"], message["content"]) for message in observation)
            if index == 0:
                read = self._first(lines)
            else:
                read = self._following(lines, self._ended(actions[index - 1]))
            rendered.append((read, tuple(actions[index].tokens) if index < len(actions) else ()))
        return rendered

    def action(self, text: str) -> Ids:
        """The ids of an action given as text, with what ends it."""
        return self.rendering.action(text)

    def read(self, ids: Iterable[int]) -> tuple[str, Finish]:
        """An action's text without specials, and why it ended."""
        ids = tuple(ids)
        if ids and ids[-1] in self.rendering.stops:
            return self.rendering.decode(ids[:-1]), Finish.STOP
        return self.rendering.decode(ids), Finish.LENGTH

    def _ended(self, action: Action) -> int | None:
        """The stop id that an action's own ids end with; None: it was cut."""
        last = action.tokens[-1] if action.tokens else None
        return last if last in self.rendering.stops else None
