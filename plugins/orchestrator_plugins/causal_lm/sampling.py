"""Drawing tokens: temperature, top-k and nucleus truncation, and noise that belongs to the request.

The noise of a request's i-th token is a hash of its seed and i, so a request draws the same tokens whatever else is
in the call. One uniform number per token goes through the inverse of the cumulative distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchestrator.api import Sampling, splitmix64, unit_interval

_STEPS, _PER_NAT = 64, 4  # a row's tokens in classes of a quarter nat, 16 nats down from its likeliest
_MARGIN = 1e-5  # of the mass, added to what a nucleus needs: sums are rounded


def uniforms(seeds: Sequence[int], count: int) -> np.ndarray:
    """Numbers in [0, 1), [len(seeds), count] float64: stream ``i`` depends on ``seeds[i]`` alone.

    The seed is hashed first, so that neighbouring seeds do not walk the same sequence; the second word on is used.
    """
    return unit_interval(splitmix64(splitmix64(seeds, 1)[:, 0], count + 1)[:, 1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One token per row."""

    tokens: Tensor  # [R] int64
    logprobs: Tensor  # [R] float32, at the temperature, untruncated
    sampled: Tensor  # [R] float32, of the distribution really drawn from


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """Sampling settings of several rows as tensors. A temperature of 0 is greedy: measured at 1, truncated to one."""

    temperature: Tensor  # [R, 1] float32, never 0
    top_p: Tensor  # [R, 1] float32
    top_k: Tensor  # [R, 1] int64, never 0
    truncated: Tensor  # [R] bool

    @classmethod
    def of(cls, sampling: Sequence[Sampling], vocabulary: int, device: torch.device) -> Knobs:
        """Collect the settings of some requests."""
        top_k = [1 if s.temperature == 0 else min(s.top_k or vocabulary, vocabulary) for s in sampling]
        return cls(
            temperature=torch.tensor([[measured_temperature(s)] for s in sampling], device=device),
            top_p=torch.tensor([[s.top_p] for s in sampling], device=device),
            top_k=torch.tensor([[k] for k in top_k], device=device),
            truncated=torch.tensor([k < vocabulary or s.top_p < 1 for k, s in zip(top_k, sampling, strict=True)]),
        )

    def __getitem__(self, rows: Tensor) -> Knobs:
        here = rows.to(self.temperature.device)
        return Knobs(
            temperature=self.temperature[here],
            top_p=self.top_p[here],
            top_k=self.top_k[here],
            truncated=self.truncated[rows.cpu()],
        )


def measured_temperature(sampling: Sampling) -> float:
    """The temperature log-probabilities are recorded at: that of sampling, or 1 for greedy choices."""
    return float(sampling.temperature) or 1.0


def draw(logits: Tensor, knobs: Knobs, noise: Tensor) -> Draw:
    """Draw one token per row.

    :param logits: [R, V], not yet divided by the temperature
    :param noise: [R] float64 in [0, 1)
    """
    logprobs = torch.log_softmax(logits.float() / knobs.temperature, dim=-1)
    if not knobs.truncated.any():
        return _draw_all(logprobs, noise)
    if knobs.truncated.all():
        return _draw_truncated(logprobs, knobs, noise)
    plain, cut = (~knobs.truncated).nonzero()[:, 0], knobs.truncated.nonzero()[:, 0]
    order = torch.argsort(torch.cat([plain, cut]))
    first = _draw_all(logprobs[plain], noise[plain])
    second = _draw_truncated(logprobs[cut], knobs[cut], noise[cut])
    return Draw(
        tokens=torch.cat([first.tokens, second.tokens])[order],
        logprobs=torch.cat([first.logprobs, second.logprobs])[order],
        sampled=torch.cat([first.sampled, second.sampled])[order],
    )


def _draw_all(logprobs: Tensor, noise: Tensor) -> Draw:
    tokens = _invert(logprobs.exp(), noise)
    chosen = logprobs.gather(1, tokens)[:, 0]
    return Draw(tokens=tokens[:, 0], logprobs=chosen, sampled=chosen)


def _draw_truncated(logprobs: Tensor, knobs: Knobs, noise: Tensor) -> Draw:
    """Keep the k likeliest tokens, of these the smallest nucleus that holds a share top_p, and draw among them."""
    vocabulary = logprobs.shape[1]
    if (knobs.top_k == 1).all():
        return _likeliest(logprobs)
    chances = logprobs.exp()
    whole = chances.sum(-1, keepdim=True)
    ranked, ids = _ranked(logprobs, _candidates(logprobs, chances, whole, knobs))
    rank = torch.arange(ranked.shape[1], device=ranked.device)
    chances = torch.where(rank < knobs.top_k, ranked.exp(), 0)
    mass = torch.where(knobs.top_k == vocabulary, whole, _sum(chances, vocabulary))
    before = chances.cumsum(-1) - chances
    nucleus = (before < knobs.top_p * mass) | (knobs.top_p >= 1) | (rank == 0)
    chances = torch.where(nucleus, chances, 0)
    places = _invert(chances, noise)
    chosen = ranked.gather(1, places)[:, 0]
    return Draw(
        tokens=ids.gather(1, places)[:, 0],
        logprobs=chosen,
        sampled=chosen - _sum(chances, vocabulary)[:, 0].log(),
    )


def _likeliest(logprobs: Tensor) -> Draw:
    """The likeliest token of each row, the first of equals."""
    tokens = logprobs.argmax(-1, keepdim=True)
    chosen = logprobs.gather(1, tokens)[:, 0]
    return Draw(tokens=tokens[:, 0], logprobs=chosen, sampled=chosen - chosen.exp().log())


def _candidates(logprobs: Tensor, chances: Tensor, whole: Tensor, knobs: Knobs) -> Tensor:
    """Tokens among which those lie that may be drawn, [R, V] bool: whole classes of like chance, as many as are needed.

    :param whole: [R, 1] the sum of ``chances``
    """
    depth = (logprobs.amax(-1, keepdim=True) - logprobs).mul_(_PER_NAT).nan_to_num_(nan=0.0).clamp_(max=_STEPS - 1)
    step = depth.long()
    empty = chances.new_zeros(len(chances), _STEPS)
    number = empty.scatter_add(1, step, torch.ones_like(chances)).cumsum(-1)
    mass = empty.scatter_add(1, step, chances).cumsum(-1)
    whole_row = knobs.top_k == logprobs.shape[1]
    enough = torch.where(whole_row, mass >= (knobs.top_p + _MARGIN) * whole, number >= knobs.top_k)
    enough[:, -1] = True
    return step <= enough.to(torch.uint8).argmax(-1, keepdim=True)


def _ranked(logprobs: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """The candidates of each row by falling chance and their ids, equals in the order of their ids, [R, C] each.

    Rows with fewer candidates end in tokens of no chance.
    """
    rows, ids = candidates.nonzero(as_tuple=True)
    if 2 * len(ids) > logprobs.numel():
        return logprobs.sort(dim=-1, descending=True, stable=True)
    values, order = logprobs[rows, ids].sort(descending=True, stable=True)
    rows, within = rows[order].sort(stable=True)
    order, values = order[within], values[within]
    counts = rows.bincount(minlength=len(logprobs))
    places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    width = int(counts.max())
    ranked = logprobs.new_full((len(logprobs), width), -torch.inf)
    named = torch.zeros((len(logprobs), width), dtype=torch.int64, device=rows.device)
    ranked[rows, places], named[rows, places] = values, ids[order]
    return ranked, named


def _sum(chances: Tensor, width: int) -> Tensor:
    """Sums of rows [R, 1] as if there were zeros up to ``width``: rounding does not depend on how many were ranked."""
    padded = chances.new_zeros(len(chances), width)
    padded[:, : chances.shape[1]] = chances
    return padded.sum(-1, keepdim=True)


def _invert(chances: Tensor, noise: Tensor) -> Tensor:
    """First index whose cumulative chance exceeds the noise, [R, 1]; chances need not sum to one."""
    cumulative = chances.cumsum(-1, dtype=torch.float64)
    places = torch.searchsorted(cumulative, noise[:, None] * cumulative[:, -1:], right=True)
    return places % chances.shape[1]  # rounding may reach past the end
