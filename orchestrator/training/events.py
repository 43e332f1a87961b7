"""Tells the plugins that watch a trial what happens; one that raises is logged once, counted, and told again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.plugin_manager import PluginManager
    from orchestrator.types import Trial

logger = logging.getLogger(__name__)


class Events:
    """The ``on_*`` hooks of one trial."""

    def __init__(self, manager: PluginManager | None, trial: Trial):
        self._manager, self._trial = manager, trial
        self._logged: set[tuple[str, str]] = set()
        self.failures = 0

    def emit(self, hook: str, **arguments: Any) -> None:
        """Call an ``on_*`` hook with the trial and the arguments."""
        if self._manager is None:
            return
        for info, error in self._manager.notify(hook, trial=self._trial, **arguments):
            self.failures += 1
            if (info.name, hook) not in self._logged:
                self._logged.add((info.name, hook))
                logger.warning("plugin %s raised in %s and was passed over", info, hook, exc_info=error)
