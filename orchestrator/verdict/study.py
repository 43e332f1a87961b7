"""Judges a study: which trials have a say, by which metric, at which cost."""

from __future__ import annotations

from orchestrator.contract.metrics import COST, compared
from orchestrator.errors import ConfigError, Problem, did_you_mean
from orchestrator.runs.results import FINISHED
from orchestrator.runs.study import Study
from orchestrator.verdict.judge import judge
from orchestrator.verdict.outcome import Verdict


def judge_study(study: Study, metric: str | None = None) -> tuple[Verdict | None, str]:
    """Judge the finished confirmations of a study at equal cost; tuning trials have no say.

    :param metric: to judge by; None: the experiment's ``report.metric``
    :returns: the verdict, and why there is none; one of the two is empty
    :raises ConfigError: ``report.baseline`` names no arm
    """
    settings = study.experiment.report
    ended = [trial for trial in study.confirmations if trial.status in FINISHED]
    if not ended:
        return None, _why_none(study)
    measured = {name for trial in ended for name in trial.last}
    metric = compared(measured, metric or settings.metric)
    if metric not in measured:
        near = did_you_mean(metric, measured)
        return (
            None,
            f"No finished trial measured {metric!r}{near} Set report.metric, or --metric, to what was measured.",
        )
    cost = COST if any(trial.last.get(COST, 0) > 0 for trial in ended) else None
    baseline = settings.baseline or study.arms[0]
    if baseline not in study.arms:
        raise ConfigError(
            [
                Problem(
                    "report.baseline",
                    f"no arm {baseline!r}{did_you_mean(baseline, study.arms)} Arms: {', '.join(study.arms)}.",
                )
            ]
        )
    found = judge(
        study.curves(metric, cost),
        metric=metric,
        mode=settings.mode,
        confidence=settings.confidence,
        margin=settings.margin,
        baseline=baseline,
        budget=study.experiment.budget.generated_tokens if cost else None,
        cost_name="generated tokens" if cost else "steps",
        arms=study.arms,
        final=study.ended,
    )
    return found, ""


def _why_none(study: Study) -> str:
    """Why no trial has a say."""
    failed = sum(trial.status == "failed" for trial in study.confirmations)
    if failed and study.ended:
        return f"All {failed} trials that enter the verdict failed; orchestrator resume runs them again."
    if failed:
        return f"No trial that enters the verdict has finished yet; {failed} failed."
    return "No trial that enters the verdict has finished yet."
