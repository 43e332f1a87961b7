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
    ranked, ids = logprobs.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(ranked.shape[1], device=ranked.device)
    chances = torch.where(rank < knobs.top_k, ranked.exp(), 0)
    before = chances.cumsum(-1) - chances
    nucleus = (before < knobs.top_p * chances.sum(-1, keepdim=True)) | (knobs.top_p >= 1) | (rank == 0)
    chances = torch.where(nucleus, chances, 0)
    places = _invert(chances, noise)
    chosen = ranked.gather(1, places)[:, 0]
    return Draw(
        tokens=ids.gather(1, places)[:, 0],
        logprobs=chosen,
        sampled=chosen - chances.sum(-1).log(),
    )


def _invert(chances: Tensor, noise: Tensor) -> Tensor:
    """First index whose cumulative chance exceeds the noise, [R, 1]; chances need not sum to one."""
    cumulative = chances.double().cumsum(-1)
    reached = cumulative > noise[:, None] * cumulative[:, -1:]
    return reached.to(torch.uint8).argmax(-1, keepdim=True)
