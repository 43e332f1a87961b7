"""Reads experiment files and command-line settings into plain data, and resolves ``${...}``. The only home of OmegaConf."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.contract.plan import Reference
from orchestrator.errors import ConfigError, Problem, did_you_mean
from orchestrator.experiment import yaml12
from orchestrator.experiment.overlay import at, copy, merge, put

MISSING = "???"
_MOST_OVERRIDES = 1000
_VARIABLES = {"uri": "MLFLOW_TRACKING_URI", "experiment": "MLFLOW_EXPERIMENT_NAME"}  # by key of `tracking`
_ITEM = re.compile(r"\[(\d+)\]")  # rewards[0].weight


@dataclass(frozen=True, slots=True, kw_only=True)
class RawExperiment:
    """An experiment as the user wrote it: plain data, ``${...}`` as written, nothing judged yet."""

    file: Mapping[str, Any]
    overrides: Mapping[str, Any] = field(default_factory=dict)  # from the command line, nested
    source: str | None = None  # path of the file
    unknown_arms: Mapping[str, Problem] = field(default_factory=dict)  # that the command line changes, by name


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> RawExperiment:
    """Read an experiment file and the ``key=value`` settings that go over it.

    References such as ``${schedule.steps}`` stay as they are: what they stand for is known of each trial only.

    :raises ConfigError: no such file, bad YAML (with its line), a setting without ``=``; all problems at once
    """
    problems: list[Problem] = []
    return _combine(_read(Path(path), problems), overrides, problems, source=str(path))


def parse_experiment(text: str, overrides: Sequence[str] = ()) -> RawExperiment:
    """Read an experiment from YAML text instead of a file.

    :raises ConfigError: as :func:`load_experiment`
    """
    problems: list[Problem] = []
    return _combine(_parse(text, "<text>", problems), overrides, problems, source=None)


def given_experiment(
    source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any], problems: list[Problem]
) -> RawExperiment:
    """Take an experiment from Python: a file or plain data, and values over it by (dotted) key.

    :param problems: found before
    :raises ConfigError: as :func:`load_experiment`
    """
    is_data = isinstance(source, Mapping)
    file = dict(source) if isinstance(source, Mapping) else _read(Path(source), problems)
    unknown_arms: dict[str, Problem] = {}
    settings = _lay_over(list(overrides.items()), file.get("arms"), unknown_arms, problems)
    if problems:
        raise ConfigError(problems)
    name = None if is_data else str(source)
    return RawExperiment(
        file=_with_environment(file, settings), overrides=settings, source=name, unknown_arms=unknown_arms
    )


def _combine(
    file: dict[str, Any], overrides: Sequence[str], problems: list[Problem], *, source: str | None
) -> RawExperiment:
    unknown_arms: dict[str, Problem] = {}
    settings = _parse_overrides(overrides, file.get("arms"), unknown_arms, problems)
    if problems:
        raise ConfigError(problems)
    return RawExperiment(
        file=_with_environment(file, settings), overrides=settings, source=source, unknown_arms=unknown_arms
    )


def _with_environment(file: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What MLflow's own variables say of tracking, beneath what the user wrote; as references, so that no secret is kept."""
    layers = [layer.get("tracking") for layer in (file, overrides)]
    if any(layer is not None and not isinstance(layer, Mapping) for layer in layers):
        return dict(file)  # refused by the settings model
    written = {key for layer in layers if isinstance(layer, Mapping) for key in layer}
    said = {
        key: f"${{oc.env:{variable}}}"
        for key, variable in _VARIABLES.items()
        if key not in written and os.environ.get(variable)
    }
    return merge({"tracking": said}, file) if said else dict(file)


def _read(path: Path, problems: list[Problem]) -> dict[str, Any]:
    try:
        with path.open("rb") as file:  # which may be a device that never ends
            text = file.read(4 * yaml12.LONGEST + 1).decode("utf-8")
    except FileNotFoundError:
        near = [str(other) for other in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
        close = difflib.get_close_matches(str(path), near, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        problems.append(Problem(str(path), f"no such file{hint}"))
        return {}
    except (OSError, ValueError) as error:
        problems.append(Problem(str(path), f"cannot be read: {error}"))
        return {}
    return _parse(text, str(path), problems)


def _parse(text: str, source: str, problems: list[Problem]) -> dict[str, Any]:
    try:
        plain = yaml12.read(text)
    except yaml12.YamlError as error:
        where = f"{source}:{error.line}:{error.column}" if error.line else source
        problems.append(Problem(where, str(error)))
        return {}
    if plain is None:
        return {}
    # a bare word comes back as {word: None} from flow mappings, so that an experiment without a value is none
    if not isinstance(plain, dict) or (plain and all(value is None for value in plain.values())):
        problems.append(Problem(source, "expected a mapping of keys such as `name:` and `environment:`"))
        return {}
    return plain


def _parse_overrides(
    overrides: Sequence[str], arms: Any, unknown_arms: dict[str, Problem], problems: list[Problem]
) -> dict[str, Any]:
    if len(overrides) > _MOST_OVERRIDES:
        problems.append(Problem("", f"{len(overrides)} settings on the command line; write them into the file"))
        return {}
    pairs = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(_parts(key)):
            problems.append(Problem(_cut(override), "expected key=value, as in schedule.steps=10"))
            continue
        try:
            pairs.append((key, yaml12.read(text.strip())))
        except yaml12.YamlError as error:
            problems.append(Problem(key, f"the value is no YAML: {error}"))
    return _lay_over(pairs, arms, unknown_arms, problems)


def _parts(key: str) -> list[str]:
    return _ITEM.sub(r".\1", key.strip()).split(".")


def _lay_over(
    pairs: Sequence[tuple[str, Any]], arms: Any, unknown_arms: dict[str, Problem], problems: list[Problem]
) -> dict[str, Any]:
    """Values by dotted key, in order, as one nested mapping."""
    merged: dict[str, Any] = {}
    known = set(arms) if isinstance(arms, Mapping) else set()
    for key, value in pairs:
        parts = _parts(key)
        if not all(parts):
            problems.append(Problem(_cut(key), "expected a key, as in schedule.steps"))
            continue
        if len(parts) > yaml12.DEEPEST:
            problems.append(Problem(_cut(key), f"{len(parts)} parts; nothing lies deeper than {yaml12.DEEPEST}"))
            continue
        if parts[0] == "arms":
            known |= set(value) if len(parts) == 1 and isinstance(value, Mapping) else set()
            known |= {parts[1]} if len(parts) == 2 and isinstance(value, Mapping | None) else set()
            if len(parts) > 2 and parts[1] not in known:
                unknown_arms.setdefault(parts[1], Problem(key.strip(), _no_such_arm(parts[1], known)))
        merged = merge(merged, at(parts, value))
    return merged


def _no_such_arm(name: str, known: set[str]) -> str:
    arms = f"Arms: {', '.join(sorted(known))}." if known else "The file has no arms."
    return (
        f"no arm {name!r}{did_you_mean(name, known)} {arms} A new arm is given as a whole: arms.{name}={{recipe: ...}}"
    )


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- references -----------------------------------------------------------------------------------------------


def references(data: Any) -> tuple[Reference, ...]:
    """Every place where plain data has a ``${...}``."""
    return tuple(
        Reference(path=path, text=value)
        for path, value in _leaves(data, ())
        if isinstance(value, str) and "${" in value
    )


def spelt_out(file: Mapping[str, Any], overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both layers, with references to whole mappings as references to what those hold, so that arms can change it."""
    whole = merge(file, overrides)
    made = []
    for layer in (file, overrides):
        changed = copy(layer)
        for reference in references(layer):
            target = _whole_mapping(reference.text, whole)
            if target is not None:
                put(changed, reference.path, target)
        made.append(changed)
    return made[0], made[1]


def _whole_mapping(text: str, whole: Mapping[str, Any]) -> dict[str, Any] | None:
    found = re.fullmatch(r"\$\{([A-Za-z_][\w.+-]*)\}", text)
    target: Any = whole
    for part in found[1].split(".") if found else ():
        target = target.get(part) if isinstance(target, Mapping) else None
    if found is None or not isinstance(target, Mapping):
        return None
    return _pointing(target, found[1])


def _pointing(target: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {
        key: _pointing(value, f"{path}.{key}") if isinstance(value, Mapping) and value else f"${{{path}.{key}}}"
        for key, value in target.items()
        if re.fullmatch(r"[\w+-]+", key)
    }


def resolve(
    data: Mapping[str, Any], around: Mapping[str, Any], written: Sequence[Reference]
) -> Iterator[tuple[Reference, Any, str | None]]:
    """Say what references stand for.

    :param data: has their texts in their places
    :param around: what they may name beside ``data``, which wins
    :returns: of each reference its value as plain data, and what is wrong with it if anything is
    """
    if not written:
        return
    live = {reference.path for reference in written}
    tree = OmegaConf.create(_readable(merge(around, _escaped(data, live, ()))))
    for reference in written:
        trouble = _grammar_trouble(reference.text)
        value: Any = None
        if trouble is None:
            try:
                value = _value(tree, reference)
            except (OmegaConfBaseException, RecursionError, ValueError, LookupError) as error:
                trouble = _reason(error)
        if trouble is None and value == MISSING:
            trouble = "it stands for ???, a value you must give"
        yield reference, value, trouble and f"{_cut(reference.text)} cannot be resolved: {trouble}"


def resolved(data: Mapping[str, Any], around: Mapping[str, Any], written: Sequence[Reference]) -> dict[str, Any]:
    """Lay the values of references into a copy of the data.

    :raises ConfigError: one leads nowhere
    """
    made, problems = copy(data), []
    for reference, value, trouble in resolve(data, around, written):
        if trouble is not None:
            problems.append(Problem(".".join(reference.path), trouble))
        else:
            put(made, reference.path, value)
    if problems:
        raise ConfigError(problems)
    return made


def missing(data: Any) -> Iterator[tuple[str, ...]]:
    """Every place where plain data has ``???``."""
    return (path for path, value in _leaves(data, ()) if value == MISSING)


def _value(tree: DictConfig, reference: Reference) -> Any:
    node: Any = tree
    for part in reference.path:
        node = node[int(part) if isinstance(node, ListConfig) else part]
    return OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig | ListConfig) else node


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or refers to itself"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@functools.lru_cache(maxsize=4096)
def _grammar_trouble(text: str) -> str | None:
    try:
        OmegaConf.create({"value": text})
    except (OmegaConfBaseException, RecursionError) as error:
        return _reason(error)
    return None


def _escaped(value: Any, live: set[tuple[str, ...]], path: tuple[str, ...]) -> Any:
    """Data whose text means itself, but where references stand."""
    if isinstance(value, Mapping):
        return {key: _escaped(item, live, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item, live, (*path, str(index))) for index, item in enumerate(value)]
    return value.replace("${", "\\${") if isinstance(value, str) and path not in live else value


def _readable(value: Any) -> Any:
    """Data as OmegaConf takes them: plain numbers, and no text that it cannot parse."""
    if isinstance(value, Mapping):
        return {str(key): _readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(item) for item in value]
    if isinstance(value, str):
        return value.replace("${", "$ {") if "${" in value and _grammar_trouble(value) else value
    if isinstance(value, bool) or value is None:
        return value
    return int(value) if isinstance(value, int) else float(value)


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, str(index)))
    else:
        yield path, value
