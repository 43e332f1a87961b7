"""The core's own procedure, ``train``, declared apart from the loop: a plugin's procedure need not wait for torch."""

from __future__ import annotations

from orchestrator.contract.markers import hookimpl
from orchestrator.contract.plan import Components, Trial
from orchestrator.contract.types import TrialResult


@hookimpl(trylast=True)
def run_trial(trial: Trial, components: Components) -> TrialResult:
    """Run the procedure ``train``."""
    from orchestrator.training import loop

    return loop.run_trial(trial, components)
