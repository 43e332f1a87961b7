"""Options of the dispatcher: the city, its demand, the policy, the estimators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.api import NoOptions, PluginConfig, Reduction


class YardstickConfig(NoOptions):
    """The untrained dispatchers have no options."""


class DemandConfig(PluginConfig):
    """Where requests come from."""

    source: Literal["synthetic", "tlc"] = Field(
        "synthetic", description="drawn from a model, or read from trip records"
    )
    per_vehicle: float = Field(3.9, gt=0, description="synthetic: requests per vehicle in 30 minutes")
    arrivals: Literal["poisson", "uniform"] = Field(
        "poisson", description="synthetic: Poisson counts by minute, or a fixed total spread evenly at random"
    )
    days: Literal["one", "fresh"] = Field(
        "one", description="synthetic: every task resamples one day, or draws a day of its own"
    )
    path: Path | None = Field(None, description="tlc: a yellow-taxi Parquet file as the TLC publishes it")
    year: int = Field(2024, ge=2009, description="tlc: of the pick-up")
    month: int = Field(7, ge=1, le=12, description="tlc: of the pick-up")
    day: int = Field(17, ge=1, le=31, description="tlc: of the pick-up")
    hour: int = Field(19, ge=0, le=23, description="tlc: the first minute replayed is hour:minute")
    minute: int = Field(0, ge=0, le=59, description="tlc: the first minute replayed is hour:minute")
    share: float = Field(0.95, gt=0, le=1, description="share of the day's requests that each task samples")
    seed: int = Field(0, ge=0, description="of the synthetic day and of the tasks")

    @model_validator(mode="after")
    def _has_a_file(self) -> DemandConfig:
        if self.source == "tlc" and self.path is None:
            raise ValueError("demand.source is tlc but demand.path names no Parquet file")
        return self


class RewardConfig(PluginConfig):
    """Coefficients of a pair's reward; times in hours, distances in km."""

    served: float = Field(3.0, description="for taking a request; paper's code: b0")
    km: float = Field(1.0, description="times the direct distance; paper's code: b1")
    pickup: float = Field(3.0, description="times the hours to the pick-up, subtracted; paper's code: b2")
    late: float = Field(1.0, description="times the passengers made late, subtracted; paper's code: b3")
    added: float = Field(3.0, description="times the hours added to all trips on board, subtracted; paper's code: b4")
    overtime: float = Field(5.0, description="times the added hours beyond the late limit, subtracted; code: b5")


class DispatchConfig(PluginConfig):
    """Shared rides in a city, minute by minute; every free vehicle is an agent."""

    city: Literal["manhattan", "grid"] = Field(
        "manhattan", description="69 taxi zones, or 4 x 16 cells of a 3.6 x 20 km rectangle"
    )
    zones_file: str | None = Field(
        None, description="CSV with the columns zone, lat, lon, in place of the built-in zones of the city manhattan"
    )
    speed: float | None = Field(None, gt=0, description="km/h; null: 32 in manhattan, 24 in the grid")
    vehicles: int = Field(1000, ge=1, le=9999, description="size of the fleet; paper's code: 1000")
    seats: int = Field(3, ge=1, le=4, description="per vehicle; paper: 3")
    minutes: int = Field(30, ge=1, le=240, description="length of an episode; paper's code: T, 30")
    max_wait: int = Field(5, ge=1, description="minutes a request stays open; paper's code: 5")
    late_limit: float = Field(40.0, gt=0, description="minutes from request to arrival above which a trip is late; L")
    gamma: float = Field(0.99, gt=0, le=1, description="discount per minute of the metric discounted_reward")
    demand: DemandConfig = Field(DemandConfig(), description="where requests come from")
    reward: RewardConfig = Field(RewardConfig(), description="coefficients of a pair's reward")
    relative: bool = Field(
        False, description="adds minutes to the pick-up and direct km to a pair's inputs; not in the paper"
    )
    earned: Literal["raw", "standardised"] = Field(
        "raw",
        description="what a vehicle's accumulated-reward input adds up; standardised as in the released OSPO code",
    )
    truncate_legs: bool = Field(False, description="whole minutes per leg, as in the released code")
    released_longitude: bool = Field(
        False,
        description="repeats a defect of the released code in the longitude of trips on board; for comparison only",
    )
    max_requests: int = Field(1024, ge=1, description="requests offered at a time, oldest first")


class PairScorerConfig(PluginConfig):
    """Scores every vehicle with every request, then matches the fleet."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (128, 128), min_length=1, description="widths of the hidden layers; paper's code: 128, 128"
    )
    epsilon: float = Field(
        1.0, ge=0, le=1, description="exploration: chance that a pair's score is replaced by a very large one"
    )
    epsilon_decay: float = Field(0.99, gt=0, le=1, description="factor per training episode, before its first use")
    epsilon_floor: float = Field(5e-4, ge=0, le=1, description="least exploration, where there is any")
    seed: int | None = Field(None, ge=0, description="of the initial weights; null: the trial's")


class OneStepGroupConfig(PluginConfig):
    """This step's reward against those matched in the same step."""

    fairness_weight: float = Field(
        1.0, ge=0, description="of the change in the spread of the vehicles' incomes; 1 in the released code; 0: off"
    )
    fleet: int | None = Field(
        None, ge=1, description="vehicles over which the spread is taken; null: those of the group"
    )


class FleetReturnConfig(OneStepGroupConfig):
    """Discounted reward to go against those matched in the same step."""

    form: Literal["group", "released"] = Field(
        "group",
        description="rewards to go standardised within a step, or one-step rewards standardised over the episode and "
        "then discounted, as in the released code",
    )
    gamma: float = Field(0.99, gt=0, le=1, description="discount per minute")
    released_sign: bool = Field(
        False, description="subtracts the spread term, as the released code does, which rewards a growing spread"
    )


class FleetGaeConfig(PluginConfig):
    """Generalised advantages over decisions that are several steps apart."""

    gamma: float = Field(0.99, gt=0, le=1, description="discount per minute")
    lam: float = Field(0.95, ge=0, le=1, description="factor per decision beside the discount; paper: lambda")
    whiten: bool = Field(True, description="standardise over the batch")


class PairClippedConfig(PluginConfig):
    """Clipped surrogate with entropy and a KL over all requests."""

    clip_low: float = Field(0.2, ge=0, lt=1, description="the ratio's lower bound is 1 minus this; paper's code: e")
    clip_high: float = Field(0.28, ge=0, description="the ratio's upper bound is 1 plus this; paper's code: 1.4 e")
    entropy_weight: float = Field(0.05, ge=0, description="of the mean entropy over requests; paper's code: alpha")
    kl_weight: float = Field(
        0.0, ge=0, description="of the KL to the reference policy; paper's code: beta, 0.5 once evaluation stalls"
    )
    kl_direction: Literal["current_reference", "reference_current", "both"] = Field(
        "current_reference", description="order of the KL's arguments; both: their average"
    )
    reduction: Reduction = Field(Reduction.TOKEN_MEAN, description="of all terms; a token is one vehicle's decision")
