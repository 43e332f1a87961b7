"""Plans, trials and studies made up for tests of hooks and report sections: only what a test names differs from the defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.contract.plan import Phase, Plan, Trial, TrialSpec
from orchestrator.contract.settings import Experiment, Settings
from orchestrator.runs.layout import RunFolder, TrialFolder
from orchestrator.runs.ledger import Ledger, finite
from orchestrator.runs.store import save_plan
from orchestrator.runs.study import Study


def make_settings(**sections: Any) -> Settings:
    """Settings of a trial from sections of an experiment file; name and environment are made up where not given.

    :raises ValidationError: a section no experiment file may hold
    """
    return Settings.model_validate({"name": "test", "environment": {"use": "test"}, **sections})


def make_plan(*trials: Settings, **sections: Any) -> Plan:
    """A plan with one trial, and one arm, for each of the settings.

    :param sections: of the experiment that the trials share
    """
    experiment = Experiment.model_validate({"name": "test", "environment": {"use": "test"}, **sections})
    specs = tuple(
        TrialSpec(id=f"arm{index}-s0", arm=f"arm{index}", seed=0, settings=settings)
        for index, settings in enumerate(trials)
    )
    arms = {spec.arm: spec.settings for spec in specs}
    return Plan(name=experiment.name, experiment=experiment, trials=specs, fingerprint={}, arms=arms)


def make_trial(
    directory: Path,
    settings: Settings | None = None,
    *,
    id: str = "arm0-s0",
    arm: str = "arm0",
    seed: int = 0,
    phase: Phase = Phase.CONFIRM,
) -> Trial:
    """A trial as hooks see it; what it records stands among its rows, and no scheduler hears of it.

    :param settings: None: those of :func:`make_settings`
    """
    rows = Ledger(TrialFolder(directory).metrics)

    def record(step: int, metrics: Mapping[str, float]) -> None:
        rows.append(step, "evaluation", metrics=finite(metrics))

    return Trial(
        id=id,
        arm=arm,
        seed=seed,
        phase=phase,
        settings=settings or make_settings(),
        directory=directory,
        rows=rows,
        record=record,
        report=record,
    )


def make_study(
    directory: Path, trials: Iterable[tuple[TrialSpec, Sequence[Mapping[str, Any]]]], **sections: Any
) -> Study:
    """A run's folder with the given trials, each with its rows of metrics, read as report sections read it.

    :param directory: the run's folder, made here
    :param trials: each with rows of ``step``, ``kind`` and ``metrics``
    :param sections: of the experiment that the trials share
    """
    trials = list(trials)
    run, specs = RunFolder(directory), tuple(spec for spec, _ in trials)
    experiment = Experiment.model_validate({"name": "test", "environment": {"use": "test"}, **sections})
    arms = {spec.arm: spec.settings for spec in specs}
    save_plan(Plan(name=experiment.name, experiment=experiment, trials=specs, fingerprint={}, arms=arms), directory)
    for spec, rows in trials:
        Ledger(run.trial(spec.id).metrics).write(*rows)
    return Study.read(directory)
