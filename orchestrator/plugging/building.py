"""What a plugin declares by name, builders and renderers: imported when first called."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orchestrator.contract.component import Component, NoOptions, ReportSection
from orchestrator.errors import PluginContractError, did_you_mean

_TARGET = re.compile(r"(?P<dots>\.*)(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")


class Deferred:
    """Imports ``module:name`` when first called; calls it with what it is given, or with nothing where it takes none."""

    def __init__(self, target: str, package: str, *, takes_options: bool):
        """:param package: that leading dots are relative to"""
        self.target, self._package, self._takes_options = target, package, takes_options
        self._found: Callable[..., Any] | None = None

    def __call__(self, options: Any) -> Any:
        if self._found is None:
            self._found = self._import()
            self._takes_options = self._takes_options and bool(inspect.signature(self._found).parameters)
        return self._found(options) if self._takes_options else self._found()

    def __repr__(self) -> str:
        return f"Deferred({self.target!r}, {self._package!r})"

    def _import(self) -> Callable[..., Any]:
        module, _, name = self.target.partition(":")
        loaded = importlib.import_module(module, self._package)
        found = getattr(loaded, name, None)
        if not callable(found):
            raise PluginContractError(
                f"{self.target!r}: {loaded.__name__} has no class or function {name!r}"
                f"{did_you_mean(name, vars(loaded))}"
            )
        return found


def build_problems(build: Any, role: str) -> list[str]:
    """What is wrong with what a component says builds it."""
    if callable(build):
        return []
    if not isinstance(build, str):
        return [f"build is {build!r}; expected a function from options to the {role}, or its name, '.module:Class'"]
    if not _TARGET.fullmatch(build):
        return [f"build is {build!r}; expected '.module:Class', with a leading dot relative to the plugin's module"]
    return []


def builder(component: Component, package: str) -> Callable[[Any], Any]:
    """The function that builds a component, however it was declared.

    :param package: of the plugin, that leading dots are relative to
    """
    if isinstance(component.build, str):
        return Deferred(component.build, package, takes_options=component.config is not NoOptions)
    return component.build


def with_renderer(section: ReportSection, package: str) -> ReportSection:
    """The section with a function that renders it, however it was declared.

    :param package: of the plugin, that leading dots are relative to
    """
    if isinstance(section.render, str):
        return replace(section, render=Deferred(section.render, package, takes_options=True))
    return section


def package_of(module: str) -> str:
    """The package that a plugin's leading dot means: the plugin itself, or the package its module stands in."""
    loaded = importlib.import_module(module)
    return module if hasattr(loaded, "__path__") else module.rpartition(".")[0]
