"""What the orchestrator remembers for a user, beside all runs: costs that were measured, plugins that were checked."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable
from pathlib import Path

from orchestrator.runs.atomic import write_json

_KEPT = 2000  # checks in the file; the oldest go first


def cache_file(name: str) -> Path:
    """A file or folder in the folder that the XDG base directory specification gives to caches."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(given) if os.path.isabs(given) else Path.home() / ".cache"  # the specification has others ignored
    return cache / "rl-orchestrator" / name


class Checked:
    """Components that kept the contract of their role, by a key of all that decides it: each is checked once."""

    def __init__(self, path: Path | None = None):
        """:param path: None: in the user's cache folder"""
        self.path = path or cache_file("checked.json")

    def __contains__(self, key: str) -> bool:
        return key in self._read()

    def add(self, keys: Iterable[str]) -> None:
        """Remember that these were checked; where the file cannot be written, they will be checked again."""
        known = self._read() | dict.fromkeys(keys, datetime.date.today().isoformat())
        for oldest in list(known)[:-_KEPT]:
            del known[oldest]
        try:
            write_json(self.path, known, indent=1)
        except OSError:
            return

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # absent, or damaged: a check more is the worst that follows
            return {}
        return found if isinstance(found, dict) else {}
