"""The contract of an advantage estimator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from orchestrator.contract.batch import Batch, Credit
from orchestrator.testing.batches import make_batch, make_outputs, pad_batch
from orchestrator.testing.checks.batches import accepted, changed, copied
from orchestrator.testing.checks.metrics import metric_problems
from orchestrator.testing.checks.objective import TOLERANCE


def check_advantage(build: Callable[[], Any], **_: Any) -> list[str]:
    """Broken rules of an advantage estimator."""
    batches, refusals = accepted(lambda batch: build().estimate(batch), build().needs)
    return list(dict.fromkeys([*refusals, *(p for batch in batches for p in _advantage_problems(build, batch))]))


def _advantage_problems(build: Callable[[], Any], batch: Batch) -> list[str]:
    batch = replace(batch, advantages=None, returns=None)
    before = copied(batch)
    credit = build().estimate(batch)
    if not isinstance(credit, Credit):
        return [f"estimate() returned a {type(credit).__name__}; expected Credit(advantages=...)"]
    problems = [f"estimate() changes the batch's {name} in place" for name in changed(batch, before)]
    for name in ("advantages", "returns"):
        tensor = getattr(credit, name)
        if tensor is None and name == "returns":
            continue
        if not isinstance(tensor, Tensor) or tensor.shape != batch.mask.shape:
            shape = list(getattr(tensor, "shape", ()))
            problems.append(f"{name} have shape {shape}; expected [B, T] = {list(batch.mask.shape)}")
        elif not torch.isfinite(tensor).all():
            problems.append(f"{name} are not finite")
    problems += metric_problems(credit.metrics)
    if problems:
        return problems
    padded, _ = pad_batch(batch, make_outputs(batch), left=2, right=3)
    wide = build().estimate(padded).advantages[:, 2:-3]
    if not torch.allclose(wide[batch.mask], credit.advantages[batch.mask], atol=TOLERANCE, rtol=TOLERANCE):
        problems.append("advantages depend on padding")
    alike = replace(batch, rewards=torch.zeros_like(batch.rewards), turn_rewards=torch.zeros_like(batch.turn_rewards))
    if not torch.isfinite(build().estimate(alike).advantages).all():
        problems.append("advantages are not finite when all rewards are 0")
    alone = make_batch(sizes=(1,), lengths=(1,), needs=build().needs, dtype=torch.float64)
    if not bool(batch.demonstration.any()) and not torch.isfinite(build().estimate(alone).advantages).all():
        problems.append("advantages of a single row of one token are not finite")
    return problems
