"""Files that options name, made absolute where the command runs: a run is resumed from anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from orchestrator.contract.component import Use
from orchestrator.contract.secrets import conceal, has_password
from orchestrator.contract.strict import NamesCode, NamesFile
from orchestrator.plugging.registry import Choice


def located(choice: Choice, options: Mapping[str, Any], written: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A component's options as a plan keeps them: paths absolute, ``~`` expanded, secrets hidden; nested ones included.

    :param options: what the choice was judged from
    :param written: references that options came from, by their path inside the options
    """
    made = _model(choice.config, options, dict(choice.inner), "")
    for name, value in made.items():
        is_secret = isinstance(getattr(choice.config, name, None), SecretStr)
        if isinstance(value, str) and (is_secret or has_password(value)):
            made[name] = conceal(value, f"{choice.component.name}.{name}", (written or {}).get(name), whole=is_secret)
    return made


def absolute(path: str | Path) -> str:
    """A path from where the command runs, ``~`` expanded; links are kept."""
    try:
        return str(Path(path).expanduser().absolute())
    except (RuntimeError, ValueError, OSError):  # no such user: the path is taken as it stands
        return str(Path(path).absolute())


def code_named(choice: Choice) -> Iterator[tuple[str, NamesCode, str]]:
    """Every option of a component that names Python code: its path, what kind of name it is, and the name."""
    for name, field in type(choice.config).model_fields.items():
        yield from _code(getattr(choice.config, name), field.annotation, field.metadata, name)
    for path, inner in choice.inner:
        yield from ((f"{path}.{own}", marker, text) for own, marker, text in code_named(inner))


def _code(value: Any, annotation: Any, metadata: list[Any], path: str) -> Iterator[tuple[str, NamesCode, str]]:
    markers = [one for one in _metadata(annotation, metadata) if isinstance(one, NamesCode)]
    if isinstance(value, BaseModel) and not isinstance(value, Use):
        for name, field in type(value).model_fields.items():
            yield from _code(getattr(value, name), field.annotation, field.metadata, f"{path}.{name}")
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _code(one, annotation, metadata, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from _code(one, annotation, metadata, f"{path}.{index}")
    elif isinstance(value, str) and markers and (":" in value or markers[0].kind == "module"):
        yield path, markers[0], value


def _model(config: BaseModel, given: Mapping[str, Any], inner: Mapping[str, Choice], path: str) -> dict[str, Any]:
    made = dict(given)
    for name, value in given.items():
        field = type(config).model_fields.get(name)
        if field is None:
            continue
        marked = any(isinstance(one, NamesFile) for one in _metadata(field.annotation, field.metadata))
        where = f"{path}.{name}" if path else name
        made[name] = _value(getattr(config, name), value, inner, where, marked)
    return made


def _value(judged: Any, given: Any, inner: Mapping[str, Choice], path: str, marked: bool) -> Any:
    if isinstance(judged, Path) and isinstance(given, str):
        return absolute(given)
    if marked and isinstance(given, str):
        return absolute(given) if _is_file(given) else given
    if isinstance(judged, Use) and isinstance(given, Mapping):
        chosen = inner.get(path)
        return given if chosen is None else {**given, **located(chosen, judged.options)}
    if isinstance(judged, BaseModel) and isinstance(given, Mapping):
        return _model(judged, given, inner, path)
    if isinstance(judged, Mapping) and isinstance(given, Mapping):
        return {
            key: _value(judged[key], one, inner, f"{path}.{key}", marked) if key in judged else one
            for key, one in given.items()
        }
    if isinstance(judged, list | tuple) and isinstance(given, list | tuple) and len(judged) == len(given):
        pairs = enumerate(zip(judged, given, strict=True))
        return [_value(one, other, inner, f"{path}.{index}", marked) for index, (one, other) in pairs]
    return given


def _is_file(text: str) -> bool:
    """Whether a text that may be a name means a file or folder of this machine."""
    try:
        return text.startswith(("/", "~", "./", "../")) or text in (".", "..") or Path(text).exists()
    except (OSError, ValueError):
        return False


def _metadata(annotation: Any, own: list[Any]) -> Iterator[Any]:
    yield from own
    yield from getattr(annotation, "__metadata__", ())
    for argument in getattr(annotation, "__args__", ()):
        yield from _metadata(argument, [])
