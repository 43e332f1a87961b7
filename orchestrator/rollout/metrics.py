"""What the rollouts of one step look like: scores, lengths, groups, failures."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

from orchestrator.contract.types import RolloutGroup
from orchestrator.rollout.collector import Collector


def rollout_metrics(groups: Sequence[RolloutGroup], collector: Collector) -> dict[str, float]:
    """Describe the groups a sampler returned, by metric name (``rollout/...``).

    :param collector: which knows the rollouts of the step that failed
    """
    scores = [score for group in groups for score in group.scores]
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    metrics = {"rollout/failed": float(len(collector.failures)), "rollout/groups": float(len(groups))}
    if not rollouts:
        return metrics
    values = [score.value for score in scores]
    actions = [turn.action for rollout in rollouts for turn in rollout.turns]
    metrics["rollout/reward/mean"], metrics["rollout/reward/std"] = fmean(values), pstdev(values)
    for part in sorted({part for score in scores for part in score.parts}):
        metrics[f"rollout/reward/{part}"] = fmean(score.parts.get(part, 0.0) for score in scores)
    metrics["rollout/tokens/mean"] = sum(len(action.tokens) for action in actions) / len(rollouts)
    metrics["rollout/turns/mean"] = len(actions) / len(rollouts)
    metrics["rollout/truncated"] = fmean(action.finish == "length" for action in actions) if actions else 0.0
    metrics["rollout/group_size/mean"] = len(rollouts) / len(groups)
    metrics["rollout/constant_groups"] = fmean(len({s.value for s in group.scores}) == 1 for group in groups)
    known = [rollout.metrics["correct"] for rollout in rollouts if "correct" in rollout.metrics]
    if known:
        metrics["rollout/correct"] = fmean(known)
    return metrics
