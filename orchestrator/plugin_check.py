"""Checks plugins beyond what loading refuses: builds what they declare and looks at what comes out."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from orchestrator.component import Component, Role
from orchestrator.errors import ConfigError, OrchestratorError, Problem
from orchestrator.markers import ENTRY_POINT_GROUP
from orchestrator.plugin_manager import PluginManager
from orchestrator.registry import Registry


def check_installed(name: str | None) -> Iterator[tuple[str, str | None]]:
    """Check one installed plugin, or all of them.

    :returns: what was looked at, and the problem found there, if any
    :raises PluginContractError: no plugin of that name is installed
    """
    if name is not None:
        PluginManager().discover([name], strict=False)  # says so when there is none
    manager = PluginManager()
    manager.discover(strict=False)  # with all others: components may be made of each other's
    yield from _check(manager, list(manager.plugins) if name is None else [name])
    for broken in manager.broken.values():
        if name in (None, broken.info.name):
            yield f"plugin {broken.info}", broken.reason


def check_project(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Check the plugins of a project that need not be installed.

    :param folder: holds a ``pyproject.toml`` with rows in the entry-point group
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
            yield f"plugin {name!r}", f"{type(error).__name__}: {error}"
    yield from _check(manager, [name for name in rows if name in manager.plugins])


def _check(manager: PluginManager, names: list[str]) -> Iterator[tuple[str, str | None]]:
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
                if registry.plugin_of(role, component).name == name:
                    yield _check_component(registry, role, component)


def _check_component(registry: Registry, role: Role, name: str) -> tuple[str, str | None]:
    """Build a component with its default options and let the role's own check look at it."""
    from orchestrator.testing import check_component

    line = f"{role} {name}"
    component = registry.describe(role, name)
    assert isinstance(component, Component)
    for option, field in component.config.model_fields.items():
        if not field.description:
            return line, f"option {option} has no description"
    try:
        component.config()
    except ValidationError:
        return f"{line} (options needed, so it was not built)", None
    try:
        check_component(role, name, registry=registry)
    except Exception as error:  # a checker reports whatever a plugin does
        notes = "; ".join(getattr(error, "__notes__", ()))
        return line, f"{type(error).__name__}: {error}" + (f" ({notes})" if notes else "")
    return line, None
