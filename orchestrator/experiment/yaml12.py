"""Reads YAML 1.2 (core schema) as plain data: what YAML 1.1 guesses at, ``no``, ``1:30``, ``010``, stays what it looks like.

Of YAML only the data is taken: mappings whose keys are text as typed, lists, text, numbers, true, false, null. Tags of
other types, keys written twice, recursion, and text that would grow without bounds are refused with their line.
Decimal digits may be grouped by ``_``, as in ``2_000_000``, which YAML 1.1 had and the core schema has not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

DEEPEST = 64  # levels of nesting
_MOST_VALUES = 50_000  # aliases spelt out
LONGEST = 2**18  # characters
_MOST_DIGITS = 40
_PREFIX = "tag:yaml.org,2002:"

_UNHELD = re.compile("[\0\ud800-\udfff]")
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"(true|True|TRUE)|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_BEYOND = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class YamlError(ValueError):
    """Text that is no experiment's YAML; ``line`` and ``column`` count from 1, 0 where there is no place."""

    def __init__(self, message: str, line: int = 0, column: int = 0):
        self.line, self.column = line, column
        super().__init__(message)


class TypedInt(int):
    """A whole number that remembers how it was typed: an option that takes text gets that."""

    text: str


class TypedFloat(float):
    """A number that remembers how it was typed: an option that takes text gets that."""

    text: str


def read(text: str) -> Any:
    """Read one document; empty text is None.

    :raises YamlError: with what was given, what was expected, and where
    """
    if len(text) > LONGEST:
        raise YamlError(f"{len(text)} characters; an experiment has at most {LONGEST}")
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(filter(None, (error.context, error.problem)))
        raise YamlError(message, *((mark.line + 1, mark.column + 1) if mark else ())) from error
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from error
    return builder.root


@dataclass(slots=True)
class _Open:
    """A collection that is being read."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    key: str | None = None  # of a mapping, while its value is awaited
    waits: bool = False  # whether a value is awaited
    below: list[Mapping[str, Any]] = field(default_factory=list)  # mappings that `<<` lays under this one
    size: int = 1


@dataclass(slots=True)
class _Builder:
    """Builds plain data from a parser's events, without recursion."""

    root: Any = None
    documents: int = 0
    size: int = 0
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)  # value, and how many values it holds

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise _at("a second document; an experiment is one", event)
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.AliasEvent():
                if event.anchor not in self.anchors:
                    raise _at(f"*{event.anchor} refers to nothing that is read by then", event)
                value, size = self.anchors[event.anchor]
                self._add(value, size, event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close(event)

    def _open(self, event: Any) -> None:
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        wanted = "map" if is_mapping else "seq"
        if event.tag not in (None, "!", _PREFIX + wanted):
            raise _at(f"could not determine a constructor for the tag {event.tag!r}", event)
        if self.stack and isinstance(self.stack[-1].value, dict) and not self.stack[-1].waits:
            raise _at("a key that is no text; write keys as words", event)
        if len(self.stack) >= DEEPEST:
            raise _at(f"nested deeper than {DEEPEST} levels", event)
        self.stack.append(_Open({} if is_mapping else [], event.anchor))

    def _close(self, event: yaml.Event) -> None:
        done = self.stack.pop()
        value = done.value
        if isinstance(value, dict):
            for under in done.below:
                value = {**under, **value}
        if done.anchor:
            self.anchors[done.anchor] = (value, done.size)
        self._add(value, done.size, event, counted=True)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        if _UNHELD.search(event.value):
            raise _at("text with a NUL or half a surrogate pair, which no file name or JSON text holds", event)
        if self.stack and isinstance(self.stack[-1].value, dict) and not self.stack[-1].waits:
            self._key(event)
            return
        value = _scalar_value(event)
        if event.anchor:
            self.anchors[event.anchor] = (value, 1)
        self._add(value, 1, event)

    def _key(self, event: yaml.ScalarEvent) -> None:
        top = self.stack[-1]
        if event.tag not in (None, "!", _PREFIX + "str"):
            raise _at("a key with a tag; keys are text", event)
        if event.anchor:
            self.anchors[event.anchor] = (event.value, 1)
        if event.value in top.value:
            raise _at(f"duplicate key {event.value}", event)
        is_merge = event.value == "<<" and event.implicit[0]
        top.key, top.waits = None if is_merge else event.value, True

    def _add(self, value: Any, size: int, event: yaml.Event, *, counted: bool = False) -> None:
        self.size += 0 if counted else size
        if self.size > _MOST_VALUES:
            raise _at(f"more than {_MOST_VALUES} values, aliases spelt out", event)
        if not self.stack:
            self.root = value
            return
        top = self.stack[-1]
        top.size += size
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is None:
            under = value if isinstance(value, list) else [value]
            if not all(isinstance(one, dict) for one in under):
                raise _at("<< takes a mapping, or a list of mappings", event)
            top.below += under
        else:
            top.value[top.key] = value
        top.waits = False


def _scalar_value(event: yaml.ScalarEvent) -> Any:
    text, tag = event.value, event.tag
    if tag in (_PREFIX + "str", "!") or (tag is None and not event.implicit[0]):
        return text
    if tag is None:
        return _plain(text, event)
    value = _plain(text, event)
    kinds: dict[str, tuple[type, ...]] = {"null": (type(None),), "bool": (bool,), "int": (int,), "float": (int, float)}
    name = tag.removeprefix(_PREFIX)
    if name not in kinds:
        raise _at(f"could not determine a constructor for the tag {tag!r}", event)
    if not isinstance(value, kinds[name]) or (name in ("int", "float") and isinstance(value, bool)):
        raise _at(f"{text!r} is no {name}", event)
    return float(value) if isinstance(value, int | float) and name == "float" else value


def _plain(text: str, event: yaml.Event) -> Any:
    """What a word without quotes stands for: the core schema of YAML 1.2, chapter 10.3."""
    if _NULL.fullmatch(text):
        return None
    if found := _BOOL.fullmatch(text):
        return bool(found[1])
    if _INT.fullmatch(text):
        if len(text) > _MOST_DIGITS:
            raise _at(f"a whole number of {len(text)} digits; the largest is 2**63 - 1", event)
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return _typed(TypedInt(int(text, base)), int, text)
    if _FLOAT.fullmatch(text):
        return _typed(TypedFloat(text), float, text)
    if found := _BEYOND.fullmatch(text):
        return float("nan") if found[1] is None else float(f"{found[1]}inf")
    return text


def _typed(number: Any, kind: type, text: str) -> Any:
    """A plain number where it reads as it was typed."""
    if str(kind(number)) == text:
        return kind(number)
    number.text = text
    return number


def _at(message: str, event: yaml.Event) -> YamlError:
    mark = event.start_mark
    return YamlError(message, *((mark.line + 1, mark.column + 1) if mark else ()))
