"""The environment ``dispatch``: a platform gives ride requests to a fleet whose vehicles share their seats.

Every free vehicle is an agent that is asked each minute; a busy one waits. An action is the index of an offered request,
or the last index, or no token at all: to stay idle. A step is a minute, always: where no vehicle can do anything, the
first one is asked with staying idle as its only legal action.

Kept from the released code of arXiv:2507.15351: the order of events within a minute, features and their scaling,
rewards. Changed: routing is built in, times are not truncated, accumulated rewards are raw; each has a switch or an
interface. Left out: the variant that merges two minutes into one step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from orchestrator.api import Action, ConfigError, Features, Feedback, Problem, Speaks, Split, Task

from .city import City, grid, manhattan
from .config import DispatchConfig
from .demand import Requests, read_trips, synthetic
from .fleet import Fleet, pair_reward
from .observation import RELATIVE, REQUEST, SLOT, VEHICLE, Snapshot, VehicleView, request_features, vehicle_features


class Dispatch:
    """Episodes of one city with one fleet.

    ``features`` and ``actions`` are the sizes of a written-out observation and of the action space;
    ``vehicle_features`` and ``pair_features`` those of its parts.
    """

    speaks = Speaks.FEATURES

    def __init__(self, config: DispatchConfig):
        """Build the city and read or draw its day.

        :raises ConfigError: a file that cannot be read as zones or trips
        """
        self.config = config
        try:
            self.city = _city(config)
            self.day = self._day()
        except (OSError, ValueError) as error:
            raise ConfigError([Problem("environment", str(error))]) from error
        self.vehicle_features = VEHICLE + SLOT * config.seats
        self.pair_features = REQUEST + (RELATIVE if config.relative else 0)
        self.features = self.vehicle_features + config.max_requests * self.pair_features
        self.actions = config.max_requests + 1
        self.agents = tuple(f"v{index:04d}" for index in range(config.vehicles))

    def tasks(self, split: Split) -> Iterator[Task]:
        """Endless. A task fixes its requests and where the vehicles start, so that methods meet the same worlds."""
        stream = list(Split).index(split)
        for index in itertools.count():
            yield Task(id=f"dispatch/{split}/{index}", metadata={"world": [self.config.demand.seed, stream, index]})

    def start(self, task: Task, seed: int) -> DispatchEpisode:
        """Play a task. Nothing in the world is left to chance beyond the task; ``seed`` is the policy's alone."""
        generator = np.random.default_rng(task.metadata["world"])
        config = self.config
        if config.demand.source == "synthetic" and config.demand.days == "fresh":
            requests = synthetic(self.city, config.vehicles, config.minutes, config.demand, generator)
        else:
            requests = self.day.sample(config.demand.share, generator)
        return DispatchEpisode(self, requests, generator.integers(len(self.city.ids), size=config.vehicles))

    def _day(self) -> Requests:
        config = self.config
        if config.demand.source == "tlc":
            return read_trips(self.city, config.minutes, config.demand)
        return synthetic(
            self.city, config.vehicles, config.minutes, config.demand, np.random.default_rng(config.demand.seed)
        )


class DispatchEpisode:
    """One stretch of a day. The feedback of its last minute carries what became of it, see ``_metrics``."""

    def __init__(self, environment: Dispatch, requests: Requests, zones: np.ndarray):
        """Set the world up.

        :param zones: [V] int, where the vehicles start
        """
        self.environment, self.config, self.city = environment, environment.config, environment.city
        self.clock = 0
        self._requests = requests
        self.fleet = Fleet(
            self.city.centres[zones],
            self.config.seats,
            self.city.router,
            late_limit=self.config.late_limit,
            truncate_legs=self.config.truncate_legs,
        )
        centres = self.city.centres
        self._origin, self._destination = centres[requests.origin], centres[requests.destination]
        self._km = self.city.router.km(self._origin, self._destination)
        self._features = request_features(self.city, self._origin, self._destination, requests.minute)
        if self.config.relative:
            self._features = np.concatenate([self._features, self._km[:, None].astype(np.float32) / 10], axis=1)
        self._taken = np.zeros(len(requests), dtype=bool)
        self._open = self._appeared()
        self._asked: dict[str, int] = {}
        self._tally = {"reward": 0.0, "discounted": 0.0, "pickup": 0.0, "confirm": 0.0}
        self._delivered: list[np.ndarray] = []
        self._detours: list[np.ndarray] = []
        self._decided = False

    def open(self) -> Mapping[str, Features]:
        return self._views()

    def step(self, actions: Mapping[str, Action]) -> Mapping[str, Feedback]:
        """Play one minute.

        :raises ValueError: an action that names no offered request

        A request that several vehicles name goes to the first of them in the fleet's order; the others stay idle.
        """
        vehicles, slots = self._pairs(actions)
        rewards = self._carry_out(vehicles, slots)
        promised, detours = self.fleet.advance()
        self._delivered.append(promised)
        self._detours.append(detours)
        self.clock += 1
        self._open = self._appeared()
        paid = dict(zip(vehicles.tolist(), rewards.tolist(), strict=True))
        asked = self._asked
        done = self.clock >= self.config.minutes
        views = {} if done else self._views()
        feedback = {
            agent: Feedback(observation=views.get(agent), reward=paid.get(row, 0.0), done=done)
            for agent, row in asked.items()
        }
        for agent, view in views.items():
            if agent not in feedback:
                feedback[agent] = Feedback(observation=view, reward=0.0, done=False)
        if done:
            agent, row = next(iter(asked.items()))
            feedback[agent] = Feedback(observation=None, reward=paid.get(row, 0.0), done=True, metrics=self._metrics())
        return feedback

    def close(self) -> None:
        """Nothing to free."""

    def pickup_minutes(self, rows: np.ndarray) -> np.ndarray:
        """Minutes from vehicles to the offered requests. [n, M]"""
        return self.fleet.pickup_minutes(np.asarray(rows)[:, None], self._origin[self._open][None])

    def pair_rewards(self, rows: np.ndarray) -> np.ndarray:
        """Reward of every pair of a free vehicle and an offered request. [n, M]"""
        rows, count = np.asarray(rows), len(self._open)
        vehicles, slots = np.repeat(rows, count), np.tile(np.arange(count), len(rows))
        return self._plan(vehicles, self._open[slots])[1].reshape(len(rows), count)

    def _appeared(self) -> np.ndarray:
        """Indices of the open requests: appeared, not taken, not given up; oldest first."""
        minute = self._requests.minute
        waiting = (minute <= self.clock) & (minute > self.clock - self.config.max_wait) & ~self._taken
        return np.flatnonzero(waiting)[: self.config.max_requests]

    def _views(self) -> dict[str, Features]:
        """Ask every free vehicle, or the first one where nobody has anything to decide."""
        busy = self.fleet.busy
        rows = np.flatnonzero(~busy).tolist() if len(self._open) else []
        snapshot = Snapshot(
            episode=self,
            clock=self.clock,
            opening=bool(rows) and not self._decided,
            vehicles=vehicle_features(
                self.fleet,
                self.city,
                self.clock,
                self.fleet.earned,
                released_longitude=self.config.released_longitude,
            ),
            requests=self._features[self._open],
            busy=busy,
            minutes=(self.pickup_minutes(np.arange(len(busy))) / 60).astype(np.float32)
            if self.config.relative
            else None,
            max_requests=self.config.max_requests,
        )
        self._decided |= bool(rows)
        agents = self.environment.agents
        self._asked = {agents[row]: row for row in rows or [0]}
        return {agent: VehicleView(snapshot, row) for agent, row in self._asked.items()}

    def _pairs(self, actions: Mapping[str, Action]) -> tuple[np.ndarray, np.ndarray]:
        """Vehicles and the places of their requests among the open ones, conflicts resolved, busy vehicles left out."""
        busy, idle = self.fleet.busy, self.config.max_requests
        vehicles, slots, seen = [], [], set()
        for agent, row in self._asked.items():
            tokens = actions[agent].tokens
            if not tokens or tokens[0] == idle:
                continue
            (slot,) = tokens
            if not 0 <= slot < len(self._open):
                raise ValueError(
                    f"agent {agent} chose request {slot} in minute {self.clock}; there are {len(self._open)}, "
                    f"and {idle} is to stay idle"
                )
            if slot not in seen and not busy[row]:
                seen.add(slot)
                vehicles.append(row)
                slots.append(slot)
        return np.array(vehicles, dtype=np.int64), np.array(slots, dtype=np.int64)

    def _plan(self, vehicles: np.ndarray, requests: np.ndarray) -> tuple[Any, np.ndarray]:
        plan = self.fleet.insertion(vehicles, self._origin[requests], self._destination[requests])
        rewards = pair_reward(
            self._km[requests],
            plan.pickup,
            plan.late,
            plan.added,
            weights=self.config.reward,
            late_limit=self.config.late_limit,
        )
        return plan, rewards

    def _carry_out(self, vehicles: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """Take the requests; returns the rewards, [pairs]."""
        requests = self._open[slots]
        plan, rewards = self._plan(vehicles, requests)
        self.fleet.take(vehicles, self._origin[requests], self._destination[requests], plan)
        self._taken[requests] = True
        self.fleet.earned[vehicles] += _standardised(rewards) if self.config.earned == "standardised" else rewards
        self._tally["reward"] += float(rewards.sum())
        self._tally["discounted"] += float(rewards.sum()) * self.config.gamma**self.clock
        self._tally["pickup"] += float(plan.pickup.sum())
        self._tally["confirm"] += float((self.clock - self._requests.minute[requests]).sum())
        return rewards

    def _metrics(self) -> dict[str, float]:
        """The episode's results: sums over the fleet, rates, and means in minutes.

        ``delivery_minutes`` and ``detour_minutes`` know only passengers who arrived before the end.
        """
        served = int(self._taken.sum())
        delivered, detours = np.concatenate(self._delivered), np.concatenate(self._detours)
        return {
            "requests": float(len(self._taken)),
            "served": float(served),
            "service_rate": served / max(len(self._taken), 1),
            "fleet_reward": self._tally["reward"],
            "discounted_reward": self._tally["discounted"],
            "pickup_minutes": self._tally["pickup"] / max(served, 1),
            "confirm_minutes": self._tally["confirm"] / max(served, 1),
            "delivered": float(len(delivered)),
            "delivery_minutes": float(delivered.mean()) if len(delivered) else 0.0,
            "detour_minutes": float(detours.mean()) if len(detours) else 0.0,
        }


def _city(config: DispatchConfig) -> City:
    if config.city == "grid":
        return grid(config.speed)
    return manhattan(config.speed, config.zones_file)


def _standardised(rewards: np.ndarray) -> np.ndarray:
    if not len(rewards):
        return rewards
    return (rewards - rewards.mean()) / (rewards.std() + 1e-8)
