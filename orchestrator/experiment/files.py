"""Reads experiment files and command-line settings into plain data. The only module that knows OmegaConf."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.errors import ConfigError, Problem
from orchestrator.experiment.overlay import merge


@dataclass(frozen=True, slots=True, kw_only=True)
class RawExperiment:
    """An experiment as the user wrote it: plain data, interpolations resolved, nothing judged yet."""

    file: Mapping[str, Any]
    overrides: Mapping[str, Any] = field(default_factory=dict)  # from the command line, nested
    source: str | None = None  # path of the file


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> RawExperiment:
    """Read an experiment file and the ``key=value`` settings that go over it.

    Interpolations such as ``${schedule.steps}`` see the file with the command line laid over it.

    :raises ConfigError: no such file, bad YAML (with its line), a setting without ``=``, an interpolation that
        leads nowhere; all problems at once
    """
    problems: list[Problem] = []
    return _combine(_read(Path(path), problems), overrides, problems, source=str(path))


def parse_experiment(text: str, overrides: Sequence[str] = ()) -> RawExperiment:
    """Read an experiment from YAML text instead of a file.

    :raises ConfigError: as :func:`load_experiment`
    """
    problems: list[Problem] = []
    return _combine(_parse(text, "<text>", problems), overrides, problems, source=None)


def _combine(
    file: dict[str, Any], overrides: Sequence[str], problems: list[Problem], *, source: str | None
) -> RawExperiment:
    settings = _parse_overrides(overrides, problems)
    if problems:
        raise ConfigError(problems)
    merged = merge(file, settings)
    resolved = _resolve(OmegaConf.create(merged), "", problems)
    if problems:
        raise ConfigError(problems)
    return RawExperiment(
        file=_settle(file, merged, resolved), overrides=_settle(settings, merged, resolved), source=source
    )


def _read(path: Path, problems: list[Problem]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = [str(other) for other in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
        close = difflib.get_close_matches(str(path), near, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        problems.append(Problem(str(path), f"no such file{hint}"))
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), f"cannot be read: {error}"))
        return {}
    return _parse(text, str(path), problems)


def _parse(text: str, source: str, problems: list[Problem]) -> dict[str, Any]:
    try:
        config = OmegaConf.create(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        problems.append(Problem(where, " ".join(filter(None, (error.context, error.problem)))))
        return {}
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        problems.append(Problem(source, f"is no YAML: {str(error).splitlines()[0]}"))
        return {}
    plain = OmegaConf.to_container(config, resolve=False)
    # a bare word comes back as {word: None}, so an experiment without a single value is no experiment
    if not isinstance(plain, dict) or (plain and all(value is None for value in plain.values())):
        problems.append(Problem(source, "expected a mapping of keys such as `name:` and `environment:`"))
        return {}
    return _text_keys(plain)


def _parse_overrides(overrides: Sequence[str], problems: list[Problem]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key.strip() or not all(key.strip().split(".")):
            problems.append(Problem(override, "expected key=value, as in schedule.steps=10"))
            continue
        try:
            config = OmegaConf.from_dotlist([override.strip()])
            merged = merge(merged, _text_keys(OmegaConf.to_container(config, resolve=False)))
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            problems.append(Problem(key, f"the value is no YAML: {str(error).splitlines()[0]}"))
    return merged


def _text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _text_keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_text_keys(item) for item in value]
    return value


def _resolve(node: Any, path: str, problems: list[Problem]) -> Any:
    """Turn a config into plain data, noting every interpolation that fails."""
    if isinstance(node, DictConfig):
        return {key: _resolve_child(node, key, path, problems) for key in node}
    if isinstance(node, ListConfig):
        return [_resolve_child(node, index, path, problems) for index in range(len(node))]
    return node


def _resolve_child(node: DictConfig | ListConfig, key: Any, path: str, problems: list[Problem]) -> Any:
    where = f"{path}.{key}" if path else str(key)
    if OmegaConf.is_missing(node, key):
        problems.append(Problem(where, "is ???, which stands for a value you must give, here or as key=value"))
        return None
    try:
        child = node[key]
    except OmegaConfBaseException as error:
        problems.append(Problem(where, f"cannot be resolved: {str(error).splitlines()[0]}"))
        return None
    return _resolve(child, where, problems)


def _settle(layer: Any, merged: Any, resolved: Any) -> Any:
    """Put resolved values where a layer has interpolations; what another layer overrides is dead and stays as it is."""
    if isinstance(layer, dict):
        if not isinstance(merged, dict) or not isinstance(resolved, dict):
            return layer
        return {key: _settle(item, merged.get(key), resolved.get(key)) for key, item in layer.items()}
    if isinstance(layer, list):
        if not isinstance(merged, list) or not isinstance(resolved, list):
            return layer
        return [_settle(item, merged[i], resolved[i]) if i < len(merged) else item for i, item in enumerate(layer)]
    if isinstance(layer, str) and "${" in layer and layer == merged:
        return resolved
    return layer
