"""Cuts a batch into mini-batches and micro-batches, without padding that no row needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from orchestrator.contract.batch import Batch
from orchestrator.contract.types import Couples

PADDING_FOR_SIBLINGS = 1.25
"""Padded tokens, relative to rows sorted by length, up to which siblings stay together in micro-batches."""


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

    A unit is a row, or a whole group where the objective couples groups. Rows of like length go together; where a mini-batch is
    cut and it costs little padding, siblings do too, since policies that share prompts compute each once a micro-batch.
    """
    lengths = last_used(batch)
    limits = _Limits(lengths, max_rows, max_tokens)
    if couples == Couples.GROUPS:
        return limits.fill(group_rows(batch.group))
    by_row = limits.fill(_by_length(torch.arange(len(lengths), device=lengths.device), lengths))
    if len(by_row) == 1:
        return by_row
    groups = sorted(group_rows(batch.group), key=lambda rows: int(lengths[rows].max()))
    pieces = [piece for rows in groups for piece in limits.fill(_by_length(rows, lengths))]
    by_group = limits.fill(pieces)
    return by_group if limits.padded(by_group) <= PADDING_FOR_SIBLINGS * limits.padded(by_row) else by_row


class _Limits:
    """Fills micro-batches up to the limits."""

    def __init__(self, lengths: Tensor, max_rows: int | None, max_tokens: int | None):
        self._lengths, self._max_rows, self._max_tokens = lengths, max_rows, max_tokens

    def fill(self, units: Iterable[Tensor]) -> list[Tensor]:
        """Put units one after another into as few parts as hold them."""
        parts: list[list[Tensor]] = []
        rows, longest = 0, 0
        for unit in units:
            unit_longest = max(int(self._lengths[unit].max()), 1)
            grown, width = rows + len(unit), max(longest, unit_longest)
            if not parts or self._exceeded(grown, width):
                parts.append([])
                grown, width = len(unit), unit_longest
            parts[-1].append(unit)
            rows, longest = grown, width
        return [torch.cat(part) for part in parts]

    def padded(self, parts: Iterable[Tensor]) -> int:
        """Tokens of the parts, padding included."""
        return sum(len(part) * max(int(self._lengths[part].max()), 1) for part in parts)

    def _exceeded(self, rows: int, width: int) -> bool:
        too_many = self._max_rows is not None and rows > self._max_rows
        return too_many or (self._max_tokens is not None and rows * width > self._max_tokens)


def _by_length(rows: Tensor, lengths: Tensor) -> list[Tensor]:
    return list(rows[torch.argsort(lengths[rows], stable=True)].split(1))


def group_rows(group: Tensor) -> list[Tensor]:
    """Row indices of each group, in order of first appearance; siblings are contiguous."""
    sizes = torch.unique_consecutive(group, return_counts=True)[1].tolist()
    return list(torch.arange(len(group), device=group.device).split(sizes))


def last_used(batch: Batch) -> Tensor:
    """[B] int64: one more than the position of each row's last trained token, or of the state it was cut off at."""
    used = batch.mask if batch.bootstrap is None else batch.mask | batch.bootstrap
    position = torch.arange(1, used.shape[1] + 1, device=used.device)
    return torch.where(used, position, 0).max(1).values
