"""The optimiser of an experiment file and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

    from orchestrator.contract.settings import Optimizer


def make_optimizer(parameters: Iterable[tuple[str, nn.Parameter]], settings: Optimizer) -> torch.optim.Optimizer:
    """Build the optimiser; parameters with ``critic`` in their name get ``critic_lr``, vectors no weight decay.

    Each parameter group keeps its peak rate under ``peak``.

    :raises ValueError: a parameter is of 16 bits, in which most steps are lost in rounding
    """
    parameters = list(parameters)
    coarse = [f"{name} ({p.dtype})" for name, p in parameters if p.dtype in (torch.bfloat16, torch.float16)]
    if coarse:
        raise ValueError(
            f"{len(coarse)} trained parameters are of 16 bits, among them {coarse[0]}: steps below about 1/500 of a weight "
            "are lost in rounding, so it would hardly train. Keep trained parameters in float32 and compute under torch.autocast"
        )
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        lr = settings.critic_lr if settings.critic_lr is not None and "critic" in name else settings.lr
        decay = settings.weight_decay if parameter.dim() > 1 else 0.0
        grouped.setdefault((lr, decay), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": p, "lr": lr, "peak": lr, "weight_decay": decay} for (lr, decay), p in grouped.items()
    ]
    if settings.use == "adamw":
        fused = all(parameter.is_floating_point() for own in grouped.values() for parameter in own)
        return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps, fused=fused)
    if settings.use == "rmsprop":
        return torch.optim.RMSprop(groups, eps=settings.eps)
    return torch.optim.SGD(groups)


def learning_rate_factor(settings: Optimizer, updates: int, progress: float) -> float:
    """Factor of the peak rate: up a line during the warm-up, then what ``decay`` says over the rest of the schedule.

    :param updates: optimiser steps already taken
    :param progress: share of the schedule's steps already taken, in [0, 1]
    """
    if updates < settings.warmup:
        return (updates + 1) / settings.warmup
    if settings.warmup and 0 < progress < 1:
        # The share of what the warm-up left, were the rest to go on at the same pace of updates.
        progress *= (updates - settings.warmup) / (updates - progress * settings.warmup)
    if settings.decay == "linear":
        return 1.0 - progress
    if settings.decay == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Scale every group's peak rate; returns the first group's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return optimizer.param_groups[0]["lr"]
