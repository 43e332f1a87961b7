"""The sub-commands that plugins add: each name once, none in the way of ours, and one that cannot be used says why."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.cli.guard import guarded
from orchestrator.contract.component import Command
from orchestrator.errors import PluginContractError, blame, describe

if TYPE_CHECKING:
    from orchestrator.contract.component import PluginInfo
    from orchestrator.plugging.manager import PluginManager


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginCommand:
    """What a plugin offers under a name.

    :ivar plugin: whose it is
    :ivar name: what is typed; empty where not even that is known
    :ivar built: the command as Click runs it; of one that cannot be used, a command that says why
    :ivar problem: why it cannot be used; None: it can
    :ivar hidden: whether another command has the name, so that this one cannot be typed
    """

    plugin: PluginInfo
    name: str
    built: Any = None
    problem: str | None = None
    hidden: bool = False


def plugin_commands(manager: PluginManager, ours: Collection[str]) -> Iterator[PluginCommand]:
    """Read what plugins offer; raises nothing.

    :param ours: names of the built-in commands
    """
    taken = dict.fromkeys(ours, "a built-in command")
    for info, provided in manager.try_each("provide_commands"):
        if isinstance(provided, Exception):
            yield PluginCommand(plugin=info, name="", problem=describe(provided), hidden=True)
            continue
        for command in provided:
            if not isinstance(command, Command):
                said = f"hook 'provide_commands' gave a {type(command).__name__}; expected Command(name=..., run=...)"
                yield PluginCommand(plugin=info, name="", problem=said, hidden=True)
                continue
            if command.name in taken:
                said = f"the name is that of {taken[command.name]}; choose another"
                yield PluginCommand(plugin=info, name=command.name, problem=said, hidden=True)
                continue
            taken[command.name] = f"a command of plugin {info}"
            yield _read(info, command)


def _read(info: PluginInfo, command: Command) -> PluginCommand:
    try:
        with blame(str(info), where=f"command {command.name!r}"):
            built = _typer(command.name, command.run, command.summary or None)
    except Exception as error:  # an annotation that cannot be evaluated, a type that Typer does not know
        problem = describe(error)
        return PluginCommand(plugin=info, name=command.name, built=_useless(command.name, problem), problem=problem)
    return PluginCommand(plugin=info, name=command.name, built=built)


def _useless(name: str, problem: str) -> Any:
    def explain(context: typer.Context) -> None:
        raise PluginContractError(f"the command {name} cannot be read: {problem}")

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return _typer(name, explain, f"Cannot be used: {problem}", context_settings=anything)


def _typer(name: str, run: Any, help_: str | None, **settings: Any) -> Any:
    wrapped = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    wrapped.command(name, help=help_, **settings)(guarded(run))
    return typer.main.get_command(wrapped)
