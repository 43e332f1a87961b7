"""What a report says, before any form is given to it: verdict, costs, what went wrong, where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.contract.metrics import COST, OBSERVERS
from orchestrator.contract.seeds import SeedsUntil
from orchestrator.contract.settings import Experiment
from orchestrator.errors import ConfigError, Failure, Problem, blame
from orchestrator.maths.power import Noise
from orchestrator.runs import machine
from orchestrator.runs.read import TrialData
from orchestrator.runs.results import FINISHED
from orchestrator.runs.study import Study, comparable, differences
from orchestrator.verdict.outcome import Verdict
from orchestrator.verdict.study import judge_study
from orchestrator.verdict.tasks import TaskComparison, compare_by_task, noise, read_evaluations
from orchestrator.verdict.wording import count_text

if TYPE_CHECKING:
    from orchestrator.plugging.registry import Registry

GAP_LIMIT = 1e-4  # act and train disagree above this, in nats, for float32 weights
_COUNTERS = (
    "cost/generated_tokens",
    "cost/prompt_tokens",
    "cost/trained_tokens",
    "cost/evaluation_tokens",
    "cost/seconds",
    "cost/device_seconds",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What the trials of one row cost, each on average."""

    name: str
    trials: int
    steps: float
    counters: Mapping[str, float]  # mean over trials, by metric name; absent where not measured

    @property
    def tokens_per_second(self) -> float | None:
        """Generated tokens per wall-clock second of a trial, evaluation time included."""
        seconds = self.counters.get("cost/seconds")
        return self.counters[COST] / seconds if seconds and COST in self.counters else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A plugin's part of the report, or what went wrong with it."""

    title: str
    plugin: str
    html: str | None
    error: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a report says, and where it was written."""

    title: str
    question: str | None  # the comment that opens the experiment file
    directories: tuple[Path, ...]
    study: Study
    verdict: Verdict | None
    unjudged: str  # why there is no verdict; empty where there is one
    counts: Mapping[str, int]  # of trials by status
    failures: tuple[TrialData, ...]
    warnings: tuple[str, ...]
    spending: tuple[Spending, ...]
    differences: Mapping[str, Mapping[str, Any]]  # settings that arms do not share: path to value by arm
    provenance: Mapping[str, str]
    tasks: tuple[TaskComparison, ...] = ()  # arms and baseline task by task, where answers were counted
    noise: Noise | None = None  # where the scatter of seeds comes from, where that is known
    sections: tuple[Section, ...] = ()
    out: Path | None = None  # the directory it was written to


def gather(directories: Sequence[Path], registry: Registry | None = None, metric: str | None = None) -> Report:
    """Read runs and say everything there is to say about them.

    :param registry: whose plugins contribute sections; None: no sections
    :param metric: to judge by; None: the experiment's ``report.metric``
    :raises ConfigError: a directory is no run, ``report.baseline`` names no arm, or nothing can be judged by ``metric``
    """
    study = Study.read(*directories)
    found, unjudged = judge_study(study, metric)
    if metric and found is None:
        raise ConfigError([Problem("--metric", unjudged)])
    evaluations = read_evaluations(study, found) if found else {}
    return Report(
        title=" + ".join(dict.fromkeys(run.plan.name for run in study.runs)),
        question=_question(study),
        directories=tuple(run.directory for run in study.runs),
        study=study,
        verdict=found,
        unjudged=unjudged,
        counts=study.status,
        failures=tuple(trial for trial in study.trials if trial.status == "failed"),
        warnings=(*_warnings(study, found), *study.warnings),
        spending=tuple(_spending(study)),
        differences=differences({arm: comparable(study.settings[arm]) for arm in study.arms}),
        provenance=_provenance(study),
        tasks=compare_by_task(evaluations, found) if found else (),
        noise=noise(evaluations, found) if found else None,
        sections=tuple(_sections(study, registry)),
    )


def _warnings(study: Study, found: Verdict | None) -> list[str]:
    """What a reader must know before believing the rest, most serious first."""
    trials = study.confirmations
    warnings = []
    waiting = [trial for trial in study.trials if trial.status in ("running", "pending")]
    if waiting or not study.ended:
        done = sum(trial.status in (*FINISHED, "failed") for trial in trials)
        warnings.append(
            f"The run is not finished: {done} of {len(study.planned)} trials that enter the verdict have "
            "ended. Resume it with `orchestrator resume`; until then "
            + ("what looks decided stands, and nothing else." if study.looks else "nothing is decided.")
        )
    warnings += found.doubts if found is not None else ()
    if found is not None and found.registered:
        warnings.append(f"What the design itself said, for which its error rate holds: {found.registered}")
    if study.looks and not (found and found.exploratory):
        counted = {trial for look in study.looks for trial in look.trials}
        late = [t.id for t in trials if t.status in FINISHED and t.id not in counted and study.looks[-1].over]
        if late:
            warnings.append(f"Ended after the last look, and left out of the verdict: {', '.join(late)}.")

    failed = [trial.id for trial in trials if trial.status == "failed"]
    if failed:
        warnings.append(
            f"Failed and left out of the verdict: {', '.join(failed)}. An arm whose failing seeds are left out looks "
            "better than it is."
        )
    stopped = [trial.id for trial in trials if trial.status == "stopped"]
    if stopped:
        warnings.append(f"Stopped early, so that all arms are compared at what these reached: {', '.join(stopped)}.")
    if found is not None:
        curves = [c for t in trials if t.status in FINISHED and (c := t.curve(found.metric)) is not None]
        reached = [curve.reach for curve in curves if curve.arm not in found.costless]
        budget = study.experiment.budget.generated_tokens
        short = budget is None or found.cost < budget
        if found.cost_name != "steps" and reached and short and found.cost < 0.95 * max(reached):
            warnings.append(
                f"Arms spent between {count_text(min(reached))} and {count_text(max(reached))} generated tokens; they "
                f"are compared at {count_text(found.cost)}. Set budget.generated_tokens to give all the same."
            )
        unmeasured = [t.id for t in trials if t.status in FINISHED and t.curve(found.metric) is None]
        if unmeasured:
            warnings.append(f"Finished without measuring {found.metric}, so left out: {', '.join(unmeasured)}.")
        asked = {arm: sum(name == arm for name, _ in study.planned) for arm in study.arms}
        if len({len(arm.seeds) for arm in found.arms}) > 1 and any(len(a.seeds) < asked[a.arm] for a in found.arms):
            warnings.append(
                "Arms have different numbers of seeds: " + ", ".join(f"{a.arm} {len(a.seeds)}" for a in found.arms)
            )
    lost = sum(float(trial.series("rollout/failed")[1].sum()) for trial in study.trials)
    if lost:
        warnings.append(f"{lost:.0f} training rollouts failed and were kept out of the updates; they count as cost.")
    lost = sum(float(trial.series("eval/failed_rollouts")[1].sum()) for trial in study.trials)
    if lost:
        warnings.append(f"{lost:.0f} evaluation rollouts failed.")
    skipped = {t.id: t.last["train/skipped_updates"] for t in study.trials if t.last.get("train/skipped_updates")}
    if skipped:
        warnings.append(
            "Updates skipped for losses or gradients that were not finite: "
            + ", ".join(f"{name} ({count:.0f})" for name, count in skipped.items())
        )
    gaps = {t.id: float(values.max()) for t in trials if (values := t.series("train/act_train_logprob_gap")[1]).size}
    wide = {name: gap for name, gap in gaps.items() if gap > GAP_LIMIT}
    if wide:
        worst = max(wide, key=lambda name: wide[name])
        warnings.append(
            f"The log-probabilities recorded when acting and those recomputed for training differ by up to "
            f"{wide[worst]:.2g} ({worst}; {len(wide)} of {len(gaps)} trials above {GAP_LIMIT:g}). Expected below "
            "that in float32; a reduced precision explains more, and update.correction weighs it out."
        )
    watchers = {t.id: t.last[OBSERVERS] for t in study.trials if t.last.get(OBSERVERS)}
    if watchers:
        warnings.append(
            "Plugins that only watch raised errors (the log names them): "
            + ", ".join(f"{name} ({count:.0f})" for name, count in watchers.items())
        )
    if len({run.plan.commit for run in study.runs}) > 1 or len({str(run.plan.fingerprint) for run in study.runs}) > 1:
        warnings.append("These runs were made by different versions of the code or its plugins: see provenance.")
    return warnings


def _spending(study: Study) -> list[Spending]:
    rows = []
    starts = [trial for trial in study.starts if trial.rows]
    groups = [(arm, [t for t in study.confirmations if t.arm == arm]) for arm in study.arms]
    groups += [(f"{arm}, tuning", [t for t in study.tuning if t.arm == arm]) for arm in study.arms]
    groups.append(("shared start", starts))
    for name, trials in groups:
        trials = [trial for trial in trials if trial.rows]
        if not trials:
            continue
        counters = {
            counter: float(np.mean([trial.last[counter] for trial in trials if counter in trial.last]))
            for counter in _COUNTERS
            if any(counter in trial.last for trial in trials)
        }
        steps = float(np.mean([trial.step for trial in trials]))
        rows.append(Spending(name=name, trials=len(trials), steps=steps, counters=counters))
    return rows


def _question(study: Study) -> str | None:
    """The comment that opens the experiment file, where the file is still there."""
    source = study.runs[0].plan.source
    try:
        first = Path(source).read_text(encoding="utf-8").lstrip().splitlines()[0] if source else ""
    except (OSError, IndexError, UnicodeDecodeError):
        return None
    return first.lstrip("# ").strip() or None if first.startswith("#") else None


def _provenance(study: Study) -> dict[str, str]:
    facts: dict[str, str] = {}
    for run in study.runs:
        suffix = f" ({run.directory.name})" if len(study.runs) > 1 else ""
        facts[f"run{suffix}"] = run.directory.name
        facts[f"experiment file{suffix}"] = run.plan.source or "not recorded"
        facts[f"commit{suffix}"] = run.plan.commit or "not recorded"
        if run.plan.commit and "+" not in run.plan.commit:  # those of earlier versions end in +changes where there were
            facts[f"uncommitted changes{suffix}"] = "not looked at"
        experiment = run.plan.experiment
        facts[f"seeds{suffix}"] = "; ".join(
            [_seeds(experiment)]
            + [f"{arm} {_list(experiment.seeds_of(arm))}" for arm, own in experiment.arms.items() if own.get("seeds")]
        )
        facts[f"plugins{suffix}"] = ", ".join(
            f"{name} {' '.join(source.split()[:2])}" for name, source in run.plan.fingerprint.items()
        )
        for key, value in (run.machine or {}).items():
            facts[f"{key}{suffix}"] = str(value)
    if not any(run.machine for run in study.runs):
        facts |= {f"{key} (of the report)": value for key, value in machine.describe().items()}
    facts["resources per trial"] = ", ".join(
        f"{value} {key}" for key in ("cpus", "gpus", "workers") if (value := getattr(study.experiment.resources, key))
    )
    return {key: value for key, value in facts.items() if value}


def _seeds(experiment: Experiment) -> str:
    """The seeds of all arms, or how they are added."""
    if not isinstance(experiment.seeds, SeedsUntil):
        return _list(experiment.seeds)
    return f"0 to {experiment.seeds.at_most - 1} until decided, looks after {_list(experiment.seeds.course)}"


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(str(seed) for seed in seeds)


def _sections(study: Study, registry: Registry | None) -> list[Section]:
    """Ask every plugin for its part; one that raises is shown by its error, and the others go on."""
    found: list[Section] = []
    if registry is None:
        return found
    for info, section in registry.report_sections():
        for run in study.runs:
            title = section.title or section.name
            title = f"{title} ({run.directory.name})" if len(study.runs) > 1 else title
            render = section.render
            assert callable(render)  # the registry has put a function in place of a name
            try:
                with blame(str(info), where=f"report section {section.name!r}"):
                    html = render(study.only(run))
            except Exception as error:
                found.append(Section(title=title, plugin=str(info), html=None, error=Failure.of(error)))
                continue
            if html is not None:
                found.append(Section(title=title, plugin=str(info), html=html))
    return found
