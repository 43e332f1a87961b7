"""Games of Microsoft's TextWorld, generated from seeds and played in a pool of processes. Needs the extra ``textworld``."""

from __future__ import annotations

from importlib.util import find_spec

from orchestrator.api import Command, Component, ConfigError, Problem, Speaks, hookimpl, load_registry

from .config import TextWorldConfig

EXAMPLE = '{"theme": "basic", "prompt": "plain"}'

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
    return [Command(name="textworld-words", run=_words, summary="Print the words of some games, for a tiny model.")]


def _words(options: str = "{}", games: int = 32, most: int = 128) -> None:
    """Print the words and phrases of some games as the list for `policy.model.words`.

    OPTIONS: of the environment `textworld`, as JSON. GAMES: training games that are played through. MOST: entries.
    """
    import json

    from .words import texts_of, words_of

    try:
        given = json.loads(options)
    except ValueError as error:
        raise ConfigError([Problem("--options", f"{error}; expected JSON such as {EXAMPLE}")]) from None
    if not isinstance(given, dict):
        raise ConfigError([Problem("--options", f"got {options}; expected JSON such as {EXAMPLE}")])
    environment = load_registry(["textworld"]).build("environment", "textworld", given)
    print(json.dumps(words_of(texts_of(environment, games), most)))
