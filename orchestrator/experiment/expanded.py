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
        return extra | {key: _as_hidden(value, options.get(key)) for key, value in shown.items()}

    for role in ("environment", "policy", "sampler", "advantage", "objective"):
        if data[role] is not None:
            data[role] = full(role, data[role])
    data["rewards"] = [full("reward", spec) for spec in data["rewards"]]
    return data


def _as_hidden(shown: Any, kept: Any) -> Any:
    """An option as it is shown, with the hidden texts of what a plan keeps of it."""
    if isinstance(kept, str) and is_hidden(kept):
        return kept
    if isinstance(shown, dict) and isinstance(kept, Mapping):
        return {key: _as_hidden(value, kept.get(key)) for key, value in shown.items()}
    if isinstance(shown, list) and isinstance(kept, list | tuple) and len(shown) == len(kept):
        return [_as_hidden(one, other) for one, other in zip(shown, kept, strict=True)]
    return shown
