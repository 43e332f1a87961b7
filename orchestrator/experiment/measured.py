"""What an arm can measure, as far as a plan can know: metrics that no row of it will have are refused before it runs.

What components measure of an evaluation (``eval/<name>``), episodes of themselves (``eval/episode/<name>``) and methods of
a step cannot be known beforehand; see ``runners.unmeasured`` for a search by one of those that never comes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.contract.metrics import COUNTERS, EVALUATED, OWN_EVALUATED
from orchestrator.contract.settings import ReportSettings, Settings, Tune
from orchestrator.errors import Problem, did_you_mean
from orchestrator.experiment.checks import Judged

_TRAINED = "train"  # the procedure whose metrics are known


def metric_problems(tune: Tune, arms: Sequence[Judged], *, searches: bool) -> Iterator[Problem]:
    """Metrics that a search or the verdict compares and no row will have.

    :param arms: sound ones; those of other procedures measure what they like
    :param searches: whether there is a search, which compares evaluations only
    """
    trained = [one.settings for one in arms if one.settings.procedure == _TRAINED]
    report = arms[0].settings.report if arms else ReportSettings()
    named = [("tune.metric", metric, True) for metric in tune.metrics if searches]
    if report.metric is not None:
        named.append(("report.metric", report.metric, searches and not tune.metrics))
    for path, metric, compared in named:
        lacking = {one.arm.name: message for one in arms if (message := _problem(one, metric, compared))}
        for message in dict.fromkeys(lacking.values()):
            names = [name for name, said in lacking.items() if said == message]
            whose = "" if len(names) == len(trained) else f"{'arm' if len(names) == 1 else 'arms'} {', '.join(names)}: "
            yield Problem(path, f"{whose}{message}")


def _problem(one: Judged, metric: str, compared: bool) -> str | None:
    settings = one.settings
    if settings.procedure != _TRAINED or not one.is_sound:
        return None
    if metric.startswith("cost/"):
        return None if metric in COUNTERS else f"no counter {metric!r}{did_you_mean(metric, COUNTERS)}"
    if metric.startswith("eval/"):
        return _unevaluated(metric, settings)
    if compared:
        return (
            f"{metric!r} is not measured by evaluations, which a search compares; name one that begins with eval/, "
            "such as eval/pass_at_1 or eval/reward/mean, or a counter such as cost/generated_tokens, in tune.metric"
        )
    return None


def _unevaluated(metric: str, settings: Settings) -> str | None:
    """Why no evaluation has a metric; None where one may."""
    found = re.fullmatch(r"eval/(pass|majority)(_at_|@)(\d+)", metric)
    if found and found[2] == "@":
        return f"metric names hold no @; write eval/{found[1]}_at_{found[3]}"
    measured = set(_evaluated(settings))
    if metric in measured:
        return None
    if found:
        also = ", ".join(sorted((name for name in measured if f"/{found[1]}_at_" in name), key=_natural))
        if found[1] == "majority" and int(found[3]) == 1:
            return f"a majority of one is no majority: evaluation.k gives {also or 'none'}; name eval/pass_at_1"
        return (
            f"evaluation.k gives {also or 'none'}, not {metric}; add {found[3]} to evaluation.k, or name one of these"
        )
    rewards = {spec.use for spec in settings.rewards}
    open_ended = ("eval/episode/", *(f"eval/reward/{name}/" for name in rewards))
    if not EVALUATED.fullmatch(metric) or metric.startswith(open_ended):
        return None
    apart = metric.startswith("eval/reward/") and rewards
    parts = f" Rewards measured apart: {', '.join(sorted(rewards))}" if apart else ""
    return f"evaluations measure no {metric!r}{did_you_mean(metric, measured)}{parts}"


def _evaluated(settings: Settings) -> Iterable[str]:
    """The core's metrics of an evaluation with these settings whose names are known beforehand."""
    yield from OWN_EVALUATED
    yield from (f"eval/pass_at_{k}" for k in settings.evaluation.k)
    yield from (f"eval/majority_at_{k}" for k in settings.evaluation.k if k > 1)
    yield from (f"eval/reward/{spec.use}" for spec in settings.rewards)


def _natural(name: str) -> int:
    return int(name.rpartition("_")[2])
