"""What a runner tells whoever watches: the live table of the command line, a test, a notebook; the driver's parent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from orchestrator.runners.losses import Loss


class Progress(Protocol):
    """A watcher of a sweep. Called from the driver's main thread or the one that looks at files; it must return quickly."""

    def trial_update(self, trial: str, status: str, step: int, metrics: Mapping[str, float]) -> None:
        """Hear that a trial moved on.

        :param trial: the trial's id; ``start-<hash>`` for a shared start phase
        :param status: pending, running, done, stopped or failed
        :param step: the last step known, 0 before the first
        :param metrics: the newest values known by name; may be empty
        """

    def looked(self, said: str) -> None:
        """Hear what a look at the verdict decided, in one line."""


class Silent:
    """A watcher that shows nothing."""

    def trial_update(self, trial: str, status: str, step: int, metrics: Mapping[str, float]) -> None:
        """Ignore the update."""

    def looked(self, said: str) -> None:
        """Ignore the look."""


class Watch(Protocol):
    """Somebody who watches a driver of Ray."""

    def beat(self) -> None:
        """Hear that all is well, once a second or so."""

    def lost(self, loss: Loss) -> None:
        """Hear, from another thread, that Ray lost one of its processes."""

    def over(self, finished: bool) -> None:
        """Hear that the trials are over, before Ray is shut down."""


class Unwatched:
    """Nobody who watches a driver: its caller started Ray, and looks after it."""

    def beat(self) -> None:
        """Ignore the sign of life."""

    def lost(self, loss: Loss) -> None:
        """Ignore the loss."""

    def over(self, finished: bool) -> None:
        """Ignore the end."""
