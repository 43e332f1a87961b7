"""The command ``textworld-words``."""

from __future__ import annotations

import json

from orchestrator.api import ConfigError, Problem, load_registry

EXAMPLE = '{"theme": "basic", "prompt": "plain"}'


def print_words(options: str = "{}", games: int = 32, most: int = 128) -> None:
    """Print the words and phrases of some games as the list for `policy.model.words`.

    OPTIONS: of the environment `textworld`, as JSON. GAMES: training games that are played through. MOST: entries.
    """
    from .words import texts_of, words_of

    try:
        given = json.loads(options)
    except ValueError as error:
        raise ConfigError([Problem("--options", f"{error}; expected JSON such as {EXAMPLE}")]) from None
    if not isinstance(given, dict):
        raise ConfigError([Problem("--options", f"got {options}; expected JSON such as {EXAMPLE}")])
    environment = load_registry(["textworld"]).build("environment", "textworld", given)
    print(json.dumps(words_of(texts_of(environment, games), most)))
