"""All components of all plugins, by role and name; judges their options and builds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.component import Command, Component, PluginConfig, Recipe, ReportSection, Role, Use
from orchestrator.errors import ConfigError, PluginContractError, Problem, blame, did_you_mean
from orchestrator.plugin_manager import PluginInfo, PluginManager

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The built components of one trial; None where the experiment names none."""

    environment: Any = None
    policy: Any = None
    sampler: Any = None
    rewards: tuple[tuple[str, float, Any], ...] = ()  # (name, weight, Reward)
    advantage: Any = None
    objective: Any = None
    registry: Registry | None = None


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
        try:
            config = component.config.model_validate(dict(options))
        except ValidationError as error:
            return option_problems(error, component.config, path)
        found = []
        for inner_path, use in _uses(config):
            found += self.problems(use.role, use.use, use.options, f"{path}.{inner_path}")
        return found

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
        missing = [part for part in _METHODS[_role(role)] if not hasattr(built, part)]
        if missing:
            raise PluginContractError(
                f"plugin {info}: {role} {name!r} built a {type(built).__name__} without {', '.join(missing)}; "
                f"see orchestrator.roles"
            )
        return built

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
        return [f"{where}: {problem}" for problem in _model_problems(component.config)]

    def _add_recipe(self, info: PluginInfo, recipe: Any) -> list[str]:
        if not isinstance(recipe, Recipe):
            return [
                f"plugin {info}: hook 'provide_recipes' gave a {type(recipe).__name__}; expected Recipe(name=..., overlay=...)"
            ]
        if recipe.name in self._recipes:
            taken = self._recipes[recipe.name][0]
            return [f"plugin {info}: recipe {recipe.name!r}: the name is taken by plugin {taken}; choose another name"]
        self._recipes[recipe.name] = (info, recipe)
        return []

    def _find(self, table: Mapping[str, Any], role: str, name: str) -> Any:
        if name in table:
            return table[name]
        broken = [f"{b.info} is broken ({b.reason})" for b in self.manager.broken.values()]
        note = f" Not loaded: {'; '.join(broken)}." if broken else ""
        raise ConfigError(
            [
                Problem(
                    role,
                    f"no {role} {name!r}{did_you_mean(name, table)} Installed: {', '.join(sorted(table)) or 'none'}."
                    f"{note} See: orchestrator plugins list",
                )
            ]
        )


def load_registry(only: Iterable[str] | None = None) -> Registry:
    """Discover plugins and collect their components.

    :param only: names of the plugins to load; None: all that are installed
    :raises PluginContractError: a plugin breaks the contract; nothing has registered
    """
    manager = PluginManager()
    manager.discover(only)
    return Registry(manager)


def option_problems(error: ValidationError, model: type[BaseModel], path: str) -> list[Problem]:
    """Turn pydantic's errors into problems at the path the user typed, with the nearest key for unknown ones."""
    found = []
    for detail in error.errors():
        where = ".".join([path, *(str(part) for part in detail["loc"])]) if path else ".".join(map(str, detail["loc"]))
        if detail["type"] == "extra_forbidden":
            fields = _fields_at(model, detail["loc"][:-1])
            hint = did_you_mean(str(detail["loc"][-1]), fields)
            expected = f" Expected one of: {', '.join(sorted(fields))}." if fields else " It takes no options."
            found.append(Problem(where, f"unknown key{hint}{expected}"))
        elif detail["type"] == "missing":
            found.append(Problem(where, "missing; it has no default"))
        else:
            found.append(Problem(where, f"{detail['msg'].removeprefix('Value error, ')}; got {detail['input']!r}"))
    return found


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Names a user may write at a place inside a model."""
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = getattr(field, "annotation", None)
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _model_problems(model: Any) -> list[str]:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return [f"config is {model!r}; expected a subclass of PluginConfig"]
    problems = []
    if not model.model_config.get("frozen"):
        problems.append(f"options model {model.__name__} is not frozen; derive it from PluginConfig")
    if model.model_config.get("extra") != "forbid":
        problems.append(f"options model {model.__name__} accepts unknown keys; derive it from PluginConfig")
    return problems


def _uses(config: PluginConfig) -> Iterable[tuple[str, Use]]:
    """Nested components in an options model with their paths: fields, and lists or tuples of them."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Use):
            yield name, value
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                if isinstance(item, Use):
                    yield f"{name}.{index}", item


def _role(role: str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise ConfigError(
            [Problem("", f"no role {role!r}{did_you_mean(role, list(Role))} Roles: {', '.join(Role)}")]
        ) from None
