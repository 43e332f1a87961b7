"""A batch without padding: one sequence of the tokens that must be computed, and the calls of attention over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .packing import Layout, buckets, shared_prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One rectangular call of attention: rows of queries, each with its row of keys."""

    queries: Tensor  # [R * Q] flat tokens; padding points at token 0 and is never read back
    keys: Tensor  # [R * K]
    shape_of_queries: tuple[int, int]
    shape_of_keys: tuple[int, int]
    mask: Tensor | None  # [R, 1, Q, K] or [Q, K] float32, added to the scores; None: causal and square


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat:
    """A batch as one sequence of the ``N`` different tokens that must be computed."""

    tokens: Tensor  # [N]
    positions: Tensor  # [N] place in the row
    jobs: tuple[Job, ...]
    slots: Tensor  # [N] where the jobs' joined outputs hold each token
    wanted: Tensor  # [W] tokens whose last state is asked for
    answers: Tensor  # [M] which of these belongs to each token asked about

    @classmethod
    def of(cls, layout: Layout) -> Flat:
        """Lay a batch out: prompts that several rows share once, then everything else row by row."""
        device = layout.tokens.device
        lengths, prompts = np.array(layout.lengths), np.array(layout.prompts)
        owners = np.array(shared_prompts(layout), dtype=np.int64)
        owners = np.where(prompts > 0, owners, np.arange(len(owners)))
        sharing = np.bincount(owners[lengths > 0], minlength=len(owners)) > 1
        # where[b, t]: flat index of a row's token
        where = np.zeros((len(lengths), max(lengths.max(initial=0), 1)), dtype=np.int64)
        count, rows_of, places_of = 0, [], []
        for row, (length, prompt, owner) in enumerate(zip(lengths, prompts, owners, strict=True)):
            first = 0 if owner == row else prompt
            if owner != row:
                where[row, :prompt] = where[owner, :prompt]
            where[row, first:length] = np.arange(count, count + length - first)
            rows_of.append(np.full(length - first, row))
            places_of.append(np.arange(first, length))
            count += length - first
        rows_flat, places_flat = np.concatenate(rows_of), np.concatenate(places_of)

        alone = [row for row in range(len(lengths)) if lengths[row] and not sharing[owners[row]]]
        shared = [row for row in range(len(lengths)) if lengths[row] and sharing[owners[row]]]
        spans = [(row, 0, int(lengths[row])) for row in alone]  # (row, first query, end)
        spans += [(row, 0, int(prompts[row])) for row in shared if owners[row] == row]
        tails = [(row, int(prompts[row]), int(lengths[row])) for row in shared if lengths[row] > prompts[row]]
        jobs, slots, offset = [], np.zeros(count, dtype=np.int64), 0
        for group in [*_alike(spans), *_alike(tails)]:
            job, width = _job(group, where, device)
            jobs.append(job)
            for place, (row, first, end) in enumerate(group):
                slots[where[row, first:end]] = offset + width * place + np.arange(end - first)
            offset += width * len(group)
        before = where[layout.rows.cpu().numpy(), layout.places.cpu().numpy() - 1]
        wanted, answers = np.unique(before, return_inverse=True)

        def moved(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        rows, places = moved(rows_flat), moved(places_flat)
        return cls(
            tokens=layout.tokens[rows, places],
            positions=places,
            jobs=tuple(jobs),
            slots=moved(slots),
            wanted=moved(wanted),
            answers=moved(answers),
        )


Span = tuple[int, int, int]


def _alike(spans: Sequence[Span]) -> list[list[Span]]:
    """Group spans so that padding queries and keys adds little."""
    groups = []
    for by_keys in buckets([end for _, _, end in spans], waste=0.5):
        some = [spans[place] for place in by_keys]
        groups += [
            [some[place] for place in by_queries] for by_queries in buckets([e - f for _, f, e in some], waste=0.25)
        ]
    return groups


def _job(group: Sequence[Span], where: np.ndarray, device: torch.device) -> tuple[Job, int]:
    width = max(end - first for _, first, end in group)
    reach = max(end for _, _, end in group)
    queries, keys = np.zeros((len(group), width), dtype=np.int64), np.zeros((len(group), reach), dtype=np.int64)
    for place, (row, first, end) in enumerate(group):
        queries[place, : end - first] = where[row, first:end]
        keys[place, :end] = where[row, :end]
    firsts = sorted({first for _, first, _ in group})
    mask = None
    if firsts != [0]:
        starts = torch.tensor(firsts if len(firsts) == 1 else [first for _, first, _ in group])
        seen = torch.arange(reach) <= starts[:, None, None] + torch.arange(width)[:, None]
        mask = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))
        mask = mask[0] if len(firsts) == 1 else mask[:, None]
        mask = mask.to(device)
    job = Job(
        queries=torch.from_numpy(queries.ravel()).to(device),
        keys=torch.from_numpy(keys.ravel()).to(device),
        shape_of_queries=queries.shape,
        shape_of_keys=keys.shape,
        mask=mask,
    )
    return job, width
