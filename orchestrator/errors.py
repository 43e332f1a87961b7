"""Every error the orchestrator raises, the boundary that names the plugin at fault, and failures as data.

OrchestratorError
├── ConfigError (ValueError)            the user's file or command line
├── ContextError (ValueError)           a policy cannot act in some contexts of a call
├── PluginError                         a plugin cannot be used
│   ├── PluginLoadError (ImportError)   it does not import
│   └── PluginContractError (TypeError) it breaks the contract of a hook, component or role
│       └── UndeclaredColumnError (KeyError) a component reads a statistic it did not declare
├── LostError (RuntimeError)            what carries out a run was lost: Ray, a machine, the process that drives them
└── TrialError (RuntimeError)           one trial failed; others go on
    ├── CheckpointError                 no readable checkpoint where one was expected
    ├── NonFiniteError                  losses or gradients stayed non-finite
    └── RolloutError                    too many rollouts failed

TrialStopped and TrialInterrupted (BaseException) are no errors: they carry the scheduler's decision, or the wish that
the run end for now, out of a running trial.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

E = TypeVar("E", bound=BaseException)

_RAISED_BY = "raised by plugin "  # begins the note that ``blame`` adds
_BLAMED, _CAUSE = "_blamed", "_cause"  # attributes of exceptions: who is blamed, and the failure they follow from


class OrchestratorError(Exception):
    """Root of every error raised on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request.

    :ivar path: where: the path the user typed, as in ``objective.clip_high``; empty: nowhere in particular
    :ivar message: what was given, what was expected, and the next step
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(OrchestratorError, ValueError):
    """The experiment file or command line asks for something impossible; carries every problem found."""

    def __init__(self, problems: Iterable[Problem | str]):
        self.problems = tuple(p if isinstance(p, Problem) else Problem("", str(p)) for p in problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self):
        return type(self), (self.problems,), vars(self)


class ContextError(OrchestratorError, ValueError):
    """A policy cannot act in some contexts of a call, whose places are ``contexts``: their episodes fail, others go on."""

    def __init__(self, message: str, contexts: Iterable[int] = ()):
        self.contexts = tuple(contexts)
        super().__init__(message)

    def __reduce__(self):
        return type(self), (str(self), self.contexts), vars(self)


class PluginError(OrchestratorError):
    """A plugin cannot be used."""


class PluginLoadError(PluginError, ImportError):
    """A plugin does not import."""


class PluginContractError(PluginError, TypeError):
    """A plugin breaks the contract of a hook, a component or a role."""


class UndeclaredColumnError(PluginContractError, KeyError):
    """A component reads a statistic that is not among its ``needs``."""

    def __str__(self) -> str:  # KeyError would quote it
        return " ".join(map(str, self.args))


class LostError(OrchestratorError, RuntimeError):
    """What carries out a run was lost: Ray, a machine, or the process that drives them; the run can be resumed."""

    def __init__(self, message: str, kind: str = "driver"):
        self.kind = kind  # see runners.losses
        super().__init__(message)

    def __reduce__(self):
        return type(self), (str(self), self.kind), vars(self)


class TrialError(OrchestratorError, RuntimeError):
    """One trial failed; others go on."""


class CheckpointError(TrialError):
    """No readable checkpoint where one was expected."""


class NonFiniteError(TrialError):
    """Losses or gradients stayed non-finite."""


class RolloutError(TrialError):
    """Too many rollouts failed."""


class TrialStopped(BaseException):
    """Raised out of ``Trial.report`` when the sweep ends a trial early: no error, so no ``except Exception`` sees it."""


class TrialInterrupted(BaseException):
    """Raised out of a trial that must leave although nobody stopped it: the run is asked to end, and to be resumed."""


@contextmanager
def blame(plugin: str | None, *, where: str | None = None) -> Iterator[None]:
    """Attribute whatever the block raises to a plugin; what is attributed already stays so: the innermost boundary wins.

    :param plugin: plugin with distribution and version, as in ``'dars' (rl-orchestrator 0.1.0)``; None: nobody
    :param where: the component or hook that was called, as in ``sampler 'dars'``; None: ``plugin`` says it too
    """
    whom = f"{plugin} in {where}" if plugin and where else plugin
    try:
        yield
    except SystemExit as ended:
        error = PluginError(f"it ended the program with sys.exit({ended.code!r}), which is not its to end")
        raise accuse(error, whom) from ended
    except Exception as error:
        accuse(error, whom)
        raise


def accuse(error: E, whom: str | None) -> E:
    """Attribute one exception, unless it is or nobody is named; returns it.

    An attribute says so to :func:`blamed`, a note to those who read the traceback. Both survive pickling, but for classes
    whose own ``__reduce__`` leaves their attributes out, as pydantic's does.
    """
    if whom is not None and blamed(error) is None:
        setattr(error, _BLAMED, whom)
        error.add_note(f"{_RAISED_BY}{whom}")
    return error


def blamed(error: BaseException) -> str | None:
    """The plugin an exception is attributed to, and where it was called; of a group's, the first that is."""
    whom = getattr(error, _BLAMED, None)
    if whom is None and isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(blamed, error.exceptions)), None)
    return whom


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong, as data: it crosses processes, is kept in files, and reads as one text.

    :ivar type: the exception's class without its module; empty where the text of an older version names none
    :ivar message: what it said; may have several lines
    :ivar blamed: the plugin at fault and where it was called, as in ``'mine' (dist 1.2) in sampler 'x'``; None: nobody
    :ivar traceback: as Python prints it; None: there was none
    """

    type: str
    message: str
    blamed: str | None = None
    traceback: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Take an exception down. Notes that do not blame belong to the message."""
        trace = "".join(traceback.format_exception(error)) if error.__traceback__ else None
        cause = getattr(error, _CAUSE, None)
        if trace and cause is not None and cause.traceback:
            trace = (
                f"{cause.traceback}\nThe above exception was the direct cause of the following exception:\n\n{trace}"
            )
        return cls(
            type=type(error).__name__,
            message=_message(error),
            blamed=blamed(error),
            traceback=None if trace is None else _readable(trace),
        )

    @classmethod
    def from_json(cls, value: object) -> Failure | None:
        """Read what :meth:`to_json` wrote, or the text that older versions wrote in its place; raises nothing.

        :returns: None for None and for an empty text
        """
        if value is None or value == "":
            return None
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            return _from_text(str(value))
        text = {field.name: str(value.get(field.name) or "") for field in dataclasses.fields(cls)}
        return cls(
            type=text["type"],
            message=text["message"],
            blamed=text["blamed"] or None,
            traceback=text["traceback"] or None,
        )

    def to_json(self) -> dict[str, str | None]:
        """The four fields, plain JSON."""
        return dataclasses.asdict(self)

    @property
    def reason(self) -> str:
        """Type and message: what went wrong, without whose fault it is."""
        return ": ".join(filter(None, (self.type, self.message)))

    def __str__(self) -> str:
        return describe(self)


def caused_by(error: E, failure: Failure | None) -> E:
    """Let an exception follow from a failure: blamed like it, with its traceback above the own; returns the exception."""
    if failure is None:
        return error
    setattr(error, _CAUSE, failure)
    return accuse(error, failure.blamed)


def describe(failure: Failure | BaseException) -> str:
    """Word a failure: the one place that does.

    ``Type: message; raised by plugin 'mine' (dist 1.2) in sampler 'x'``. An error of our own that no plugin raised goes
    without its type: its message was written to be read.
    """
    if isinstance(failure, BaseException):
        failure = Failure.of(failure)
    if failure.blamed is not None:
        return f"{failure.reason}; {_RAISED_BY}{failure.blamed}"
    return failure.message if failure.type in _OWN and failure.message else failure.reason


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End a sentence with the nearest known name, ``; did you mean 'x'?``, or with a full stop; whatever the case."""
    folded = {one.casefold(): one for one in sorted(map(str, known), reverse=True)}
    near = difflib.get_close_matches(name.casefold(), sorted(folded), n=1, cutoff=0.6)
    return f"; did you mean {folded[near[0]]!r}?" if near else "."


def _message(error: BaseException) -> str:
    try:
        said = str(error)
    except Exception:
        said = "<exception str() failed>"  # the words of Python's own tracebacks
    blaming = f"{_RAISED_BY}{blamed(error)}"
    notes = [note for note in map(str, getattr(error, "__notes__", None) or ()) if note != blaming]
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return _readable(
        "\n".join([said, *notes, *(textwrap.indent(Failure.of(one).reason, "  ") for one in inner)]).strip()
    )


def _readable(text: str) -> str:
    """Drop pydantic's help addresses, hide passwords in addresses, and escape what UTF-8 cannot hold."""
    text = re.sub(r"\n[ |]*For further information visit https://errors\.pydantic\.dev/\S*", "", text)
    text = re.sub(r"([A-Za-z][\w+.-]*://[^/?#\s:@]*:)[^/?#\s@]+@", r"\1***@", text)
    return text.encode("utf-8", "backslashreplace").decode()


# --- the texts of older versions ------------------------------------------------------------------------------


def _from_text(text: str) -> Failure:
    """Take a traceback or a single line apart, as well as that can be done."""
    text = _readable(text)
    ending = _below_frames(text.strip("\n").splitlines())
    lines = text.splitlines() if ending is None else ending
    notes = [line.removeprefix(_RAISED_BY) for line in lines if line.startswith(_RAISED_BY)]
    said = "\n".join(line for line in lines if not line.startswith(_RAISED_BY)).strip()
    inline = re.fullmatch(rf"(?s:(.*?)); {_RAISED_BY}([^\n]+)", said)  # as it stood in rollouts
    if inline:
        said, notes = inline[1], [*notes, inline[2].partition(f"; {_RAISED_BY}")[0]]
    kind = r"[\w.<>]+" if ending is not None else r"[\w.]*(?:Error|Exception|Warning|Exit|Interrupt|Iteration|Group)"
    typed = re.match(rf"({kind})(?::\s+|\Z)", said)
    return Failure(
        type=typed[1].rpartition(".")[2] if typed else "",
        message=said[typed.end() :] if typed else said,
        blamed=notes[0] if notes else None,  # the innermost
        traceback=None if ending is None else text,
    )


def _below_frames(lines: list[str]) -> list[str] | None:
    """What a traceback says below the frames of its last exception; None where there is no traceback."""
    header = "Traceback (most recent call last):"
    if lines and lines[0] == f"  + Exception Group {header}":
        end = next((place for place, line in enumerate(lines) if line.startswith("  +-+-")), len(lines))
        lines = [header, *(line[4:] for line in lines[1:end])]  # the group's own part
    begins = [place for place, line in enumerate(lines) if line == header and (not place or not lines[place - 1])]
    if not begins:
        return None
    place = begins[-1] + 1
    while place < len(lines) and lines[place].startswith("  "):
        place += 1
    return lines[place:]


_OWN = frozenset(
    name for name, kind in list(globals().items()) if isinstance(kind, type) and issubclass(kind, OrchestratorError)
)
