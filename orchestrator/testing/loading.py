"""A registry of exactly the plugins a test names."""

from __future__ import annotations

from typing import Any

from orchestrator.plugging.manager import PluginManager
from orchestrator.plugging.registry import Registry


def load_only(*plugins: Any) -> Registry:
    """Load the given plugins and no others, with every check of a real start.

    :param plugins: modules or objects with hooks; or names of installed entry points
    :raises PluginContractError: a plugin breaks the contract
    """
    manager = PluginManager()
    installed = [plugin for plugin in plugins if isinstance(plugin, str)]
    if installed:
        manager.discover(installed)
    for plugin in plugins:
        if not isinstance(plugin, str):
            manager.register(plugin)
    return Registry(manager)
