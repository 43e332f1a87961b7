"""Options models that take what is meant: a bool is no number, a number no bool, and text is no number.

pydantic alone reads ``true`` as 1.0 and ``"3"`` as 3. The rule holds for every model that derives from
:class:`StrictModel` and every field in it, those of its lists, mappings and unions included.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


@dataclass(frozen=True, slots=True)
class NamesFile:
    """Marks a text that may name a file or folder, or something else, such as a model on a hub."""


PathOrName = Annotated[str, NamesFile()]
"""Text of an option that names a file or folder of this machine, or something else, such as a model on a hub.

Where it names a file, a plan keeps its absolute path, as of every option that is a ``Path``, so that a run is resumed
from any directory.
"""


@dataclass(frozen=True, slots=True)
class NamesCode:
    """Marks a text that names Python code, which running a trial imports, and planning does not.

    ``id: Annotated[str, NamesCode("registered")]``

    :ivar kind: ``module``: the text is a module; ``function``: it is ``module:function``; ``registered``: it is a name, or
        ``module:name`` with a module that registers it
    """

    kind: Literal["module", "function", "registered"]


LARGEST = 2**63 - 1  # what JSON readers, numpy and torch hold
_CHILDREN = ("schema", "items_schema", "keys_schema", "values_schema", "choices", "fields", "lax_schema", "arguments")


def as_written(number: int | float) -> str:
    """A number as the user typed it, where that was kept: ``010``, ``1e3``, ``2024_01``."""
    return getattr(number, "text", None) or str(number)


def _strict(schema: Any) -> Any:
    """Guard every number, bool and text of a schema; others are gone through."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_strict, schema))
    if not isinstance(schema, Mapping):
        return schema
    kind = schema.get("type")
    if kind in _GUARDS and "ref" not in schema:
        return _guarded(dict(schema), _GUARDS[kind])
    if kind in ("literal", "enum"):
        members = schema["expected"] if kind == "literal" else [member.value for member in schema["members"]]
        if any(isinstance(one, int | float) for one in members):  # text is never taken for another
            return _guarded(dict(schema), functools.partial(_member, members))
        return schema
    if isinstance(kind, str) and kind.startswith("function-") and (schema.get("metadata") or {}).get("strict_model"):
        return schema  # guarded when the model it stands in was made
    made = dict(schema)
    for key in _CHILDREN:
        if key not in made:
            continue
        if key == "fields" and isinstance(made[key], Mapping):
            made[key] = {name: _strict(field) for name, field in made[key].items()}
        elif key == "choices":
            made[key] = _choices(made[key])
        else:
            made[key] = _strict(made[key])
    return made


def _choices(choices: Any) -> Any:
    """Members of a union. Text beside numbers stays text alone: a number is meant as one there."""
    if isinstance(choices, Mapping):
        return {tag: _strict(choice) for tag, choice in choices.items()}
    kinds = {choice.get("type") for choice in choices if isinstance(choice, Mapping)}
    numeric = bool(kinds & {"int", "float"})
    return [
        choice if numeric and isinstance(choice, Mapping) and choice.get("type") == "str" else _strict(choice)
        for choice in choices
    ]


def _guarded(schema: dict[str, Any], guard: Callable[[Any], Any]) -> CoreSchema:
    return core_schema.no_info_before_validator_function(
        guard,
        schema,
        metadata={"strict_model": True},
    )


def _whole(value: Any) -> Any:
    _number(value, "integer")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise PydanticCustomError("too_large", "Input should be at most 2**63 - 1 in size")
    return value


def _real(value: Any) -> Any:
    _number(value, "number")
    return value


def _number(value: Any, wanted: str) -> None:
    if isinstance(value, bool):
        raise PydanticCustomError("bool_as_number", f"Input should be a valid {wanted}, and true and false are none")
    if isinstance(value, str | bytes):
        raise PydanticCustomError("text_as_number", f"Input should be a valid {wanted}, and this is text")


def _truth(value: Any) -> Any:
    if not isinstance(value, bool) and isinstance(value, int | float | str | bytes):
        raise PydanticCustomError("no_bool", "Input should be a valid boolean: true or false")
    return value


def _member(members: Any, value: Any) -> Any:
    """Tell true from 1 and false from 0, which Python calls equal."""
    if isinstance(value, int | float) and not isinstance(value, Enum):
        alike = [member for member in members if isinstance(member, bool) is isinstance(value, bool)]
        if value not in alike:
            raise PydanticCustomError("no_member", "Input should be one of: {members}", {"members": _listed(members)})
    return value


def _listed(members: Any) -> str:
    return ", ".join(str(one).lower() if isinstance(one, bool) else str(one) for one in members)


def _text(value: Any) -> Any:
    return as_written(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


_GUARDS: dict[str, Callable[[Any], Any]] = {"int": _whole, "float": _real, "bool": _truth, "str": _text}


class StrictModel(BaseModel):
    """A pydantic model whose numbers are finite numbers, whose bools are bools, and whose text may be a number typed."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _strict(handler(source))
