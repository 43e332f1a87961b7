"""What a vehicle sees: its own row of a table that the whole fleet shares for one minute.

A vehicle's observation is an ordinary ``Features``: its own 23 numbers followed by those of every request, padded to the
environment's ``max_requests``. Written out for a thousand vehicles and thirty minutes that would be hundreds of
megabytes, so ``VehicleView`` keeps a row number and a reference to the shared ``Snapshot`` and writes it out only when
asked; policies that know dispatch read the snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from orchestrator.api import Features

from .city import City

if TYPE_CHECKING:
    from .fleet import Fleet

VEHICLE = 8  # position (2), free seats, minutes to the pick-up, busy, clock, earned, the fleet's mean of it
SLOT = 5  # drop-off (2), remaining minutes, promised minutes, detour
REQUEST = 5  # pick-up (2), drop-off (2), minute of appearance
RELATIVE = 2  # minutes to the pick-up, direct km


def vehicle_features(
    fleet: Fleet, city: City, clock: float, earned: np.ndarray, *, released_longitude: bool = False
) -> np.ndarray:
    """Scaled features of all vehicles with their slots. [V, 8 + 5 C] float32

    Coordinates are mapped to [0, 1], seats divided by the seats there are, times by 60, rewards by 10; empty slots are 0.

    :param earned: [V] accumulated rewards
    :param released_longitude: shift the longitude of drop-offs by the width of the box in place of its edge, as the
        released code does
    """
    count, seats = len(fleet.count), fleet.seats
    features = np.zeros((count, VEHICLE + SLOT * seats), dtype=np.float32)
    features[:, 0:2] = city.scaled(fleet.position)
    features[:, 2] = (seats - fleet.count) / seats
    features[:, 3] = fleet.pickup_left / 60
    features[:, 4] = fleet.busy
    features[:, 5] = clock / 60
    features[:, 6] = earned / 10
    features[:, 7] = earned.mean() / 10
    slots = np.zeros((count, seats, SLOT))
    slots[:, :, 0:2] = city.scaled(fleet.goal)
    if released_longitude:
        low, high = city.box[1]
        slots[:, :, 1] = (fleet.goal[:, :, 1] - (high - low)) / (high - low)
    slots[:, :, 2], slots[:, :, 3], slots[:, :, 4] = fleet.remaining / 60, fleet.promised / 60, fleet.detour / 60
    aboard = np.arange(seats) < fleet.count[:, None]
    features[:, VEHICLE:] = np.where(aboard[:, :, None], slots, 0.0).reshape(count, -1)
    return features


def request_features(city: City, origin: np.ndarray, destination: np.ndarray, minute: np.ndarray) -> np.ndarray:
    """Scaled features of requests. [M, 5] float32

    :param origin: [M, 2]
    :param destination: [M, 2]
    """
    return np.concatenate(
        [city.scaled(origin), city.scaled(destination), np.asarray(minute, dtype=np.float64)[:, None] / 60], axis=1
    ).astype(np.float32)


class Minute(Protocol):
    """The world while a minute lasts: what the exact tables of its vehicles and requests are worked out from."""

    @property
    def clock(self) -> int:
        """The minute it is."""

    def pickup_minutes(self, rows: np.ndarray) -> np.ndarray:
        """Minutes from each vehicle to each offered request, [n, M]."""

    def pair_rewards(self, rows: np.ndarray) -> np.ndarray:
        """Exact reward of each pair if it were made now, [n, M]."""


class Snapshot:
    """The fleet and the offered requests at the start of one minute; kept by the observations made of it."""

    def __init__(
        self,
        *,
        episode: Minute,
        clock: int,
        opening: bool,
        vehicles: np.ndarray,
        requests: np.ndarray,
        busy: np.ndarray,
        minutes: np.ndarray | None,
        max_requests: int,
    ):
        """Keep the tables.

        :param opening: the first decision of its episode
        :param vehicles: [V, 23] float32
        :param requests: [M, 5 or 6] float32; the sixth is the direct distance in tens of km
        :param busy: [V] bool
        :param minutes: [V, M] float32 minutes to the pick-up / 60, with relative inputs only
        """
        self.clock, self.opening = clock, opening
        self.vehicles, self.requests, self.busy, self.minutes = vehicles, requests, busy, minutes
        self.max_requests = max_requests
        self._episode = episode

    def pickup_minutes(self, rows: np.ndarray) -> np.ndarray:
        """Minutes from each vehicle to each offered request, [n, M]; only while this minute lasts."""
        return self._world().pickup_minutes(rows)

    def pair_rewards(self, rows: np.ndarray) -> np.ndarray:
        """Exact reward of each pair if it were made now, [n, M]; only while this minute lasts."""
        return self._world().pair_rewards(rows)

    def _world(self) -> Minute:
        if self._episode.clock != self.clock:
            raise RuntimeError(f"the world is at minute {self._episode.clock}, not at {self.clock} any more")
        return self._episode


class VehicleView(Features):
    """One vehicle's observation; ``values`` and ``legal`` are written out when read."""

    __slots__ = ("row", "snapshot")

    row: int
    snapshot: Snapshot

    def __init__(self, snapshot: Snapshot, row: int):
        object.__setattr__(self, "snapshot", snapshot)
        object.__setattr__(self, "row", row)

    @property
    def values(self) -> np.ndarray:
        """[D] float32: the vehicle, then each request (with relative inputs: its direct km and the minutes to it)."""
        shared, count = self.snapshot, len(self.snapshot.requests)
        pairs = self.pairs()
        padded = np.zeros((shared.max_requests, pairs.shape[1]), dtype=np.float32)
        padded[:count] = pairs
        return np.concatenate([shared.vehicles[self.row], padded.reshape(-1)])

    @property
    def legal(self) -> np.ndarray:
        """[A] bool: the offered requests, unless the vehicle is busy, and staying idle, which is the last action."""
        legal = np.zeros(self.snapshot.max_requests + 1, dtype=bool)
        legal[: len(self.snapshot.requests)] = not self.snapshot.busy[self.row]
        legal[-1] = True
        return legal

    def pairs(self) -> np.ndarray:
        """What this vehicle sees of each request. [M, 5], or [M, 7] with relative inputs"""
        shared = self.snapshot
        if shared.minutes is None:
            return shared.requests
        return np.concatenate([shared.requests, shared.minutes[self.row, :, None]], axis=1)

    def __repr__(self) -> str:
        return f"VehicleView(minute={self.snapshot.clock}, vehicle={self.row})"

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self):
        return _written_out, (self.values, self.legal)


def _written_out(values: np.ndarray, legal: np.ndarray) -> Features:
    return Features(values=values, legal=legal)
