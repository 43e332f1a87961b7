"""The components of an experiment that are not ours: checked with its options before it spends, once per version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator import __version__
from orchestrator.contract.component import PluginInfo, Role
from orchestrator.contract.sections import ComponentSpec
from orchestrator.errors import ConfigError, Problem

if TYPE_CHECKING:
    from orchestrator.contract.plan import Plan
    from orchestrator.contract.settings import Settings
    from orchestrator.plugging.registry import Registry

OURS = "rl-orchestrator"
_IN_A_WORLD = (Role.POLICY, Role.SAMPLER, Role.REWARD)  # checked in the experiment's environment


def refuse_broken(plan: Plan, registry: Registry, say: Callable[[str], None]) -> None:
    """Check the components of a plan that do not come with the orchestrator, unless they were checked as they are.

    :param say: tells the user what is being done
    :raises ConfigError: with every broken rule of every one of them
    """
    from orchestrator.cli.examination import examine
    from orchestrator.runs.cache import Checked

    checked = Checked()
    asked = [item for item in chosen(plan, registry) if item["key"] is None or item["key"] not in checked]
    if not asked:
        return
    named = ", ".join(f"{item['role']} {item['name']}" for item in asked)
    say(f"checking {named}, once per version (--no-check leaves it out)")
    by_line = {item["line"]: item for item in asked}
    found: list[Problem] = []
    for line, problem in examine({"chosen": asked}):
        item = by_line.pop(line, None)
        if problem is None and item is not None and item["key"] is not None:
            checked.add([item["key"]])
        elif (
            problem is not None
            and item is not None
            and item["role"] == Role.POLICY
            and " is not done after " in problem
        ):
            say(f"{line}: not checked, for it takes too long")  # a large model may
        elif problem is not None:
            found.append(Problem("" if item is None else item["path"], f"{line}: {problem}"))
    if found:
        found.append(Problem("", "mend these, or run without this check: --no-check"))
        raise ConfigError(found)


def chosen(plan: Plan, registry: Registry) -> list[dict[str, Any]]:
    """What there is to check, plain JSON: each component with its options, its world and a key of all that decides."""
    from orchestrator.experiment.planner import start_settings

    items: dict[str, dict[str, Any]] = {}
    for arm, settings in plan.arms.items():
        phase: Settings | None = settings
        while phase is not None:
            for item in _of(phase, registry) if phase.procedure == "train" else ():
                lone = json.dumps([item["role"], item["name"], item["options"], item["world"]], sort_keys=True)
                items.setdefault(
                    lone, {**item, "path": f"arms.{arm}.{item['path']}" if len(plan.arms) > 1 else item["path"]}
                )
            phase = start_settings(phase)
    tune = plan.experiment.tune if plan.experiment.search else None
    for role, spec in (("searcher", tune and tune.searcher), ("scheduler", tune and tune.scheduler)):
        if isinstance(spec, ComponentSpec):
            items |= {f"tune.{role}": item for item in _item(Role(role), f"tune.{role}", spec, None, registry)}
    for number, item in enumerate(items.values(), start=1):
        twin = any(
            other is not item and (other["role"], other["name"]) == (item["role"], item["name"])
            for other in items.values()
        )
        item["line"] = f"{item['role']} {item['name']}" + (f" ({number})" if twin else "")
    return list(items.values())


def _of(settings: Settings, registry: Registry) -> Iterator[dict[str, Any]]:
    specs: list[tuple[Role, str, Any]] = [
        (role, str(role), getattr(settings, role)) for role in Role if str(role) in type(settings).model_fields
    ]
    specs += [(Role.REWARD, f"rewards.{place}", spec) for place, spec in enumerate(settings.rewards)]
    for role, path, spec in specs:
        if spec is not None:
            yield from _item(role, path, spec, settings.environment if role in _IN_A_WORLD else None, registry)


def _item(
    role: Role, path: str, spec: Any, world: ComponentSpec | None, registry: Registry
) -> Iterator[dict[str, Any]]:
    """A component to check; nothing where it is ours, or the plan judged it.

    :param world: the environment it is checked in
    """
    choice, _ = registry.choose(role, spec.use, spec.options, path)
    infos = [] if choice is None else [one.info for _, one in choice.walk(path)]
    if all(info.distribution == OURS for info in infos):
        return
    inside = None
    if world is not None:
        inside = {"use": world.use, "options": dict(world.options)}
        home, _ = registry.choose(Role.ENVIRONMENT, world.use, world.options, "environment")
        infos += [] if home is None else [one.info for _, one in home.walk("environment")]
    options = dict(spec.options)
    yield {
        "role": str(role),
        "name": spec.use,
        "path": path,
        "options": options,
        "world": inside,
        "key": _key(role, spec.use, options, inside, infos),
    }


def _key(role: str, name: str, options: Any, world: Any, infos: Sequence[PluginInfo]) -> str | None:
    """Content hash of all that decides what a check finds; None where sources cannot be read."""
    if not all(info.digest for info in infos):
        return None
    sources = sorted({f"{info} {info.digest}" for info in infos})
    content = json.dumps([__version__, role, name, options, world, sources], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]
