"""Options with the secrets that a plan hides, wherever they stand in them: this process's environment has the values."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from orchestrator.contract.component import Component, Use
from orchestrator.contract.secrets import has_password, reveal

_SECRET = "pydantic.types.Secret"  # in the names of SecretStr, SecretBytes and Secret


def revealed(component: Component, options: Mapping[str, Any]) -> dict[str, Any]:
    """A component's options with every hidden text as it was given. Nested components reveal their own.

    :raises ConfigError: a variable is not set; its path begins with the component's name
    """
    fields = component.config.model_fields
    return {
        name: _revealed(value, [fields[name].annotation] if name in fields else [], f"{component.name}.{name}")
        for name, value in options.items()
    }


def _revealed(value: Any, annotations: Sequence[Any], where: str) -> Any:
    if isinstance(value, str):
        is_secret = any(_SECRET in str(annotation) for annotation in annotations)
        return reveal(value, where) if is_secret or has_password(value) else value
    if isinstance(value, Mapping):
        classes = [found for annotation in annotations for found in _classes(annotation)]
        if any(issubclass(found, Use) for found in classes):
            return value
        return {
            key: _revealed(
                one, [types[key] for types in map(_fields, classes) if key in types] or annotations, f"{where}.{key}"
            )
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_revealed(one, annotations, f"{where}.{index}") for index, one in enumerate(value)]
    return value


def _classes(annotation: Any) -> Iterator[type]:
    """Classes with fields that an annotation names."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _classes(argument)


def _fields(cls: type) -> Mapping[str, Any]:
    """A class's fields and their annotations: of a model, a dataclass, a typed dictionary or a named tuple."""
    if issubclass(cls, BaseModel):
        return {name: field.annotation for name, field in cls.model_fields.items()}
    has_fields = dataclasses.is_dataclass(cls) or hasattr(cls, "_fields") or typing.is_typeddict(cls)
    return typing.get_type_hints(cls) if has_fields or hasattr(cls, "__total__") else {}
