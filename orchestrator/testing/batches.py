"""Batches made up for tests: whole groups of several turns, consistent columns, a stand-in for a policy's outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from orchestrator.contract.batch import Batch, Column, Need, Weights
from orchestrator.rollout.assembly import last_tokens
from orchestrator.testing.scripted import statistics
from orchestrator.training.reduction import Denominators, counting_needed, keyed, weigh
from orchestrator.training.slicing import take_rows

VOCABULARY = 11


def make_batch(
    *,
    sizes: Sequence[int] = (4, 3, 4),
    rewards: Sequence[float] | None = None,
    lengths: Sequence[int] | None = None,
    needs: Iterable[Need] = (),
    turns: int = 2,
    prompt: int = 2,
    demonstrations: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Batch:
    """Make up a batch of whole groups with everything an estimator or objective may read.

    Its ``inputs`` are those of language policies and of feature policies at once, but for the features.

    :param sizes: rows of each group
    :param rewards: one per row; None: each row's mean chance of beating its siblings, as in ``against``
    :param lengths: trained tokens of each row, at least 1; None: from 2 to 6 at random
    :param needs: frozen columns to fill in; those of ``CURRENT`` are left to ``make_outputs``
    :param turns: turns the trained tokens are spread over, where there are enough, an observation token in between
    :param prompt: tokens before the first turn
    :param demonstrations: the last row of each group was not sampled from a policy
    :param dtype: of every real number
    :raises ValueError: when ``rewards`` or ``lengths`` are not one per row
    """
    generator = torch.Generator().manual_seed(seed)
    rows = sum(sizes)
    for name, given in (("rewards", rewards), ("lengths", lengths)):
        if given is not None and len(given) != rows:
            raise ValueError(f"make_batch: {len(given)} {name} for {rows} rows; expected one each")
    counts = torch.randint(2, 7, (rows,), generator=generator).tolist() if lengths is None else list(lengths)
    turn = _lay_out(counts, turns, prompt)
    mask = turn >= 0
    against = _against(sizes, generator, dtype)
    scores = against.nanmean(1) if rewards is None else torch.tensor(rewards, dtype=dtype)
    logits = {
        w: torch.randn(*mask.shape, VOCABULARY, generator=generator, dtype=dtype) for w in ("behaviour", *Weights)
    }
    values = {w: torch.randn(mask.shape, generator=generator, dtype=dtype) for w in Weights}
    tokens = torch.randint(0, VOCABULARY, mask.shape, generator=generator)
    demonstration = torch.zeros(rows, dtype=torch.bool)
    if demonstrations:
        demonstration[torch.tensor(sizes).cumsum(0) - 1] = True
    behaviour = statistics(logits["behaviour"], tokens, {Column.LOGPROB})[Column.LOGPROB]
    random = torch.randn(2, *mask.shape, generator=generator, dtype=dtype)
    return Batch(
        inputs={
            "tokens": tokens,
            "attention_mask": torch.ones_like(mask),
            "actions": tokens,
            "legal": torch.ones(*mask.shape, VOCABULARY, dtype=torch.bool),
            "temperature": torch.ones(rows, dtype=dtype),
        },
        mask=mask,
        behaviour_logprobs=torch.where(mask & ~demonstration[:, None], behaviour, 0.0),
        rewards=scores,
        turn_rewards=_spread(scores, mask, turn, generator),
        group=torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        turn=turn,
        demonstration=demonstration,
        against=against,
        columns={
            need: statistics(logits[need.weights], tokens, {need.column}, values[need.weights])[need.column]
            for need in needs
            if need.weights != Weights.CURRENT
        },
        advantages=torch.where(mask, random[0], 0.0),
        returns=torch.where(mask, random[1], 0.0),
        max_tokens=max(counts),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What a policy would compute from its present weights; gradients are measured here."""

    logits: Tensor  # [B, T, V], a leaf
    values: Tensor  # [B, T], a leaf

    def columns(self, batch: Batch, wanted: Iterable[Column]) -> dict[Column, Tensor]:
        """Statistics of the batch's tokens, differentiable."""
        return statistics(self.logits, batch.inputs["tokens"], wanted, self.values)


def make_outputs(batch: Batch, *, seed: int = 1) -> Outputs:
    """Make up what a policy would compute for a batch of ``make_batch``, unlike any of its frozen columns."""
    generator = torch.Generator().manual_seed(seed)
    dtype = batch.behaviour_logprobs.dtype
    logits = torch.randn(*batch.mask.shape, VOCABULARY, generator=generator, dtype=dtype)
    values = torch.randn(batch.mask.shape, generator=generator, dtype=dtype)
    return Outputs(logits=logits.requires_grad_(), values=values.requires_grad_())


def pad_batch(batch: Batch, outputs: Outputs, *, left: int = 0, right: int = 0) -> tuple[Batch, Outputs]:
    """Add positions nobody trains, with arbitrary numbers in them, to a batch and to its outputs."""

    def pad(tensor: Tensor, value: float | None = None) -> Tensor:
        shape = list(tensor.shape)
        parts = []
        for width in (left, right):
            shape[1] = width
            if value is None:
                parts.append(torch.linspace(-3, 3, max(tensor[:, :1].numel() * width, 1)).to(tensor))
                parts[-1] = parts[-1][: tensor[:, :1].numel() * width].reshape(shape)
            else:
                parts.append(torch.full(shape, value, dtype=tensor.dtype))
        return torch.cat([parts[0], tensor, parts[1]], dim=1)

    padded = replace(
        batch,
        inputs={name: pad(tensor, 0) if tensor.dim() > 1 else tensor for name, tensor in batch.inputs.items()},
        mask=pad(batch.mask, False),
        behaviour_logprobs=pad(batch.behaviour_logprobs, 0),
        turn_rewards=pad(batch.turn_rewards, 0),
        turn=pad(batch.turn, -1),
        columns={need: pad(tensor) for need, tensor in batch.columns.items()},
        advantages=None if batch.advantages is None else pad(batch.advantages, 0),
        returns=None if batch.returns is None else pad(batch.returns, 0),
        bootstrap=None if batch.bootstrap is None else pad(batch.bootstrap, False),
    )
    logits, values = pad(outputs.logits.detach()), pad(outputs.values.detach())
    return padded, Outputs(logits=logits.requires_grad_(), values=values.requires_grad_())


def objective_gradients(
    objective: Any, batch: Batch, outputs: Outputs, parts: Sequence[Tensor] | None = None
) -> dict[str, Tensor]:
    """Gradients of an objective's reduced loss, and of each probe, as the trainer sums them over micro-batches.

    :param batch: a whole mini-batch
    :param parts: rows of each micro-batch; None: one micro-batch
    :returns: ``loss`` [], ``loss/logits`` [B, T, V], ``loss/values`` [B, T], and ``probe/<name>`` likewise
    """
    parts = [torch.arange(len(batch.rewards))] if parts is None else parts
    micros = [_micro(objective, batch, outputs, rows) for rows in parts]
    denominators = Denominators.from_batch(batch)
    for terms, micro in micros:
        if counting_needed(terms):
            denominators = denominators.count(terms, micro)
    summed: dict[str, Tensor] = {"loss": batch.rewards.new_zeros(())}
    for terms, micro in micros:
        for kind in ("loss", "probe"):
            for key, term in keyed(terms, kind):
                name = kind if kind == "loss" else f"probe/{term.name}"
                summed[name] = summed.get(name, 0) + weigh(term, micro, denominators, key)
    found: dict[str, Tensor] = {}
    for name, total in summed.items():
        found[name] = total.detach()
        for leaf in ("logits", "values"):
            tensor = getattr(outputs, leaf)
            grad = (
                torch.autograd.grad(total, tensor, retain_graph=True, allow_unused=True)[0]
                if total.requires_grad
                else None
            )
            found[f"{name}/{leaf}"] = torch.zeros_like(tensor) if grad is None else grad
    return found


def _micro(objective: Any, batch: Batch, outputs: Outputs, rows: Tensor) -> tuple[Any, Batch]:
    micro = take_rows(batch, rows)
    wanted = {need.column for need in objective.needs if need.weights == Weights.CURRENT} | {Column.LOGPROB}
    width = micro.mask.shape[1]
    cut = Outputs(logits=outputs.logits[rows][:, :width], values=outputs.values[rows][:, :width])
    current: Mapping[Column, Tensor] = cut.columns(micro, wanted)
    return objective.terms(micro, current), micro


def _lay_out(counts: Sequence[int], turns: int, prompt: int) -> Tensor:
    """[B, T] turn of each position: a prompt, then turns with one observation token between them."""
    rows = []
    for count in counts:
        spread = min(turns, count)
        row = [-1] * prompt
        for place in range(spread):
            row += [place] * (count // spread + (place < count % spread)) + [-1] * (place < spread - 1)
        rows.append(row)
    width = max(map(len, rows))
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows])


def _against(sizes: Sequence[int], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """[B, G] chances of beating each sibling, from random strengths; nan where there is no sibling."""
    rows = []
    for size in sizes:
        strength = torch.randn(size, generator=generator, dtype=dtype)
        chances = (strength[:, None] - strength[None, :]).sigmoid()
        rows.append(torch.nn.functional.pad(chances, (0, max(sizes) - size), value=torch.nan))
    return torch.cat(rows)


def _spread(rewards: Tensor, mask: Tensor, turn: Tensor, generator: torch.Generator) -> Tensor:
    """[B, T] the reward in random shares on the last token of each turn."""
    ends = last_tokens(mask, turn)
    shares = torch.where(ends, torch.rand(mask.shape, generator=generator, dtype=rewards.dtype) + 0.1, 0.0)
    return rewards[:, None] * shares / shares.sum(1, keepdim=True)
