"""What the shipper has to tell the user: each sentence once, in its log and, at the end, by the driver."""

from __future__ import annotations

import logging
from pathlib import Path

from orchestrator.api import write_json

from .settings import read_json

logger = logging.getLogger("orchestrator_plugins.mlflow")

_FILE = "mlflow/notes.json"  # in the run's directory


class Notes:
    """The sentences of a run, kept in its directory."""

    def __init__(self, directory: Path):
        self.path = directory / _FILE
        self.said: list[str] = read_notes(directory)

    def say(self, sentence: str) -> None:
        """Say a sentence, unless it was said of this run before."""
        if sentence not in self.said:
            logger.warning("%s", sentence)
            self.said.append(sentence)
            write_json(self.path, self.said)


def read_notes(directory: Path) -> list[str]:
    """What was said so far; nothing where the file cannot be read, so that it is said again."""
    try:
        found = read_json(directory / _FILE)
    except ValueError:
        return []
    return [str(sentence) for sentence in found] if isinstance(found, list) else []
