"""Options models that take what is meant: a bool is no number, a number no bool, and text is no number.

pydantic alone reads ``true`` as 1.0 and ``"3"`` as 3. The rule holds for every model that derives from
:class:`StrictModel` and every field in it, those of its lists, mappings and unions included, and those of
dataclasses, typed dictionaries, named tuples and enums that it holds. Models that it holds derive from it too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, cast

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

    :ivar kind: ``module``: the text is a module; ``function``: it is ``module:function``; ``file``: it is
        ``path.py:function``, and a plan keeps the absolute path; ``registered``: it is a name, or ``module:name`` with a
        module that registers it
    :ivar deferred: building the component imports nothing, so that a plan may build it; it imports when it is first asked
    """

    kind: Literal["module", "function", "file", "registered"]
    deferred: bool = False


LARGEST = 2**63 - 1  # what JSON readers, numpy and torch hold
_CHILDREN = (
    "schema",
    "items_schema",
    "keys_schema",
    "values_schema",
    "extras_schema",
    "lax_schema",
    "strict_schema",
    "json_schema",
    "python_schema",
    "arguments_schema",
    "steps",
    "choices",
    "fields",
)


def as_written(number: int | float) -> str:
    """A number as the user typed it, where that was kept: ``010``, ``1e3``, ``2024_01``."""
    return getattr(number, "text", None) or str(number)


class _Guards:
    """Guards every number, bool and text of a schema; others are gone through.

    Models are left: those that derive from :class:`StrictModel` were guarded when they were made, and a plugin with
    others is refused (:func:`loose`). All else that has a name of its own (dataclasses, typed dictionaries, enums) is
    defined once more, guarded, under another name: what its maker uses stays.
    """

    def __init__(self, resolve: Callable[[CoreSchema], CoreSchema]) -> None:
        self._resolve = resolve
        self._defined: dict[str, Any] = {}

    def model(self, schema: CoreSchema) -> CoreSchema:
        """The schema of one model, with the definitions that it needs."""
        made = self._inside(schema)
        return core_schema.definitions_schema(made, list(self._defined.values())) if self._defined else made

    def _any(self, schema: Any) -> Any:
        if isinstance(schema, list | tuple):
            return type(schema)(map(self._any, schema))
        if not isinstance(schema, Mapping) or _has_its_own_guards(schema):
            return schema
        if schema.get("type") == "definition-ref":
            try:
                resolved = self._resolve(cast(CoreSchema, schema))
            except LookupError:  # still being made, around this one
                return schema
            return schema if _has_its_own_guards(resolved) else self._named(resolved)
        return self._named(schema) if "ref" in schema else self._inside(schema)

    def _named(self, schema: Mapping[str, Any]) -> CoreSchema:
        name, _, number = schema["ref"].rpartition(":")  # pydantic's way: name and identity, the name for JSON Schema
        ref = f"{name}Strict:{number}"
        if ref not in self._defined:
            self._defined[ref] = None  # it may hold itself
            bare = {key: value for key, value in schema.items() if key != "ref"}
            if bare["type"] in ("dataclass", "typed-dict"):
                bare["config"] = {"allow_inf_nan": False} | (bare.get("config") or {})
            self._defined[ref] = self._inside(bare) | {"ref": ref}
        return core_schema.definition_reference_schema(ref)

    def _inside(self, schema: Mapping[str, Any]) -> Any:
        kind = schema.get("type")
        if kind in _GUARDS:
            return _guarded(dict(schema), _GUARDS[kind])
        if kind in ("literal", "enum"):
            members = schema["expected"] if kind == "literal" else [member.value for member in schema["members"]]
            if any(isinstance(one, int | float) for one in members):
                return _guarded(dict(schema), functools.partial(_member, members))
            return schema
        made = dict(schema)
        for key in _CHILDREN:
            if key not in made:
                continue
            if key == "fields" and isinstance(made[key], Mapping):
                made[key] = {name: self._any(field) for name, field in made[key].items()}
            elif key == "choices":
                made[key] = self._choices(made[key])
            else:
                made[key] = self._any(made[key])
        return made

    def _choices(self, choices: Any) -> Any:
        """Members of a union. Text beside numbers stays text alone: a number is meant as one there."""
        if isinstance(choices, Mapping):
            return {tag: self._any(choice) for tag, choice in choices.items()}
        kinds = {choice.get("type") for choice in choices if isinstance(choice, Mapping)}
        numeric = bool(kinds & {"int", "float"})
        return [
            choice if numeric and isinstance(choice, Mapping) and choice.get("type") == "str" else self._any(choice)
            for choice in choices
        ]


def _has_its_own_guards(schema: Mapping[str, Any]) -> bool:
    """Whether a schema needs no guard of ours: a model, with validators around it or not, a guard, or names alone."""
    if (schema.get("metadata") or {}).get("strict_model"):
        return True
    while schema.get("type") in ("function-after", "function-before", "function-wrap"):
        schema = schema["schema"]
    if schema.get("type") == "enum":
        return not any(isinstance(member.value, int | float) for member in schema["members"])
    return schema.get("type") == "model"


def loose(model: type[BaseModel]) -> list[type]:
    """Classes that an options model holds, however deep, and that read ``true`` as 1 by validators of their own."""
    found: dict[type, None] = {}
    waiting: list[Any] = [model.__pydantic_core_schema__]
    while waiting:
        schema = waiting.pop()
        if isinstance(schema, list | tuple):
            waiting += schema
        elif isinstance(schema, Mapping):
            cls = schema.get("cls")
            validates = schema.get("type") in ("model", "dataclass") and "__pydantic_validator__" in vars(cls)
            if isinstance(cls, type) and validates and not issubclass(cls, StrictModel):
                found[cls] = None
            waiting += [
                inner for key, inner in schema.items() if key not in ("metadata", "default", "expected", "config")
            ]
    return list(found)


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


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("bool_as_number", "Input should not be true or false")
    return value


def _truth(value: Any) -> Any:
    if not isinstance(value, bool) and isinstance(value, int | float | str | bytes):
        raise PydanticCustomError("no_bool", "Input should be a valid boolean: true or false")
    return value


def _member(members: Any, value: Any) -> Any:
    """Tell true from 1 and false from 0, which Python calls equal, and text from numbers."""
    if isinstance(value, str) and not isinstance(value, Enum) and not any(isinstance(one, str) for one in members):
        raise PydanticCustomError("no_member", "Input should be one of: {members}", {"members": _listed(members)})
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
_GUARDS |= dict.fromkeys(("decimal", "complex", "timedelta", "time", "date", "datetime"), _no_truth)  # may be text


class StrictModel(BaseModel):
    """A pydantic model whose numbers are finite numbers, whose bools are bools, and whose text may be a number typed."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _Guards(handler.resolve_ref_schema).model(handler(source))
