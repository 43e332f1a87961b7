"""Files that options name, made absolute where the command runs: a run is resumed from anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from orchestrator.contract.component import Use
from orchestrator.contract.secrets import conceal, has_password
from orchestrator.contract.strict import NamesCode, NamesFile, as_written
from orchestrator.plugging.options import leaves
from orchestrator.plugging.registry import Choice

_SECRETS = (SecretStr, SecretBytes, Secret)
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!/|:memory:|file:)([^?]+)(\?.*)?")


def located(choice: Choice, options: Mapping[str, Any], written: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A component's options as a plan keeps them: paths absolute, ``~`` expanded, secrets hidden; nested ones included.

    :param options: what the choice was judged from
    :param written: references that options came from, by their path inside the options
    """
    return _Keeper(choice.component.name, dict(choice.inner), written or {}).model(choice.config, options, "")


def secrets_in(choice: Choice) -> Iterator[str]:
    """The paths of a component's options that are secrets or addresses with a password."""
    yield from _secrets_in(choice.config, "")
    for path, inner in choice.inner:
        yield from (f"{path}.{own}" for own in secrets_in(inner))


def _secrets_in(value: Any, path: str) -> Iterator[str]:
    for place, leaf in leaves(value, path):
        if isinstance(leaf, _SECRETS) or (isinstance(leaf, str) and has_password(leaf)):
            yield place
        elif is_dataclass(leaf):
            for field in fields(leaf):
                yield from _secrets_in(getattr(leaf, field.name), f"{place}.{field.name}")


def absolute(path: str | Path) -> str:
    """A path from where the command runs, ``~`` expanded; links are kept."""
    try:
        return str(Path(path).expanduser().absolute())
    except (RuntimeError, ValueError, OSError):  # no such user: the path is taken as it stands
        return str(Path(path).absolute())


def absolute_store(uri: str) -> str:
    """The address of a store; where it names a sqlite file, with the file's path from where the command runs."""
    found = _SQLITE.fullmatch(uri)
    return f"{found[1]}{absolute(found[2])}{found[3] or ''}" if found else uri


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


@dataclass(frozen=True, slots=True)
class _Keeper:
    """What a plan may keep of one component's options."""

    name: str
    inner: Mapping[str, Choice]
    written: Mapping[str, str]

    def model(self, config: Any, given: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Of a model, a dataclass or a named tuple, from what it was judged from."""
        made = dict(given)
        declared = type(config).model_fields if isinstance(config, BaseModel) else {}
        for name, value in given.items():
            field = declared.get(name)
            if not hasattr(config, name) or (field is None and isinstance(config, BaseModel)):
                continue
            metadata = _metadata(field.annotation, field.metadata) if field else ()
            markers = list(metadata)
            marked = any(isinstance(one, NamesFile) for one in markers)
            if isinstance(value, str) and any(isinstance(one, NamesCode) and one.kind == "file" for one in markers):
                file, colon, member = value.rpartition(":")
                made[name] = f"{absolute(file)}{colon}{member}" if file else value
                continue
            made[name] = self.value(getattr(config, name), value, f"{path}.{name}" if path else name, marked)
        return made

    def value(self, judged: Any, given: Any, path: str, marked: bool) -> Any:
        is_secret = isinstance(judged, _SECRETS)
        if is_secret and isinstance(given, int | float):
            given = as_written(given)
        if isinstance(given, str) and (is_secret or has_password(given)):
            return conceal(given, f"{self.name}.{path}", self.written.get(path), whole=is_secret)
        if isinstance(judged, Path) and isinstance(given, str):
            return absolute(given)
        if marked and isinstance(given, str):
            return absolute(given) if _is_file(given) else given
        if isinstance(judged, Use) and isinstance(given, Mapping):
            return given if path not in self.inner else {**given, **self._nested(self.inner[path], judged, path)}
        if isinstance(judged, Mapping) and isinstance(given, Mapping):
            return {
                key: self.value(judged[key], one, f"{path}.{key}", marked) if key in judged else one
                for key, one in given.items()
            }
        if isinstance(given, Mapping):
            return self.model(judged, given, path)
        if isinstance(judged, list | tuple) and isinstance(given, list | tuple) and len(judged) == len(given):
            pairs = enumerate(zip(judged, given, strict=True))
            return [self.value(one, other, f"{path}.{index}", marked) for index, (one, other) in pairs]
        return given

    def _nested(self, chosen: Choice, use: Use, path: str) -> dict[str, Any]:
        own = {at.removeprefix(f"{path}."): text for at, text in self.written.items() if at.startswith(f"{path}.")}
        return located(chosen, use.options, own)


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
