"""Components as a tree: who provides each one, what it is made of, and what it says of itself.

A component that wraps others names them in ``inner``, a mapping of name to component, and forwards nothing by hand: the
core finds state, reports, measures and facts on every node. Wrapped components that are built from nested options
(``Use``) are found without it too; a wrapper that names nothing and has a capability itself is taken to forward it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from orchestrator.contract.component import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a component says of how it learns, so that a plan that could not train is refused with the reason.

    :ivar least_siblings: of estimators and objectives: from groups smaller than this nothing is learnt
    :ivar most_siblings: of samplers: rollouts of one agent that a group can hold; None: unknown beforehand
    :ivar demonstrates: of samplers: every task must have a demonstration
    :ivar needs_returns: of objectives: a critic learns from returns, which the estimator must set
    :ivar gives_returns: of estimators: whether they set returns; None: unknown beforehand
    :ivar counts_ahead: of objectives: masks follow from the batch alone, so that terms can be counted unweighed
    :ivar vanishes_with_advantages: of objectives: where all advantages are 0, so are all terms and their gradients, and
        ``terms`` changes nothing of its own; such optimiser steps are taken without a pass over the policy
    :ivar corrections: of objectives: levels of ``update.correction`` (token, sequence) that can weigh the term ``policy``;
        empty: none, since its values are of whole groups or its loss holds whoever acted; None: unknown beforehand
    """

    least_siblings: int = 1
    most_siblings: int | None = None
    demonstrates: bool = False
    needs_returns: bool = False
    gives_returns: bool | None = None
    counts_ahead: bool = False
    vanishes_with_advantages: bool = False
    corrections: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A built component with its role, name and plugin, and those it is made of.

    :ivar role: what it does
    :ivar name: under which its plugin provides it; of one made by another component, its class
    :ivar plugin: with distribution and version; None: it did not come from a registry
    :ivar component: what was built
    :ivar key: under which the component around it names it; empty at the top
    :ivar inner: what it is made of
    """

    role: Role
    name: str
    plugin: str | None
    component: Any
    key: str = ""
    inner: tuple[Part, ...] = ()

    @property
    def whom(self) -> str | None:
        """Who is to blame for what it raises, as errors say it."""
        return None if self.plugin is None else f"{self.plugin} in {self.role} {self.name!r}"

    @property
    def names_inner(self) -> bool:
        """Whether the component leaves it to the core to look into what it is made of."""
        return isinstance(getattr(self.component, "inner", None), Mapping)

    def walk(self, path: str) -> Iterator[tuple[str, Part]]:
        """This part and all those inside it, each with its path: ``sampler``, ``sampler/base``."""
        yield path, self
        for part in self.inner:
            yield from part.walk(f"{path}/{part.key}")

    def able(self, protocol: type[Any], path: str) -> Iterator[tuple[str, Part]]:
        """The nodes whose components have a capability, each with its path.

        :param protocol: one of the optional capabilities, as :class:`orchestrator.contract.roles.Stateful`
        """
        has_it = isinstance(self.component, protocol)
        if has_it:
            yield path, self
        if self.names_inner or not has_it:
            for part in self.inner:
                yield from part.able(protocol, f"{path}/{part.key}")


def make_part(
    role: Role, name: str, plugin: str | None, component: Any, built: tuple[Part, ...] = (), key: str = ""
) -> Part:
    """Describe a component: what it names in ``inner``, or else what was built for it.

    :param built: parts that were built while it was, each with the key of its option
    """
    named = getattr(component, "inner", None)
    if not isinstance(named, Mapping):
        return Part(role=role, name=name, plugin=plugin, component=component, key=key, inner=built)
    known = {id(part.component): part for part in built}
    inner = []
    for inner_key, inner_component in named.items():
        found = known.get(id(inner_component))
        if found is None:  # made by the component itself
            inner.append(make_part(role, type(inner_component).__name__, plugin, inner_component, key=str(inner_key)))
        else:
            inner.append(replace(found, key=str(inner_key)))
    return Part(role=role, name=name, plugin=plugin, component=component, key=key, inner=tuple(inner))


def labels_of(parts: Mapping[str, Part]) -> dict[str, str]:
    """Who is to blame, by role and by ``reward/NAME``: the plugin and its component, as errors name them."""
    found = {}
    for path, part in parts.items():
        if part.whom is not None:
            found[f"reward/{part.name}" if part.role is Role.REWARD else path] = part.whom
    return found


def facts_of(part: Part | Any) -> Facts:
    """What a component and those it wraps in its own role say together.

    A component says it in an attribute ``facts``, or in single attributes of the same names. What it says stands for what
    it wraps too; where it says nothing, the wrapped ones speak: the strictest of them counts.
    """
    if not isinstance(part, Part):
        part = make_part(Role.OBJECTIVE, "", None, part)
    said = getattr(part.component, "facts", None)
    if isinstance(said, Facts):
        return said
    own = {f.name: getattr(part.component, f.name) for f in fields(Facts) if hasattr(part.component, f.name)}
    beneath = [facts_of(inner) for inner in part.inner if inner.role == part.role]
    most = [facts.most_siblings for facts in beneath if facts.most_siblings is not None]
    given = {facts.gives_returns for facts in beneath}
    levels = [set(facts.corrections) for facts in beneath if facts.corrections is not None]
    return Facts(
        least_siblings=own.get("least_siblings", max((facts.least_siblings for facts in beneath), default=1)),
        most_siblings=own.get("most_siblings", min(most, default=None)),
        demonstrates=own.get("demonstrates", any(facts.demonstrates for facts in beneath)),
        needs_returns=own.get("needs_returns", any(facts.needs_returns for facts in beneath)),
        gives_returns=own.get("gives_returns", given.pop() if len(given) == 1 else None),
        counts_ahead=own.get("counts_ahead", False),  # a wrapper may add masks of its own
        vanishes_with_advantages=own.get("vanishes_with_advantages", False),  # and terms of its own
        corrections=own.get("corrections", tuple(sorted(set.intersection(*levels))) if levels else None),
    )
