"""Tells the plugins that watch a trial what happens; one that raises is logged once, counted, and told again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Failure

if TYPE_CHECKING:
    from orchestrator.contract.plan import ComponentSource, Trial

logger = logging.getLogger(__name__)


class Events:
    """The ``on_*`` hooks of one trial."""

    def __init__(self, source: ComponentSource | None, trial: Trial):
        self._source, self._trial = source, trial
        self._logged: set[tuple[str, str]] = set()

    @property
    def failures(self) -> int:
        """Errors of the plugins that watch the trial, whoever told them of what."""
        return self._trial.passed_over.total()

    def emit(self, hook: str, **arguments: Any) -> None:
        """Call an ``on_*`` hook with the trial and the arguments."""
        if self._source is None:
            return
        for info, error in self._source.notify(hook, trial=self._trial, **arguments):
            self._trial.passed_over[info.name] += 1
            if (info.name, hook) not in self._logged:
                self._logged.add((info.name, hook))
                failure = Failure.of(error)
                where = "" if isinstance(error, OSError) else f"\n{failure.traceback}"  # a disk's errors say it all
                logger.warning("a plugin was passed over: %s%s", failure, where)
