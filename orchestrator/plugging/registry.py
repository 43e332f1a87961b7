"""All components of all plugins, by role and name; judges their options and builds them."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from orchestrator.contract.batch import Column, Need, Weights
from orchestrator.contract.component import (
    RECIPE_KEYS,
    Command,
    Component,
    PluginConfig,
    PluginInfo,
    Recipe,
    ReportSection,
    Role,
)
from orchestrator.contract.parts import Part, make_part
from orchestrator.contract.types import Couples, Speaks
from orchestrator.errors import ConfigError, PluginContractError, Problem, blame, describe, did_you_mean
from orchestrator.plugging.building import build_problems, builder, package_of, with_renderer
from orchestrator.plugging.manager import PluginManager
from orchestrator.plugging.options import model_problems, option_problems, uses
from orchestrator.plugging.revealing import revealed

_HOOKS = {
    Role.ENVIRONMENT: "provide_environments",
    Role.POLICY: "provide_policies",
    Role.SAMPLER: "provide_samplers",
    Role.REWARD: "provide_rewards",
    Role.ADVANTAGE: "provide_advantage_estimators",
    Role.OBJECTIVE: "provide_objectives",
    Role.SEARCHER: "provide_searchers",
    Role.SCHEDULER: "provide_schedulers",
}
_METHODS = {  # what a built object must have
    Role.ENVIRONMENT: ("speaks", "tasks", "start"),
    Role.POLICY: ("speaks", "module", "act", "encode", "pack", "columns", "refresh"),
    Role.SAMPLER: ("sample",),
    Role.REWARD: ("score",),
    Role.ADVANTAGE: ("needs", "estimate"),
    Role.OBJECTIVE: ("needs", "couples", "terms"),
    Role.SEARCHER: ("adaptive", "propose"),
    Role.SCHEDULER: ("judge",),
}

_TAKEN_BY_SCORES = ("mean", "std")  # what the core says of all rewards together
_REMEMBERED = 1024  # choices
_BUILT_INSIDE: ContextVar[list[tuple[Choice, Part]] | None] = ContextVar("built inside", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A component and its judged options, nested components included: what there is to build."""

    role: Role
    info: PluginInfo
    component: Component
    config: PluginConfig
    inner: tuple[tuple[str, Choice], ...] = ()  # by path inside the options

    def walk(self, path: str) -> Iterator[tuple[str, Choice]]:
        """This choice and all those nested in it, each with its path."""
        yield path, self
        for inner_path, choice in self.inner:
            yield from choice.walk(f"{path}.{inner_path}")


class Registry:
    """Components by role and name; immutable once made. Options are judged once: equal ones are remembered."""

    def __init__(self, manager: PluginManager):
        """Collect what the registered plugins provide.

        :raises PluginContractError: for results that are no components, duplicate names, options models that are
            not frozen or accept unknown keys
        """
        self.manager = manager
        self._components: dict[Role, dict[str, tuple[PluginInfo, Component]]] = {role: {} for role in Role}
        self._recipes: dict[str, tuple[PluginInfo, Recipe]] = {}
        self._choices: dict[str, Choice] = {}  # sound ones, by role, name and options
        problems: list[str] = []
        for role, hook in _HOOKS.items():
            for info, provided in sorted(manager.call_each(hook), key=_seniority):
                for component in provided:
                    problems += self._add(role, hook, info, component)
        for info, provided in sorted(manager.call_each("provide_recipes"), key=_seniority):
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
        return self.recipe(name) if role == "recipe" else self.component(role, name)

    def component(self, role: str, name: str) -> Component:
        """The component as its plugin declared it.

        :raises ConfigError: when there is none of that name
        """
        return self._find(self._components[_role(role)], role, name)[1]

    def recipe(self, name: str) -> Recipe:
        """The recipe as its plugin declared it.

        :raises ConfigError: when there is none of that name
        """
        return self._find(self._recipes, "recipe", name)[1]

    def plugin_of(self, role: str, name: str) -> PluginInfo:
        """The plugin that provides a component or recipe.

        :raises ConfigError: when there is none of that name
        """
        table = self._recipes if role == "recipe" else self._components[_role(role)]
        return self._find(table, role, name)[0]

    def choose(
        self, role: str, name: str, options: Mapping[str, Any], path: str
    ) -> tuple[Choice | None, list[Problem]]:
        """Judge a component's options without building it; nested components included.

        :param path: where the user wrote it, as in ``arms.dars.sampler``
        :returns: the choice, None where there are problems
        """
        key = _key(role, name, options)
        if key is not None and key in self._choices:
            return self._choices[key], []
        try:
            info, component = self._find(self._components[_role(role)], role, name)
        except ConfigError as error:
            return None, [Problem(f"{path}.use", error.problems[0].message)]
        try:
            given = revealed(component, options)
        except ConfigError as error:
            return None, [Problem(f"{path}.{one.path.partition('.')[2]}", one.message) for one in error.problems]
        try:
            with blame(str(info), where=f"the options of {role} {name!r}"):
                config = component.config.model_validate(given)
        except ValidationError as error:
            return None, option_problems(error, component.config, path, options)
        except Exception as error:  # of a validator of the plugin's own
            return None, [Problem(path, f"the options cannot be judged: {describe(error)}")]
        problems: list[Problem] = []
        inner = []
        for inner_path, use in uses(config):
            choice, found = self.choose(use.role, use.use, use.options, f"{path}.{inner_path}")
            problems += found
            if choice is not None:
                inner.append((inner_path, choice))
                use._build = functools.partial(self.make, choice)
        if problems:
            return None, problems
        made = Choice(role=Role(role), info=info, component=component, config=config, inner=tuple(inner))
        if key is not None:
            if len(self._choices) >= _REMEMBERED:
                self._choices.pop(next(iter(self._choices)))
            self._choices[key] = made
        return made, []

    def problems(self, role: str, name: str, options: Mapping[str, Any], path: str) -> list[Problem]:
        """What is wrong with a component's options; see :meth:`choose`."""
        return self.choose(role, name, options, path)[1]

    def options(self, role: str, name: str, options: Mapping[str, Any]) -> PluginConfig:
        """The judged options of a component, defaults included.

        :raises ConfigError: unknown name or bad options, all problems at once
        """
        return self._chosen(role, name, options).config

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
        return self.make(self._chosen(role, name, options or {}))

    def part(self, role: str, name: str, options: Mapping[str, Any] | None = None) -> Part:
        """Build a component from its options, and describe it with all that it is made of.

        :raises ConfigError: unknown name or bad options, all problems at once
        :raises PluginContractError: what was built lacks a part of its role
        """
        return self.assemble(self._chosen(role, name, options or {}))

    def make(self, choice: Choice) -> Any:
        """Build what was chosen.

        :raises PluginContractError: what was built lacks a part of its role
        """
        return self.assemble(choice).component

    def assemble(self, choice: Choice) -> Part:
        """Build what was chosen, and describe it with all that it is made of.

        :raises PluginContractError: what was built lacks a part of its role
        """
        role, name, info = choice.role, choice.component.name, choice.info
        inside: list[tuple[Choice, Part]] = []
        token = _BUILT_INSIDE.set(inside)
        try:
            with blame(str(info), where=f"{role} {name!r}"):
                built = builder(choice.component, "")(choice.config)
                problems = part_problems(role, built)
        finally:
            _BUILT_INSIDE.reset(token)
        if problems:
            raise PluginContractError(
                f"plugin {info}: {role} {name!r} built a {type(built).__name__} {'; '.join(problems)}; "
                f"see the protocols in orchestrator.api"
            )
        part = make_part(role, name, str(info), built, _keyed(choice, inside))
        around = _BUILT_INSIDE.get()
        if around is not None:
            around.append((choice, part))
        return part

    def notify(self, hook: str, **arguments: Any) -> list[tuple[PluginInfo, Exception]]:
        """Call an observing hook of every plugin; an observer that raises does not stop the others."""
        return self.manager.notify(hook, **arguments)

    def commands(self) -> list[tuple[PluginInfo, Command]]:
        """Sub-commands of all plugins."""
        return [(info, c) for info, provided in self.manager.call_each("provide_commands") for c in provided]

    def report_sections(self) -> list[tuple[PluginInfo, ReportSection]]:
        """Report sections of all plugins."""
        offered = self.manager.call_each("provide_report_sections")
        return [(info, with_renderer(s, package_of(info.module))) for info, provided in offered for s in provided]

    def _chosen(self, role: str, name: str, options: Mapping[str, Any]) -> Choice:
        choice, problems = self.choose(role, name, options, role)
        if choice is None:
            raise ConfigError(problems)
        return choice

    def _add(self, role: Role, hook: str, info: PluginInfo, component: Any) -> list[str]:
        if not isinstance(component, Component):
            return [
                f"plugin {info}: hook {hook!r} gave a {type(component).__name__}; expected Component(name=..., build=...)"
            ]
        where = f"plugin {info}: {role} {component.name!r}"
        table = self._components[role]
        if component.name in table:
            return [f"{where}: the name is taken by plugin {table[component.name][0]}; choose another name"]
        problems = _name_problems(component.name) + model_problems(component.config)
        problems += build_problems(component.build, role)
        if role is Role.REWARD and component.name in _TAKEN_BY_SCORES:
            problems.append(
                f"its values would be the metric rollout/reward/{component.name}, which is the core's; rename it"
            )
        if not problems and isinstance(component.build, str):
            component = replace(component, build=builder(component, package_of(info.module)))
        table[component.name] = (info, component)
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


def _seniority(row: tuple[PluginInfo, Any]) -> tuple[bool, str]:
    """Who was there first, where a name is taken twice: our own distribution, then plugins by name."""
    return row[0].distribution != "rl-orchestrator", row[0].name


def load_registry(only: Iterable[str] | None = None) -> Registry:
    """Discover plugins and collect their components.

    :param only: names of the plugins to load; None: all that are installed
    :raises PluginContractError: a plugin breaks the contract; nothing has registered
    """
    manager = PluginManager()
    manager.discover(only)
    return Registry(manager)


def _name_problems(name: Any) -> list[str]:
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_.+-]*", name):
        return []
    return [f"{name!r} is no good name; use letters, digits, `_ . + -`, starting with a letter"]


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


def _keyed(choice: Choice, inside: list[tuple[Choice, Part]]) -> tuple[Part, ...]:
    """Parts that were built inside a component, each under the path of its option; equal options in their order."""
    keys: dict[int, list[str]] = {}
    for path, inner in choice.inner:
        keys.setdefault(id(inner), []).append(path)
    found = []
    for inner, part in inside:
        waiting = keys.get(id(inner), [])
        key = waiting.pop(0) if waiting else part.name
        found.append(replace(part, key=key))
    return tuple(found)


def _key(role: str, name: str, options: Mapping[str, Any]) -> str | None:
    """What tells one choice from another; None where options hold more than JSON can say."""
    try:
        return json.dumps([role, name, options], sort_keys=True)
    except (TypeError, ValueError):
        return None


def _role(role: str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise ConfigError(
            [Problem("", f"no role {role!r}{did_you_mean(role, list(Role))} Roles: {', '.join(Role)}")]
        ) from None
