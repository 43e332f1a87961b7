"""Held-out measurement: fixed tasks, fixed seeds, cost counted apart from training's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from orchestrator.contract.metrics import from_plugin
from orchestrator.contract.roles import Evaluates
from orchestrator.contract.settings import Evaluation
from orchestrator.contract.types import Rollout, RolloutGroup, RolloutRequest, Sampling, Score, Task
from orchestrator.errors import blame
from orchestrator.evaluation.diversity import distinct_correct
from orchestrator.evaluation.passk import majority_at_k, pass_at_k
from orchestrator.rollout.collector import Collector, rollout_error


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """What one evaluation found."""

    metrics: dict[str, float]
    tasks: dict[str, tuple[int, int]]  # task id to (rollouts, right ones); empty where nothing says what is right


def evaluate(
    collector: Collector,
    tasks: Sequence[Task],
    settings: Evaluation,
    max_tokens: int,
    measures: Sequence[tuple[str | None, Evaluates]] = (),
) -> EvaluationResult:
    """Play every task ``settings.samples`` times and measure.

    The seeds are the same at every evaluation of a trial, so that curves move for the policy's sake alone. A failed
    rollout counts as wrong; each agent of a shared world makes an attempt of its own. Right is what the episode's metric ``correct`` says, or a score of at least
    ``success_at``; where neither is known there is no pass@k.

    :param measures: components with numbers of their own on the rollouts, reported as ``eval/<name>``, each with the
        plugin to blame
    :raises RolloutError: every rollout failed, so that nothing was measured
    """
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, max_tokens=max_tokens)
    before = collector.cost.generated_tokens
    collector.begin("evaluation")
    groups = collector([RolloutRequest(task=task, count=settings.samples, sampling=sampling) for task in tasks])
    failures = collector.failures
    if failures and len(failures) == collector.played:
        raise rollout_error(f"evaluation: all {len(failures)} rollouts failed", failures)
    metrics = _score_metrics(groups, failed=len(failures))
    for plugin, measure in measures:
        with blame(plugin):
            metrics |= from_plugin(measure.evaluate(groups), "evaluate()", area="eval/")
    metrics["eval/tokens"] = float(collector.cost.generated_tokens - before)
    known = [_right(group, settings.success_at) for group in groups]
    right = [flags for flags in known if flags is not None]
    if len(right) < len(known) or not any(right):
        return EvaluationResult(metrics=metrics, tasks={})
    failed = Counter(rollout.task_id for rollout in failures)
    attempts = [len(flags) + failed[group.task.id] for group, flags in zip(groups, right, strict=True)]
    metrics |= _success_metrics(groups, right, attempts, settings.k)
    counts = {g.task.id: (made, sum(flags)) for g, made, flags in zip(groups, attempts, right, strict=True)}
    return EvaluationResult(metrics=metrics, tasks=counts)


def is_right(rollout: Rollout, score: Score, success_at: float | None) -> bool | None:
    """Whether a rollout solved its task; None where nothing says."""
    if success_at is not None:
        return score.value >= success_at
    if "correct" in rollout.metrics:
        return rollout.metrics["correct"] > 0
    return None


def _right(group: RolloutGroup, success_at: float | None) -> list[bool] | None:
    flags = [is_right(r, s, success_at) for r, s in zip(group.rollouts, group.scores, strict=True)]
    known = [flag for flag in flags if flag is not None]
    return known if len(known) == len(flags) else None


def _score_metrics(groups: Sequence[RolloutGroup], failed: int) -> dict[str, float]:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    scores = [score for group in groups for score in group.scores]
    metrics = {"eval/failed_rollouts": float(failed), "eval/rollouts": float(len(rollouts) + failed)}
    if not rollouts:
        return metrics
    metrics["eval/reward/mean"] = fmean(score.value for score in scores)
    for part in sorted({part for score in scores for part in score.parts}):
        metrics[f"eval/reward/{part}"] = fmean(score.parts.get(part, 0.0) for score in scores)
    metrics["eval/turns/mean"] = fmean(len(rollout.turns) for rollout in rollouts)
    actions = [turn.action for rollout in rollouts for turn in rollout.turns]
    logprobs = [value for action in actions for value in action.logprobs]
    metrics["eval/tokens_per_rollout/mean"] = len(logprobs) / len(rollouts)
    if logprobs:
        # The mean surprise of sampled tokens estimates the entropy per token without a second forward pass.
        metrics["eval/entropy"] = -math.fsum(logprobs) / len(logprobs)
    for name in sorted({name for rollout in rollouts for name in rollout.metrics} - {"answer_id"}):
        found = [rollout.metrics[name] for rollout in rollouts if name in rollout.metrics]
        metrics[f"eval/episode/{name}"] = fmean(found)
    return metrics


def _success_metrics(
    groups: Sequence[RolloutGroup], right: Sequence[Sequence[bool]], attempts: Sequence[int], ks: Sequence[int]
) -> dict[str, float]:
    metrics = {}
    for k in ks:
        metrics[f"eval/pass_at_{k}"] = fmean(
            pass_at_k(made, sum(flags), k) for made, flags in zip(attempts, right, strict=True)
        )
    answers = [[_answer(rollout) for rollout in group.rollouts] for group in groups]
    if any(answer is not None for row in answers for answer in row):
        for k in ks:
            if k > 1:
                metrics[f"eval/majority_at_{k}"] = fmean(
                    majority_at_k(row, flags, min(k, len(row))) if row else 0.0
                    for row, flags in zip(answers, right, strict=True)
                )
        metrics["eval/distinct_correct"] = fmean(
            distinct_correct(row, flags) for row, flags in zip(answers, right, strict=True)
        )
    return metrics


def _answer(rollout: Rollout) -> float | None:
    return rollout.metrics.get("answer_id")
