"""What a plan must not ask: steps that nothing bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.api import Problem

from .config import StPpoConfig


def plan_problems(plan: Any) -> list[Problem]:
    """Refuse trials and start phases whose gradient may be amplified without being clipped afterwards, each reason once."""
    found: dict[tuple[str, str], Problem] = {}
    for prefix, phase in (phase for trial in plan.trials for phase in _phases(trial.config)):
        objective = dict(phase.get("objective") or {})
        if (
            objective.pop("use", None) != "st_ppo"
            or (phase.get("optimizer") or {}).get("max_grad_norm", 1.0) is not None
        ):
            continue
        config = StPpoConfig.model_validate(objective)
        if config.amplifies:
            cause = "correction raw" if config.correction == "raw" else "replay_factors above 1"
            message = (
                f"is null, but objective.{cause} multiplies small gradients by any amount (the divisor may be as small "
                f"as 1e-8) and only clipping afterwards bounds the step; set it to 1.0, or choose correction ratio"
            )
            found.setdefault((prefix, message), Problem(f"{prefix}optimizer.max_grad_norm", message))
    return list(found.values())


def _phases(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A trial and the phases it starts with, each with what its keys' paths begin with."""
    prefix = ""
    phase: Mapping[str, Any] | None = config
    while phase:
        yield prefix, phase
        prefix, phase = f"{prefix}start.", phase.get("start")
