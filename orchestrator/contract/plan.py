"""What is to be run: a plan, its trials, and the built components of one trial."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from orchestrator.contract.component import Component, PluginInfo, Recipe


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
    config: Mapping[str, Any]  # orchestrator.contract.settings.Settings as plain JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every trial of an experiment, resolved and judged."""

    name: str
    experiment: Mapping[str, Any]  # orchestrator.contract.settings.Experiment as plain JSON
    trials: tuple[TrialSpec, ...]  # with a search: the tuning trials known beforehand
    fingerprint: Mapping[str, str]  # PluginManager.fingerprint of the driver
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # Settings by arm, as plain JSON
    commit: str | None = None
    source: str | None = None  # path of the experiment file

    def to_json(self) -> str:
        """Write the plan as JSON text, the same for the same plan."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what ``to_json`` wrote.

        :raises ValueError: the text is no plan
        """
        try:
            data = json.loads(text)
            trials = [TrialSpec(**{**trial, "phase": Phase(trial["phase"])}) for trial in data.pop("trials")]
            return cls(trials=tuple(trials), **data)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this is no plan: {error}") from error


class ComponentSource(Protocol):
    """Where a running trial finds components, and who provides them: what it may ask of the registry."""

    def names(self, role: str) -> tuple[str, ...]:
        """Names of the installed components of a role, sorted."""

    def describe(self, role: str, name: str) -> Component | Recipe:
        """The component (or recipe) as its plugin declared it."""

    def build(self, role: str, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """Build a component from its options."""

    def plugin_of(self, role: str, name: str) -> PluginInfo:
        """The plugin that provides a component or recipe."""

    def notify(self, hook: str, **arguments: Any) -> list[tuple[PluginInfo, Exception]]:
        """Call an observing hook; an observer that raises does not stop the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The built components of one trial; None where the experiment names none."""

    environment: Any = None
    policy: Any = None
    sampler: Any = None
    rewards: tuple[tuple[str, float, Any], ...] = ()  # (name, weight, Reward)
    advantage: Any = None
    objective: Any = None
    registry: ComponentSource | None = None
