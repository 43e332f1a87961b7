"""Cuts a batch into mini-batches and micro-batches, without padding that no row needs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from orchestrator.contract.batch import Batch
from orchestrator.contract.types import Couples


def take_rows(batch: Batch, rows: Tensor) -> Batch:
    """The given rows, in the given order, cut behind the last used token of any of them.

    Policies are causal: what stands behind a row's last trained token, or behind the state a critic values where the
    play was cut off, changes none of its numbers.
    """
    width = batch.mask.shape[1]
    length = max(int(last_used(batch)[rows].max()), 1)

    def cut(tensor: Tensor) -> Tensor:
        return tensor[rows][:, :length] if tensor.dim() > 1 and tensor.shape[1] == width else tensor[rows]

    return replace(
        batch,
        inputs={name: cut(tensor) for name, tensor in batch.inputs.items()},
        mask=cut(batch.mask),
        behaviour_logprobs=cut(batch.behaviour_logprobs),
        rewards=batch.rewards[rows],
        turn_rewards=cut(batch.turn_rewards),
        group=batch.group[rows],
        turn=cut(batch.turn),
        demonstration=batch.demonstration[rows],
        against=None if batch.against is None else batch.against[rows],
        columns={need: tensor[rows][:, :length] for need, tensor in batch.columns.items()},
        advantages=None if batch.advantages is None else cut(batch.advantages),
        returns=None if batch.returns is None else cut(batch.returns),
        max_tokens=batch.max_tokens or width,
        bootstrap=None if batch.bootstrap is None else cut(batch.bootstrap),
    )


def minibatches(batch: Batch, count: int, generator: torch.Generator) -> list[Tensor]:
    """Rows of each mini-batch: whole groups, shuffled, as even in rows as whole groups allow.

    :returns: at most ``count`` index tensors, none empty
    """
    members = group_rows(batch.group)
    order = [members[i] for i in torch.randperm(len(members), generator=generator).tolist()] if count > 1 else members
    parts: list[list[Tensor]] = [[]]
    filled, total = 0, len(batch.group)
    for rows in order:
        if parts[-1] and len(parts) < count and filled >= total * len(parts) / count:
            parts.append([])
        parts[-1].append(rows)
        filled += len(rows)
    return [torch.cat(part) for part in parts]


def microbatches(batch: Batch, couples: Couples, *, max_rows: int | None, max_tokens: int | None) -> list[Tensor]:
    """Rows of each micro-batch of a mini-batch, within the limits where whole units allow it.

    A unit is a row, or a whole group where the objective couples groups. Rows of like length go together.
    """
    lengths = last_used(batch)
    if couples == Couples.GROUPS:
        units = group_rows(batch.group)
    else:
        units = list(torch.argsort(lengths, stable=True).split(1))
    parts: list[list[Tensor]] = []
    rows, longest = 0, 0
    for unit in units:
        unit_longest = max(int(lengths[unit].max()), 1)
        grown, width = rows + len(unit), max(longest, unit_longest)
        full = (max_rows is not None and grown > max_rows) or (max_tokens is not None and grown * width > max_tokens)
        if not parts or (full and parts[-1]):
            parts.append([])
            grown, width = len(unit), unit_longest
        parts[-1].append(unit)
        rows, longest = grown, width
    return [torch.cat(part) for part in parts]


def group_rows(group: Tensor) -> list[Tensor]:
    """Row indices of each group, in order of first appearance; siblings are contiguous."""
    sizes = torch.unique_consecutive(group, return_counts=True)[1].tolist()
    return list(torch.arange(len(group), device=group.device).split(sizes))


def last_used(batch: Batch) -> Tensor:
    """[B] int64: one more than the position of each row's last trained token, or of the state it was cut off at."""
    used = batch.mask if batch.bootstrap is None else batch.mask | batch.bootstrap
    position = torch.arange(1, used.shape[1] + 1, device=used.device)
    return torch.where(used, position, 0).max(1).values
