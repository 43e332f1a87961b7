"""Metrics of one update phase, over all its optimiser steps and workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from orchestrator.contract.batch import Batch, Terms
from orchestrator.training.distributed import Workers
from orchestrator.training.reduction import Denominators, keyed, weigh


class Tally:
    """Metrics of an update phase: losses averaged over optimiser steps, means over everything they counted."""

    def __init__(self, workers: Workers):
        self._workers = workers
        self._losses: list[dict[str, Tensor]] = []
        self._open: dict[str, Tensor] = {}
        self._means: dict[str, list[Any]] = {}
        self._notes: dict[str, list[float]] = {}

    def add(self, terms: Terms, micro: Batch, denominators: Denominators) -> None:
        for key, term in keyed(terms, "loss"):
            part = weigh(term, micro, denominators, key).detach()
            self._open[term.name] = self._open[term.name] + part if term.name in self._open else part
        for name, mean in terms.metrics.items():
            total, count = self._means.setdefault(name, [0.0, 0.0])
            self._means[name] = [total + _plain(mean.total), count + _plain(mean.count)]

    def add_idle(self, losses: Mapping[str, Tensor]) -> None:
        """Take in the loss terms of an optimiser step whose pass was left out."""
        self._open.update(losses)

    def note(self, name: str, value: float) -> None:
        self._notes.setdefault(name, []).append(value)

    def last_loss_is_finite(self) -> bool:
        local = all(bool(torch.isfinite(value).all()) for value in self._open.values())
        return self._workers.maximum(0.0 if local else 1.0) == 0.0

    def step_done(self) -> None:
        self._losses.append(self._open)
        self._open = {}

    def metrics(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name in {name for losses in self._losses for name in losses}:
            values = [float(losses[name]) for losses in self._losses if name in losses]
            found[f"loss/{name}"] = sum(values) / len(values)
        if found:
            found["loss/total"] = sum(found.values())
        for name, (total, count) in self._means.items():
            pair = torch.tensor([float(total), float(count)], dtype=torch.float64)
            total, count = self._workers.total(pair).tolist()
            if count > 0:
                found[name] = total / count
        for name, values in self._notes.items():
            found[name] = sum(values) / len(values)
        return dict(sorted(found.items()))


def _plain(value: Tensor | float) -> Tensor | float:
    return value.detach() if isinstance(value, Tensor) else value
