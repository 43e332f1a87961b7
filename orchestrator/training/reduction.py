"""The one place that divides losses.

Every term is divided by counts of the *whole* mini-batch, over all its micro-batches and workers, so the gradient
does not depend on how the mini-batch was cut or padded. A trainer does::

    denominators = Denominators.from_batch(minibatch)
    if counting_needed(terms):                       # a term has a mask of its own
        for micro in micros:                         # without gradient
            denominators = denominators.count(objective.terms(micro, current), micro)
    denominators = denominators.summed(all_reduce)   # several workers
    for micro in micros:
        terms = objective.terms(micro, current)
        loss = sum(weigh(term, micro, denominators, key) for key, term in keyed(terms, "loss"))
        loss.backward()

How a term becomes a number, with the mask its own or the batch's:

================  ======================================  ==========================  =======================
reduction         values [B, T]                           values [B]                  values [N]
================  ======================================  ==========================  =======================
TOKEN_MEAN        sum / tokens                            mean over rows              refused
SEQUENCE_MEAN     mean over rows of the row's token mean  mean over rows              refused
SEQUENCE_SUM      mean over rows of the row's token sum   mean over rows              refused
GROUP_MEAN        mean over groups of the group's token   mean over groups of the     mean over groups
                  mean                                    group's row mean
CONSTANT          sum / (sequences x maximum length)      the same                    refused
================  ======================================  ==========================  =======================

Means over rows or groups leave out those without a single True position. Means of nothing are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from orchestrator.contract.batch import Batch, LossTerm, Reduction, Terms
from orchestrator.maths.shapes import group_index

Key: TypeAlias = tuple[str, int]
"""Which term: ("loss" or "probe", place in the tuple). Names may repeat, places do not."""


class Count(NamedTuple):
    """What one term is divided by."""

    total: Tensor  # [] int64: tokens, rows or groups of the mini-batch
    members: Tensor | None = None  # [N] int64, GROUP_MEAN: the tokens or rows of each group of this worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Denominators:
    """Counts of a whole mini-batch. Integers, so that their sums are exact."""

    tokens: Tensor  # [] trained tokens
    rows: Tensor  # []
    rows_with_tokens: Tensor  # []
    groups: Tensor  # []
    groups_with_tokens: Tensor  # []
    room: Tensor  # [] sequences x maximum length
    ids: Tensor  # [N] values of Batch.group on this worker
    group_rows: Tensor  # [N]
    group_tokens: Tensor  # [N]
    masked: Mapping[Key, Count] = field(default_factory=dict)  # terms that bring a mask of their own

    @classmethod
    def from_batch(cls, batch: Batch) -> Denominators:
        """Count a whole mini-batch (of one worker)."""
        index, count = group_index(batch.group)
        per_row = batch.mask.sum(1)
        group_tokens = _by_group(per_row, index, count)
        rows = torch.tensor(len(per_row), device=per_row.device)
        return cls(
            tokens=per_row.sum(),
            rows=rows,
            rows_with_tokens=(per_row > 0).sum(),
            groups=torch.tensor(count, device=per_row.device),
            groups_with_tokens=(group_tokens > 0).sum(),
            room=rows * (batch.max_tokens or batch.mask.shape[1]),
            ids=torch.zeros(count, dtype=batch.group.dtype, device=per_row.device).scatter(0, index, batch.group),
            group_rows=_by_group(torch.ones_like(per_row), index, count),
            group_tokens=group_tokens,
        )

    def count(self, terms: Terms, batch: Batch) -> Denominators:
        """Add the counts of the terms that bring a mask of their own.

        :param terms: of one micro-batch; their masks may depend on the current forward pass
        :param batch: that micro-batch
        """
        masked = dict(self.masked)
        for key, term in (*keyed(terms, "loss"), *keyed(terms, "probe")):
            if term.mask is None:
                continue
            new, old = term_count(term, batch, self), masked.get(key)
            if old is None:
                masked[key] = new
            elif new.members is None or old.members is None:
                masked[key] = Count(old.total + new.total)
            else:
                members = old.members + new.members
                masked[key] = Count((members > 0).sum(), members)
        return replace(self, masked=masked)

    def summed(self, all_reduce: Callable[[Tensor], Tensor]) -> Denominators:
        """Add up over workers, each of which holds whole groups.

        :param all_reduce: returns the sum over workers of a [K] int64 tensor; every worker must have counted the
            same terms
        """
        names = ("tokens", "rows", "rows_with_tokens", "groups", "groups_with_tokens", "room")
        keys = sorted(self.masked)
        local = [getattr(self, name) for name in names] + [self.masked[key].total for key in keys]
        totals = all_reduce(torch.stack(local)).unbind()
        masked = {
            key: self.masked[key]._replace(total=total) for key, total in zip(keys, totals[len(names) :], strict=True)
        }
        return replace(self, masked=masked, **dict(zip(names, totals, strict=False)))

    def place(self, batch: Batch) -> Tensor:
        """[B] int64: where each row's group stands among ``ids``.

        :raises ValueError: when the micro-batch has a group the mini-batch lacks
        """
        same = batch.group[:, None] == self.ids[None, :]
        if not bool(same.any(1).all()):
            raise ValueError("the micro-batch has groups that are not in the mini-batch it is weighed against")
        return same.int().argmax(1)


def reduce_terms(terms: Terms, batch: Batch) -> Tensor:
    """Reduce the loss terms of a whole mini-batch to one number, coefficients applied.

    :param terms: what ``Objective.terms`` returned for this batch
    :param batch: the whole mini-batch
    :returns: [] the loss; 0 when there are no terms
    :raises ValueError: when a term's shape fits neither tokens, rows nor groups, or not its reduction
    """
    denominators = Denominators.from_batch(batch).count(terms, batch)
    parts = [weigh(term, batch, denominators, key) for key, term in keyed(terms, "loss")]
    return torch.stack(parts).sum() if parts else batch.rewards.new_zeros(())


def weigh(term: LossTerm, batch: Batch, denominators: Denominators, key: Key | None = None) -> Tensor:
    """What one micro-batch contributes to a term of its mini-batch, coefficient applied.

    :param batch: the micro-batch the term was computed on
    :param denominators: of the whole mini-batch
    :param key: the term's key in ``keyed``; needed for a term with a mask of its own
    :returns: [], differentiable; the contributions of all micro-batches add up to the reduced term
    :raises ValueError: when the term's shape does not fit, or its own mask was not counted
    """
    kind = _kind(term, batch)
    mask = _mask(term, batch, kind)
    values = torch.where(mask, term.values, 0.0)
    count = _counted(term, kind, denominators, key)
    if term.reduction is Reduction.SEQUENCE_MEAN and kind == "tokens":
        values = values.sum(1) / mask.sum(1).clamp(min=1)
    elif term.reduction is Reduction.GROUP_MEAN and kind == "groups":
        _expect_whole_groups(term, batch, denominators)
    elif count.members is not None:
        members = count.members.clamp(min=1)[denominators.place(batch)]
        values = (values.sum(1) if kind == "tokens" else values) / members
    return term.coefficient * values.sum() / count.total.clamp(min=1)


def shape_of(term: LossTerm, batch: Batch) -> str:
    """Whether a term's values stand for ``tokens``, ``rows`` or ``groups``.

    :raises ValueError: their shape fits none of these, or not the reduction, or the mask does not fit them
    """
    kind = _kind(term, batch)
    _mask(term, batch, kind)
    return kind


def term_count(term: LossTerm, batch: Batch, denominators: Denominators) -> Count:
    """Count what a term with a mask of its own is divided by, in one micro-batch."""
    kind = _kind(term, batch)
    mask = _mask(term, batch, kind)
    if term.reduction is Reduction.CONSTANT:
        return Count(torch.zeros_like(denominators.room))
    if term.reduction is Reduction.GROUP_MEAN and kind != "groups":
        per_row = mask.sum(1) if kind == "tokens" else mask.long()
        members = _by_group(per_row, denominators.place(batch), len(denominators.ids))
        return Count((members > 0).sum(), members)
    if kind == "tokens" and term.reduction is not Reduction.TOKEN_MEAN:
        return Count(mask.any(1).sum())
    return Count(mask.sum())


def counting_needed(terms: Terms) -> bool:
    """Whether a term brings a mask of its own, so that a counting pass must come before the weighing."""
    return any(term.mask is not None for term in (*terms.loss, *terms.probes))


def keyed(terms: Terms, kind: str) -> Iterator[tuple[Key, LossTerm]]:
    """Terms with their keys.

    :param kind: ``loss`` or ``probe``
    """
    for place, term in enumerate(terms.loss if kind == "loss" else terms.probes):
        yield (kind, place), term


def override_reduction(terms: Terms, reduction: Reduction | None) -> Terms:
    """Reduce the per-token terms named ``policy`` another way; None leaves them alone.

    Per-token probes follow, since what they measure is compared with the policy's gradient.
    """
    if reduction is None:
        return terms
    loss = tuple(
        replace(term, reduction=reduction) if term.name == "policy" and term.values.dim() == 2 else term
        for term in terms.loss
    )
    probes = tuple(replace(probe, reduction=reduction) if probe.values.dim() == 2 else probe for probe in terms.probes)
    return replace(terms, loss=loss, probes=probes)


def _counted(term: LossTerm, kind: str, denominators: Denominators, key: Key | None) -> Count:
    if term.reduction is Reduction.CONSTANT:
        return Count(denominators.room)
    if term.mask is not None:
        if key is None or key not in denominators.masked:
            raise ValueError(
                f"loss term {term.name!r} has a mask of its own that was not counted under the key {key}; "
                f"call Denominators.count on every micro-batch first"
            )
        return denominators.masked[key]
    if term.reduction is Reduction.GROUP_MEAN:
        if kind == "groups":
            return Count(denominators.groups)
        if kind == "rows":
            return Count(denominators.groups, denominators.group_rows)
        return Count(denominators.groups_with_tokens, denominators.group_tokens)
    if kind == "rows":
        return Count(denominators.rows)
    return Count(denominators.tokens if term.reduction is Reduction.TOKEN_MEAN else denominators.rows_with_tokens)


def _kind(term: LossTerm, batch: Batch) -> str:
    """Whether a term's values stand for tokens, rows or groups. Where N equals B, rows: every group has one row."""
    shape = term.values.shape
    if shape == batch.mask.shape:
        return "tokens"
    if shape == batch.rewards.shape:
        return "rows"
    groups = group_index(batch.group)[1]
    if len(shape) == 1 and shape[0] == groups and term.reduction is Reduction.GROUP_MEAN:
        return "groups"
    rows, tokens = batch.mask.shape
    raise ValueError(
        f"loss term {term.name!r} with reduction {term.reduction.value} has values of shape {list(shape)}; expected "
        f"[B={rows}, T={tokens}], [B={rows}] or, with reduction group_mean, [N={groups}]"
    )


def _mask(term: LossTerm, batch: Batch, kind: str) -> Tensor:
    if term.mask is None:
        return batch.mask if kind == "tokens" else torch.ones_like(term.values, dtype=torch.bool)
    if term.mask.shape != term.values.shape or term.mask.dtype != torch.bool:
        raise ValueError(
            f"loss term {term.name!r} has a mask of shape {list(term.mask.shape)} and type {term.mask.dtype}; "
            f"expected {list(term.values.shape)} and torch.bool, as its values"
        )
    return term.mask


def _expect_whole_groups(term: LossTerm, batch: Batch, denominators: Denominators) -> None:
    place = denominators.place(batch)
    here = _by_group(torch.ones_like(place), place, len(denominators.ids))
    if bool(((here > 0) & (here != denominators.group_rows)).any()):
        raise ValueError(
            f"loss term {term.name!r} has one value per group, but the micro-batch cuts a group; "
            f"the objective must declare couples = Couples.GROUPS"
        )


def _by_group(values: Tensor, index: Tensor, count: int) -> Tensor:
    return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, index, values)
