"""Settings with every option of every component, defaults included, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.contract.secrets import is_hidden
from orchestrator.contract.settings import Settings
from orchestrator.plugging.registry import Registry


def expanded(settings: Settings, registry: Registry) -> dict[str, Any]:
    """Settings as plain data, every component with all its options, defaults included."""
    data = settings.model_dump(mode="json")

    def full(role: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        extra = {"use": spec["use"]} | ({"weight": spec["weight"]} if role == "reward" else {})
        options = {key: value for key, value in spec.items() if key not in extra}
        shown = registry.options(role, spec["use"], options).model_dump(mode="json")
        hidden = {key: value for key, value in options.items() if isinstance(value, str) and is_hidden(value)}
        return extra | shown | hidden

    for role in ("environment", "policy", "sampler", "advantage", "objective"):
        if data[role] is not None:
            data[role] = full(role, data[role])
    data["rewards"] = [full("reward", spec) for spec in data["rewards"]]
    return data
