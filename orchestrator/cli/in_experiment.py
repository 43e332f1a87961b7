"""Holds the components of an experiment to their contracts: with its options, and in its world."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.contract.component import Component, Role
from orchestrator.errors import describe

if TYPE_CHECKING:
    from orchestrator.plugging.registry import Registry


def check_chosen(
    items: Sequence[Mapping[str, Any]], examine: Callable[..., None], begin: Callable[[str], bool]
) -> Iterator[tuple[str, str | None]]:
    """Check what :func:`orchestrator.cli.strangers.chosen` gave, in the process that may be ended.

    :param examine: holds a component to the contract of its role
    :param begin: told of each component before it is checked; False leaves it out
    """
    from orchestrator.plugging.registry import load_registry

    registry = load_registry()
    for item in items:
        if not begin(item["line"]):
            continue
        try:
            _check(item, registry, examine)
        except Exception as error:  # whatever a plugin does is a finding
            yield item["line"], str(error) if isinstance(error, AssertionError) else describe(error)
        else:
            yield item["line"], None


def _check(item: Mapping[str, Any], registry: Registry, examine: Callable[..., None]) -> None:
    from orchestrator.contract.types import Split

    role, world = item["role"], None
    if item["world"] is not None:
        world = registry.build(Role.ENVIRONMENT, item["world"]["use"], item["world"]["options"])
    # What is built through the registry has its nested options bound; those of the outer one were judged with the plan.
    component = Component(name=item["name"], build=lambda _: registry.build(role, item["name"], item["options"]))
    given: dict[str, Any] = {}
    if role == Role.REWARD:
        given["group"] = _played(world)
    elif world is not None and next(iter(world.tasks(Split.TRAIN)), None) is not None:
        given["environment"] = world
    examine(component, **given)


def _played(world: Any) -> Any:
    """Four attempts at a task of the experiment's world, by one who does not know it; None where they fail."""
    from orchestrator.contract.types import RolloutRequest, Sampling, Split
    from orchestrator.rollout.collector import Collector
    from orchestrator.testing.checks.sampler import player

    task = next(iter(world.tasks(Split.TRAIN)), None)
    if task is None:
        return None
    collect = Collector(world, player(world, [task]), (), sampling=Sampling(), max_turns=8)
    [group] = collect([RolloutRequest(task=task, count=4)])
    return group if group.rollouts else None
