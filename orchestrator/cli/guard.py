"""Where errors become messages and exit codes: 0 done, 1 a trial failed or Ray was lost, 2 the request was wrong, 128 + n ended by
signal n (130 interrupted)."""

from __future__ import annotations

import errno
import functools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from orchestrator.cli.console import show_error, show_problems
from orchestrator.errors import ConfigError, LostError, OrchestratorError, PluginError, Problem, blamed, describe

FAILED, WRONG, ENDED_BY = 1, 2, 128

_shows_tracebacks = False


def show_tracebacks() -> None:
    """From now on let errors pass, so that Python prints their tracebacks."""
    global _shows_tracebacks
    _shows_tracebacks = True


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command: whatever goes wrong becomes a clean list and exit code 2; ``--debug`` shows tracebacks.

    Errors that a plugin raised are shown with its name, those of the system with the file; any other exception is a
    defect of ours, and says so.
    """

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except (Exception, SystemExit) as error:
            if _shows_tracebacks:
                raise
            _show(error)
            code = FAILED if isinstance(error, LostError) else WRONG
        raise typer.Exit(code)

    return wrapper


def _show(error: BaseException) -> None:
    if isinstance(error, ConfigError):
        show_problems(error.problems)
    elif isinstance(error, OrchestratorError) or blamed(error) is not None:
        show_error(error)
    elif isinstance(error, BrokenPipeError):
        return  # who read the output has gone
    elif isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        place = error.filename or error.filename2
        hint = _HINTS.get(error.errno or 0, "")
        show_problems([Problem("" if place is None else str(place), f"{reason}{hint}")])
    elif isinstance(error, SystemExit):
        show_error(PluginError(f"a plugin ended the program with sys.exit({error.code!r}); --debug shows where"))
    else:
        where = traceback.extract_tb(error.__traceback__)[-1]
        show_problems(
            [
                Problem(
                    "",
                    f"{describe(error)} ({Path(where.filename).name}:{where.lineno}). This is a defect of the "
                    "orchestrator, or of a plugin that nobody is blamed for: please report it with what --debug shows",
                )
            ]
        )


_HINTS = {
    errno.ENOSPC: ": the disk is full; make room, then resume",
    errno.EDQUOT: ": the quota is used up; make room, then resume",
    errno.EFBIG: ": larger than this process may write; raise the limit (ulimit -f), then resume",
    errno.EACCES: ": this user may not; choose another folder, or change its permissions",
    errno.EROFS: ": nothing can be written there; choose another folder",
}
