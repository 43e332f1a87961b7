"""Batches to check on, and what a component did to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from orchestrator.contract.batch import Batch, Need
from orchestrator.testing.batches import make_batch


def accepted(attempt: Callable[[Batch], Any], needs: frozenset[Need]) -> tuple[list[Batch], list[str]]:
    """Batches to check on, with and without demonstrations: a method may insist on them, or refuse them."""
    batches, refusals = [], []
    for demonstrations in (False, True):
        batch = make_batch(needs=needs, dtype=torch.float64, demonstrations=demonstrations)
        try:
            attempt(batch)
            batches.append(batch)
        except ValueError as error:
            if "demonstration" not in str(error):
                raise
            refusals.append(f"it refuses batches {'with' if demonstrations else 'without'} demonstrations: {error}")
    return batches, [] if batches else refusals


def _tensors(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            yield field.name, value
        elif isinstance(value, Mapping):
            for key, tensor in value.items():
                label = ".".join(key) if isinstance(key, Need) else key
                yield f"{field.name}.{label}", tensor


def copied(batch: Batch) -> dict[str, Tensor]:
    """All tensors of a batch, cloned."""
    return {name: tensor.clone() for name, tensor in _tensors(batch)}


def changed(batch: Batch, before: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not what they were."""
    return [name for name, now in _tensors(batch) if not torch.equal(now.nan_to_num(), before[name].nan_to_num())]
