"""What the objective and the estimator ask of the policy."""

from __future__ import annotations

import torch

from orchestrator.contract.batch import Need
from orchestrator.contract.plan import Components
from orchestrator.contract.roles import Prepares
from orchestrator.errors import blame
from orchestrator.maths.seeding import derive_seed


def prepare(components: Components, seed: int) -> None:
    """Tell the policy its world and its duties, before weights are loaded or trained."""
    if isinstance(components.policy, Prepares):
        wanted = frozenset(need.column for need in needs_of(components))
        torch.manual_seed(derive_seed(seed, "prepare"))
        with blame(components.tree["policy"].whom):
            components.policy.prepare(components.environment, wanted)


def needs_of(components: Components) -> frozenset[Need]:
    """Statistics the objective and the estimator ask for."""
    credit = components.advantage
    return components.objective.needs | (frozenset() if credit is None else credit.needs)
