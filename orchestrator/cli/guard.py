"""Where errors become messages and exit codes: 0 done, 1 a trial failed, 2 the request was wrong, 130 interrupted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import typer

from orchestrator.cli.console import show_error, show_problems
from orchestrator.errors import ConfigError, OrchestratorError, blamed

FAILED, WRONG, INTERRUPTED = 1, 2, 130

_shows_tracebacks = False


def show_tracebacks() -> None:
    """From now on let errors pass, so that Python prints their tracebacks."""
    global _shows_tracebacks
    _shows_tracebacks = True


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command: what goes wrong on purpose becomes a clean list and exit code 2.

    Errors that a plugin raised are shown with its name; any other exception is a defect of ours and keeps its traceback.
    """

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Exception as error:
            meant = isinstance(error, OrchestratorError) or blamed(error) is not None
            if _shows_tracebacks or not meant:
                raise
            if isinstance(error, ConfigError):
                show_problems(error.problems)
            else:
                show_error(error)
        raise typer.Exit(WRONG)

    return wrapper
