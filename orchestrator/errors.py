"""Every error the orchestrator raises, and the boundary that names the plugin at fault.

OrchestratorError
├── ConfigError (ValueError)            the user's file or command line
├── ContextError (ValueError)           a policy cannot act in some contexts of a call
├── PluginError                         a plugin cannot be used
│   ├── PluginLoadError (ImportError)   it does not import
│   └── PluginContractError (TypeError) it breaks the contract of a hook, component or role
└── TrialError (RuntimeError)           one trial failed; others go on
    ├── CheckpointError                 no readable checkpoint where one was expected
    ├── NonFiniteError                  losses or gradients stayed non-finite
    └── RolloutError                    too many rollouts failed

TrialStopped (BaseException) is no error: it carries the scheduler's decision out of a running trial.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class OrchestratorError(Exception):
    """Root of every error raised on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request: where (the path the user typed) and what, with the next step."""

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
        return type(self), (self.problems,), {"__notes__": getattr(self, "__notes__", [])}


class ContextError(OrchestratorError, ValueError):
    """A policy cannot act in some contexts of a call, whose places are ``contexts``: their episodes fail, others go on."""

    def __init__(self, message: str, contexts: Iterable[int] = ()):
        self.contexts = tuple(contexts)
        super().__init__(message)

    def __reduce__(self):
        return type(self), (str(self), self.contexts), {"__notes__": getattr(self, "__notes__", [])}


class PluginError(OrchestratorError):
    """A plugin cannot be used."""


class PluginLoadError(PluginError, ImportError):
    """A plugin does not import."""


class PluginContractError(PluginError, TypeError):
    """A plugin breaks the contract of a hook, a component or a role."""


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


@contextmanager
def blame(plugin: str, *, where: str) -> Iterator[None]:
    """Attribute whatever the block raises to a plugin, as an exception note.

    :param plugin: plugin with distribution and version, as in ``'dars' (rl-orchestrator 0.1.0)``
    :param where: the role or hook that was called, as in ``hook 'provide_rewards'``

    The exception passes through unchanged otherwise; notes survive pickling.
    """
    try:
        yield
    except Exception as error:
        note = f"raised by plugin {plugin} in {where}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End a sentence with the nearest known name, ``; did you mean 'x'?``, or with a full stop."""
    near = difflib.get_close_matches(name, sorted(map(str, known)), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else "."
