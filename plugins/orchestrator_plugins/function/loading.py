"""Imports the file that holds a function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator.api import ConfigError, Problem

_loaded: dict[str, tuple[bytes, ModuleType]] = {}  # by path, with the text it was made of


def load(path: str) -> Callable[..., Any]:
    """The function that ``FILE.py:FUNCTION`` names.

    The file is executed once in a process, as long as its text stays; its folder is put at the end of ``sys.path``, for
    what it imports from there.

    :raises ConfigError: it cannot be imported, or has no such function
    """
    name, _, member = path.rpartition(":")
    file = Path(name).expanduser().absolute()
    try:
        module = _module(file)
    except Exception as error:  # whatever a file of the user's does wrong, it is the file that is named
        said = f"{where(error, file)}: {type(error).__name__}: {error}"
        raise ConfigError([Problem("reward.path", f"cannot be imported: {said}")]) from error
    function = getattr(module, member, None)
    if not callable(function):
        raise ConfigError([Problem("reward.path", f"{file} has no function {member!r}")])
    return function


def where(error: BaseException, file: Path) -> str:
    """``FILE:LINE`` of the last line of the file's folder that an error went through."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    found, trace = str(file), error.__traceback__
    while trace is not None:
        at = trace.tb_frame.f_code.co_filename
        if at == str(file) or Path(at).parent == file.parent:
            found = f"{at}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _module(file: Path) -> ModuleType:
    text = file.read_bytes()
    known = _loaded.get(str(file))
    if known is not None and known[0] == text:
        return known[1]
    module = ModuleType(f"_named_by_experiment_{len(_loaded)}_{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses and the like look their module up
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    exec(compile(text, str(file), "exec"), module.__dict__)  # no .pyc: one may be older than an edit of the same second
    _loaded[str(file)] = text, module
    return module
