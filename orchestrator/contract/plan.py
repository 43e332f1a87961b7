"""What is to be run: a plan, its trials, a trial as it runs, and its built components."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.contract.component import Role
from orchestrator.contract.limits import Limits, Unlimited
from orchestrator.contract.parts import Part, make_part
from orchestrator.errors import describe

if TYPE_CHECKING:  # plugins name these types when they are listed, which must stay quick
    from orchestrator.contract.component import Component, PluginInfo, Recipe
    from orchestrator.contract.settings import Experiment, Settings


_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,199}")


class Phase(StrEnum):
    """What a trial is for.

    :cvar TUNE: one sample of an arm's search space, on a tuning seed; never enters the verdict
    :cvar CONFIRM: an arm's chosen settings on one of the experiment's seeds
    :cvar START: a phase that trials share and begin with
    """

    TUNE = "tune"
    CONFIRM = "confirm"
    START = "start"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A place in an arm's settings whose value follows from others, in every trial anew.

    :ivar path: keys and list indices that lead to it
    :ivar text: what was written there, as in ``${optimizer.lr}``
    """

    path: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One trial of a plan; crosses the process line as JSON.

    :ivar id: safe as a file name, unique in the plan: ``dars-s0``, ``tune-dars-003-s1000``
    :ivar arm: whose settings it runs
    :ivar seed: of everything random in it
    :ivar phase: what it is for
    :ivar sample: index of the searched configuration, 0-based; None: nothing was searched
    :ivar searched: dotted path to chosen value
    :ivar settings: what it runs with, searched values included
    """

    id: str
    arm: str
    seed: int
    phase: Phase = Phase.CONFIRM
    sample: int | None = None
    searched: Mapping[str, Any] = field(default_factory=dict)
    settings: Settings

    @property
    def config(self) -> dict[str, Any]:
        """The settings as plain JSON, made anew at each call."""
        return self.settings.model_dump(mode="json")

    def to_json(self) -> dict[str, Any]:
        """The trial as plain JSON."""
        fields = {name: getattr(self, name) for name in ("id", "arm", "seed", "phase", "sample")}
        return {**fields, "phase": self.phase.value, "searched": dict(self.searched), "config": self.config}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialSpec:
        """Read what ``to_json`` made.

        :raises ValueError: the data are no trial
        """
        from orchestrator.contract.settings import Settings

        try:
            fields = dict(data)
            _check_id(fields.get("id"))
            phase, settings = Phase(fields.pop("phase")), Settings.model_validate(fields.pop("config"))
            return cls(phase=phase, settings=settings, **fields)
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"this is no trial: {describe(error)}") from error


def _check_id(value: Any) -> None:
    """Refuse what would name a file elsewhere, or none."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        shown = value if not isinstance(value, str) or len(value) <= 80 else f"{value[:77]}..."
        raise ValueError(
            f"{shown!r} names no trial; expected at most 200 letters, digits and `_ . + -`, a letter or digit first"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every trial of an experiment, resolved and judged.

    :ivar name: the experiment's
    :ivar experiment: the file as it was understood, defaults included
    :ivar trials: all of them; with a search the tuning trials known beforehand
    :ivar fingerprint: of the plugins it was made with, by name: distribution, version and digest of the sources
    :ivar arms: settings by arm
    :ivar references: by arm, what in its settings follows from other settings; searched values change both
    :ivar code: digests of the Python modules that the experiment names, beside those of plugins
    :ivar commit: of the repository it was made in, where there is one
    :ivar source: path of the experiment file, where there is one
    """

    name: str
    experiment: Experiment
    trials: tuple[TrialSpec, ...]
    fingerprint: Mapping[str, str]
    arms: Mapping[str, Settings] = field(default_factory=dict)
    references: Mapping[str, tuple[Reference, ...]] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    source: str | None = None

    def to_json(self) -> str:
        """Write the plan as JSON text, the same for the same plan."""
        data = {
            "name": self.name,
            "experiment": self.experiment.model_dump(mode="json"),
            "trials": [trial.to_json() for trial in self.trials],
            "fingerprint": dict(self.fingerprint),
            "arms": {arm: settings.model_dump(mode="json") for arm, settings in self.arms.items()},
            "commit": self.commit,
            "source": self.source,
        }
        if self.code:
            data["code"] = dict(self.code)
        if self.references:
            data["references"] = {
                arm: {json.dumps(one.path): one.text for one in found} for arm, found in self.references.items()
            }
        return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what ``to_json`` wrote.

        :raises ValueError: the text is no plan
        """
        from orchestrator.contract.settings import Experiment, Settings

        try:
            data = json.loads(text)
            experiment = Experiment.model_validate(data.pop("experiment"))
            arms = {arm: Settings.model_validate(config) for arm, config in data.pop("arms", {}).items()}
            trials = tuple(TrialSpec.from_json(trial) for trial in data.pop("trials"))
            references = {
                arm: tuple(Reference(path=tuple(json.loads(path)), text=text) for path, text in found.items())
                for arm, found in data.pop("references", {}).items()
            }
            return cls(experiment=experiment, arms=arms, trials=trials, references=references, **data)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"this is no plan: {describe(error)}") from error


class Rows(Protocol):
    """A trial's rows of metrics, each with its step and kind."""

    def append(self, step: int, kind: str, **content: Any) -> None:
        """Append one row."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows in order."""

    def rewind(self, step: int, **other: int) -> None:
        """Forget all rows after a step; ``other``: steps for rows of a kind of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A running trial as hooks see it. Read-only; the callables are for implementations of ``run_trial``.

    :ivar id: unique in the plan
    :ivar arm: whose settings it runs
    :ivar seed: of everything random in it
    :ivar phase: what it is for
    :ivar settings: what it runs with
    :ivar directory: of its files; see ``TrialFolder``
    :ivar rows: of metrics, as they are kept on disk
    :ivar record: of (step, metrics): keeps one row of metrics
    :ivar report: of (step, metrics): the same, and the sweep's scheduler sees it
    :ivar passed_over: errors that watching plugins (hooks ``on_...``) raised so far, by plugin
    :ivar leaving: whether the run is asked to end for now: save at the next occasion, then raise ``TrialInterrupted``
    :ivar limits: on calls that may hang; the collector and the loop keep them
    """

    id: str
    arm: str
    seed: int
    phase: Phase = Phase.CONFIRM
    settings: Settings
    directory: Path
    rows: Rows
    record: Callable[[int, Mapping[str, float]], None]
    report: Callable[[int, Mapping[str, float]], None]
    passed_over: Counter[str] = field(default_factory=Counter)
    leaving: Callable[[], bool] = lambda: False
    limits: Limits = field(default_factory=Unlimited)

    @property
    def config(self) -> dict[str, Any]:
        """The settings as plain JSON, made anew at each call."""
        return self.settings.model_dump(mode="json")


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
    """The built components of one trial; None where the experiment names none.

    :ivar environment: an ``Environment``
    :ivar policy: a ``Policy``
    :ivar sampler: a ``Sampler``
    :ivar rewards: name, weight and ``Reward`` of each
    :ivar advantage: an ``AdvantageEstimator``
    :ivar objective: an ``Objective``
    :ivar registry: where they came from, and others can be built
    :ivar parts: with who provides them, by role, rewards as ``reward.0``; empty where made by hand
    """

    environment: Any = None
    policy: Any = None
    sampler: Any = None
    rewards: tuple[tuple[str, float, Any], ...] = ()
    advantage: Any = None
    objective: Any = None
    registry: ComponentSource | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)

    @property
    def tree(self) -> dict[str, Part]:
        """The components with all that they are made of, by role, rewards as ``reward.0``."""
        if self.parts:
            return dict(self.parts)
        roles = (Role.ENVIRONMENT, Role.POLICY, Role.SAMPLER, Role.ADVANTAGE, Role.OBJECTIVE)
        single = {str(role): make_part(role, str(role), None, getattr(self, role)) for role in roles}
        rewards = {
            f"reward.{index}": make_part(Role.REWARD, name, None, reward)
            for index, (name, _, reward) in enumerate(self.rewards)
        }
        return {path: part for path, part in (single | rewards).items() if part.component is not None}
