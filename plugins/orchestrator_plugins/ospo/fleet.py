"""The fleet as arrays: what taking a request would cost, taking it, and a minute of driving.

``V`` vehicles with ``C`` seats; ``K`` pairs of a vehicle and a request. Times in minutes. Passengers fill a vehicle's
slots from the left, those who have been on board longest first.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from .city import Router
from .config import RewardConfig

TINY = 1e-9  # minutes; what rounding leaves of a leg that is done


@dataclass(frozen=True, slots=True, kw_only=True)
class Insertion:
    """What it would mean for vehicles to take requests. Slots past the new passenger's hold 0."""

    pickup: np.ndarray  # [K] minutes to the pick-up
    arrival: np.ndarray  # [K, C] minutes from the pick-up to each drop-off, along the best tour
    promised: np.ndarray  # [K, C] minutes from request to arrival
    detour: np.ndarray  # [K, C] so far, against what was promised first
    added: np.ndarray  # [K] minutes added to all trips on board, the whole new one included
    late: np.ndarray  # [K] passengers whose trip is longer than the limit


def tour(start: np.ndarray, stops: np.ndarray, router: Router, *, truncate: bool = False) -> np.ndarray:
    """Arrival times along the shortest open tour from ``start`` through all stops.

    :param start: [K, 2]
    :param stops: [K, S, 2], S at most 4
    :param truncate: count whole minutes of each leg
    :returns: [K, S] in the order of the stops; of equally short tours the lexicographically first is driven
    """
    count = stops.shape[1]
    first = router.minutes(start[:, None], stops)
    if truncate:
        first = np.floor(first)
    if count == 1:
        return first
    between = router.minutes(stops[:, :, None], stops[:, None])
    if truncate:
        between = np.floor(between)
    orders = np.array(list(itertools.permutations(range(count))))  # [P, S]
    arrivals = np.empty((len(stops), len(orders), count))
    arrivals[:, :, 0] = first[:, orders[:, 0]]
    for place in range(1, count):
        arrivals[:, :, place] = arrivals[:, :, place - 1] + between[:, orders[:, place - 1], orders[:, place]]
    best = np.round(arrivals[:, :, -1], 9).argmin(1)  # rounded: equal tours must tie
    found = np.empty((len(stops), count))
    np.put_along_axis(found, orders[best], np.take_along_axis(arrivals, best[:, None, None], 1)[:, 0], 1)
    return found


def pair_reward(
    km: np.ndarray,
    pickup: np.ndarray,
    late: np.ndarray,
    added: np.ndarray,
    *,
    weights: RewardConfig,
    late_limit: float,
) -> np.ndarray:
    """Reward of a vehicle for taking a request.

    :param km: direct distance of the new trip
    :param pickup: minutes to the pick-up
    :param late: passengers made late
    :param added: minutes added to all trips on board
    Source: released code of arXiv:2507.15351; an addition of exactly ``late_limit`` costs nothing extra.
    """
    overtime = np.maximum(0.0, added - late_limit)
    return (
        weights.served
        + weights.km * km
        - weights.pickup * pickup / 60
        - weights.late * late
        - weights.added * added / 60
        - weights.overtime * overtime / 60
    )


class Fleet:
    """Vehicles with up to ``seats`` passengers each."""

    def __init__(
        self, position: np.ndarray, seats: int, router: Router, *, late_limit: float = 40.0, truncate_legs: bool = False
    ):
        """Place empty vehicles.

        :param position: [V, 2]
        """
        count = len(position)
        self.router, self.seats, self.late_limit, self.truncate_legs = router, seats, late_limit, truncate_legs
        self.position = np.array(position, dtype=np.float64)
        self.pickup_left = np.zeros(count)
        self.earned = np.zeros(count)
        self.count = np.zeros(count, dtype=np.int64)  # passengers on board or promised
        self.goal = np.zeros((count, seats, 2))
        self.remaining = np.zeros((count, seats))
        self.promised = np.zeros((count, seats))
        self.detour = np.zeros((count, seats))

    @property
    def busy(self) -> np.ndarray:
        """[V] bool: driving to a pick-up, or full."""
        return (self.pickup_left > 0) | (self.count == self.seats)

    def pickup_minutes(self, vehicles: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Minutes from each vehicle to its place. ``vehicles`` indexes as numpy does and broadcasts with ``origin``."""
        minutes = self.router.minutes(self.position[vehicles], origin)
        return np.floor(minutes) if self.truncate_legs else minutes

    def insertion(self, vehicles: np.ndarray, origin: np.ndarray, destination: np.ndarray) -> Insertion:
        """Work out the new schedule of each vehicle if it took the request beside it; changes nothing.

        :param vehicles: [K] int, each with a free seat; a vehicle may stand in several pairs
        :param origin: [K, 2]
        :param destination: [K, 2]
        """
        pairs, seats = len(vehicles), self.seats
        pickup = self.pickup_minutes(vehicles, origin)
        arrival, promised, detour = (np.zeros((pairs, seats)) for _ in range(3))
        direct = self.router.minutes(origin, destination)
        if self.truncate_legs:
            direct = np.floor(direct)
        aboard = self.count[vehicles]
        added = -self.promised[vehicles].sum(1)
        for count in range(seats):
            rows = np.flatnonzero(aboard == count)
            if not len(rows):
                continue
            who = vehicles[rows]
            stops = np.concatenate([self.goal[who, :count], destination[rows, None]], axis=1)
            reached = tour(origin[rows], stops, self.router, truncate=self.truncate_legs)
            arrival[rows, : count + 1] = reached
            old = self.promised[who, :count]
            longer = reached[:, :count] + pickup[rows, None] + (old - self.remaining[who, :count])
            promised[rows, :count] = longer
            promised[rows, count] = reached[:, count] + pickup[rows]
            detour[rows, :count] = self.detour[who, :count] + longer - old
            detour[rows, count] = reached[:, count] - direct[rows]
        return Insertion(
            pickup=pickup,
            arrival=arrival,
            promised=promised,
            detour=detour,
            added=added + promised.sum(1),
            late=(promised > self.late_limit).sum(1),
        )

    def take(self, vehicles: np.ndarray, origin: np.ndarray, destination: np.ndarray, plan: Insertion) -> None:
        """Let each vehicle, named once, take its request: it counts as being at the pick-up in ``pickup`` minutes."""
        slot = self.count[vehicles]
        self.position[vehicles] = origin
        self.pickup_left[vehicles] = plan.pickup
        self.goal[vehicles, slot] = destination
        self.remaining[vehicles] = plan.arrival
        self.promised[vehicles] = plan.promised
        self.detour[vehicles] = plan.detour
        self.count[vehicles] += 1

    def advance(self, minutes: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Drive: first to the pick-up, with what is left of the time along the tour.

        :returns: promised minutes and detours of the passengers who arrived, [delivered] each
        """
        used = np.minimum(self.pickup_left, minutes)
        self.pickup_left -= used
        self.pickup_left[self.pickup_left < TINY] = 0.0
        rows = np.flatnonzero((self.pickup_left == 0) & (self.count > 0))
        moved = minutes - used[rows]
        aboard = np.arange(self.seats) < self.count[rows, None]
        self._follow(rows, aboard, moved)
        left = self.remaining[rows] - moved[:, None]
        arrived = aboard & (left <= TINY)
        self.remaining[rows] = np.where(aboard, np.maximum(left, 0.0), 0.0)
        delivered = self.promised[rows][arrived], self.detour[rows][arrived]
        changed = arrived.any(1)
        self._unload(rows[changed], (aboard & ~arrived)[changed])
        return delivered

    def _follow(self, rows: np.ndarray, aboard: np.ndarray, moved: np.ndarray) -> None:
        """Move vehicles along their tours: drop-offs lie in the order of their remaining minutes, legs are straight."""
        times = np.where(aboard, self.remaining[rows], np.inf)
        order = np.argsort(times, axis=1, kind="stable")
        place, clock = self.position[rows], np.zeros(len(rows))
        going = np.ones(len(rows), dtype=bool)
        index = np.arange(len(rows))
        for nth in range(self.seats):
            stop = order[:, nth]
            due, goal = times[index, stop], self.goal[rows, stop]
            there = going & (due <= moved + TINY)
            part = going & ~there & np.isfinite(due)
            share = np.zeros(len(rows))
            share[part] = (moved[part] - clock[part]) / (due[part] - clock[part])
            place = np.where(there[:, None], goal, place + share[:, None] * (goal - place))
            clock = np.where(there, due, clock)
            going = there
        self.position[rows] = place

    def _unload(self, rows: np.ndarray, kept: np.ndarray) -> None:
        """Free the seats of those who arrived; the others move up in their order."""
        order = np.argsort(~kept, axis=1, kind="stable")
        self.count[rows] = kept.sum(1)
        filled = np.arange(self.seats) < self.count[rows, None]
        for name in ("remaining", "promised", "detour"):
            array = getattr(self, name)
            array[rows] = np.where(filled, np.take_along_axis(array[rows], order, 1), 0.0)
        moved_up = np.take_along_axis(self.goal[rows], order[:, :, None], 1)
        self.goal[rows] = np.where(filled[:, :, None], moved_up, 0.0)
