"""The commit an experiment file stands at, read from the repository's files.

git itself is not asked: ``git describe --dirty`` runs what ``core.fsmonitor`` and ``filter.*.clean`` name in the
repository's own config, and a repository may be a stranger's. So nothing is said on uncommitted changes.
"""

from __future__ import annotations

import re
from pathlib import Path

_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MOST_BYTES = 1 << 24  # of a file of refs
_MOST_LINKS = 5  # of a ref that names a ref


def commit_of(folder: Path) -> str | None:
    """The commit checked out where a folder lies, worktrees and submodules included; None where there is none to read.

    :param folder: looked at first, then those above it
    """
    try:
        for place in (folder, *folder.parents):
            if (place / ".git").exists():
                return _head(_git_directory(place / ".git"))
    except (OSError, ValueError):  # not readable, or no repository after all: it is not recorded
        return None
    return None


def _git_directory(path: Path) -> Path:
    """Where ``.git`` leads: itself, or what a worktree's or submodule's file of that name says."""
    if path.is_dir():
        return path
    word, _, target = _read(path).partition(":")
    if word != "gitdir":
        raise ValueError(f"{path} is no file of git's")
    return path.parent / target.strip()


def _head(directory: Path) -> str | None:
    common = directory
    if (directory / "commondir").is_file():  # a worktree keeps its own HEAD, and shares the rest
        common = directory / _read(directory / "commondir").strip()
    found = _read(directory / "HEAD").strip()
    for _ in range(_MOST_LINKS):
        if _HASH.fullmatch(found):
            return found
        name = found.removeprefix("ref:").strip()
        if name == found or not name.startswith("refs/") or ".." in name.split("/"):
            return None
        found = _ref(name, directory, common)
    return None


def _ref(name: str, directory: Path, common: Path) -> str:
    for place in (directory, common):
        if (place / name).is_file():
            return _read(place / name).strip()
    packed = common / "packed-refs"
    for line in _read(packed).splitlines() if packed.is_file() else ():
        commit, _, packed_name = line.partition(" ")
        if packed_name == name:
            return commit
    return ""


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", "replace")
