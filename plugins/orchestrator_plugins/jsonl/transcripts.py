"""Transcripts: one row per group of a step, with what was said, how it was scored and why it ended."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from orchestrator.api import Features, Ledger, Rollout, RolloutGroup, Score, Trial, TrialFolder

_last_step: dict[Path, int] = {}  # written by this process, by trial directory


def append(trial: Trial, step: int, groups: Sequence[RolloutGroup]) -> None:
    """Write the first ``tracking.transcripts`` groups of a step, and as many of the failed ones.

    A trial resumed from a checkpoint runs the steps after it again: what an earlier process wrote of them goes.
    """
    wanted = trial.settings.tracking.transcripts
    ledger = Ledger(TrialFolder(trial.directory).rollouts)
    if step <= _last_step.get(trial.directory, 0) or trial.directory not in _last_step:
        ledger.rewind(step - 1)
    _last_step[trial.directory] = step
    if wanted:
        scored = islice((group for group in groups if group.scores), wanted)
        failed = islice((group for group in groups if not group.scores), wanted)
        ledger.write(*(_group(step, group) for group in (*scored, *failed)))


def _group(step: int, group: RolloutGroup) -> dict[str, Any]:
    scores: Sequence[Score | None] = group.scores or [None] * len(group.rollouts)
    return {
        "step": step,
        "task": group.task.id,
        "reference": group.task.reference,
        "rollouts": [_rollout(r, s) for r, s in zip(group.rollouts, scores, strict=True)],
    }


def _rollout(rollout: Rollout, score: Score | None) -> dict[str, Any]:
    return {
        "index": rollout.index,
        "seed": rollout.seed,
        "stop": rollout.stop.value,
        "error": rollout.error and str(rollout.error),
        "score": score and score.value,
        "parts": dict(score.parts) if score else {},
        "metrics": dict(rollout.metrics),
        "turns": [
            {
                "observation": None if isinstance(turn.observation, Features) else list(turn.observation),
                "action": list(turn.action.tokens) if turn.action.text is None else turn.action.text,
                "finish": turn.action.finish.value,
                "reward": turn.reward,
            }
            for turn in rollout.turns
        ],
    }
