"""Rollouts to padded tensors, and padded tensors to the tokens that really need computing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.api import Packed, Rollout

from .rendering import Renderer
from .sampling import measured_temperature


def pack_rollouts(
    rollouts: Sequence[Rollout], renderer: Renderer, *, values: bool = False, context: int | None = None
) -> Packed:
    """Lay rollouts out one per row, padded on the right to the longest.

    ``inputs``: ``tokens`` [B, T] int64, ``attention_mask`` [B, T] bool, ``asked`` [B, T] bool (where statistics are
    computed: the mask, and where a play was cut off), ``temperature`` [B] float32.

    :param values: add to a play that was cut off what it would have read next and one place behind it, for a critic
        to value (``Packed.bootstrap``); where that does not fit into ``context`` tokens it is left out
    """
    rows = [_Row.of(rollout, renderer) for rollout in rollouts]
    if values:
        for row, rollout in zip(rows, rollouts, strict=True):
            row.cut_off(rollout, renderer, context)
    width = max((len(row.tokens) for row in rows), default=0)

    def padded(name: str, filler: float) -> Tensor:
        return torch.tensor([[*getattr(row, name), *([filler] * (width - len(row.tokens)))] for row in rows])

    mask, bootstrap = padded("chosen", False).bool(), padded("valued", False).bool()
    return Packed(
        inputs={
            "tokens": padded("tokens", renderer.rendering.pad).long(),
            "attention_mask": torch.arange(width) < torch.tensor([[len(row.tokens)] for row in rows]),
            "asked": mask | bootstrap,
            "temperature": torch.tensor([measured_temperature(rollout.sampling) for rollout in rollouts]),
        },
        mask=mask,
        behaviour_logprobs=padded("logprobs", 0.0).float(),
        turn=padded("turn", -1).long(),
        bootstrap=bootstrap if bootstrap.any() else None,
    )


@dataclass(slots=True)
class _Row:
    tokens: list[int]
    chosen: list[bool]
    logprobs: list[float]
    turn: list[int]
    valued: list[bool]

    @classmethod
    def of(cls, rollout: Rollout, renderer: Renderer) -> _Row:
        row = cls([], [], [], [], [])
        turns = rollout.turns
        rendered = renderer.turns([turn.observation for turn in turns], [turn.action for turn in turns])
        for place, (turn, (read, said)) in enumerate(zip(turns, rendered, strict=True)):
            logprobs = turn.action.logprobs or (0.0,) * len(said)
            if len(logprobs) != len(said):
                raise ValueError(
                    f"rollout {rollout.index} of task {rollout.task_id!r}, turn {place}: {len(said)} tokens but "
                    f"{len(logprobs)} log-probabilities"
                )
            row.tokens += [*read, *said]
            row.chosen += [False] * len(read) + [True] * len(said)
            row.logprobs += [*([0.0] * len(read)), *logprobs]
            step = place if turn.step is None else turn.step
            row.turn += [-1] * len(read) + [step] * len(said)
        row.valued = [False] * len(row.tokens)
        return row

    def cut_off(self, rollout: Rollout, renderer: Renderer, context: int | None) -> None:
        """Append what the play would have read next, and a place whose value is that of having read it."""
        if rollout.cut_at is None or not rollout.turns:
            return
        observations = [*(turn.observation for turn in rollout.turns), rollout.cut_at]
        read, _ = renderer.turns(observations, [turn.action for turn in rollout.turns])[-1]
        if context is not None and len(self.tokens) + len(read) > context:
            return
        added = len(read) + 1
        self.tokens += [*read, renderer.rendering.pad]
        self.chosen += [False] * added
        self.logprobs += [0.0] * added
        self.turn += [-1] * added
        self.valued += [False] * len(read) + [True]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which tokens of a padded batch are asked about, and how far each row must be computed for that.

    ``M`` counts the tokens asked about, row by row.
    """

    tokens: Tensor  # [B, T] int64
    lengths: tuple[int, ...]  # [B] leading tokens of each row that something asked about depends on
    prompts: tuple[int, ...]  # [B] of these, tokens before the first that is asked about
    rows: Tensor  # [M] int64
    places: Tensor  # [M] int64, at least 1
    targets: Tensor  # [M] int64, the ids asked about
    temperature: Tensor  # [M, 1] float32

    def spread(self, values: Tensor) -> Tensor:
        """Put one number (or row of numbers) per asked token in its place, 0 elsewhere: [M, ...] to [B, T, ...]."""
        shape = (*self.tokens.shape, *values.shape[1:])
        return values.new_zeros(shape).index_put((self.rows, self.places), values)


def lay_out(inputs: Mapping[str, Tensor], device: torch.device) -> Layout:
    """Read the inputs of a batch. Without ``asked`` every token but a row's first is asked about.

    :raises ValueError: for padding on the left or in the middle, and for a token asked about without one before it
    """
    tokens = inputs["tokens"].to(device)
    present = inputs.get("attention_mask")
    present = torch.ones_like(tokens, dtype=torch.bool) if present is None else present.to(device).bool()
    if (present[:, 1:] & ~present[:, :-1]).any():
        raise ValueError("attention_mask has gaps; expected rows padded on the right, as pack() lays them out")
    asked = inputs.get("asked")
    if asked is None:
        asked = present.clone()
        asked[:, :1] = False
    else:
        asked = asked.to(device).bool() & present
    if asked[:, :1].any():
        raise ValueError("a row's first token cannot be asked about: nothing before it predicts it")
    rows, places = asked.nonzero(as_tuple=True)
    temperature = inputs.get("temperature")
    if temperature is None:
        temperature = torch.ones(len(tokens))
    order = torch.arange(tokens.shape[1], device=device)
    lengths = torch.where(asked, order, 0).amax(1) if tokens.numel() else order[:0]
    prompts = torch.minimum(torch.where(asked, order, tokens.shape[1]).amin(1), lengths) if tokens.numel() else lengths
    return Layout(
        tokens=tokens,
        lengths=tuple(lengths.tolist()),
        prompts=tuple(prompts.tolist()),
        rows=rows,
        places=places,
        targets=tokens[rows, places],
        temperature=temperature.to(device)[rows, None],
    )


def buckets(lengths: Sequence[int], *, waste: float = 0.15) -> list[list[int]]:
    """Group rows of similar length, longest first, so that padding each group adds at most a share ``waste``.

    Rows of length 0 are left out: nothing asked about depends on them.
    """
    groups: list[list[int]] = []
    filled = 0
    for row in sorted((row for row, length in enumerate(lengths) if length), key=lambda row: -lengths[row]):
        longest = lengths[groups[-1][0]] if groups else 0
        filled += lengths[row]
        if not groups or longest * (len(groups[-1]) + 1) > (1 + waste) * filled:
            groups.append([])
            filled = lengths[row]
        groups[-1].append(row)
    return groups


def shared_prompts(layout: Layout) -> list[int]:
    """For each row, the first row with the same prompt: siblings need it computed once."""
    tokens = layout.tokens.cpu().numpy()
    owners: dict[bytes, int] = {}
    return [owners.setdefault(tokens[row, :end].tobytes(), row) for row, end in enumerate(layout.prompts)]
