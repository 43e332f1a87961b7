"""From an experiment to its trials: recipes applied, arms × seeds × search, everything judged before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """What a trial is for."""

    TUNE = "tune"  # one sample of an arm's search space, on a tuning seed; never enters the verdict
    CONFIRM = "confirm"  # an arm's chosen settings on one of the experiment's seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One trial as it crosses the process line: plain JSON."""

    id: str  # file-name safe, unique in the plan: dars-s0, tune-dars-003-s1000
    arm: str
    seed: int
    phase: Phase = Phase.CONFIRM
    sample: int | None = None  # index of the searched configuration
    searched: Mapping[str, Any] = field(default_factory=dict)  # dotted path to chosen value
    config: Mapping[str, Any]  # orchestrator.experiment.Settings as plain JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every trial of an experiment, resolved and judged."""

    name: str
    experiment: Mapping[str, Any]  # orchestrator.experiment.Experiment as plain JSON
    trials: tuple[TrialSpec, ...]  # with a search: the tuning trials known beforehand
    fingerprint: Mapping[str, str]  # PluginManager.fingerprint of the driver
    commit: str | None = None
    source: str | None = None  # path of the experiment file
