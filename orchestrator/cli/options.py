"""Models of options in words: what may be written, within which bounds, what stands where nothing is written."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from orchestrator.contract.component import Use

_NAMES: dict[Any, str] = {
    Any: "anything",
    bool: "true or false",
    float: "number",
    int: "whole number",
    str: "text",
    type(None): "null",
}
_BOUNDS = {"ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}", "multiple_of": "a multiple of {}"}
_BOUNDS |= {"min_length": "at least {} long", "max_length": "at most {} long", "pattern": "matches {}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option, wherever in the model it stands.

    :ivar path: dotted, as one would type it; ``N`` stands for the place in a list, ``NAME`` for a key
    :ivar type: what may be written, in words; of a closed set the members
    :ivar bounds: of the value, or of each item; empty: none
    :ivar default: plain JSON; None where it is required, or null
    :ivar required: whether something must be written
    :ivar meaning: its description
    """

    path: str
    type: str
    bounds: str
    default: Any
    required: bool
    meaning: str

    @property
    def shown(self) -> str:
        """The default as one would write it in an experiment file."""
        return "required" if self.required else flow(self.default)

    @property
    def shown_with_name(self) -> str:
        """The default where it stands in a sentence."""
        return "required" if self.required else f"default {flow(self.default)}"


def options_of(model: type[BaseModel]) -> list[Option]:
    """Every option of a model, those of models inside it beneath the option that holds them."""
    return list(_options(model, None, "", ()))


def flow(value: Any) -> str:
    """Plain JSON as one line of YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return repr(value) if value == "" else str(value)


def _options(model: type[BaseModel], given: Any, prefix: str, around: tuple[Any, ...]) -> Iterator[Option]:
    """:param given: the model's own default, whose values stand in place of its fields' defaults"""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        default = getattr(given, name) if isinstance(given, model) else field.get_default(call_default_factory=True)
        required = field.is_required() and not isinstance(given, model)
        bounds = [*_bounds(field.metadata), *(f"each {bound}" for bound in _inner_bounds(annotation))]
        inner = list(_models(annotation, f"{prefix}{name}"))
        yield Option(
            path=f"{prefix}{name}",
            type=words(annotation),
            bounds=", ".join(dict.fromkeys(bounds)),
            default=None if required else _plain(default),
            required=required,
            meaning=field.description or "",
        )
        for path, found in inner:
            if found not in around and not issubclass(found, Use):
                yield from _options(found, default, f"{path}.", (*around, model, found))


def words(annotation: Any) -> str:
    """A type as a reader of experiment files would say it."""
    if annotation in _NAMES:
        return _NAMES[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return words(arguments[0])
    if origin is Literal:
        return " | ".join(flow(_plain(choice)) for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(words, arguments)))
    if origin in (tuple, list, set, frozenset) or (isinstance(origin, type) and issubclass(origin, typing.Sequence)):
        if origin is tuple and arguments[-1:] != (...,):
            return f"list: {', '.join(map(words, arguments))}"
        return f"list of {words(arguments[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {words(arguments[0])} to {words(arguments[1])}"
    return _class_in_words(annotation)


def _class_in_words(annotation: Any) -> str:
    if not isinstance(annotation, type):
        return str(annotation).replace("typing.", "")
    if issubclass(annotation, Use):
        return f"{{use: {annotation.role}, ...}}" if hasattr(annotation, "role") else "{use: component, ...}"
    if issubclass(annotation, BaseModel):
        chosen = annotation.model_fields.get("use")
        which = f"use: {words(chosen.annotation)}, " if chosen else ""
        return f"{{{which}...}}"
    if issubclass(annotation, Enum):
        return " | ".join(str(member.value) for member in annotation)
    return annotation.__name__.lower()


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for one in metadata:
        if isinstance(one, FieldInfo):
            yield from _bounds(one.metadata)
            continue
        for name, text in _BOUNDS.items():
            value = getattr(one, name, None)
            if value is not None:
                yield text.format(f"{value:g}" if isinstance(value, float) else value)


def _inner_bounds(annotation: Any) -> Iterator[str]:
    """Bounds of the items of a list, and of a value that may also be null."""
    if typing.get_origin(annotation) is typing.Annotated:
        yield from _bounds(list(annotation.__metadata__))
    for argument in typing.get_args(annotation):
        if not isinstance(argument, str):
            yield from _inner_bounds(argument)


def _models(annotation: Any, path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models an option may hold, each with the path to its fields."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield path, annotation
    elif origin is not None and origin is not Literal:
        step = ""
        if isinstance(origin, type) and origin not in (types.UnionType, typing.Annotated):
            step = ".NAME" if issubclass(origin, Mapping) else ".N"
        for argument in arguments:
            yield from _models(argument, f"{path}{step}")


def _plain(value: Any) -> Any:
    """A default as plain JSON; of a nested component what one would write."""
    if isinstance(value, Use):
        return {"use": value.use, **value.options}
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
