"""``orchestrator plugins list | show | api | hooks | check | new``."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from orchestrator.cli.catalogue import KINDS, brought, described, everything, show_described
from orchestrator.cli.commands import plugin_commands
from orchestrator.cli.console import err, out, table
from orchestrator.cli.guard import FAILED, guarded
from orchestrator.errors import ConfigError, Problem, did_you_mean

plugins = typer.Typer(help="Look at plugins, check them, and make new ones.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print JSON for machines")]


@plugins.command("list")
@guarded
def list_(as_json: Json = False) -> None:
    """List plugins and what they provide, broken ones too."""
    manager, registry = everything()
    found = [brought(manager, registry, info) for info in manager.plugins.values()]
    broken = [
        {"plugin": name, "distribution": one.info.distribution, "version": one.info.version, "reason": one.reason}
        for name, one in manager.broken.items()
    ]
    if as_json:
        print(json.dumps({"plugins": [one.to_json() for one in found], "broken": broken}, indent=1))
        return
    made = table("plugin", "from", "provides")
    for one in found:
        made.add_row(one.info.name, f"{one.info.distribution} {one.info.version}", Text("\n".join(one.lines())))
    out.print(made)
    for bad in broken:
        err.print(
            f"[red]✗[/red] {bad['plugin']} ({bad['distribution']} {bad['version']}) is broken: ",
            Text(bad["reason"]),
            highlight=False,
        )


@plugins.command()
@guarded
def show(
    name: Annotated[str, typer.Argument(help="a plugin, a component, a recipe, a command or a report section")],
    as_json: Json = False,
) -> None:
    """Show a plugin, or the options of a component, a recipe or a command."""
    from orchestrator.plugging.registry import load_registry

    registry = load_registry()
    manager = registry.manager
    every = {plugin: brought(manager, registry, info) for plugin, info in manager.plugins.items()}
    known = {*every, *(part for one in every.values() for parts in one.provides.values() for part in parts)}
    if name not in known:
        raise ConfigError([Problem(name, f"nothing of that name is installed{did_you_mean(name, known)}")])
    found = [described(registry, one, name) for one in every.values()]
    shown = [part for parts in found for part in sorted(parts, key=lambda part: KINDS.index(part["kind"]))]
    if as_json:
        print(json.dumps(shown, indent=1))
        return
    for part in shown:
        show_described(part)


@plugins.command()
@guarded
def api(
    name: Annotated[str | None, typer.Argument(help="one public name; none: all of them")] = None,
    as_json: Json = False,
) -> None:
    """Print what a plugin may import from orchestrator.api: signature and meaning."""
    from orchestrator.cli.names import DOOR, meanings, page, public_names

    if name is not None:
        name, known = name.removeprefix(f"{DOOR}."), public_names()
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError([Problem(name, f"no such public name{hint} All of them: orchestrator plugins api")])
        text = page(name)
        print(json.dumps({"name": name, "text": text}, indent=1) if as_json else text)
        return
    if as_json:
        print(json.dumps(meanings(), indent=1))
        return
    made = table("name", "meaning")
    for one, meaning in meanings().items():
        made.add_row(one, Text(meaning))
    out.print(made)


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
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="plugins, or folders of plugin projects; none: all")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="that the check of one component may take")] = 120.0,
) -> None:
    """Check plugins: what they declare, and what they build."""
    from orchestrator.cli.examination import examine

    bad = 0
    chosen: list[str | None] = [*names] if names else [None]
    for name in chosen:
        if name is not None and (Path(name) / "pyproject.toml").is_file():
            found = examine({"project": name}, seconds=seconds)
        else:
            found = itertools.chain(examine({"installed": name}, seconds=seconds), _commands(name, context))
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
        str, typer.Option(help="environment, policy, sampler, reward, advantage, objective, searcher or scheduler")
    ] = "advantage",
    into: Annotated[Path, typer.Option(help="folder that gets the project's folder")] = Path("."),
) -> None:
    """Make a plugin: a project to install, whose tests pass."""
    from orchestrator.cli.catalogue import installed_names
    from orchestrator.plugging.scaffold import make_project

    project = make_project(name, role, into, installed_names())
    out.print(f"made {project}", highlight=False, soft_wrap=True)
    for command in (f"pip install -e {project}", f"pytest {project}", f"orchestrator plugins check {name}"):
        out.print(f"  {command}", highlight=False, soft_wrap=True)


def _commands(plugin: str | None, context: typer.Context) -> Iterator[tuple[str, str | None]]:
    """Sub-commands of one plugin, or of all, and what is wrong with each."""
    manager, _ = everything()
    ours = getattr(context.find_root().command, "commands", ())
    for one in plugin_commands(manager, ours):
        if plugin in (None, one.plugin.name):
            yield f"command {one.name}".rstrip() + f" of plugin {one.plugin}", one.problem
