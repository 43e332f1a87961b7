"""JSONL: transcripts of rollouts, readable without any tracker."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.api import RolloutGroup, Trial, hookimpl


@hookimpl
def on_rollouts(trial: Trial, step: int, groups: Sequence[RolloutGroup]) -> None:
    from .transcripts import append

    append(trial, step, groups)
