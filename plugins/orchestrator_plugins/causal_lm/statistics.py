"""Per-token statistics from hidden states, in float32 (float64 for a float64 model), never more logits than asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from orchestrator.api import Column

CHUNK = 1 << 23  # most logits held at once while differentiating: 32 MiB in float32

PER_TOKEN = (Column.LOGPROB, Column.ENTROPY, Column.VOCAB_MEAN_LOGPROB)


def token_statistics(
    states: Tensor,
    head: Callable[[Tensor], Tensor],
    targets: Tensor,
    temperature: Tensor,
    wanted: frozenset[Column],
    vocabulary: int,
) -> dict[Column, Tensor]:
    """Compute what is wanted for each token asked about.

    :param states: [M, d] the model's state before each token
    :param head: states to logits
    :param targets: [M] int64, the tokens
    :param temperature: [M, 1] logits are divided by it
    :returns: [M] per statistic, ``LOGITS`` [M, V]; large vocabularies are taken in chunks and their logits computed
        again in the backward pass
    """
    if Column.LOGITS in wanted:
        logits = _scaled(head(states), temperature)
        return {Column.LOGITS: logits, **_from_logits(logits, targets, wanted)}
    names = [column for column in PER_TOKEN if column in wanted]
    if not names:
        return {}

    def chunk(states: Tensor, targets: Tensor, temperature: Tensor) -> tuple[Tensor, ...]:
        found = _from_logits(_scaled(head(states), temperature), targets, wanted)
        return tuple(found[name] for name in names)

    rows = max(1, CHUNK // vocabulary)
    if len(states) <= rows:
        return dict(zip(names, chunk(states, targets, temperature), strict=True))
    pieces = [
        checkpoint(chunk, *piece, use_reentrant=False)
        for piece in zip(states.split(rows), targets.split(rows), temperature.split(rows), strict=True)
    ]
    return {name: torch.cat(parts) for name, parts in zip(names, zip(*pieces, strict=True), strict=True)}


def _scaled(logits: Tensor, temperature: Tensor) -> Tensor:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits / temperature.to(logits.dtype)


def _from_logits(logits: Tensor, targets: Tensor, wanted: frozenset[Column]) -> dict[Column, Tensor]:
    found: dict[Column, Tensor] = {}
    if wanted.isdisjoint(PER_TOKEN):
        return found
    logprobs = torch.log_softmax(logits, dim=-1)
    if Column.LOGPROB in wanted:
        found[Column.LOGPROB] = logprobs.gather(1, targets[:, None])[:, 0]
    if Column.ENTROPY in wanted:
        # 0 * -inf is nan: a token that cannot be drawn adds nothing
        chances = logprobs.exp()
        found[Column.ENTROPY] = -torch.where(chances > 0, chances * logprobs, 0).sum(-1)
    if Column.VOCAB_MEAN_LOGPROB in wanted:
        found[Column.VOCAB_MEAN_LOGPROB] = logprobs.mean(-1)
    return found
