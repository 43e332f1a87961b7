"""Games of Microsoft's TextWorld, generated from seeds and played in a pool of processes. Needs the extra ``textworld``."""

from __future__ import annotations

from importlib.util import find_spec

from orchestrator.api import Command, Component, Speaks, hookimpl

from .command import print_words
from .config import TextWorldConfig

if find_spec("textworld") is None:  # the library, not this package; not an import of it: listing plugins stays quick
    raise ImportError("the package textworld is not installed; pip install 'rl-orchestrator[textworld]'")


@hookimpl
def provide_environments() -> list[Component]:
    return [
        Component(
            name="textworld",
            config=TextWorldConfig,
            build=".environment:TextWorld",
            speaks=Speaks.MESSAGES,
            paper="arXiv:1806.11532",
        )
    ]


@hookimpl
def provide_commands() -> list[Command]:
    return [
        Command(name="textworld-words", run=print_words, summary="Print the words of some games, for a tiny model.")
    ]
