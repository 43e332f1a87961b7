"""Files and folders that are there whole or not at all: written aside, synced, renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    :raises OSError: the disk is full or not writable; what was there before is untouched
    """
    with written_aside(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Write plain JSON whole or not at all.

    :raises OSError: the disk is full or not writable; what was there before is untouched
    """
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False))


@contextmanager
def written_aside(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of ``path`` when the block ends without an error.

    :raises OSError: the disk is full or not writable; what was there before is untouched
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path, aside):
            with aside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, aside: Path | None = None) -> Iterator[None]:
    """Let errors of the system name the file that was to be written: a full disk names none.

    :param aside: what stands for the file until it is whole
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, None if aside is None else str(aside)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync(*paths: Path) -> None:
    """Wait until the disk has what was written to files; those that are not there are left out.

    A disk that fails now fails again at the next write, which says so.
    """
    for path in paths:
        with suppress(OSError), path.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """An empty folder to fill that takes the place of ``path`` when the block ends without an error.

    :raises OSError: the disk is full or not writable; what was there before is untouched
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        yield aside
        for file in aside.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        remove(path)
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a folder so that a kill leaves no half of it: it loses its name first; see :func:`left_aside`.

    What cannot be removed stays under another name, to be removed when the folder around it is next looked through.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(FileNotFoundError):
        path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def left_aside(path: Path) -> list[Path]:
    """What killed processes left half written in place of a folder's children, by any name."""
    return [left for left in path.glob(".*.*") if left.is_dir()]
