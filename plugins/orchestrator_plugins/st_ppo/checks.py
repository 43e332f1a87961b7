"""What a plan must not ask: steps that nothing bounds."""

from __future__ import annotations

from typing import Any

from orchestrator.api import Problem

from .config import StPpoConfig


def plan_problems(plan: Any) -> list[Problem]:
    """Refuse trials whose gradient may be amplified without being clipped afterwards, each reason once."""
    found: dict[str, Problem] = {}
    for trial in plan.trials:
        objective = dict(trial.config.get("objective") or {})
        if objective.pop("use", None) != "st_ppo" or trial.config["optimizer"]["max_grad_norm"] is not None:
            continue
        config = StPpoConfig.model_validate(objective)
        if config.amplifies:
            cause = "correction raw" if config.correction == "raw" else "replay_factors above 1"
            message = (
                f"is null, but objective.{cause} multiplies small gradients by any amount (the divisor may be as small "
                f"as 1e-8) and only clipping afterwards bounds the step; set it to 1.0, or choose correction ratio"
            )
            found.setdefault(message, Problem("optimizer.max_grad_norm", message))
    return list(found.values())
