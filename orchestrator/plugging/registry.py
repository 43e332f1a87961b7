"""All components of all plugins, by role and name; judges their options and builds them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.contract.batch import Column, Need, Weights
from orchestrator.contract.component import (
    RECIPE_KEYS,
    Command,
    Component,
    PluginInfo,
    Recipe,
    ReportSection,
    Role,
    Use,
)
from orchestrator.contract.types import Couples, Speaks
from orchestrator.errors import ConfigError, PluginContractError, Problem, blame, did_you_mean
from orchestrator.plugging.manager import PluginManager

_HOOKS = {
    Role.ENVIRONMENT: "provide_environments",
    Role.POLICY: "provide_policies",
    Role.SAMPLER: "provide_samplers",
    Role.REWARD: "provide_rewards",
    Role.ADVANTAGE: "provide_advantage_estimators",
    Role.OBJECTIVE: "provide_objectives",
}
_METHODS = {  # what a built object must have
    Role.ENVIRONMENT: ("speaks", "tasks", "start"),
    Role.POLICY: ("speaks", "module", "act", "encode", "pack", "columns", "refresh"),
    Role.SAMPLER: ("sample",),
    Role.REWARD: ("score",),
    Role.ADVANTAGE: ("needs", "estimate"),
    Role.OBJECTIVE: ("needs", "couples", "terms"),
}


class Registry:
    """Components by role and name; immutable once made."""

    def __init__(self, manager: PluginManager):
        """Collect what the registered plugins provide.

        :raises PluginContractError: for results that are no components, duplicate names, options models that are
            not frozen or accept unknown keys
        """
        self.manager = manager
        self._components: dict[Role, dict[str, tuple[PluginInfo, Component]]] = {role: {} for role in Role}
        self._recipes: dict[str, tuple[PluginInfo, Recipe]] = {}
        problems: list[str] = []
        for role, hook in _HOOKS.items():
            for info, provided in manager.call_each(hook):
                for component in provided:
                    problems += self._add(role, hook, info, component)
        for info, provided in manager.call_each("provide_recipes"):
            for recipe in provided:
                problems += self._add_recipe(info, recipe)
        if problems:
            raise PluginContractError("\n".join(problems))

    def names(self, role: str) -> tuple[str, ...]:
        """Names of the installed components of a role, sorted; ``recipe`` works too."""
        if role == "recipe":
            return tuple(sorted(self._recipes))
        return tuple(sorted(self._components[_role(role)]))

    def describe(self, role: str, name: str) -> Component | Recipe:
        """The component (or recipe) as its plugin declared it.

        :raises ConfigError: when there is none of that name
        """
        if role == "recipe":
            return self._find(self._recipes, "recipe", name)[1]
        return self._find(self._components[_role(role)], role, name)[1]

    def plugin_of(self, role: str, name: str) -> PluginInfo:
        """The plugin that provides a component or recipe.

        :raises ConfigError: when there is none of that name
        """
        table = self._recipes if role == "recipe" else self._components[_role(role)]
        return self._find(table, role, name)[0]

    def problems(self, role: str, name: str, options: Mapping[str, Any], path: str) -> list[Problem]:
        """Judge a component's options without building it; nested components included.

        :param path: where the user wrote it, as in ``arms.dars.sampler``
        """
        try:
            component = self.describe(role, name)
        except ConfigError as error:
            return [Problem(f"{path}.use", error.problems[0].message)]
        info = self.plugin_of(role, name)
        try:
            with blame(str(info), where=f"the options of {role} {name!r}"):
                config = component.config.model_validate(dict(options))
        except ValidationError as error:
            return option_problems(error, component.config, path, options)
        found = []
        for inner_path, use in _uses(config):
            found += self.problems(use.role, use.use, use.options, f"{path}.{inner_path}")
        return found

    def named(self, role: str, name: str, options: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
        """Path, role and name of a component and of all those nested in its options.

        :raises ConfigError: when there is none of that name
        :raises ValidationError: when the options do not fit; see :meth:`problems`
        """
        yield path, role, name
        for inner_path, use in _uses(self.describe(role, name).config.model_validate(dict(options))):
            yield from self.named(use.role, use.use, use.options, f"{path}.{inner_path}")

    def unknown(self, role: str, name: str) -> str:
        """Say that there is no component (or recipe) of that name, what is near it, and what could not be loaded."""
        known = self.names(role)
        broken = [f"{b.info} ({b.reason})" for b in self.manager.broken.values()]
        note = f" Not loaded: {'; '.join(broken)}." if broken else ""
        return (
            f"no {role} {name!r}{did_you_mean(name, known)} Installed: {', '.join(known) or 'none'}.{note} "
            f"See: orchestrator plugins list"
        )

    def build(self, role: str, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """Build a component from its options.

        :raises ConfigError: unknown name or bad options, all problems at once
        :raises PluginContractError: what was built lacks a part of its role
        """
        problems = self.problems(role, name, options or {}, role)
        if problems:
            raise ConfigError(problems)
        info, component = self._components[_role(role)][name]
        config = component.config.model_validate(dict(options or {}))
        for _, use in _uses(config):
            use._build = lambda use=use: self.build(use.role, use.use, use.options)
        with blame(str(info), where=f"{role} {name!r}"):
            built = component.build(config)
        problems = part_problems(_role(role), built)
        if problems:
            raise PluginContractError(
                f"plugin {info}: {role} {name!r} built a {type(built).__name__} {'; '.join(problems)}; "
                f"see the protocols in orchestrator.api"
            )
        return built

    def notify(self, hook: str, **arguments: Any) -> list[tuple[PluginInfo, Exception]]:
        """Call an observing hook of every plugin; an observer that raises does not stop the others."""
        return self.manager.notify(hook, **arguments)

    def commands(self) -> list[tuple[PluginInfo, Command]]:
        """Sub-commands of all plugins."""
        return [(info, c) for info, provided in self.manager.call_each("provide_commands") for c in provided]

    def report_sections(self) -> list[tuple[PluginInfo, ReportSection]]:
        """Report sections of all plugins."""
        return [(info, s) for info, provided in self.manager.call_each("provide_report_sections") for s in provided]

    def _add(self, role: Role, hook: str, info: PluginInfo, component: Any) -> list[str]:
        if not isinstance(component, Component):
            return [
                f"plugin {info}: hook {hook!r} gave a {type(component).__name__}; expected Component(name=..., build=...)"
            ]
        where = f"plugin {info}: {role} {component.name!r}"
        table = self._components[role]
        if component.name in table:
            return [f"{where}: the name is taken by plugin {table[component.name][0]}; choose another name"]
        table[component.name] = (info, component)
        problems = _name_problems(component.name) + _model_problems(component.config)
        if not callable(component.build):
            problems.append(f"build is {component.build!r}; expected a function from options to the {role}")
        return [f"{where}: {problem}" for problem in problems]

    def _add_recipe(self, info: PluginInfo, recipe: Any) -> list[str]:
        if not isinstance(recipe, Recipe):
            return [
                f"plugin {info}: hook 'provide_recipes' gave a {type(recipe).__name__}; expected Recipe(name=..., overlay=...)"
            ]
        if recipe.name in self._recipes:
            taken = self._recipes[recipe.name][0]
            return [f"plugin {info}: recipe {recipe.name!r}: the name is taken by plugin {taken}; choose another name"]
        self._recipes[recipe.name] = (info, recipe)
        problems = _name_problems(recipe.name)
        if not isinstance(recipe.overlay, Mapping):
            problems.append(f"overlay is {recipe.overlay!r}; expected a mapping of experiment keys")
        else:
            problems += [
                f"overlay sets {key!r}{did_you_mean(str(key), RECIPE_KEYS)} A recipe may set: {', '.join(RECIPE_KEYS)}"
                for key in recipe.overlay
                if key not in RECIPE_KEYS
            ]
        return [f"plugin {info}: recipe {recipe.name!r}: {problem}" for problem in problems]

    def _find(self, table: Mapping[str, Any], role: str, name: str) -> Any:
        if name in table:
            return table[name]
        raise ConfigError([Problem(role, self.unknown(role, name))])


def load_registry(only: Iterable[str] | None = None) -> Registry:
    """Discover plugins and collect their components.

    :param only: names of the plugins to load; None: all that are installed
    :raises PluginContractError: a plugin breaks the contract; nothing has registered
    """
    manager = PluginManager()
    manager.discover(only)
    return Registry(manager)


def option_problems(error: ValidationError, model: type[BaseModel], path: str, data: Any) -> list[Problem]:
    """Turn pydantic's errors into problems at the path the user typed, with the nearest key for unknown ones.

    :param path: where ``data`` stands in the file; empty for the whole file
    :param data: what was judged, to tell the user's keys from pydantic's names of union members
    """
    found: dict[str, list[str]] = {}
    for detail in error.errors():
        typed = _typed(detail["loc"], data)
        where = ".".join(filter(None, (path, *typed)))
        if detail["type"] == "extra_forbidden":
            fields = _fields_at(model, typed[:-1])
            hint = did_you_mean(typed[-1], fields)
            message = f"unknown key{hint}" + (
                f" Expected one of: {', '.join(sorted(fields))}." if fields else " It takes no options."
            )
        elif detail["type"] == "missing":
            message = "missing; it has no default"
        else:
            message = f"{detail['msg'].removeprefix('Value error, ')}; got {_short(detail['input'])}"
        messages = found.setdefault(where, [])
        if message not in messages:
            messages.append(message)
    return [Problem(where, ", or: ".join(messages)) for where, messages in found.items()]


def _typed(location: tuple[int | str, ...], data: Any) -> tuple[str, ...]:
    """Keep the parts of a pydantic location that exist in the data, and the last one if it names a missing key."""
    typed = []
    for place, part in enumerate(location):
        indexed = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if indexed or (isinstance(data, Mapping) and part in data):
            data = data[part]
        elif not (isinstance(data, Mapping) and place == len(location) - 1):
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


def _name_problems(name: Any) -> list[str]:
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_.+-]*", name):
        return []
    return [f"{name!r} is no good name; use letters, digits, `_ . + -`, starting with a letter"]


def _model_problems(model: Any) -> list[str]:
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
    return problems


def part_problems(role: Role, built: Any) -> list[str]:
    """What a built object lacks of its role, and the declarations that would be misread."""
    missing = [part for part in _METHODS[role] if not hasattr(built, part)]
    if missing:
        return [f"without {', '.join(missing)}"]
    problems = []
    if "speaks" in _METHODS[role] and not isinstance(built.speaks, Speaks):
        problems.append(f"whose speaks is {built.speaks!r}, not a Speaks")
    if "couples" in _METHODS[role] and not isinstance(built.couples, Couples):
        problems.append(f"whose couples is {built.couples!r}, not a Couples")
    if "needs" in _METHODS[role]:
        sound = isinstance(built.needs, frozenset) and all(
            isinstance(need, Need) and isinstance(need.weights, Weights) and isinstance(need.column, Column)
            for need in built.needs
        )
        if not sound:
            problems.append(f"whose needs is {built.needs!r}, not a frozenset of Need(Weights, Column)")
    return problems


def _uses(options: BaseModel) -> Iterator[tuple[str, Use]]:
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


def _role(role: str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise ConfigError(
            [Problem("", f"no role {role!r}{did_you_mean(role, list(Role))} Roles: {', '.join(Role)}")]
        ) from None
