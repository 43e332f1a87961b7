"""What each plugin brings, and its parts one by one: gathered, as JSON, and on the terminal."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.cli.console import out, show_error, table
from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from orchestrator.contract.component import Component, PluginInfo, Recipe
    from orchestrator.plugging.manager import PluginManager
    from orchestrator.plugging.registry import Registry

_COMPONENTS = (
    "environment",
    "policy",
    "sampler",
    "reward",
    "advantage",
    "objective",
    "searcher",
    "scheduler",
    "recipe",
)
KINDS = ("plugin", *_COMPONENTS, "command", "report section")


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """Everything one plugin brings.

    :ivar info: which plugin
    :ivar provides: names by kind, as in ``KINDS``
    :ivar hooks: those it implements to watch, check or run something, not to provide
    """

    info: PluginInfo
    provides: Mapping[str, tuple[str, ...]]
    hooks: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """One line a kind."""
        for kind, names in self.provides.items():
            yield f"{kind}: {', '.join(names)}"
        if self.hooks:
            yield f"hooks: {', '.join(self.hooks)}"

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {
            "plugin": self.info.name,
            "distribution": self.info.distribution,
            "version": self.info.version,
            "provides": {kind: list(names) for kind, names in self.provides.items()},
            "hooks": list(self.hooks),
        }


def everything() -> tuple[PluginManager, Registry | None]:
    """All plugins, good and broken; without a registry when what they provide cannot stand together."""
    from orchestrator.plugging.manager import PluginManager
    from orchestrator.plugging.registry import Registry

    manager = PluginManager()
    manager.discover(strict=False)
    try:
        return manager, Registry(manager)
    except OrchestratorError as error:
        show_error(error)
        return manager, None


def installed_names() -> dict[str, tuple[str, ...]]:
    """Names that are taken: of plugins, broken ones too, and of components by role."""
    manager, registry = everything()
    names = {"plugin": (*manager.plugins, *manager.broken)}
    if registry is not None:
        names |= {kind: registry.names(kind) for kind in _COMPONENTS}
    return names


def brought(manager: PluginManager, registry: Registry | None, info: PluginInfo) -> Brought:
    """Gather what a plugin brings; without a registry its hooks alone."""
    provides: dict[str, tuple[str, ...]] = {}
    hooks = manager.hooks_of(info.name)
    if registry is None:
        return Brought(info=info, provides=provides, hooks=hooks)
    for kind in _COMPONENTS:
        provides[kind] = tuple(n for n in registry.names(kind) if registry.plugin_of(kind, n).name == info.name)
    provides["command"] = tuple(one.name for owner, one in registry.commands() if owner.name == info.name)
    provides["report section"] = tuple(s.name for owner, s in registry.report_sections() if owner.name == info.name)
    return Brought(
        info=info,
        provides={kind: names for kind, names in provides.items() if names},
        hooks=tuple(hook for hook in hooks if not hook.startswith("provide_")),
    )


def described(registry: Registry, plugin: Brought, name: str) -> list[dict[str, Any]]:
    """What a plugin has under a name, as plain JSON: itself with all its parts, or the parts of that name."""
    whole = plugin.info.name == name
    parts = [] if not whole else [{"kind": "plugin", **plugin.to_json(), "summary": _summary(plugin.info.module)}]
    for kind, names in plugin.provides.items():
        for part in names:
            if whole or part == name:
                parts.append({"kind": kind, "name": part, "plugin": str(plugin.info), **_details(registry, kind, part)})
    return parts


def _details(registry: Registry, kind: str, name: str) -> dict[str, Any]:
    from orchestrator.cli.options import options_of

    if kind == "command":
        (command,) = (one for _, one in registry.commands() if one.name == name)
        return {"summary": command.summary or inspect.getdoc(command.run) or ""}
    if kind == "report section":
        (section,) = (one for _, one in registry.report_sections() if one.name == name)
        return {"summary": section.title or section.name}
    if kind == "recipe":
        recipe = registry.recipe(name)
        return {**_origin(recipe), "overlay": recipe.overlay}
    component = registry.component(kind, name)
    fields = [asdict(option) for option in options_of(component.config)]
    return {**_origin(component), "options": component.config.model_json_schema(), "fields": fields}


def _origin(one: Component | Recipe) -> dict[str, Any]:
    return {"summary": one.summary, "paper": one.paper}


def _summary(module: str) -> str:
    return (inspect.getdoc(sys.modules.get(module)) or "").partition("\n")[0]


def show_described(part: Mapping[str, Any]) -> None:
    """Print one part of what :func:`described` gave."""
    from orchestrator.cli.options import Option

    if part["kind"] == "plugin":
        head = Text(f"\nplugin {part['plugin']}", style="bold")
        out.print(head + Text(f"  {part['distribution']} {part['version']}", style="dim"), soft_wrap=True)
    else:
        head = Text(f"\n{part['kind']} {part['name']}", style="bold")
        out.print(head + Text(f"  plugin {part['plugin']}", style="dim"), soft_wrap=True)
    summary = part["summary"]
    for line in (summary[:1].upper() + summary[1:], part.get("paper")):
        if line:
            out.print(Text(f"  {line}"), soft_wrap=True)
    if part.get("hooks"):
        out.print(Text(f"  hooks: {', '.join(part['hooks'])}"), soft_wrap=True)
    if "overlay" in part:
        from orchestrator.experiment.overlay import flatten

        for path, value in flatten(part["overlay"]).items():
            out.print(Text(f"  {path} = {value}"), soft_wrap=True)
    if part["kind"] == "command":
        out.print(Text(f"  orchestrator {part['name']} --help"), soft_wrap=True)
    if "fields" not in part:
        return
    if not part["fields"]:
        out.print("  no options")
        return
    made = table("option", "type", "bounds", "default", "meaning")
    options = [Option(**field) for field in part["fields"]]
    for option in options:
        below = isinstance(option.default, Mapping) and any(o.path.startswith(f"{option.path}.") for o in options)
        default = "as below" if below else option.shown
        made.add_row(*map(Text, (option.path, option.type, option.bounds, default, option.meaning)))
    out.print(made)
