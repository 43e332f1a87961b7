"""Gradients of one mini-batch, summed over its micro-batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from orchestrator.contract.batch import Batch, Terms
from orchestrator.training.distributed import Workers
from orchestrator.training.reduction import Denominators, keyed, weigh


class Sums:
    """Gradients summed over micro-batches: those to be scaled, the others, and one per probe."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], scales: bool):
        self._parameters, self._scales = parameters, scales
        self._kept: dict[str, list[Tensor]] = {}

    def add(self, terms: Terms, micro: Batch, denominators: Denominators) -> None:
        losses: dict[str, list[Tensor]] = {}
        for key, term in keyed(terms, "loss"):
            kind = "loss" if self._scales and term.scaled else "plain"
            losses.setdefault(kind, []).append(weigh(term, micro, denominators, key))
        for key, term in keyed(terms, "probe"):
            losses.setdefault(f"probe/{term.name}", []).append(weigh(term, micro, denominators, key))
        summed = {kind: torch.stack(parts).sum() for kind, parts in losses.items()}
        plain = summed.pop("plain", None)
        for kind, loss in summed.items():
            if kind not in self._kept:  # also where nothing has a gradient here: workers add up the same kinds
                self._kept[kind] = [torch.zeros_like(p) for p in self._parameters]
            if not loss.requires_grad:
                continue
            grads = torch.autograd.grad(loss, self._parameters, retain_graph=True, allow_unused=True)
            for total, grad in zip(self._kept[kind], grads, strict=True):
                if grad is not None:
                    total.add_(grad)
        if plain is not None and plain.requires_grad:
            plain.backward()

    def finish(self, workers: Workers) -> dict[str, float]:
        """Add up over workers; returns the norm of each probe by its name and of the scaled terms as ``loss``."""
        workers.sum_gradients(self._parameters)
        norms = {}
        for kind, held in self._kept.items():
            if workers.size > 1:
                held[:] = [workers.total(total) for total in held]
            norms[kind.removeprefix("probe/")] = float(torch.nn.utils.get_total_norm(held))
        return norms

    def scale(self, factor: float) -> None:
        """Apply the scaled terms' gradient, multiplied by the factor."""
        for parameter, total in zip(self._parameters, self._kept.get("loss", ()), strict=False):
            scaled = total.mul_(factor)
            parameter.grad = scaled if parameter.grad is None else parameter.grad.add_(scaled)
