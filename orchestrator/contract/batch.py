"""Data that holds tensors: the batch, what an estimator credits, what an objective wants minimised.

``B`` sequences, ``T`` tokens or steps, ``V`` vocabulary, ``N`` groups, ``G`` siblings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Weights(StrEnum):
    """Whose weights a frozen statistic comes from."""

    CURRENT = "current"  # being trained
    OLD = "old"  # frozen at the start of each update phase, recomputed by the trainer
    REFERENCE = "reference"  # the initial policy, or that of the last refresh
    PREVIOUS = "previous"  # the result of the last round


class Column(StrEnum):
    """A per-token statistic a policy can compute."""

    LOGPROB = "logprob"  # [B, T] of the chosen token
    ENTROPY = "entropy"  # [B, T] of the distribution it was chosen from
    VALUE = "value"  # [B, T] of the state before the token
    VOCAB_MEAN_LOGPROB = "vocab_mean_logprob"  # [B, T] unweighted mean over the vocabulary
    LOGITS = "logits"  # [B, T, V], divided by the temperature; lives for one micro-batch only


class Need(NamedTuple):
    """One statistic somebody needs, and from which weights."""

    weights: Weights
    column: Column


class Reduction(StrEnum):
    """How a term becomes a number; the denominators are those of the whole mini-batch."""

    TOKEN_MEAN = "token_mean"  # sum over tokens / trained tokens
    SEQUENCE_MEAN = "sequence_mean"  # mean over sequences of the sequence's token mean
    SEQUENCE_SUM = "sequence_sum"  # mean over sequences of the sequence's token sum
    GROUP_MEAN = "group_mean"  # mean over groups
    CONSTANT = "constant"  # sum over tokens / (sequences x maximum length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What a policy makes of rollouts; the core adds rewards, groups and the rest."""

    inputs: Mapping[str, Tensor]  # what Policy.columns reads; first dimension B
    mask: Tensor  # [B, T] bool, True on tokens the policy chose
    behaviour_logprobs: Tensor  # [B, T] float32, 0 where masked out
    turn: Tensor  # [B, T] int64, -1 outside the policy's tokens
    bootstrap: Tensor | None = None  # [B, T] bool, see Batch.bootstrap


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Padded rollouts of whole groups, aligned with the token each number belongs to."""

    inputs: Mapping[str, Tensor]  # what Policy.columns reads; first dimension B
    mask: Tensor  # [B, T] bool, True on tokens the policy chose
    behaviour_logprobs: Tensor  # [B, T] float32 as recorded by the engine that acted; 0 where masked out
    rewards: Tensor  # [B] float32, the score
    # [B, T] float32, on the last token of each turn; sums over T to rewards, but where a policy cut a row short: what
    # earned a turn's reward is then not in the row, and neither is the reward
    turn_rewards: Tensor
    group: Tensor  # [B] int64, siblings share a value, contiguous
    turn: Tensor  # [B, T] int64, the environment's step, -1 outside the policy's tokens
    demonstration: Tensor  # [B] bool, True for rows not sampled from a policy
    against: Tensor | None = None  # [B, G] float32, Score.against padded with nan
    columns: Mapping[Need, Tensor] = field(default_factory=dict)  # frozen statistics, computed before the update
    advantages: Tensor | None = None  # [B, T], set by the estimator, no gradient
    returns: Tensor | None = None  # [B, T], targets of a critic
    max_tokens: int | None = None  # most tokens a sequence may train; None: T. Denominator of Reduction.CONSTANT
    # [B, T] bool, at most one True a row, after its last trained token and outside `mask`: the state where the play was
    # cut off, whose VALUE stands for the rewards that would have followed. None: no row was cut off
    bootstrap: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """What an advantage estimator returns."""

    advantages: Tensor  # [B, T], no gradient
    returns: Tensor | None = None  # [B, T], targets of a critic
    metrics: Mapping[str, float] = field(default_factory=dict)


class Mean(NamedTuple):
    """A metric that adds up over micro-batches and workers: the mean is ``total / count``."""

    total: Tensor | float
    count: Tensor | float  # type: ignore[assignment]  # tuple.count is of no use here

    @classmethod
    def over(cls, values: Tensor, mask: Tensor) -> Mean:
        """The mean over the True positions of a mask; what stands elsewhere has no effect, and nothing a gradient."""
        return cls(values.detach().masked_fill(~mask, 0).sum(), mask.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTerm:
    """One unreduced summand of a loss. Divided by nothing; ``training.reduction`` divides."""

    name: str
    values: Tensor  # [B, T], [B] or [N] (one per group)
    reduction: Reduction
    coefficient: float = 1.0
    mask: Tensor | None = None  # defaults to batch.mask / all rows / all groups
    scaled: bool = True  # multiplied by ScalesGradient.factor, where an objective has one


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an objective returns for one micro-batch."""

    loss: tuple[LossTerm, ...]
    probes: tuple[LossTerm, ...] = ()  # their gradient is measured over the mini-batch, never applied
    metrics: Mapping[str, Mean] = field(default_factory=dict)
