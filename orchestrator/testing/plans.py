"""Plans and trials made up for tests of hooks: only what a test names differs from the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.contract.plan import Phase, Plan, Trial, TrialSpec
from orchestrator.contract.settings import Experiment, Settings


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
    """A trial as hooks see it, whose rows go nowhere.

    :param settings: None: those of :func:`make_settings`
    """

    def forget(step: int, metrics: Mapping[str, float]) -> None:
        """Drop the row."""

    return Trial(
        id=id,
        arm=arm,
        seed=seed,
        phase=phase,
        settings=settings or make_settings(),
        directory=directory,
        record=forget,
        report=forget,
    )
