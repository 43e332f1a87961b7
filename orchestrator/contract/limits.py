"""Limits on what may hang: a call of a component other than the policy, and the wall-clock budget."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Limits(Protocol):
    """Kept from outside the process that may hang: it is ended, and the trial goes on from its checkpoint without that call."""

    @property
    def spent(self) -> bool:
        """Whether the trial was ended because its wall-clock budget was over."""

    def watched(self, what: str, key: str) -> AbstractContextManager[None]:
        """Watch a block; enter it only if it has not hung before.

        :param what: ``environment``, ``reward/NAME``, ``sampler``, ``advantage`` or ``objective``
        :param key: tells this call from all others of the trial; the same when the trial is run again
        :raises TimeoutError: it hung before
        """

    def apart(self) -> AbstractContextManager[None]:
        """Leave a block out of the time of the sampler that asked for it."""

    def budget(self, seconds: float) -> AbstractContextManager[None]:
        """Watch a step of training, which may take what is left of the budget and some more."""


class Unlimited:
    """No limits."""

    spent = False

    def watched(self, what: str, key: str) -> AbstractContextManager[None]:
        """Let the block take what it takes."""
        return nullcontext()

    def apart(self) -> AbstractContextManager[None]:
        """Let the block take what it takes."""
        return nullcontext()

    def budget(self, seconds: float) -> AbstractContextManager[None]:
        """Let the step take what it takes."""
        return nullcontext()
