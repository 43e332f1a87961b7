"""The contract of each role as checks a plugin's author runs on a component."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.contract.component import Component, PluginConfig, Role
from orchestrator.contract.roles import Stateful
from orchestrator.contract.types import (
    RolloutGroup,
)
from orchestrator.plugging.building import builder
from orchestrator.plugging.registry import part_problems
from orchestrator.testing.checks.advantage import check_advantage
from orchestrator.testing.checks.environment import check_environment
from orchestrator.testing.checks.limits import TookTooLong, innermost, time_limit
from orchestrator.testing.checks.objective import check_objective
from orchestrator.testing.checks.policy import check_policy
from orchestrator.testing.checks.reward import check_reward
from orchestrator.testing.checks.sampler import check_sampler
from orchestrator.testing.checks.scheduler import check_scheduler
from orchestrator.testing.checks.searcher import check_searcher
from orchestrator.testing.checks.state import state_problems


def check_component(
    component: Any,
    options: Mapping[str, Any] | None = None,
    *,
    environment: Any = None,
    group: RolloutGroup | None = None,
    seconds: float | None = 120.0,
) -> None:
    """Check that a component keeps the contract of its role.

    Of every component: its options (described, unknown keys refused), the parts of its role, and that the state of
    those it wraps is kept. Of an objective: the
    same gradient, to 1e-9 in float64, for any micro-batches and padding, none on masked tokens, finite at extreme
    log-ratios. Of an estimator: [B, T] finite credit that ignores padding. Of a reward: one finite score per rollout.
    Of a sampler: whole, scored groups of the tasks it was given. Of an environment: plays that repeat with their
    seed, ids that do not, splits that share none. Of a policy: the log-probabilities it recorded are those it
    trains on, and an action does not depend on what else is in the batch. Of a searcher or a scheduler: proposals within
    the space, and at every moment of a made-up search the same from a new object as from the one that was there all along.

    :param component: as ``Registry.describe`` gives it; or a built object, from ``Registry.build``, which is what
        components need that name others in their options
    :param options: what the user would write; ignored for built objects
    :param environment: the world a policy or sampler is checked in; None: a tiny one that speaks the same
    :param group: rollouts a reward is checked on, without scores; None: four answers to a task in words
    :param seconds: that the check may take, in the main thread: an episode or a call that never returns is broken, too
    :raises AssertionError: naming every broken rule at once
    :raises TypeError: when the object fills no role
    """
    name = component.name if isinstance(component, Component) else type(component).__name__
    try:
        with time_limit(seconds):
            what, problems = _examine(component, name, options or {}, environment, group)
    except TookTooLong as late:
        raise AssertionError(
            f"{name!r} breaks its contract:\n- {late}: it was in {innermost(late.__traceback__)}. Every call of a component "
            "must return, and an episode waits for nobody"
        ) from None
    if problems:
        raise AssertionError(f"{what} breaks its contract:\n" + "\n".join(f"- {p}" for p in problems))


def _examine(
    component: Any, name: str, options: Mapping[str, Any], environment: Any, group: RolloutGroup | None
) -> tuple[str, list[str]]:
    """What was examined, and its broken rules."""
    problems: list[str] = []
    if isinstance(component, Component):
        problems += _option_problems(component, options)
        config = component.config.model_validate(dict(options))
        construct = builder(component, "")
        build: Callable[[], Any] = lambda: construct(config)  # noqa: E731
    else:
        build = lambda: copy.deepcopy(component)  # noqa: E731
    built = build()
    role = _role_of(built)
    problems += part_problems(Role(role), built) + _inner_problems(built)
    if not problems:
        try:
            problems += _CHECKS[role](build, name=name, environment=environment, group=group)
            if isinstance(built, Stateful) and not problems and not hasattr(built, "parameters"):
                problems += state_problems(built)
        except Exception as error:
            error.add_note(f"while checking {role} {name!r} against the contract")
            raise
    return f"{role} {name!r}", problems


_TELLING = {
    "environment": "tasks",
    "policy": "act",
    "sampler": "sample",
    "reward": "score",
    "advantage": "estimate",
    "objective": "terms",
    "searcher": "propose",
    "scheduler": "judge",
}


def _role_of(built: Any) -> str:
    for role, method in _TELLING.items():
        if hasattr(built, method):
            return role
    raise TypeError(
        f"{type(built).__name__} fills no role; expected one of the methods {', '.join(_TELLING.values())}. "
        f"See the protocols in orchestrator.api"
    )


def _inner_problems(built: Any) -> list[str]:
    """What a wrapper does with those it wraps: named in ``inner``, or else their state is part of its own."""
    named = getattr(built, "inner", None)
    if isinstance(named, Mapping):
        return [
            f"inner[{key!r}] is a {type(value).__name__}, which fills no role"
            for key, value in named.items()
            if not any(hasattr(value, method) for method in _TELLING.values())
        ]
    if not isinstance(built, Stateful) or not hasattr(built, "__dict__"):
        return []  # the core looks into what was built from its options itself
    wrapped = {
        name: value
        for name, value in vars(built).items()
        if any(callable(getattr(value, method, None)) for method in _TELLING.values()) and isinstance(value, Stateful)
    }
    kept = built.state_dict()
    return [
        f"self.{name} is a {type(value).__name__} with a state of its own, of which state_dict saves nothing; name it in "
        f"`inner`, as in self.inner = {{{name!r}: self.{name}}}, and the core saves it"
        for name, value in wrapped.items()
        if value.state_dict() and not _holds(kept, value.state_dict())
    ]


def _holds(state: Any, other: Any) -> bool:
    if isinstance(state, Mapping):
        return repr(state) == repr(other) or any(_holds(value, other) for value in state.values())
    return False


def _option_problems(component: Component, options: Mapping[str, Any]) -> list[str]:
    problems = []
    model: type[PluginConfig] = component.config
    for name, field in model.model_fields.items():
        if not field.description:
            problems.append(f"option {name!r} has no description")
    try:
        model.model_validate({**options, "no_such_option": 1})
        problems.append(f"{model.__name__} accepts the unknown option 'no_such_option'; derive it from PluginConfig")
    except ValidationError:
        pass
    return problems


_CHECKS: Mapping[str, Callable[..., list[str]]] = {
    "environment": check_environment,
    "policy": check_policy,
    "sampler": check_sampler,
    "reward": check_reward,
    "advantage": check_advantage,
    "objective": check_objective,
    "searcher": check_searcher,
    "scheduler": check_scheduler,
}
