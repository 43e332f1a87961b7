"""Who answers for the components of a trial."""

from __future__ import annotations

from orchestrator.contract.plan import Components
from orchestrator.contract.settings import Settings


def labels_of(settings: Settings, components: Components) -> dict[str, str]:
    """Who is to blame, by role and by ``reward/NAME``: the plugin and its component, as errors name them."""
    registry = components.registry
    if registry is None:
        return {}
    roles = ("environment", "policy", "sampler", "advantage", "objective")
    used = [(role, role, getattr(settings, role)) for role in roles]
    used += [(f"reward/{spec.use}", "reward", spec) for spec in settings.rewards]
    return {
        key: f"{registry.plugin_of(role, spec.use)} in {role} {spec.use!r}"
        for key, role, spec in used
        if spec is not None
    }
