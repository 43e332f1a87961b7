"""Lays one part of an experiment over another: the rule by which recipes, files, arms and command lines combine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_ALWAYS_MERGED = frozenset({"optimizer"})  # has a `use`, but its other keys suit every choice of it


def merge(base: Any, overlay: Any, *, key: str = "") -> Any:
    """Lay ``overlay`` over ``base``; neither is changed.

    Mappings merge key by key. A component that names another ``use`` replaces the one below wholly, since options
    of one mean nothing to the other. Lists and plain values replace; a mapping of indices (``{"0": ...}``) changes
    single items of a list.
    """
    if isinstance(base, Mapping) and isinstance(overlay, Mapping):
        if key not in _ALWAYS_MERGED and "use" in overlay and "use" in base and overlay["use"] != base["use"]:
            return copy(overlay)
        merged = {name: copy(value) for name, value in base.items()}
        for name, value in overlay.items():
            merged[name] = merge(merged[name], value, key=name) if name in merged else copy(value)
        return merged
    if isinstance(base, list) and isinstance(overlay, Mapping) and overlay:
        indices = [index for name in overlay if (index := _index(name, len(base))) is not None]
        if len(indices) == len(overlay):
            items = [copy(item) for item in base]
            for index, value in zip(indices, overlay.values(), strict=True):
                items[index] = merge(items[index], value)
            return items
    return copy(overlay)


def copy(value: Any) -> Any:
    """Copy plain data so that changing the copy leaves the original alone."""
    if isinstance(value, Mapping):
        return {name: copy(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [copy(item) for item in value]
    return value


def at(path: str | Sequence[str], value: Any) -> dict[str, Any]:
    """Nest a value under a dotted path, or its parts: ``at("a.b", 1)`` is ``{"a": {"b": 1}}``."""
    nested = value
    for part in reversed(path.split(".") if isinstance(path, str) else path):
        nested = {part: nested}
    return nested


def put(data: Any, path: Sequence[str], value: Any) -> None:
    """Replace what stands at an existing place of plain data, in place; list indices count too."""
    for part in path[:-1]:
        data = data[int(part)] if isinstance(data, list) else data[part]
    data[int(path[-1]) if isinstance(data, list) else path[-1]] = value


def drop(data: Any, path: Sequence[str]) -> None:
    """Take what stands at a place of plain data away, in place: a list with it, since its other items mean less alone."""
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return
        if part == path[-1] or not isinstance(data[part], Mapping):
            del data[part]  # type: ignore[attr-defined]
            return
        data = data[part]


def depth_reached(data: Any, path: Sequence[str]) -> int:
    """Count the leading parts of ``path`` that exist in ``data``; list indices count too."""
    for depth, part in enumerate(path):
        if isinstance(data, Mapping) and part in data:
            data = data[part]
        elif isinstance(data, list | tuple) and _index(part, len(data)) is not None:
            data = data[int(part)]
        else:
            return depth
    return len(path)


def _index(name: str, length: int) -> int | None:
    return int(name) if name.isascii() and name.isdigit() and int(name) < length else None


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested data by the dotted path one would type; lists of mappings by index."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            flat |= flatten({str(index): item for index, item in enumerate(value)}, f"{path}.")
        else:
            flat[path] = value
    return flat
