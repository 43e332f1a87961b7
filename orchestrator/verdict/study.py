"""Judges a study: which trials have a say, by which metric, at which cost, and whether an error rate holds for it."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.contract.metrics import COST, compared
from orchestrator.errors import ConfigError, Problem, did_you_mean
from orchestrator.runs.read import TrialData
from orchestrator.runs.results import FINISHED
from orchestrator.runs.study import Study
from orchestrator.verdict import looks
from orchestrator.verdict.headline import headline
from orchestrator.verdict.judge import judge
from orchestrator.verdict.looks import Evidence
from orchestrator.verdict.outcome import Verdict


def judge_study(study: Study, metric: str | None = None) -> tuple[Verdict | None, str]:
    """Judge the finished confirmations of a study at equal cost; tuning trials have no say.

    Of a design that adds seeds until arms are decided, the verdict is what the looks made so far decided. Where seeds
    were added beyond the design, or seeds of several runs count as one arm's, all of them are judged together and the
    verdict is called exploratory.

    :param metric: to judge by; None: the experiment's ``report.metric``
    :returns: the verdict, and why there is none; one of the two is empty
    :raises ConfigError: ``report.baseline`` names no arm
    """
    _refuse_unknown_baseline(study)
    exploratory = _exploratory(study, metric)
    wanted = metric or (None if exploratory or not study.looks else study.looks[-1].metric)
    designed = [trial for trial in study.confirmations if (trial.arm, trial.seed) not in study.extended]
    every = list(study.confirmations) if exploratory else designed
    found, why = _judged(study, every, wanted, by_looks=not exploratory)
    if found is None or not exploratory:
        return found, why
    registered = _judged(study, designed, None, by_looks=True)[0] if len(study.runs) == 1 else None
    said = registered.headline if registered else ""
    found = replace(found, exploratory=exploratory, registered=said)
    return replace(found, headline=headline(found)), ""


def evidence(study: Study, metric: str | None = None) -> tuple[Evidence | None, str]:
    """What looks at a study have to go by: the trials of its design that have ended; and why there is nothing."""
    designed = [trial for trial in study.confirmations if (trial.arm, trial.seed) not in study.extended]
    return _evidence(study, designed, metric)


def _judged(study: Study, trials: list[TrialData], metric: str | None, *, by_looks: bool) -> tuple[Verdict | None, str]:
    settings = study.experiment.report
    given, why = _evidence(study, trials, metric)
    if given is None:
        return None, why
    if by_looks and study.looks and study.looks[-1].trials:
        found = looks.judge_looks(given, study.looks)
    elif settings.compare == "best" and (study.experiment.sequential is None or not by_looks):
        found = looks.judge_race(given, final=study.ended)
    else:
        found = judge(
            list(given.curves.values()),
            metric=given.metric,
            mode=settings.mode,
            confidence=settings.confidence,
            margin=settings.margin,
            baseline=settings.baseline or study.arms[0],
            budget=given.budget,
            cost_name=given.cost_name,
            arms=study.arms,
            final=study.ended,
        )
    return replace(found, headline=headline(found)), ""


def _evidence(study: Study, trials: list[TrialData], metric: str | None) -> tuple[Evidence | None, str]:
    ended = [trial for trial in trials if trial.status in FINISHED]
    if not ended:
        return None, _why_none(study)
    measured = {name for trial in ended for name in trial.last}
    metric = compared(measured, metric or study.experiment.report.metric)
    if metric not in measured:
        near = did_you_mean(metric, measured)
        return (
            None,
            f"No finished trial measured {metric!r}{near} Set report.metric, or --metric, to what was measured.",
        )
    cost = COST if any(trial.last.get(COST, 0) > 0 for trial in ended) else None
    curves = {
        f"{trial.run}/{trial.id}" if len(study.runs) > 1 else trial.id: trial.curve(metric, cost) for trial in ended
    }
    given = Evidence(
        arms=study.arms,
        settings=study.experiment.report,
        metric=metric,
        cost_name="generated tokens" if cost else "steps",
        budget=study.experiment.budget.generated_tokens if cost else None,
        curves={trial: curve for trial, curve in curves.items() if curve is not None},
    )
    return given, ""


def _exploratory(study: Study, metric: str | None) -> str:
    """Why no error rate holds for a verdict on all there is; empty where one does."""
    if study.extended:
        seeds = len({seed for _, seed in study.extended})
        return f"{seeds} seed{'s were' if seeds > 1 else ' was'} added after the design had ended"
    if len(study.runs) > 1:
        homes: dict[str, set[str]] = {}
        for trial in study.confirmations:
            homes.setdefault(trial.arm, set()).add(trial.run)
        shared = [arm for arm, runs in homes.items() if len(runs) > 1]
        if shared:
            return f"seeds of several runs are taken together ({', '.join(shared)})"
        if any(run.plan.experiment.sequential for run in study.runs):
            return "arms of several runs are taken together, of which one decided as it went how many seeds it gets"
    if study.looks and metric is not None and metric != study.looks[-1].metric:
        return f"the looks went by {study.looks[-1].metric}"
    return ""


def _refuse_unknown_baseline(study: Study) -> None:
    baseline = study.experiment.report.baseline
    if baseline is not None and baseline not in study.arms:
        raise ConfigError(
            [
                Problem(
                    "report.baseline",
                    f"no arm {baseline!r}{did_you_mean(baseline, study.arms)} Arms: {', '.join(study.arms)}.",
                )
            ]
        )


def _why_none(study: Study) -> str:
    """Why no trial has a say."""
    failed = sum(trial.status == "failed" for trial in study.confirmations)
    if failed and study.ended:
        return f"All {failed} trials that enter the verdict failed; orchestrator resume runs them again."
    if failed:
        return f"No trial that enters the verdict has finished yet; {failed} failed."
    return "No trial that enters the verdict has finished yet."
