"""Options of the objective ``st_ppo``, each with its source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.api import PluginConfig, Reduction


class StPpoConfig(PluginConfig):
    """Clipped surrogate with ratios of tokens or turns, its gradient divided by what clipping removed."""

    ratio: Literal["token", "turn"] = Field(
        "turn",
        description="what one importance ratio belongs to: a token, or a whole turn (the geometric mean of its "
        "tokens' ratios); paper: token-level or turn-level importance sampling",
    )
    correction: Literal["none", "raw", "ratio", "max1", "one_plus"] = Field(
        "raw",
        description="divisor d of the surrogate's gradient, from the norm C of the gradient that clipping removed; "
        "raw: C (as published, needs optimizer.max_grad_norm); ratio: max(1, C / norm of the kept gradient); "
        "max1: max(1, C); one_plus: 1 + C; none: 1. Where nothing is clipped d is 1",
    )
    correction_scale: float = Field(
        1.0, gt=0, description="C is multiplied by this before it enters the divisor; 1 in the paper"
    )
    clip_low: float = Field(
        0.2, ge=0, description="the ratio's lower bound is 1 minus this; paper: epsilon, 0.2 in its base system"
    )
    clip_high: float = Field(
        0.2, ge=0, description="the ratio's upper bound is 1 plus this; paper: epsilon, 0.2 in its base system"
    )
    turn_gradient: Literal["full", "token"] = Field(
        "full",
        description="with ratio: turn, full differentiates the whole geometric mean, so all tokens of a turn are "
        "pushed alike (paper: lemma 4.1); token lets each token's gradient through its own likelihood alone",
    )
    turn_advantage: Literal["per_token", "aggregate"] = Field(
        "per_token",
        description="with ratio: turn, per_token clips by the sign of each token's advantage; aggregate gives all "
        "tokens of a turn the turn's mean advantage first",
    )
    kl_weight: float = Field(
        0.0, ge=0, description="weight of the k3 KL to the reference policy; paper: beta, 0.001 in its base system"
    )
    entropy_weight: float = Field(0.0, ge=0, description="weight of the entropy bonus; PPO: c2; 0 in the base system")
    value_weight: float = Field(
        0.0, ge=0, description="weight of the critic's half squared error; 1 in the base system; 0: no critic"
    )
    value_clip: float | None = Field(
        0.5, gt=0, description="how far the critic may move per update, in units of the return; null: freely"
    )
    reduction: Reduction = Field(
        Reduction.SEQUENCE_MEAN,
        description="of the policy, KL and entropy terms; sequence_mean: 1/|y| inside the mean over rollouts; "
        "token_mean in the base system. The critic's is always token_mean",
    )
    measure_clipped: bool = Field(
        False, description="with correction: none, measure C all the same, at the cost of a second backward pass"
    )
    replay_factors: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        description="control, with correction: none: multiply the surrogate's gradient by these numbers, shuffled, "
        "one per optimiser step and over again; the factors 1/d of another run",
    )

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> StPpoConfig:
        problems = []
        if self.ratio == "token":
            problems += [
                f"{name} {given!r} is about turns and has no effect with ratio: token; leave it out, or set ratio: turn"
                for name, given, default in (
                    ("turn_gradient", self.turn_gradient, "full"),
                    ("turn_advantage", self.turn_advantage, "per_token"),
                )
                if given != default
            ]
        if self.correction == "none" and self.correction_scale != 1:
            problems.append(
                f"correction_scale {self.correction_scale} has no effect with correction: none; leave it out"
            )
        if self.correction != "none" and self.replay_factors:
            problems.append(
                f"replay_factors take the place of the factor that correction: {self.correction} computes; set "
                f"correction: none"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def amplifies(self) -> bool:
        """Whether the surrogate's gradient may be multiplied by more than 1."""
        return self.correction == "raw" or any(factor > 1 for factor in self.replay_factors)
