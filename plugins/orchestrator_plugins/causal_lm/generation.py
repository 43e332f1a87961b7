"""The decode loop: one batch of prompts, finished rows dropped, shared prompts read once.

A decoder keeps the key-value cache; the loop draws tokens and decides who goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from orchestrator.api import Sampling

from .sampling import Knobs, draw, uniforms


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to continue, how, and with which noise."""

    prompt: tuple[int, ...]
    sampling: Sampling
    seed: int
    limit: int  # most tokens to generate


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """One continuation; ``sampled`` is None where nothing was truncated."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampled: tuple[float, ...] | None


class Decoder(Protocol):
    """One batch in progress: reads prompts, then takes one token per row at a time."""

    def read(self, prompts: Sequence[tuple[int, ...]], rows: Sequence[int], room: int) -> Tensor:
        """Read distinct prompts and open one row per entry of ``rows`` (a prompt's index).

        :param room: tokens each row may still take
        :returns: [R, V] logits of each row's next token
        """

    def step(self, tokens: Tensor) -> Tensor:
        """Take one token per row [R]; returns the logits [R, V] of the next."""

    def keep(self, order: Tensor) -> None:
        """Go on with these rows only: row ``i`` becomes what row ``order[i]`` was."""


def generate(decoder: Decoder, requests: Sequence[Request], stops: Iterable[int], vocabulary: int) -> list[Generated]:
    """Continue every prompt until a stop id or its limit.

    Rows that finish leave the batch; what a request draws depends on its own prompt, settings and seed alone, up to
    the rounding of the model's arithmetic.
    """
    prompts: dict[tuple[int, ...], int] = {}
    rows = [prompts.setdefault(request.prompt, len(prompts)) for request in requests]
    room = max(request.limit for request in requests)
    logits = decoder.read(list(prompts), rows, room - 1)
    device = logits.device
    knobs = Knobs.of([request.sampling for request in requests], vocabulary, device)
    noise = torch.from_numpy(uniforms([request.seed for request in requests], room)).to(device)
    limits = torch.tensor([request.limit for request in requests], device=device)
    stopping = torch.zeros(logits.shape[1], dtype=torch.bool, device=device)
    stopping[[stop for stop in stops if stop < logits.shape[1]]] = True

    tokens = torch.zeros(len(requests), room, dtype=torch.int64, device=device)
    logprobs, sampled = torch.zeros(2, len(requests), room, device=device)
    counts = torch.zeros(len(requests), dtype=torch.int64, device=device)
    active, here = torch.arange(len(requests), device=device), knobs
    for place in range(room):
        drawn = draw(logits, here, noise[active, place])
        tokens[active, place], logprobs[active, place], sampled[active, place] = (
            drawn.tokens,
            drawn.logprobs,
            drawn.sampled,
        )
        going = ~(stopping[drawn.tokens] | (limits[active] <= place + 1))
        taken = drawn.tokens
        if not going.all():
            counts[active[~going]] = place + 1
            order = _closing_ranks(going)
            if not len(order):
                break
            decoder.keep(order)
            active, taken, here = active[order], taken[order], here[order]
        logits = decoder.step(taken)

    lists = tokens.tolist(), logprobs.tolist(), sampled.tolist()
    return [
        Generated(
            tokens=tuple(ids[:count]),
            logprobs=tuple(before[:count]),
            sampled=tuple(after[:count]) if truncated else None,
        )
        for ids, before, after, count, truncated in zip(*lists, counts.tolist(), knobs.truncated.tolist(), strict=True)
    ]


def _closing_ranks(going: Tensor) -> Tensor:
    """The rows that go on, moved as little as possible: rows from the end fill the gaps."""
    count = int(going.sum())
    order = torch.arange(count, device=going.device)
    gaps = (~going[:count]).nonzero()[:, 0]
    order[gaps] = going[count:].nonzero()[:, 0] + count
    return order
