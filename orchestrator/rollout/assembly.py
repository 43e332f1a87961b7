"""From scored groups to a batch: the policy packs, the core adds rewards, groups and turns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from orchestrator.contract.batch import Batch, Packed
from orchestrator.contract.types import Rollout, RolloutGroup, Score, Speaks
from orchestrator.rollout.handed import expect_packed

if TYPE_CHECKING:
    from torch import Tensor

    from orchestrator.contract.roles import Policy


def assemble(policy: Policy, groups: Sequence[RolloutGroup]) -> Batch:
    """Lay whole groups out as one batch, siblings contiguous, on the device of the policy's parameters.

    ``max_tokens`` is the token limit of an action times the most turns of any rollout, so that
    ``Reduction.CONSTANT`` does not depend on padding.

    :raises ValueError: no rollout at all, or the policy packed them wrongly
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    scores = [score for group in groups for score in group.scores]
    if not rollouts:
        raise ValueError("no rollout to assemble")
    packed = expect_packed(policy.pack(rollouts), len(rollouts))
    packed = _on_device(packed, next(policy.module.parameters()).device)
    device = packed.mask.device
    sizes = [len(group.rollouts) for group in groups]
    rewards = torch.tensor([score.value for score in scores], dtype=torch.float32, device=device)
    per_action = 1 if policy.speaks == Speaks.FEATURES else max(r.sampling.max_tokens for r in rollouts)
    return Batch(
        inputs=packed.inputs,
        mask=packed.mask,
        behaviour_logprobs=packed.behaviour_logprobs,
        rewards=rewards,
        turn_rewards=_place_rewards(packed, rollouts, scores),
        group=torch.repeat_interleave(torch.arange(len(groups)), torch.tensor(sizes)).to(device),
        turn=packed.turn,
        demonstration=torch.tensor([r.demonstration for r in rollouts], dtype=torch.bool, device=device),
        against=_against(scores, max(sizes), device),
        bootstrap=packed.bootstrap,
        max_tokens=per_action * max(max(len(r.turns) for r in rollouts), 1),
    )


def last_tokens(mask: Tensor, turn: Tensor) -> Tensor:
    """Mark the last of each turn's tokens.

    :param mask: [B, T] bool
    :param turn: [B, T] int64, equal within a turn
    :returns: [B, T] bool
    """
    width = mask.shape[1]
    position = torch.arange(width, device=mask.device).expand_as(mask)
    # The next trained token of the row, found from the right; width where there is none.
    later = torch.where(mask, position, width).flip(1).cummin(1).values.flip(1)
    later = torch.cat([later[:, 1:], torch.full_like(later[:, :1], width)], dim=1)
    following = turn.gather(1, later.clamp(max=width - 1))
    return mask & ((later == width) | (following != turn))


def _on_device(packed: Packed, device: torch.device) -> Packed:
    return Packed(
        inputs={name: tensor.to(device) for name, tensor in packed.inputs.items()},
        mask=packed.mask.to(device),
        behaviour_logprobs=packed.behaviour_logprobs.to(device),
        turn=packed.turn.to(device),
        bootstrap=None if packed.bootstrap is None else packed.bootstrap.to(device),
    )


def _place_rewards(packed: Packed, rollouts: Sequence[Rollout], scores: Sequence[Score]) -> Tensor:
    """[B, T] what each turn earned, on its last token; nothing where a row was cut short before that token."""
    ends = last_tokens(packed.mask, packed.turn)
    placed = torch.zeros(packed.mask.shape, dtype=torch.float32, device=packed.mask.device)
    rows, columns = ends.cpu().nonzero(as_tuple=True)
    numbers = packed.turn[ends].tolist()  # of the turns of all rows, row by row
    reached = packed.mask.cumsum(1)[ends].tolist()  # the policy's tokens of the row up to and with the turn's last
    values: list[float] = []
    for rollout, score, count in zip(rollouts, scores, ends.sum(1).tolist(), strict=True):
        row = slice(len(values), len(values) + count)
        sizes = [after - before for before, after in itertools.pairwise([0, *reached[row]])]
        values.extend(_of_packed_turns(rollout, score, numbers[row], sizes))
    placed[rows.to(placed.device), columns.to(placed.device)] = torch.tensor(values, dtype=torch.float32).to(placed)
    return placed


def _of_packed_turns(rollout: Rollout, score: Score, numbers: Sequence[int], sizes: Sequence[int]) -> list[float]:
    """What the turns of a row earned; 0 for one whose end is not in the row, for that is what earned it.

    :param numbers: of the turns the policy packed, all that were played or fewer
    :param sizes: tokens it packed of each
    """
    said = {
        place if turn.step is None else turn.step: len(turn.action.tokens)
        for place, turn in enumerate(rollout.turns)
        if turn.action.tokens
    }
    if len(numbers) > len(said):  # turns of the policy's own making
        return [0.0] * (len(numbers) - 1) + [score.value]
    earned = _of_turns_with_tokens(rollout, score)
    if earned is None:  # scored as a whole
        earned = [0.0] * (len(said) - 1) + [score.value] if said else []
    worth = dict(zip(said, earned, strict=True))
    if len(numbers) == len(said):
        numbers = list(said)  # whatever the policy calls them
    return [worth[n] if n in worth and size >= said[n] else 0.0 for n, size in zip(numbers, sizes, strict=True)]


def _of_turns_with_tokens(rollout: Rollout, score: Score) -> list[float] | None:
    """Values of the turns that have tokens; what a turn without any was worth goes to the last one before it that has.

    None where the score is not by turn, or pays before the first token.
    """
    if score.turns is None or len(score.turns) != len(rollout.turns):
        return None
    values: list[float] = []
    for turn, value in zip(rollout.turns, score.turns, strict=True):
        if turn.action.tokens:
            values.append(value)
        elif value and not values:
            return None
        elif value:
            values[-1] += value
    return values


def _against(scores: Sequence[Score], width: int, device: torch.device) -> Tensor | None:
    if all(score.against is None for score in scores):
        return None
    rows = [list(score.against or ()) for score in scores]
    padded = [row + [math.nan] * (width - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.float32, device=device)
