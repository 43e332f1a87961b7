"""The sampler: several rollouts of each task, of which the best are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from orchestrator.api import Collect, Facts, Rollout, RolloutGroup, RolloutRequest, Task

from .config import BestOfConfig


class BestOf:
    """Keeps the highest scores of each task, the earlier rollout on ties; a task of empty answers is left out."""

    def __init__(self, config: BestOfConfig):
        self.config, self.facts = config, Facts(most_siblings=config.keep)
        self._report: dict[str, float] = {}

    def sample(self, tasks: Sequence[Task], collect: Collect) -> Sequence[RolloutGroup]:
        """Sample and keep the best; what is not kept still counts as cost."""
        groups = collect([RolloutRequest(task=task, count=self.config.count) for task in tasks])
        kept = [self._best(group) for group in groups]
        self._report = _describe(groups, kept)
        return [group for group in kept if group.rollouts]

    def report(self) -> Mapping[str, float]:
        """Numbers of the last call; see the README."""
        return self._report

    def _best(self, group: RolloutGroup) -> RolloutGroup:
        lengths = [characters(rollout) for rollout in group.rollouts]
        scores = [score.value for score in group.scores]
        places = best(scores, lengths, keep=self.config.keep, length_penalty=self.config.length_penalty)
        return replace(
            group,
            rollouts=tuple(group.rollouts[place] for place in places),
            scores=tuple(group.scores[place] for place in places),
        )


def best(scores: Sequence[float], lengths: Sequence[int], *, keep: int, length_penalty: float = 0.0) -> list[int]:
    """Places of the best scores, best first; the earlier one on ties.

    :param lengths: characters of each answer; empty ones are never kept
    :param length_penalty: times ln(characters), taken off the score
    :returns: at most ``keep`` places; scores that are not numbers come last
    """
    shaped = penalised(scores, lengths, length_penalty)
    candidates = [place for place, length in enumerate(lengths) if length > 0]
    return sorted(candidates, key=lambda place: -shaped[place])[:keep]


def penalised(scores: Sequence[float], lengths: Sequence[int], length_penalty: float) -> list[float]:
    """Scores less ``length_penalty`` times ln(characters); minus infinity for those that are not numbers."""
    return [
        -math.inf if math.isnan(score) else score - length_penalty * math.log(max(length, 1))
        for score, length in zip(scores, lengths, strict=True)
    ]


def answer(rollout: Rollout) -> str:
    """What the policy said, its actions joined by line breaks, without white space around it."""
    return "\n".join(turn.action.text or "" for turn in rollout.turns).strip()


def characters(rollout: Rollout) -> int:
    """Characters of the answer; of a policy without text, its actions."""
    if all(turn.action.text is None for turn in rollout.turns):
        return sum(len(turn.action.tokens) for turn in rollout.turns)
    return len(answer(rollout))


def _describe(groups: Sequence[RolloutGroup], kept: Sequence[RolloutGroup]) -> dict[str, float]:
    sampled = [score.value for group in groups for score in group.scores]
    chosen = [score.value for group in kept for score in group.scores]
    if not sampled:
        return {}
    metrics = {
        "superhf/score/sampled": fmean(sampled),
        "superhf/empty_tasks": sum(not g.rollouts for g in kept) / len(kept),
    }
    if chosen:
        metrics["superhf/score/kept"] = fmean(chosen)
        metrics["superhf/characters/kept"] = fmean(characters(r) for group in kept for r in group.rollouts)
    return metrics
