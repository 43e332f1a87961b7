"""Checksums beside the files they are of: ``SHA256SUMS``, as ``sha256sum -c`` reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from orchestrator.runs.atomic import write_text

NAME = "SHA256SUMS"


def seal(folder: Path, files: Iterable[Path]) -> None:
    """Write down the checksums of files of a folder; those that are not there are left out.

    :raises OSError: the disk is full or not writable
    """
    lines = [f"{_digest(file)}  {file.relative_to(folder).as_posix()}\n" for file in files if file.is_file()]
    write_text(folder / NAME, "".join(lines))


def unseal(folder: Path) -> None:
    """Forget the checksums of a folder whose files are about to change."""
    (folder / NAME).unlink(missing_ok=True)


def sealed(folder: Path) -> dict[str, str]:
    """The checksums of a folder by file name; empty where it was never sealed, or they cannot be read."""
    try:
        lines = (folder / NAME).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


def matches(folder: Path, file: Path) -> bool:
    """Whether a file was sealed, and is as it was."""
    digest = sealed(folder).get(file.relative_to(folder).as_posix())
    return digest is not None and file.is_file() and _digest(file) == digest


def broken(folder: Path) -> list[str]:
    """What is not as it was written, one sentence a file; empty for a folder that was never sealed."""
    try:
        lines = (folder / NAME).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        return [f"{NAME} cannot be read: {error}"]
    found = []
    for line in lines:
        digest, _, name = line.partition("  ")
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            found.append(f"{NAME} has a line that is no checksum: {line[:80]!r}")
            continue
        try:
            actual = _digest(folder / name)
        except FileNotFoundError:
            found.append(f"{name} is missing")
        except OSError as error:
            found.append(f"{name} cannot be read: {error}")
        else:
            if actual != digest:
                found.append(f"{name} is not what was written: its checksum differs")
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
