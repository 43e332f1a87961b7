"""Messages to token ids, turn by turn.

A rollout's tokens are built once and never re-read from text: the first observation is rendered in full, then each
action contributes the ids that were sampled, and each later observation only what it adds. So the ids a policy is
trained on are the ids it chose, even where the tokenizer would merge characters across the border of a turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from orchestrator.api import Action, Finish, Observation

from .tokenizer import CharacterTokenizer, concatenated

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]
Lines = tuple[tuple[str, str], ...]  # (role, content), hashable

_ACTION = "\u2402action\u2403"  # stands for an action while a chat template renders what follows it


class Rendering(Protocol):
    """How one kind of tokenizer lays out a conversation."""

    terminator: int  # ends an action given as text
    stops: frozenset[int]  # end an action that is being sampled
    pad: int

    def first(self, messages: Lines) -> Ids:
        """The ids a policy continues in its first turn."""

    def following(self, messages: Lines, terminated: bool) -> Ids:
        """The ids between an action and the next one. ``terminated``: the action ended with a stop id."""

    def encode(self, text: str) -> Ids:
        """The ids of an action given as text, without terminator."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of an action, specials left out."""


class PlainRendering:
    """The presets' layout: ``<user>2 3 4 = 14<assistant>`` with one id per role, and ``<eos>`` after an action."""

    def __init__(self, tokenizer: CharacterTokenizer):
        self._tokenizer = tokenizer
        self.terminator, self.stops, self.pad = tokenizer.eos, frozenset({tokenizer.eos}), tokenizer.pad

    def first(self, messages: Lines) -> Ids:
        known = self._tokenizer.role
        parts = []
        for role, content in messages:
            if role not in known:
                raise ValueError(f"message role {role!r}: expected one of {', '.join(known)}")
            end = (self.terminator,) if role == "assistant" else ()
            parts.append((known[role], *self._tokenizer.encode(content), *end))
        return concatenated([*parts, (known["assistant"],)])

    def following(self, messages: Lines, terminated: bool) -> Ids:
        return (() if terminated else (self.terminator,)) + self.first(messages)

    def encode(self, text: str) -> Ids:
        return self._tokenizer.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        return self._tokenizer.decode(ids)


class TextRendering:
    """For a tokenizer without chat template: contents joined by line breaks, the begin-of-text id first if it has one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Iterable[int]):
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"tokenizer {tokenizer.name_or_path!r} has no end-of-text token; the policy could never end an action. "
                "Set eos_token in its tokenizer_config.json"
            )
        self._tokenizer = tokenizer
        self.terminator = tokenizer.eos_token_id
        self.stops = frozenset({self.terminator, *stops})
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.terminator

    def first(self, messages: Lines) -> Ids:
        ids = tuple(self._tokenizer("\n".join(content for _, content in messages)).input_ids)
        if ids and ids[-1] == self.terminator:  # some tokenizers append it
            ids = ids[:-1]
        return ids or (self._beginning(),)

    def following(self, messages: Lines, terminated: bool) -> Ids:
        text = "\n" + "\n".join(content for _, content in messages) + "\n"
        return (() if terminated else (self.terminator,)) + self.encode(text)

    def encode(self, text: str) -> Ids:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)

    def decode(self, ids: Iterable[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        assert isinstance(text, str)
        return text

    def _beginning(self) -> int:
        bos = self._tokenizer.bos_token_id
        return bos if bos is not None else self.terminator


class ChatRendering(TextRendering):
    """For a tokenizer with a chat template.

    What follows an action is read off the template: a conversation with a marker in the action's place is rendered
    together with the new messages, and everything after the marker is tokenised. That text starts with what ends an
    assistant's message; where the action already ended with the terminator, this one token is left out. Default
    system prompts and begin-of-text tokens stay where they belong, before the marker.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Iterable[int]):
        super().__init__(tokenizer, stops)
        self.terminator = self._closing() or self.terminator
        self.stops = self.stops | {self.terminator}

    def first(self, messages: Lines) -> Ids:
        ids = self.encode(self._template(messages, generate=True))
        return ids or (self._beginning(),)

    def following(self, messages: Lines, terminated: bool) -> Ids:
        ids = self.encode(self._after_action(messages, generate=True))
        if ids[:1] == (self.terminator,):
            return ids[1:] if terminated else ids
        return ids if terminated else (self.terminator, *ids)

    def _closing(self) -> int | None:
        """The special id the template writes after an assistant's message, if it writes one."""
        ids = self.encode(self._after_action((("user", "x"),), generate=False))
        return ids[0] if ids and ids[0] in self._tokenizer.all_special_ids else None

    def _after_action(self, messages: Lines, *, generate: bool) -> str:
        text = self._template((("user", "x"), ("assistant", _ACTION), *messages), generate=generate)
        _, marker, tail = text.rpartition(_ACTION)
        if not marker:
            raise ValueError(
                f"the chat template of {self._tokenizer.name_or_path!r} leaves out the assistant's earlier messages; "
                "several turns cannot be rendered with it"
            )
        return tail

    def _template(self, messages: Lines, *, generate: bool) -> str:
        conversation = [{"role": role, "content": content} for role, content in messages]
        text = self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=generate)
        assert isinstance(text, str)
        return text


def rendering_of(tokenizer: PreTrainedTokenizerBase, stops: Iterable[int] = ()) -> Rendering:
    """Choose the layout for a transformers tokenizer: its chat template, or plain text without one.

    :param stops: further ids that end an action, such as those of the model's generation settings
    """
    return (ChatRendering if tokenizer.chat_template else TextRendering)(tokenizer, stops)


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
                read = self._following(lines, self.terminated(actions[index - 1]))
            rendered.append((read, tuple(actions[index].tokens) if index < len(actions) else ()))
        return rendered

    def terminated(self, action: Action) -> bool:
        """Whether an action's own ids end it."""
        return bool(action.tokens) and action.tokens[-1] in self.rendering.stops

    def action(self, text: str) -> Ids:
        """The ids of an action given as text, terminator included."""
        return (*self.rendering.encode(text), self.rendering.terminator)

    def read(self, ids: Iterable[int]) -> tuple[str, Finish]:
        """An action's text without specials, and why it ended."""
        ids = tuple(ids)
        stopped = bool(ids) and ids[-1] in self.rendering.stops
        return self.rendering.decode(ids), Finish.STOP if stopped else Finish.LENGTH
