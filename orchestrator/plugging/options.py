"""Models of options: what is wrong with one, what a user's data lack of one, which components it nests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.contract.component import Use
from orchestrator.contract.strict import loose
from orchestrator.errors import Problem, did_you_mean


def option_problems(error: ValidationError, model: type[BaseModel], path: str, data: Any) -> list[Problem]:
    """Turn pydantic's errors into problems at the path the user typed, with the nearest key for unknown ones.

    :param path: where ``data`` stands in the file; empty for the whole file
    :param data: what was judged, to tell the user's keys from pydantic's names of union members
    """
    found: dict[str, list[str]] = {}
    for detail in error.errors():
        typed = _typed(detail["loc"], data, missing=detail["type"] == "missing")
        where = ".".join(filter(None, (path, *typed)))
        if detail["type"] == "extra_forbidden":
            fields = _fields_at(model, typed[:-1])
            hint = did_you_mean(typed[-1], fields)
            message = f"unknown key{hint}" + (
                f" Expected one of: {', '.join(sorted(fields))}." if fields else " It takes no options."
            )
        elif detail["type"] == "missing" and isinstance(detail["input"], list | tuple):
            found.pop(where, None)  # each missing item is one such error; the last one says how many there must be
            message = f"too few items: expected {int(detail['loc'][-1]) + 1}; got {_short(detail['input'])}"
        elif detail["type"] == "missing":
            message = "missing; it has no default"
        elif detail["type"] in ("tuple_type", "list_type"):
            message = _no_list(detail["input"], _fields_at(model, typed))
        else:
            message = f"{detail['msg'].removeprefix('Value error, ')}; got {_short(detail['input'])}"
        messages = found.setdefault(where, [])
        if message not in messages:
            messages.append(message)
    return [Problem(where, ", or: ".join(messages)) for where, messages in found.items()]


def _no_list(value: Any, fields: list[str]) -> str:
    """What to write where something else stands in place of a list.

    :param fields: of the list's items, where they are mappings
    """
    if isinstance(value, Mapping) and value and all(str(key).isdigit() for key in value):
        return f"there is no item {', '.join(map(str, value))} to change; write the whole list"
    item = f"{{use: {value}}}" if "use" in fields and isinstance(value, str) else _short(value)
    example = f", as in [{item}]" if value is not None else ""
    return f"expected a list{example}; got {_short(value)}"


def _typed(location: tuple[int | str, ...], data: Any, *, missing: bool) -> tuple[str, ...]:
    """Keep the parts of a pydantic location that exist in the data, and the last one where it names a missing key."""
    typed = []
    for place, part in enumerate(location):
        indexed = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if indexed or (isinstance(data, Mapping) and part in data):
            data = data[part]
        elif not (missing and isinstance(data, Mapping) and place == len(location) - 1):
            continue
        typed.append(str(part))
    return tuple(typed)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _fields_at(model: type[BaseModel], location: tuple[str, ...]) -> list[str]:
    """Names a user may write at a place inside a model."""
    models = [model]
    for part in location:
        annotations = [inner.model_fields[part].annotation for inner in models if part in inner.model_fields]
        if not annotations and part.isdigit():
            continue  # a list item; its model was entered with the list
        models = [found for annotation in annotations for found in _inner_models(annotation)]
    return list(dict.fromkeys(name for found in models for name in found.model_fields))


def _inner_models(annotation: Any) -> list[type[BaseModel]]:
    found = [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
    for argument in getattr(annotation, "__args__", ()):
        found += _inner_models(argument)
    return found


def model_problems(model: Any) -> list[str]:
    """What is wrong with an options model, models nested in it included."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return [f"config is {model!r}; expected a subclass of PluginConfig"]
    problems, seen, waiting = [], set(), [model]
    while waiting:
        current = waiting.pop()
        if current in seen or issubclass(current, Use):
            continue
        seen.add(current)
        if not current.model_config.get("frozen"):
            problems.append(f"options model {current.__name__} is not frozen; derive it from PluginConfig")
        if current.model_config.get("extra") != "forbid":
            problems.append(f"options model {current.__name__} accepts unknown keys; derive it from PluginConfig")
        for field in current.model_fields.values():
            waiting += _inner_models(field.annotation)
    return problems + [
        f"options model {cls.__name__} reads true as 1 and '3' as 3; derive it from PluginConfig"
        for cls in loose(model)
    ]


def uses(options: BaseModel) -> Iterator[tuple[str, Use]]:
    """Nested components in an options model with their paths, however deep."""
    return ((path, value) for path, value in leaves(options) if isinstance(value, Use))


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What options models, mappings and lists hold in the end, with its path; a nested component counts as one value."""
    inner: Iterable[tuple[Any, Any]]
    if isinstance(value, BaseModel) and not isinstance(value, Use):
        inner = ((name, getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    else:
        yield path, value
        return
    for key, item in inner:
        yield from leaves(item, f"{path}.{key}" if path else str(key))
