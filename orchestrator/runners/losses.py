"""What a sweep can lose besides a trial's own errors, by kind: said in a sentence, with the next step.

Told apart by the names of Ray's exceptions and by what they say, so that nobody who reads a loss needs Ray.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.errors import Failure


class Kind(StrEnum):
    """What was lost, by the remedy."""

    CRASH = "crash"  # a worker process ended by itself
    MEMORY = "memory"  # a worker was ended for want of memory
    NODE = "node"  # a machine, or the part of Ray that stands for it
    SETUP = "setup"  # a worker's environment could not be set up
    START = "start"  # Ray did not come up
    SILENCE = "silence"  # Ray lives and does nothing
    HANG = "hang"  # a call of a component that did not return
    DRIVER = "driver"  # the process that talks to Ray


_NEXT = {
    Kind.CRASH: "see the worker's log in the trial's directory",
    Kind.MEMORY: "lower resources.concurrent, schedule.tasks_per_step or the model's size, or give the machine more memory",
    Kind.NODE: "see what ended it (the system's log, out of memory, another user's 'ray stop'), then resume the run",
    Kind.SETUP: "install the same packages on every machine and see Ray's own log, then resume the run",
    Kind.START: "wait until the machine is less loaded and resume the run, or run it without Ray with --local",
    Kind.SILENCE: "see whether the machine is suspended or overloaded, then resume the run",
    Kind.HANG: "see why it does not return, or raise that limit",
    Kind.DRIVER: "see what ended it (the system's log, out of memory), then resume the run",
}

_NAMES = {  # of exceptions, Ray's and Python's; the first that fits decides
    Kind.MEMORY: ("OutOfMemoryError", "MemoryError", "ObjectStoreFullError", "OutOfDiskError"),
    Kind.SETUP: ("RuntimeEnvSetupError",),
    Kind.NODE: ("NodeDiedError", "LocalRayletDiedError", "RaySystemError", "RpcError", "OwnerDiedError"),
    Kind.CRASH: ("WorkerCrashedError", "ActorDiedError", "ActorUnavailableError", "RayActorError"),
}
_PHRASES = {  # of what is said, for exceptions that tell more than their name; lower case
    Kind.MEMORY: ("running low on memory", "out of memory", "oom", "memory monitor"),
    Kind.SETUP: ("runtime_env", "runtime environment", "failed to set up"),
    Kind.NODE: ("node died", "node was dead", "node has been", "node is dead", "raylet died", "gcs", "its node"),
}


@dataclass(frozen=True, slots=True)
class Loss:
    """One loss.

    :ivar kind: its remedy's
    :ivar message: what was lost, in a clause
    """

    kind: Kind
    message: str

    @property
    def next(self) -> str:
        """The next step."""
        return _NEXT[self.kind]

    def __str__(self) -> str:
        return f"{self.message}; {self.next}"


def classify(error: BaseException) -> Loss:
    """Name the loss an exception of Ray's stands for: by its class and its causes', else by what it says."""
    chain = list(_causes(error))
    said = _first_line(chain[-1])
    names = {kind.__name__ for one in chain for kind in type(one).__mro__}
    text = " ".join(str(one) for one in chain).lower()
    for kind, known in _NAMES.items():
        if kind is Kind.CRASH:
            kind = next((other for other, phrases in _PHRASES.items() if any(p in text for p in phrases)), kind)
            if names.intersection(known):
                return Loss(kind, f"{_WHAT[kind]} ({said})")
        elif names.intersection(known):
            return Loss(kind, f"{_WHAT[kind]} ({said})")
    return Loss(Kind.DRIVER, f"{_WHAT[Kind.DRIVER]} ({said})")


def of_process(name: str, code: int) -> Loss:
    """The loss of one of Ray's own processes on this machine.

    :param code: its exit code, negative for a signal
    """
    kind = Kind.DRIVER if name == "driver" else Kind.NODE
    return Loss(kind, f"Ray's {name} {ending(code)}")


def ending(code: int) -> str:
    """How a process ended, in words: ``was killed by SIGKILL``, ``ended with exit code 1``."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


_WHAT = {
    Kind.CRASH: "a worker process died",
    Kind.MEMORY: "a worker process was ended because memory ran out",
    Kind.NODE: "a machine, or Ray on it, was lost",
    Kind.SETUP: "a worker's environment could not be set up",
    Kind.DRIVER: "the process that drives Ray failed",
}


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = getattr(one, "cause", None) if isinstance(getattr(one, "cause", None), BaseException) else one.__cause__


def _first_line(error: BaseException) -> str:
    return Failure.of(error).reason.strip().partition("\n")[0].rstrip(":.")
