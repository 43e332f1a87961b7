"""The contract of an advantage estimator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from orchestrator.contract.batch import Batch
from orchestrator.errors import UndeclaredColumnError
from orchestrator.testing.batches import make_batch, make_outputs, pad_batch
from orchestrator.testing.checks.batches import accepted, changed, copied
from orchestrator.testing.checks.metrics import metric_problems
from orchestrator.testing.checks.objective import TOLERANCE
from orchestrator.training.handed import declared_to, expect_credit


def check_advantage(build: Callable[[], Any], **_: Any) -> list[str]:
    """Broken rules of an advantage estimator."""
    needs = build().needs
    try:
        batches, refusals = accepted(lambda batch: build().estimate(declared_to("estimator", batch, needs)), needs)
    except UndeclaredColumnError as error:
        return [str(error)]
    return list(dict.fromkeys([*refusals, *(p for batch in batches for p in _advantage_problems(build, batch))]))


def _advantage_problems(build: Callable[[], Any], batch: Batch) -> list[str]:
    batch = replace(batch, advantages=None, returns=None)
    before = copied(batch)
    estimator = build()
    try:
        credit = expect_credit(estimator.estimate(declared_to("estimator", batch, estimator.needs)), batch)
    except ValueError as error:
        return [str(error)]
    problems = [f"estimate() changes the batch's {name} in place" for name in changed(batch, before)]
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
