"""Names of metrics that more than one wing reads, and which one is compared where nobody says."""

from __future__ import annotations

from collections.abc import Collection

COST = "cost/generated_tokens"
"""What arms are compared at: tokens (actions) generated for training so far."""
SECONDS = "cost/seconds"
"""Wall-clock seconds of a trial, evaluation included."""
SUCCESS = "eval/pass_at_1"
"""Share of held-out rollouts that were right, where something says what is right."""
SCORE = "eval/reward/mean"
"""Mean score of held-out rollouts; every evaluation has it."""
COMPARED = (SUCCESS, SCORE)
"""What is compared where the experiment names no metric: the first of them that was measured."""


def compared(measured: Collection[str], named: str | None = None) -> str:
    """The metric that is compared: the one named, or the first of ``COMPARED`` that was measured."""
    return named or next((name for name in COMPARED if name in measured), SCORE)
