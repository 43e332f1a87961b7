"""Answers side by side: their texts, and what comparing them found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from orchestrator.api import Rollout, RolloutGroup


class Comparison(NamedTuple):
    """What a scorer found out about a group."""

    matrix: NDArray[np.float64]  # [K, K]
    scores: Sequence[float] | None = None  # K, where the scorer has any


class Scorer(Protocol):
    """Compares the rollouts of a group with one another."""

    def compare(self, group: RolloutGroup) -> Comparison: ...


def answer_text(rollout: Rollout) -> str:
    """What a rollout said, turn below turn.

    :raises ValueError: its actions are no texts
    """
    said = [turn.action.text for turn in rollout.turns]
    if any(text is None for text in said):
        raise ValueError(
            f"task {rollout.task_id!r}: actions without text cannot be read by a model or function; use "
            f"preference with `reward`, or a policy that speaks messages"
        )
    return "\n".join(str(text) for text in said)


def same_texts(texts: Sequence[str]) -> NDArray[np.bool_]:
    """[K, K] whether two answers read the same: neither beats the other."""
    return np.array([[one == other for other in texts] for one in texts], dtype=bool).reshape(len(texts), len(texts))
