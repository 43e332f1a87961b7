"""Names as MLflow takes them: letters, digits, ``_ - . / :`` and space, at most 250, and no path that means another."""

from __future__ import annotations

import hashlib
import posixpath
import re

_LONGEST = 250


class Names:
    """Spells names for one run on the server, each under a spelling of its own."""

    def __init__(self) -> None:
        self._spelt: dict[str, str] = {}
        self._taken: dict[str, str] = {}

    def spell(self, name: str) -> str:
        """The name under which MLflow takes a metric or a parameter; the same one each time it is asked for.

        Two names that would be spelt alike are told apart by the hash of the second.
        """
        found = self._spelt.get(name)
        if found is None:
            found = spelt(name)
            if self._taken.setdefault(found, name) != name:
                found = _marked(found, name)
                self._taken[found] = name
            self._spelt[name] = found
        return found

    @property
    def respelt(self) -> dict[str, str]:
        """Names that are not spelt as they were given, with their spelling."""
        return {name: found for name, found in self._spelt.items() if name != found}


def spelt(name: str) -> str:
    """Spell a name so that MLflow takes it; most names stay what they are."""
    found = re.sub(r"[^\w\-./: ]", "_", name, flags=re.ASCII)
    found = "/".join("_" if part == ".." else part for part in found.split("/"))
    found = posixpath.normpath(found).strip("/") if found.strip("/") else ""
    if found in ("", "."):
        found = "unnamed"
    return found if len(found) <= _LONGEST else _marked(found, name)


def _marked(found: str, name: str) -> str:
    mark = "-" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return found[: _LONGEST - len(mark)].rstrip("/") + mark
