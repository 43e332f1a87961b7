"""Conversations as a transformers tokenizer lays them out: by its chat template, or as plain text without one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import takewhile
from typing import TYPE_CHECKING

from .rendering import Ids, Lines, Rendering

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ACTION = "\u2402action\u2403"  # stands for an action while a chat template renders what surrounds it
_HIDDEN = 0x10F000  # private characters from here on stand for special tokens that a text only spells
_MARKS = re.compile(f"([{chr(_HIDDEN)}-{chr(0x10FFFD)}])")
_USER: Lines = (("user", "x"),)


class TextRendering:
    """For a tokenizer without chat template: contents joined by line breaks, the begin-of-text id first if it has one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Iterable[int]):
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"tokenizer {tokenizer.name_or_path!r} has no end-of-text token; the policy could never end an action. "
                "Set eos_token in its tokenizer_config.json"
            )
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._added = {str(token): number for number, token in added.items()}
        self._controls = sorted({str(t) for t in added.values() if t.special} | set(tokenizer.all_special_tokens))
        self._spelt = _any_of(self._controls)
        self.terminator = tokenizer.eos_token_id  # ends an action given as text
        self.stops = frozenset({self.terminator, *stops})
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.terminator

    def first(self, messages: Lines) -> Ids:
        before, after = self._around()
        return (*before, *self._encode(self._hide("\n".join(content for _, content in messages))), *after) or (
            self._beginning(),
        )

    def following(self, messages: Lines, ended: int | None) -> Ids:
        text = "\n" + "\n".join(content for _, content in messages) + "\n"
        return (() if ended is not None else (self.terminator,)) + self._encode(self._hide(text))

    def action(self, text: str) -> Ids:
        return (*self._encode(self._hide(text)), self.terminator)

    def decode(self, ids: Iterable[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        assert isinstance(text, str)
        return text

    def _hide(self, text: str) -> str:
        """A text in which characters of no meaning stand for the special tokens it spells: they stay text."""
        return self._spelt.sub(lambda found: chr(_HIDDEN + self._controls.index(found[0])), text)

    def _encode(self, text: str) -> Ids:
        """The ids of a text; special tokens that were hidden in it are spelt out."""
        ids: list[int] = []
        for place, piece in enumerate(_MARKS.split(text)):
            if place % 2:
                special = self._controls[ord(piece) - _HIDDEN]
                ids += [*self._encode(special[:1]), *self._encode(special[1:])]  # apart: together they are the token
            elif piece:
                ids += self._tokenizer(piece, add_special_tokens=False).input_ids
        return tuple(ids)

    def _around(self) -> tuple[Ids, Ids]:
        """What the tokenizer puts before and after every text, but for an end of text."""
        inside = self._encode("x")
        whole = tuple(self._tokenizer("x").input_ids)
        at = next((i for i in range(len(whole)) if whole[i : i + len(inside)] == inside), None)
        if at is None:
            return (), ()
        after = whole[at + len(inside) :]
        return whole[:at], after[:-1] if after[-1:] == (self.terminator,) else after

    def _beginning(self) -> int:
        bos = self._tokenizer.bos_token_id
        return bos if bos is not None else self.terminator


class ChatRendering(TextRendering):
    """For a tokenizer with a chat template, from which everything is read off.

    What surrounds an action is found by rendering a conversation with a marker in the action's place. What the template
    writes between an assistant's message and whatever comes next closes the message; the first special token in it
    ends an action, sampled or given as text. An action that did not end with it, because it was cut or ended with
    another stop, is closed as the template would. Default system prompts and begin-of-text tokens stay where they
    belong, before the marker.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Iterable[int]):
        super().__init__(tokenizer, stops)
        self._opening, self._closing, end = self._frame()
        self.terminator = self.terminator if end is None else self._added[end]
        self.stops = self.stops | {self.terminator}

    def first(self, messages: Lines) -> Ids:
        return self._encode(self._template(messages, generate=True)) or (self._beginning(),)

    def following(self, messages: Lines, ended: int | None) -> Ids:
        ids = self._encode(self._after_action(messages, generate=True))
        if ended is None:
            return ids
        added = self._added.values()
        first = next((place for place, token in enumerate(ids) if token in added), None)
        if first is None or ids[first] != ended:
            return ids
        blank = not self.decode(ids[:first]).strip()
        return ids[first + 1 :] if blank else ids

    def action(self, text: str) -> Ids:
        return (*self._encode(self._opening + self._hide(text) + self._closing), self.terminator)

    def _frame(self) -> tuple[str, str, str | None]:
        """White space the template writes before an action and between it and its end, and the token that ends it."""
        last = self._after_action((), generate=False)
        followed = self._after_action(_USER, generate=False)
        closing = last[: len(list(takewhile(lambda pair: pair[0] == pair[1], zip(last, followed, strict=False))))]
        end = _any_of(self._added).search(closing)
        opening, _, _ = self._around_action((), generate=False).partition(_ACTION)
        prompt = self._template(_USER, generate=True)
        before = opening.removeprefix(prompt) if opening.startswith(prompt) else ""
        return before if before.isspace() else "", closing[: end.start()] if end else "", end[0] if end else None

    def _after_action(self, messages: Lines, *, generate: bool) -> str:
        _, marker, tail = self._around_action(messages, generate=generate).rpartition(_ACTION)
        if not marker:
            raise ValueError(
                f"the chat template of {self._tokenizer.name_or_path!r} leaves out the assistant's earlier messages; "
                "several turns cannot be rendered with it"
            )
        return tail

    def _around_action(self, messages: Lines, *, generate: bool) -> str:
        return self._template((*_USER, ("assistant", _ACTION), *messages), generate=generate)

    def _template(self, messages: Lines, *, generate: bool) -> str:
        conversation = [{"role": role, "content": self._hide(content)} for role, content in messages]
        text = self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=generate)
        assert isinstance(text, str)
        return text


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds the longest of some texts, none where there are none."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


def rendering_of(tokenizer: PreTrainedTokenizerBase, stops: Iterable[int] = ()) -> Rendering:
    """Choose the layout for a transformers tokenizer: its chat template, or plain text without one.

    :param stops: further ids that end an action, such as those of the model's generation settings
    """
    return (ChatRendering if tokenizer.chat_template else TextRendering)(tokenizer, stops)
