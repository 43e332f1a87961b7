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
    """Whose weights a statistic comes from.

    :cvar CURRENT: those being trained; the only ones whose statistics have a gradient
    :cvar OLD: those at the start of each update phase; recomputed by the trainer, never the inference engine's numbers
    :cvar REFERENCE: the initial policy's, or those of the last refresh (``schedule.refresh_reference``)
    :cvar PREVIOUS: the result of the last round
    """

    CURRENT = "current"
    OLD = "old"
    REFERENCE = "reference"
    PREVIOUS = "previous"


class Column(StrEnum):
    """A statistic a policy can compute of each token: float32, a number at ``t`` belongs to token ``t``.

    Logits are divided by the temperature the rollout was sampled at; top-p and top-k truncate nothing here. Numbers
    outside the policy's tokens mean nothing, but for ``VALUE`` at ``Batch.bootstrap``.

    :cvar LOGPROB: [B, T], nats: log-probability of the chosen token
    :cvar ENTROPY: [B, T], nats: entropy of the distribution the token was chosen from
    :cvar VALUE: [B, T], in units of the return: a critic's estimate of the state before the token
    :cvar VOCAB_MEAN_LOGPROB: [B, T], nats: unweighted mean of the log-probabilities of the whole vocabulary
    :cvar LOGITS: [B, T, V], nats up to a constant; those of frozen weights too live for one micro-batch only
    """

    LOGPROB = "logprob"
    ENTROPY = "entropy"
    VALUE = "value"
    VOCAB_MEAN_LOGPROB = "vocab_mean_logprob"
    LOGITS = "logits"


class Need(NamedTuple):
    """One statistic somebody needs, and from which weights.

    :ivar weights: whose; ``CURRENT`` ones are given to ``Objective.terms`` as ``current``, all others stand in
        ``Batch.columns``
    :ivar column: which statistic
    """

    weights: Weights
    column: Column


class Reduction(StrEnum):
    """How the values of a term become one number.

    Denominators are counts of the whole mini-batch, over all micro-batches and workers. A term has one value per token
    ([B, T]), per row ([B]) or, with ``GROUP_MEAN`` alone, per group ([N]). ``tokens`` are the True positions of
    ``Batch.mask``, ``rows`` are B, ``rows_t`` the rows with at least one such token, ``groups`` are N, ``groups_t``
    those with at least one such token. A term with a mask of its own counts that mask in their place. What is masked
    out is 0 in every sum, and an empty mask gives 0.

    :cvar TOKEN_MEAN: [B, T]: sum over tokens / tokens; [B]: sum over rows / rows
    :cvar SEQUENCE_MEAN: [B, T]: sum over rows of (sum over the row's tokens / the row's tokens) / rows_t; [B]: sum over
        rows / rows
    :cvar SEQUENCE_SUM: [B, T]: sum over tokens / rows_t; [B]: sum over rows / rows
    :cvar GROUP_MEAN: [B, T]: sum over groups of (sum over the group's tokens / the group's tokens) / groups_t; [B]: sum
        over groups of (sum over the group's rows / the group's rows) / groups; [N]: sum over groups / groups, and the
        objective couples ``GROUPS``
    :cvar CONSTANT: [B, T] and [B]: sum / (rows x ``Batch.max_tokens``), a mask of the term's own or not
    """

    TOKEN_MEAN = "token_mean"
    SEQUENCE_MEAN = "sequence_mean"
    SEQUENCE_SUM = "sequence_sum"
    GROUP_MEAN = "group_mean"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What a policy makes of rollouts, one row each; the core adds rewards, groups and the rest. No gradient.

    :ivar inputs: what ``Policy.columns`` reads, by name; first dimension B
    :ivar mask: [B, T] bool, True on tokens the policy chose
    :ivar behaviour_logprobs: [B, T] float32, nats, as the actions recorded them; 0 where masked out
    :ivar turn: [B, T] int64, the environment's step of each token, 0-based; -1 outside the policy's tokens
    :ivar bootstrap: [B, T] bool, as ``Batch.bootstrap``; None: no row was cut off
    """

    inputs: Mapping[str, Tensor]
    mask: Tensor
    behaviour_logprobs: Tensor
    turn: Tensor
    bootstrap: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Padded rollouts of whole groups; each number stands at the token it belongs to.

    B sequences of T tokens (or steps), each row one rollout; N groups of up to G siblings. Log-probabilities are
    natural logs (nats) of the sampling temperature, before top-p and top-k. Nothing in a batch has a gradient: what an
    objective differentiates comes beside it, as ``current``. Padding, prompts and what the environment wrote are masked
    out: numbers there mean nothing unless said below, so mask with ``torch.where``, never by multiplying.

    :ivar inputs: what ``Policy.columns`` reads, by name; first dimension B
    :ivar mask: [B, T] bool, True on tokens the policy chose: those are trained
    :ivar behaviour_logprobs: [B, T] float32, nats, as recorded by the engine that acted; 0 where masked out. Of other
        weights or another precision than ``Need(Weights.OLD, Column.LOGPROB)``
    :ivar rewards: [B] float32, in points of the score: each rollout's ``Score.value``
    :ivar turn_rewards: [B, T] float32, in points of the score, on the last token of each turn, 0 elsewhere; sums over T
        to ``rewards``, but where a policy cut a row short: what earned a turn's reward is then not in the row, and
        neither is the reward
    :ivar group: [B] int64, siblings share a value; rows of a group are contiguous
    :ivar turn: [B, T] int64, the environment's step of each token, 0-based; -1 outside the policy's tokens
    :ivar demonstration: [B] bool, True for rows that were not sampled from a policy; they are trained too
    :ivar against: [B, G] float32, in [0, 1], ``Score.against`` padded with nan: the probability that the row beats its
        j-th sibling; None: no reward compares siblings
    :ivar columns: statistics of frozen weights by ``Need``: [B, T] float32 in the units of the ``Column``; only what is
        needed
    :ivar advantages: [B, T] float32, in points of the score unless the estimator normalises; set by the core from
        ``Credit``, None before
    :ivar returns: [B, T] float32, in points of the score: targets of a critic; set by the core from ``Credit``, None before
        and where the estimator gives none
    :ivar max_tokens: most tokens a sequence may train, the denominator of ``Reduction.CONSTANT``; None: T
    :ivar bootstrap: [B, T] bool, at most one True a row, after its last trained token and outside ``mask``: the state
        where the play was cut off, whose ``VALUE`` stands for the rewards that would have followed; None: no row was
        cut off
    """

    inputs: Mapping[str, Tensor]
    mask: Tensor
    behaviour_logprobs: Tensor
    rewards: Tensor
    turn_rewards: Tensor
    group: Tensor
    turn: Tensor
    demonstration: Tensor
    against: Tensor | None = None
    columns: Mapping[Need, Tensor] = field(default_factory=dict)
    advantages: Tensor | None = None
    returns: Tensor | None = None
    max_tokens: int | None = None
    bootstrap: Tensor | None = None


def advantages_of(batch: Batch) -> Tensor:
    """The advantages of a batch that an estimator has seen: [B, T], no gradient.

    :raises ValueError: none has; in training one always has, or the score itself stands there
    """
    if batch.advantages is None:
        raise ValueError(
            "the batch needs advantages and has none; give it an estimator's: advantage: {use: group_mean}"
        )
    return batch.advantages


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """What an advantage estimator returns.

    :ivar advantages: [B, T] float32, no gradient; read on ``Batch.mask`` only
    :ivar returns: [B, T] float32, no gradient: targets of a critic, in the units of its values; None: there are none
    :ivar metrics: scalars of the step by metric name, ``area/name``
    """

    advantages: Tensor
    returns: Tensor | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Mean(NamedTuple):
    """A metric that adds up over micro-batches and workers: the mean is ``total / count``.

    :ivar total: [] or a number, no gradient: the sum over what was measured
    :ivar count: [] or a number: how much was measured, tokens or rows; where it is 0 the metric is left out
    """

    total: Tensor | float
    count: Tensor | float  # type: ignore[assignment]  # tuple.count is of no use here

    @classmethod
    def over(cls, values: Tensor, mask: Tensor) -> Mean:
        """The mean over the True positions of a mask; what stands elsewhere has no effect, and nothing a gradient."""
        return cls(values.detach().masked_fill(~mask, 0).sum(), mask.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTerm:
    """One unreduced summand of a loss. Divided by nothing: the core divides, see ``Reduction``.

    :ivar name: in metrics as ``loss/<name>``; per-token terms named ``policy`` follow ``update.reduction``
    :ivar values: [B, T], [B] or, with ``GROUP_MEAN``, [N] (one per group, in their order in the batch); differentiable, what is
        minimised; what stands where ``mask`` is False has no effect
    :ivar reduction: how the values become a number
    :ivar coefficient: dimensionless factor of the reduced term
    :ivar mask: bool, shaped as ``values``, True where they count, and counted in the denominator; None: ``Batch.mask``
        for [B, T], every row or group otherwise
    :ivar scaled: whether ``ScalesGradient.factor`` multiplies its gradient, where an objective has one
    """

    name: str
    values: Tensor
    reduction: Reduction
    coefficient: float = 1.0
    mask: Tensor | None = None
    scaled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an objective returns for one micro-batch.

    :ivar loss: terms whose reduced sum is minimised
    :ivar probes: terms whose gradient is measured over the mini-batch and never applied; see ``ScalesGradient``
    :ivar metrics: by metric name, ``area/name``, added up over the mini-batch
    """

    loss: tuple[LossTerm, ...]
    probes: tuple[LossTerm, ...] = ()
    metrics: Mapping[str, Mean] = field(default_factory=dict)
