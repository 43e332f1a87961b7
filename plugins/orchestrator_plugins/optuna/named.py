"""Makes a sampler or pruner of Optuna from its name and options; what is wrong with them is said before anything runs."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import warnings
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from orchestrator.api import ConfigError, Problem

_OURS = {"seed": "set tune.seed", "search_space": "use {use: grid}"}
_MODULES = {"sampler": "optuna.samplers", "pruner": "optuna.pruners"}
_OBJECTS = ("Callable", "Crossover", "Mutation", "Terminator")  # no experiment file can write one


def optuna(role: str) -> ModuleType:
    """The package, telling of warnings and errors alone.

    :raises ConfigError: it is not installed
    """
    try:
        found = importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        raise ConfigError([Problem(role, f"{error.name} is not installed; pip install {error.name}")]) from error
    found.logging.set_verbosity(found.logging.WARNING)
    logging.getLogger("optuna").propagate = False
    return found


def classes(kind: str) -> dict[str, type]:
    """Optuna's samplers or pruners by name."""
    module = importlib.import_module(_MODULES[kind])
    return {
        name: found
        for name in sorted(module.__all__)
        if inspect.isclass(found := getattr(module, name)) and not inspect.isabstract(found)
    }


def unknown_options(kind: str, name: str, options: Mapping[str, Any]) -> list[str]:
    """Options that a class of Optuna does not take, each with the nearest it does; none where there is no such class."""
    try:
        found = classes(kind).get(name)
    except ModuleNotFoundError:
        return []
    if found is None:
        return []
    free = sorted(set(_parameters(found)) - set(_OURS))
    return [
        f"{name} has no option {option!r}{_near(option, [*free, kind, 'options'])} It takes: {', '.join(free) or 'none'}"
        for option in options
        if option not in _parameters(found)
    ]


def make(kind: str, name: str, options: Mapping[str, Any], role: str, **given: Any) -> Any:
    """Make a sampler or pruner.

    :param kind: ``sampler`` or ``pruner``
    :param role: where the user wrote it: ``searcher`` or ``scheduler``
    :param given: arguments that are ours to give, where it takes them
    :raises ConfigError: no such class, options it does not have or that it refuses, a package it needs is missing
    """
    ExperimentalWarning = optuna(role).exceptions.ExperimentalWarning
    found = classes(kind).get(name)
    if found is None:
        known = classes(kind)
        message = f"no {kind} {name!r} in {_MODULES[kind]}{_near(name, known)} There are: {', '.join(known)}"
        raise ConfigError([Problem(f"{role}.{kind}", message)])
    taken = _parameters(found)
    problems = [Problem(role, message) for message in unknown_options(kind, name, options)]
    problems += _problems(name, taken, options, given, role)
    arguments = {key: value for key, value in given.items() if key in taken}
    for key, value in options.items():
        inner = next(
            (one for one in _MODULES if key in taken and f"Base{one.capitalize()}" in str(taken[key].annotation)), None
        )
        try:
            if inner is None or value is None:
                arguments[key] = value
            else:
                arguments[key] = _nested(inner, value, role, f"{name}'s {key}", given)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return found(**arguments)
    except ImportError as error:
        lacking = getattr(error.__cause__, "name", None) or error.name or str(error)
        raise ConfigError(
            [
                Problem(
                    f"{role}.{kind}",
                    f"{name} needs the package {lacking}, which is not installed; pip install {lacking}",
                )
            ]
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigError([Problem(role, f"{name} refuses its options: {error}")]) from error


def _parameters(found: type) -> dict[str, inspect.Parameter]:
    parameters = list(inspect.signature(found.__init__).parameters.values())[1:]  # type: ignore[misc]
    return {one.name: one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}


def _problems(
    name: str,
    taken: Mapping[str, inspect.Parameter],
    options: Mapping[str, Any],
    given: Mapping[str, Any],
    role: str,
) -> list[Problem]:
    problems = []
    for option in options:
        if option in _OURS and option in taken:
            problems.append(Problem(f"{role}.{option}", f"is not to be given to {name} here; {_OURS[option]}"))
        elif any(word in str(taken[option].annotation) for word in _OBJECTS if option in taken):
            message = f"{name} takes a Python object there, which an experiment file cannot write; leave it out"
            problems.append(Problem(f"{role}.{option}", message))
    needed = [one for one, parameter in taken.items() if parameter.default is parameter.empty]
    for option in needed:
        if option not in options and option not in given:
            problems.append(Problem(role, f"{name} needs {option}; {_OURS.get(option, 'give it beside its name')}"))
    return problems


def _nested(kind: str, value: Any, role: str, where: str, given: Mapping[str, Any]) -> Any:
    """A sampler inside a sampler, or a pruner inside a pruner: its name, or a mapping with its options."""
    seed = {key: seed for key, seed in given.items() if key == "seed"}
    if isinstance(value, str):
        return make(kind, value, {}, role, **seed)
    if isinstance(value, Mapping) and isinstance(value.get(kind), str):
        options = {key: option for key, option in value.items() if key != kind}
        return make(kind, value[kind], options, role, **seed)
    raise ConfigError([Problem(role, f"{where} is a {kind}: write its name, or {{{kind}: NAME, ...}}; got {value!r}")])


def _near(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else "."
