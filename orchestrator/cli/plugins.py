"""``orchestrator plugins list | show | hooks | check | new``."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from orchestrator.cli.console import err, out, show_error, table
from orchestrator.cli.guard import FAILED, guarded
from orchestrator.errors import ConfigError, OrchestratorError, Problem, did_you_mean

if TYPE_CHECKING:
    from orchestrator.contract.component import Component, Recipe
    from orchestrator.plugging.manager import PluginInfo, PluginManager
    from orchestrator.plugging.registry import Registry

plugins = typer.Typer(help="Look at plugins, check them, and make new ones.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print JSON for machines")]

_KINDS = ("environment", "policy", "sampler", "reward", "advantage", "objective", "recipe")


@plugins.command("list")
@guarded
def list_(as_json: Json = False) -> None:
    """List plugins and what they provide, broken ones too."""
    manager, registry = _everything()
    rows = [_row(info, _provided(registry, info)) for info in manager.plugins.values()]
    broken = [
        {"plugin": name, "distribution": one.info.distribution, "version": one.info.version, "reason": one.reason}
        for name, one in manager.broken.items()
    ]
    if as_json:
        print(json.dumps({"plugins": rows, "broken": broken}, indent=1))
        return
    made = table("plugin", "from", "provides")
    for row in rows:
        provided = "\n".join(f"{kind}: {', '.join(names)}" for kind, names in row["provides"].items())
        made.add_row(row["plugin"], f"{row['distribution']} {row['version']}", provided or "hooks only")
    out.print(made)
    for one in broken:
        err.print(
            f"[red]✗[/red] {one['plugin']} ({one['distribution']} {one['version']}) is broken: ",
            Text(one["reason"]),
            highlight=False,
        )


@plugins.command()
@guarded
def show(name: Annotated[str, typer.Argument(help="a plugin, a component or a recipe")], as_json: Json = False) -> None:
    """Show the options of a plugin, component or recipe."""
    from orchestrator.plugging.registry import load_registry

    registry = load_registry()
    found = [
        (kind, component)
        for kind in _KINDS
        for component in registry.names(kind)
        if name in (component, registry.plugin_of(kind, component).name)
    ]
    if not found:
        known = {*registry.manager.plugins, *(one for kind in _KINDS for one in registry.names(kind))}
        raise ConfigError([Problem(name, f"nothing of that name is installed{did_you_mean(name, known)}")])
    if as_json:
        print(json.dumps([_described(kind, registry.describe(kind, one)) for kind, one in found], indent=1))
        return
    for kind, one in found:
        _show(kind, registry.describe(kind, one), registry.plugin_of(kind, one))


@plugins.command()
@guarded
def hooks(name: Annotated[str | None, typer.Argument(help="one hook; none: all of them")] = None) -> None:
    """Print the hooks that a plugin may implement."""
    from orchestrator.contract import hookspecs
    from orchestrator.plugging.manager import PluginManager

    known = PluginManager().hook_names
    if name is not None and name not in known:
        raise ConfigError([Problem(name, f"no such hook{did_you_mean(name, known)} Hooks: {', '.join(known)}")])
    for hook in known if name is None else (name,):
        function = getattr(hookspecs, hook)
        parameters = ", ".join(str(parameter) for parameter in inspect.signature(function).parameters.values())
        out.print(Text(f"{hook}({parameters})", style="bold"), soft_wrap=True)
        documentation = inspect.getdoc(function) or ""
        shown = documentation if name is not None else documentation.partition("\n")[0]
        out.print(Text("\n".join(f"  {line}".rstrip() for line in shown.splitlines())), soft_wrap=True)


@plugins.command()
@guarded
def check(
    names: Annotated[list[str] | None, typer.Argument(help="plugins, or folders of plugin projects; none: all")] = None,
) -> None:
    """Check plugins: what they declare, and what they build."""
    from orchestrator.plugging.check import check_installed, check_project
    from orchestrator.testing import check_component

    bad = 0
    chosen: list[str | None] = [*names] if names else [None]
    for name in chosen:
        if name is not None and (Path(name) / "pyproject.toml").is_file():
            found = check_project(Path(name), check_component)
        else:
            found = check_installed(name, check_component)
        for line, problem in found:
            mark, style = ("✗", "red") if problem else ("✓", "green")
            out.print(
                Text(f"{mark} ", style=style) + Text(line if not problem else f"{line}: {problem}"), soft_wrap=True
            )
            bad += bool(problem)
    if bad:
        raise typer.Exit(FAILED)


@plugins.command()
@guarded
def new(
    name: Annotated[str, typer.Argument(help="of the plugin, as in my_baseline")],
    role: Annotated[
        str, typer.Option(help="environment, policy, sampler, reward, advantage or objective")
    ] = "advantage",
    into: Annotated[Path, typer.Option(help="folder that gets the project's folder")] = Path("."),
) -> None:
    """Make a plugin: a project to install, whose tests pass."""
    from orchestrator.plugging.scaffold import make_project

    project = make_project(name, role, into)
    out.print(f"made {project}", highlight=False, soft_wrap=True)
    for command in (f"pip install -e {project}", f"pytest {project}", f"orchestrator plugins check {name}"):
        out.print(f"  {command}", highlight=False, soft_wrap=True)


def _everything() -> tuple[PluginManager, Registry | None]:
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


def _provided(registry: Registry | None, info: PluginInfo) -> dict[str, list[str]]:
    if registry is None:
        return {}
    by_kind = {
        kind: [name for name in registry.names(kind) if registry.plugin_of(kind, name).name == info.name]
        for kind in _KINDS
    }
    return {kind: names for kind, names in by_kind.items() if names}


def _row(info: PluginInfo, provided: dict[str, list[str]]) -> dict[str, Any]:
    return {"plugin": info.name, "distribution": info.distribution, "version": info.version, "provides": provided}


def _described(kind: str, one: Component | Recipe) -> dict[str, Any]:
    from orchestrator.contract.component import Recipe

    described: dict[str, Any] = {"kind": kind, "name": one.name, "summary": one.summary, "paper": one.paper}
    if isinstance(one, Recipe):
        return described | {"overlay": one.overlay}
    return described | {"options": one.config.model_json_schema()}


def _show(kind: str, one: Component | Recipe, info: PluginInfo) -> None:
    from orchestrator.contract.component import Recipe

    out.print(Text(f"\n{kind} {one.name}", style="bold") + Text(f"  plugin {info}", style="dim"), soft_wrap=True)
    for line in (one.summary, one.paper):
        if line:
            out.print(Text(f"  {line}"), soft_wrap=True)
    if isinstance(one, Recipe):
        from orchestrator.experiment.overlay import flatten

        for path, value in flatten(one.overlay).items():
            out.print(Text(f"  {path} = {value}"), soft_wrap=True)
        return
    fields = one.config.model_fields
    if not fields:
        out.print("  no options")
        return
    made = table("option", "type", "default", "meaning")
    for name, field in fields.items():
        bounds = " ".join(str(bound) for bound in field.metadata)
        kind_of = getattr(field.annotation, "__name__", None) if not getattr(field.annotation, "__args__", ()) else None
        words = (kind_of or str(field.annotation)).replace("typing.", "")
        default = "" if field.is_required() else repr(field.get_default(call_default_factory=True))
        made.add_row(Text(name), Text(f"{words} {bounds}".strip()), Text(default), Text(field.description or ""))
    out.print(made)
