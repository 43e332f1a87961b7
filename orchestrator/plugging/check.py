"""Checks plugins beyond what loading refuses: builds what they declare and looks at what comes out."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.contract.component import PluginConfig, Role, Use
from orchestrator.contract.markers import ENTRY_POINT_GROUP
from orchestrator.contract.types import Split
from orchestrator.errors import ConfigError, OrchestratorError, Problem, describe
from orchestrator.plugging.manager import PluginManager
from orchestrator.plugging.registry import Registry

Examine = Callable[
    ..., Any
]  # orchestrator.testing.check_component, handed in: it trains, and this wing stands below that


def check_installed(
    name: str | None, examine: Examine, begin: Callable[[str], bool] = lambda line: True
) -> Iterator[tuple[str, str | None]]:
    """Check one installed plugin, or all of them.

    :param examine: holds a component to the contract of its role
    :param begin: told of each component before it is checked; False leaves it out
    :returns: what was looked at, and the problem found there, if any
    :raises PluginContractError: no plugin of that name is installed
    """
    if name is not None:
        PluginManager().discover([name], strict=False)  # says so when there is none
    manager = PluginManager()
    manager.discover(strict=False)  # with all others: components may be made of each other's
    yield from _check(manager, list(manager.plugins) if name is None else [name], examine, begin)
    for broken in manager.broken.values():
        if name in (None, broken.info.name):
            yield f"plugin {broken.info}", broken.reason


def check_project(
    folder: Path, examine: Examine, begin: Callable[[str], bool] = lambda line: True
) -> Iterator[tuple[str, str | None]]:
    """Check the plugins of a project that need not be installed.

    :param folder: holds a ``pyproject.toml`` with rows in the entry-point group
    :param examine: holds a component to the contract of its role
    :param begin: told of each component before it is checked; False leaves it out
    :raises ConfigError: it has no such rows
    """
    rows = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    rows = rows.get("project", {}).get("entry-points", {}).get(ENTRY_POINT_GROUP, {})
    if not rows:
        raise ConfigError([Problem(str(folder), f'no rows under [project.entry-points."{ENTRY_POINT_GROUP}"]')])
    for source in (folder / "src", folder):
        if source.is_dir():
            sys.path.insert(0, str(source.resolve()))
    manager = PluginManager()
    manager.discover(strict=False)
    for name, value in rows.items():
        if name in manager.plugins:
            continue  # installed from here, or from elsewhere
        module, _, attribute = value.partition(":")
        try:
            plugin = importlib.import_module(module)
            for part in filter(None, attribute.split(".")):
                plugin = getattr(plugin, part)
            manager.register(plugin, name)
        except Exception as error:  # a checker reports whatever a plugin does
            yield f"plugin {name!r}", describe(error)
    yield from _check(manager, [name for name in rows if name in manager.plugins], examine, begin)


def _check(
    manager: PluginManager, names: list[str], examine: Examine, begin: Callable[[str], bool]
) -> Iterator[tuple[str, str | None]]:
    try:
        registry = Registry(manager)
    except OrchestratorError as error:
        yield "what plugins provide", str(error)
        return
    for name in names:
        if name in manager.plugins:
            yield f"plugin {manager.plugins[name]}: hooks", None
        for role in Role:
            for component in registry.names(role):
                if registry.plugin_of(role, component).name == name and begin(f"{role} {component}"):
                    yield _check_component(registry, role, component, examine)


def _check_component(registry: Registry, role: Role, name: str, examine: Examine) -> tuple[str, str | None]:
    """Build a component with its default options and hold it to the contract of its role."""
    line = f"{role} {name}"
    component = registry.component(role, name)
    try:
        config = component.config()
    except ValidationError as error:
        needed = sorted({str(detail["loc"][0]) for detail in error.errors() if detail["type"] == "missing"})
        if needed:
            return f"{line}: not built, it needs the options {', '.join(needed)}", None
        return line, f"its own defaults are refused: {describe(error)}"
    try:
        built = registry.build(role, name)
        if role is Role.ENVIRONMENT and all(next(iter(built.tasks(split)), None) is None for split in Split):
            return f"{line}: built; it gives no tasks, so it is for a procedure of its own", None
        # options that name other components are bound by the registry alone
        examine(built if _is_nested(config) else component, environment=_home(registry, role, name))
    except ModuleNotFoundError as error:
        return f"{line}: not built, the optional package {error.name} is not installed", None
    except Exception as error:  # a checker reports whatever a plugin does
        return line, describe(error)
    return line, None


def _is_nested(config: PluginConfig) -> bool:
    values = [getattr(config, name) for name in type(config).model_fields]
    return any(
        isinstance(item, Use) for value in values for item in (value if isinstance(value, list | tuple) else (value,))
    )


def _home(registry: Registry, role: Role, name: str) -> Any:
    """An environment of the same plugin for its policies and samplers; None: the check brings its own."""
    if role not in (Role.POLICY, Role.SAMPLER):
        return None
    plugin, component = registry.plugin_of(role, name), registry.component(role, name)
    for other in registry.names("environment"):
        if registry.plugin_of("environment", other) == plugin:
            environment = registry.build("environment", other)
            if component.speaks in (None, environment.speaks):
                return environment
    return None
