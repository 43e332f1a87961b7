"""Credit by turn, as pure functions: tokens gathered into turns, advantages over turns, advantages within them.

``B`` sequences, ``T`` tokens, ``K`` most turns of a sequence, ``N`` turns of the batch, ``L`` most tokens of a turn.
Both estimators are the token-level one of the core on another layout: one column per turn, or one row per turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from orchestrator.api import expect_shape, generalised_advantages


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Where the turns of a batch lie."""

    place: Tensor  # [B, T] int64: which of its row's turns a token belongs to, 0 outside ``mask``
    starts: Tensor  # [B, T] bool, True on the first token of each turn
    ends: Tensor  # [B, T] bool, True on the last token of each turn
    count: int  # K


def find_turns(mask: Tensor, turn: Tensor) -> Turns:
    """Number the turns of each row from 0, in their order.

    :param mask: [B, T] bool, tokens the policy chose
    :param turn: [B, T] int64, equal within a turn, different in the next; anything outside ``mask``
    :raises ValueError: when shapes differ
    """
    expect_shape(turn, "B T", like=mask, name="turn")
    width = mask.shape[1]
    position = torch.arange(width, device=mask.device).expand_as(mask)
    chosen = torch.where(mask, position, -1)
    before = torch.cat([torch.full_like(chosen[:, :1], -1), chosen.cummax(1).values[:, :-1]], dim=1)
    starts = mask & ((before < 0) | (turn.gather(1, before.clamp(min=0)) != turn))
    place = torch.where(mask, starts.cumsum(1) - 1, 0)
    last = torch.full((len(mask), width + 1), -1, device=mask.device)
    last = last.scatter_reduce(1, torch.where(mask, place, width), chosen, reduce="amax")[:, :width]
    ends = mask & (position == last.gather(1, place))
    return Turns(place=place, starts=starts, ends=ends, count=int(starts.sum(1).max()) if mask.numel() else 0)


def turn_advantages(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    turn: Tensor,
    *,
    gamma: float,
    lam: float,
    value_at: Literal["first", "last"] = "first",
    bootstrap: Tensor | None = None,
) -> Tensor:
    r"""Generalised advantage estimates with a turn as one step, on every token of the turn.

    .. math:: \delta_k = r_k + \gamma V_{k+1} - V_k, \qquad A_k = \delta_k + \gamma \lambda A_{k+1}

    with :math:`r_k` the sum of the turn's rewards and :math:`V_k` the value before its first (or last) token.

    :param rewards: [B, T], on tokens the policy chose
    :param values: [B, T] of the state before each token
    :param mask: [B, T] bool
    :param turn: [B, T] int64, equal within a turn
    :param gamma: discount per turn, in [0, 1]
    :param lam: trace decay per turn, in [0, 1]
    :param value_at: which token's value stands for its turn
    :param bootstrap: [B, T] bool, True where a row was cut off: its value follows the last turn
    :returns: [B, T], 0 where ``mask`` is False
    :raises ValueError: when shapes differ
    Source: the upper level of VAGEN's bi-level estimates (arXiv:2510.16907), broadcast to the turn's tokens.
    """
    expect_shape(values, "B T", like=rewards, name="values")
    expect_shape(mask, "B T", like=rewards, name="mask")
    turns = find_turns(mask, turn)
    marked = turns.starts if value_at == "first" else turns.ends
    paid = _by_turn(rewards, mask, turns)
    standing = _by_turn(values, marked, turns)
    is_turn = _by_turn(torch.ones_like(rewards), marked, turns) > 0
    cut = None
    if bootstrap is not None:
        cut_rows = expect_shape(bootstrap, "B T", like=rewards, name="bootstrap").any(1)
        after = is_turn.sum(1, keepdim=True)  # the column behind a row's last turn
        widened = [torch.cat([column, torch.zeros_like(column[:, :1])], dim=1) for column in (paid, standing, is_turn)]
        paid, standing, is_turn = widened
        worth = torch.where(bootstrap, values, 0.0).sum(1, keepdim=True)
        standing = torch.where(cut_rows[:, None], standing.scatter(1, after, worth), standing)
        cut = torch.zeros_like(is_turn).scatter(1, after, cut_rows[:, None])
    advantages = generalised_advantages(paid, standing, is_turn, gamma=gamma, lam=lam, bootstrap=cut)
    return _on_tokens(advantages, mask, turns)


def bilevel_advantages(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    turn: Tensor,
    *,
    gamma_turn: float,
    gamma_token: float,
    lam_turn: float,
    lam_token: float,
    bootstrap: Tensor | None = None,
) -> Tensor:
    r"""Advantages over turns first, then over the tokens of each turn, which aim at the turn's return.

    .. math:: R_k = A_k + V_k, \qquad A_{k,t} = \sum_l (\gamma_{tok} \lambda_{tok})^l \delta_{k,t+l}, \qquad
              \delta_{k,t} = [t = n_k] R_k + \gamma_{tok} V_{k,t+1} - V_{k,t}

    with :math:`A_k` and :math:`V_k` of :func:`turn_advantages` at the last token, and :math:`V_{k,n_k+1} = 0`.

    :param rewards: [B, T], on tokens the policy chose
    :param values: [B, T] of the state before each token
    :param mask: [B, T] bool
    :param turn: [B, T] int64, equal within a turn
    :param gamma_turn: discount per turn, in [0, 1]
    :param gamma_token: discount per token of a turn, in [0, 1]
    :param lam_turn: trace decay per turn, in [0, 1]
    :param lam_token: trace decay per token, in [0, 1]
    :param bootstrap: [B, T] bool, as of :func:`turn_advantages`
    :returns: [B, T], 0 where ``mask`` is False
    :raises ValueError: when shapes differ
    Source: VAGEN (arXiv:2510.16907), bi-level GAE.
    """
    upper = turn_advantages(
        rewards, values, mask, turn, gamma=gamma_turn, lam=lam_turn, value_at="last", bootstrap=bootstrap
    )
    turns = find_turns(mask, turn)
    targets = torch.where(turns.ends, upper + values, 0.0)
    rows, columns = mask.nonzero(as_tuple=True)
    if not len(rows):
        return torch.zeros_like(rewards)
    starts = turns.starts[rows, columns]
    line = starts.cumsum(0) - 1  # [M] the turns of all rows, one below the other
    order = torch.arange(len(rows), device=rows.device)
    place = order - order[starts][line]
    shape = (int(line[-1]) + 1, int(place.max()) + 1)

    def stacked(tensor: Tensor) -> Tensor:
        return tensor.new_zeros(shape).index_put((line, place), tensor[rows, columns])

    lower = generalised_advantages(stacked(targets), stacked(values), stacked(mask), gamma=gamma_token, lam=lam_token)
    return torch.zeros_like(rewards).index_put((rows, columns), lower[line, place])


def turn_values(values: Tensor, mask: Tensor, turn: Tensor, value_at: Literal["first", "last"]) -> Tensor:
    """Give every token the value that stands for its turn.

    :param values: [B, T] of the state before each token
    :param mask: [B, T] bool
    :param turn: [B, T] int64, equal within a turn
    :param value_at: which token's value stands for its turn
    :returns: [B, T], 0 where ``mask`` is False
    """
    turns = find_turns(mask, turn)
    standing = _by_turn(values, turns.starts if value_at == "first" else turns.ends, turns)
    return _on_tokens(standing, mask, turns)


def _by_turn(values: Tensor, marked: Tensor, turns: Turns) -> Tensor:
    """[B, K] sum of the values at the marked tokens of each turn."""
    kept = torch.where(marked, values, torch.zeros_like(values))
    if turns.count == 0:
        return kept[:, :0]
    return kept.new_zeros(len(kept), turns.count).scatter_add(1, turns.place, kept)


def _on_tokens(by_turn: Tensor, mask: Tensor, turns: Turns) -> Tensor:
    """[B, T] each turn's number on its tokens, 0 where ``mask`` is False."""
    if turns.count == 0:
        return by_turn.new_zeros(mask.shape)
    return torch.where(mask, by_turn.gather(1, turns.place), 0.0)
