"""Optimiser steps whose gradient is known to be zero: taken without a forward and a backward pass.

An objective says in its facts that it ``vanishes_with_advantages``. Where all advantages of a mini-batch are 0, the passes would
then give every parameter they reach a gradient of 0. Those parameters get it here, and the optimiser steps as it would
have: weights, moments and counts are bitwise the same, but for the sign of a zero. Which parameters a pass reaches is seen
in passes that were made; one that reaches others than the one before, draws random numbers or writes buffers has effects
that cannot be foreseen, and then every pass is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.contract.batch import Batch
from orchestrator.contract.parts import facts_of
from orchestrator.contract.roles import ScalesGradient
from orchestrator.training.distributed import Workers


class Idling:
    """What the passes of one trial showed, and whether the next can be left out."""

    def __init__(self, objective: Any, module: nn.Module, named: Sequence[tuple[str, nn.Parameter]], workers: Workers):
        self.declared = facts_of(objective).vanishes_with_advantages and not isinstance(objective, ScalesGradient)
        self._module, self._named, self._workers = module, named, workers
        self._steady = True
        self._reached: frozenset[str] | None = None  # parameters that the last pass gave a gradient
        self._terms: frozenset[str] = frozenset()  # names of its loss terms

    def can_leave_out(self, batch: Batch) -> bool:
        """Whether a pass over these rows is known to change nothing, on all workers."""
        if not self.declared or batch.advantages is None:
            return False
        known = self._steady and self._reached is not None
        zero = known and not bool(torch.where(batch.mask, batch.advantages, 0.0).count_nonzero())
        return self._workers.maximum(0.0 if zero else 1.0) == 0.0

    def leave_out(self) -> dict[str, Tensor]:
        """Give the parameters the gradient of a pass; returns its loss terms, 0 each."""
        for name, parameter in self._named:
            if name in (self._reached or ()):
                parameter.grad = torch.zeros_like(parameter)
        return {name: torch.zeros(()) for name in sorted(self._terms)}

    @contextmanager
    def watching(self) -> Iterator[set[str]]:
        """Look at what a pass does; the block fills the set with the names of its loss terms."""
        seen: set[str] = set()
        before = self._traces() if self.declared else None
        yield seen
        if before is None:
            return
        reached = frozenset(name for name, parameter in self._named if parameter.grad is not None)
        same = self._reached is None or (reached, seen) == (self._reached, self._terms)
        self._steady = self._steady and same and _equal(before, self._traces())
        self._reached, self._terms = reached, frozenset(seen)

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far, plain JSON."""
        return {
            "steady": self._steady,
            "reached": None if self._reached is None else sorted(self._reached),
            "terms": sorted(self._terms),
        }

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Restore what ``state_dict`` gave; None: nothing was seen."""
        if state is not None:
            self._steady, self._terms = state["steady"], frozenset(state["terms"])
            self._reached = None if state["reached"] is None else frozenset(state["reached"])

    def _traces(self) -> tuple[list[Tensor], list[int]]:
        """The states of the random number generators, and how often each buffer was written."""
        generators = [torch.get_rng_state()]
        generators += [torch.cuda.get_rng_state(d) for d in {p.device for _, p in self._named} if d.type == "cuda"]
        return generators, [buffer._version for buffer in self._module.buffers()]


def _equal(before: tuple[list[Tensor], list[int]], after: tuple[list[Tensor], list[int]]) -> bool:
    return before[1] == after[1] and all(map(torch.equal, before[0], after[0]))
