"""The objective: clipped PPO with two things that can be changed apart.

Kept from PPO: the surrogate (with ``ratio: token`` it *is* the core's function), critic, entropy bonus, KL. Changed: with
``ratio: turn`` all tokens of a turn share the geometric mean of their ratios; with a ``correction`` the surrogate's
gradient is divided by the norm of the gradient that clipping removed. Left out: nothing; the KL, entropy and critic
terms are not divided. Token-PPO, Turn-PPO, S-PPO and ST-PPO are its four settings.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from orchestrator.api import (
    Batch,
    Column,
    Couples,
    LossTerm,
    Mean,
    Need,
    Regulariser,
    Terms,
    Weights,
    advantages_of,
    kl_estimate,
)

from .config import StPpoConfig
from .correction import divisor
from .surrogate import Surrogate, surrogate, turns_with

LOGPROB = Need(Weights.CURRENT, Column.LOGPROB)
OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)
CLIPPED = "clipped"  # name of the probe whose gradient is C


def make_objective(config: StPpoConfig) -> TurnClipped:
    """The objective, with gradient norms measured only where somebody asked for them."""
    if config.replay_factors:
        return Replayed(config)
    return Corrected(config) if config.correction != "none" or config.measure_clipped else TurnClipped(config)


class TurnClipped:
    """Clipped surrogate with ratios of tokens or turns; KL, entropy bonus and critic where their weights are above 0."""

    couples = Couples.ROWS
    corrections = ("token", "sequence")

    def __init__(self, config: StPpoConfig):
        self.config = config
        self._regulariser = Regulariser(
            objective="st_ppo",
            reduction=config.reduction,
            kl_weight=config.kl_weight,
            entropy_weight=config.entropy_weight,
            value_weight=config.value_weight,
            value_clip=config.value_clip,
            scaled=False,
        )
        self.needs = frozenset({LOGPROB, OLD_LOGPROB}) | self._regulariser.needs
        self.needs_returns = self._regulariser.needs_returns
        self.vanishes_with_advantages = self._regulariser.adds_nothing

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        found = self._surrogate(batch, current)
        policy = LossTerm(name="policy", values=found.loss, reduction=self.config.reduction)
        others, metrics = self._regulariser.terms(batch, current)
        approximate = kl_estimate(
            batch.columns[OLD_LOGPROB], current[Column.LOGPROB].detach(), batch.mask, estimator="k3"
        )
        metrics["train/approx_kl"] = Mean.over(approximate, batch.mask)
        return Terms(loss=(policy, *others), probes=self._probes(found), metrics=_clip_metrics(found, batch) | metrics)

    def _surrogate(self, batch: Batch, current: Mapping[Column, Tensor]) -> Surrogate:
        config = self.config
        return surrogate(
            current[Column.LOGPROB],
            batch.columns[OLD_LOGPROB],
            advantages_of(batch),
            batch.mask,
            batch.turn,
            ratio=config.ratio,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            turn_gradient=config.turn_gradient,
            turn_advantage=config.turn_advantage,
        )

    def _probes(self, found: Surrogate) -> tuple[LossTerm, ...]:
        if self.config.correction == "none" and not self.config.measure_clipped:
            return ()
        removed = found.removed if bool(found.clipped.any()) else found.removed.detach()  # no gradient, no second pass
        return (LossTerm(name=CLIPPED, values=removed, reduction=self.config.reduction),)


class Corrected(TurnClipped):
    """Divides the surrogate's gradient by a function of the norm of the gradient that clipping removed."""

    def __init__(self, config: StPpoConfig):
        super().__init__(config)
        self._measured: list[Measured] = []

    def factor(self, norms: Mapping[str, float]) -> float:
        """One over the divisor, of the whole mini-batch's norms; nan, which skips the step, where they are not finite."""
        clipped, kept = norms.get(CLIPPED, 0.0), norms.get("loss", 0.0)
        found = divisor(self.config.correction, clipped, kept, scale=self.config.correction_scale)
        self._measured.append(Measured(norms.get(CLIPPED), kept, found))
        return 1 / found

    def report(self) -> dict[str, float]:
        """Norms and divisors of the optimiser steps since the last call."""
        measured, self._measured = self._measured, []
        return _step_metrics(measured)


class Replayed(Corrected):
    """Control: the gradient is multiplied by another run's factors in an order of no meaning."""

    def __init__(self, config: StPpoConfig):
        super().__init__(config)
        self._drawn = 0

    def factor(self, norms: Mapping[str, float]) -> float:
        """The next of ``replay_factors``, each of them once before any comes again."""
        factors = self.config.replay_factors
        lap, place = divmod(self._drawn, len(factors))
        factor = factors[random.Random(lap).sample(range(len(factors)), len(factors))[place]]
        self._drawn += 1
        self._measured.append(Measured(norms.get(CLIPPED), norms.get("loss", 0.0), 1 / factor))
        return factor

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._drawn = state["drawn"]


class Measured(NamedTuple):
    """What one optimiser step measured."""

    clipped: float | None  # ‖C‖, None where nobody asked for it
    kept: float  # ‖∇J‖
    divisor: float

    @property
    def is_finite(self) -> bool:
        """Whether the step was not skipped for its norms."""
        return all(math.isfinite(number) for number in self if number is not None)


def _clip_metrics(found: Surrogate, batch: Batch) -> dict[str, Mean]:
    turns, all_turns = turns_with(found.clipped, batch.mask, batch.turn)
    largest = torch.where(batch.mask, found.ratio, 0.0).max() if found.ratio.numel() else 0.0
    return {
        "train/clip_fraction": Mean.over(found.clipped, batch.mask),
        "st_ppo/clip_fraction/turns": Mean(turns, all_turns),
        "st_ppo/ratio/max": Mean(largest, 1),
    }


def _step_metrics(measured: list[Measured]) -> dict[str, float]:
    sound = [one for one in measured if one.is_finite]
    if not sound:
        return {}
    divisors, kept = [one.divisor for one in sound], [one.kept for one in sound]
    metrics = {
        "st_ppo/divisor/mean": fmean(divisors),
        "st_ppo/divisor/above_one": fmean(d > 1 for d in divisors),
        "st_ppo/gradient_norm/median": median(kept),
        "st_ppo/gradient_norm/max": max(kept),
    }
    factors = [1 / d for d in divisors]
    for percent, value in zip((10, 50, 90), np.quantile(factors, (0.1, 0.5, 0.9)), strict=True):
        metrics[f"st_ppo/factor/p{percent}"] = float(value)
    clipped = [one.clipped for one in sound if one.clipped is not None]
    if clipped:
        metrics["st_ppo/clipped_norm/max"] = max(clipped)
    return metrics
