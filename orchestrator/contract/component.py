"""What plugins provide: components with options, recipes, commands, report sections."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import ConfigDict, PrivateAttr

from orchestrator.contract.batch import Column
from orchestrator.contract.strict import StrictModel
from orchestrator.contract.types import Speaks

R = TypeVar("R")


class Role(StrEnum):
    """The six roles of a trial, in the order data meets them, and the two of a search.

    :cvar ENVIRONMENT: what there is to do, and what happens when one acts
    :cvar POLICY: what acts, and is trained
    :cvar SAMPLER: which task gets how many rollouts
    :cvar REWARD: how good a rollout was
    :cvar ADVANTAGE: which token deserves the credit
    :cvar OBJECTIVE: what is minimised
    :cvar SEARCHER: which configuration is tried next
    :cvar SCHEDULER: which trial of a search is stopped early
    """

    ENVIRONMENT = "environment"
    POLICY = "policy"
    SAMPLER = "sampler"
    REWARD = "reward"
    ADVANTAGE = "advantage"
    OBJECTIVE = "objective"
    SEARCHER = "searcher"
    SCHEDULER = "scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """Where a plugin comes from.

    :ivar name: of its entry point
    :ivar module: what the entry point loads
    :ivar distribution: the installed project it belongs to
    :ivar version: that project's
    :ivar digest: of its source files; drivers and workers compare it
    """

    name: str
    module: str
    distribution: str
    version: str
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name!r} ({self.distribution} {self.version})"


class PluginConfig(StrictModel):
    """Base of every options model: frozen, refuses unknown keys. Give each field a default and a description.

    Numbers are finite, and what is written is what is meant: ``true`` is no number, ``1`` no bool, ``"3"`` no number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class NoOptions(PluginConfig):
    """The options of a component that has none."""


class Use(StrictModel):
    """A component named inside another component's options: ``base: {use: dpo, ...}``.

    Declare the field as one of the subclasses below; the registry checks the inner options with the outer ones
    and binds :meth:`build` before the outer component is built.

    :cvar role: which kind of component it names
    :ivar use: the component's name; what stands beside it are its options
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    role: ClassVar[Role]

    use: str
    _build: Callable[[], Any] | None = PrivateAttr(default=None)

    @property
    def options(self) -> dict[str, Any]:
        """The inner component's options as given."""
        return dict(self.model_extra or {})

    def build(self) -> Any:
        """Build the inner component.

        :raises RuntimeError: when this object did not come through ``Registry.build``
        """
        if self._build is None:
            raise RuntimeError(f"{self.role} {self.use!r} is not bound to a registry; build it through Registry.build")
        return self._build()


class UseEnvironment(Use):
    """An environment inside another component's options."""

    role = Role.ENVIRONMENT


class UseSampler(Use):
    """A sampler inside another component's options."""

    role = Role.SAMPLER


class UseReward(Use):
    """A reward inside another component's options.

    :ivar weight: factor of this reward, for the component around it to apply
    """

    role = Role.REWARD
    weight: float = 1.0


class UseAdvantage(Use):
    """An advantage estimator inside another component's options."""

    role = Role.ADVANTAGE


class UseObjective(Use):
    """An objective inside another component's options."""

    role = Role.OBJECTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Component(Generic[R]):
    """One implementation of a role: a name, a model of its options, and how to build it from them.

    Declaring a component must import nothing heavy.

    :ivar name: what experiment files write after ``use:``
    :ivar build: a function from options to the component, or its name: ``".sampler:DarsSampler"``, where a leading dot
        is relative to the plugin's module. A name is imported when the component is first built, and called with the
        options, or with nothing where there are none or it takes none
    :ivar config: the model of its options
    :ivar summary: one line on what it does; empty: the first sentence of the docstring of its options
    :ivar paper: where it comes from, as in ``arXiv:2402.03300``
    :ivar speaks: of an environment or policy the language it has, of any other component the only one it works with: a
        mismatch then stops the plan before anything is built; None: it stops the trial
    :ivar columns: of a policy the statistics it can compute: a method that needs others then stops the plan; None: not
        declared
    """

    name: str
    build: Callable[[Any], R] | str
    config: type[PluginConfig] = NoOptions
    summary: str = ""
    paper: str | None = None
    speaks: Speaks | None = None
    columns: frozenset[Column] | None = None

    def __post_init__(self):
        if not self.summary and self.config is not NoOptions:
            first, _, _ = inspect.cleandoc(self.config.__doc__ or "").partition("\n\n")
            object.__setattr__(self, "summary", " ".join(first.split()).removesuffix("."))


RECIPE_KEYS = ("sampler", "advantage", "objective", "rewards", "schedule", "optimizer", "update", "sampling")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A paper's method with the paper's defaults: an overlay over the keys of an experiment file.

    :ivar name: what experiment files write after ``recipe:``
    :ivar overlay: experiment keys; those in ``RECIPE_KEYS``: how to learn, never in which world or with which model
    :ivar summary: one line on what it does
    :ivar paper: where it comes from, as in ``arXiv:2402.03300``
    """

    name: str
    overlay: Mapping[str, Any]
    summary: str = ""
    paper: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A sub-command of ``orchestrator``.

    :ivar name: what is typed
    :ivar run: a function Typer can read
    :ivar summary: one line of help; empty: the function's own
    """

    name: str
    run: Callable[..., Any]
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSection:
    """A plugin's part of the report.

    :ivar name: unique among sections
    :ivar render: gets the ``Study`` of a run and returns HTML, or None to stay out; or that function's name, as in
        ``".report:render"``, imported when a report is written. Figures must be inline (SVG or data URIs): a report is
        read without a network. What runs, loads or redirects is left out, and open tags are closed. Cells of tables do
        not wrap but in a table of class ``prose``
    :ivar title: its heading; empty: its name
    """

    name: str
    render: Callable[[Any], str | None] | str
    title: str = ""
