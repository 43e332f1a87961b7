"""Requests of a day: drawn from a documented model, or read from the TLC's trip records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from .city import City
from .config import DemandConfig

TRIP_COLUMNS = ("tpep_pickup_datetime", "PULocationID", "DOLocationID")
PREFERRED_KM = 2.5  # synthetic trips: the distance destinations are drawn around


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Requests in the order they appear. ``R`` of them."""

    minute: np.ndarray  # [R] int, from the episode's start
    origin: np.ndarray  # [R] int, index of a zone
    destination: np.ndarray  # [R] int, index of a zone

    def __len__(self) -> int:
        return len(self.minute)

    def take(self, rows: np.ndarray) -> Requests:
        """Some of the requests, in the given order."""
        return Requests(minute=self.minute[rows], origin=self.origin[rows], destination=self.destination[rows])

    def sample(self, share: float, generator: np.random.Generator) -> Requests:
        """A share of the requests without replacement, order kept."""
        count = round(share * len(self))
        return self.take(np.sort(generator.choice(len(self), size=count, replace=False)))


def origin_weights(city: City) -> np.ndarray:
    """Chance of each zone to be an origin: a bell around the busy centre along the grid's axes, with a floor. [Z]"""
    axes = city.router.axes(city.centres - np.array(city.busy_centre))
    weights = np.exp(-((axes / np.array(city.spread)) ** 2).sum(-1) / 2) + city.floor
    return weights / weights.sum()


def destination_weights(city: City) -> np.ndarray:
    """Chance of each destination given the origin, [Z, Z] with rows that sum to 1.

    Falls off with the distance from 2.5 km at e-folding 2 km, grows with the destination's own weight to the 0.7;
    no trip stays in its zone.
    """
    km = city.router.km(city.centres[:, None], city.centres[None])
    weights = np.exp(-np.abs(km - PREFERRED_KM) / 2) * origin_weights(city)[None] ** 0.7
    np.fill_diagonal(weights, 0.0)
    return weights / weights.sum(1, keepdims=True)


def synthetic(
    city: City, vehicles: int, minutes: int, config: DemandConfig, generator: np.random.Generator
) -> Requests:
    """Draw a day: ``per_vehicle`` requests per vehicle and 30 minutes on average."""
    rate = vehicles * config.per_vehicle / 30
    if config.arrivals == "poisson":
        minute = np.repeat(np.arange(minutes), generator.poisson(rate, size=minutes))
    else:
        minute = np.sort(generator.integers(minutes, size=round(rate * minutes)))
    origin = generator.choice(len(city.ids), size=len(minute), p=origin_weights(city))
    cumulative = destination_weights(city).cumsum(1)[origin]
    threshold = generator.random(len(minute)) * cumulative[:, -1]
    destination = (cumulative <= threshold[:, None]).sum(1)
    return Requests(minute=minute, origin=origin, destination=destination)


def read_trips(city: City, minutes: int, config: DemandConfig) -> Requests:
    """Read the requests of one stretch of one day from a Parquet file of the TLC.

    Keeps trips that start and end in zones of the city; trips within one zone too. Reads three columns only.

    :raises ValueError: no such file, a missing column (named), or no trip in that stretch
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError("reading trip records needs pyarrow: pip install 'rl-orchestrator[dispatch]'") from None
    path = config.path or Path()
    if not path.is_file():
        raise ValueError(f"demand.path: no file {path}; expected a Parquet file of yellow-taxi trips")
    present = parquet.read_schema(path).names
    missing = [column for column in TRIP_COLUMNS if column not in present]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(missing)}; it has {', '.join(present)}")
    table = parquet.read_table(path, columns=list(TRIP_COLUMNS))
    started = table.column(TRIP_COLUMNS[0]).to_numpy().astype("datetime64[s]")
    origin = _zone_index(city, table.column(TRIP_COLUMNS[1]).to_numpy())
    destination = _zone_index(city, table.column(TRIP_COLUMNS[2]).to_numpy())
    begin = datetime(config.year, config.month, config.day, config.hour, config.minute)
    end = begin + timedelta(minutes=minutes)
    rows = np.flatnonzero(
        (started >= np.datetime64(begin, "s"))
        & (started < np.datetime64(end, "s"))
        & (origin >= 0)
        & (destination >= 0)
    )
    if not len(rows):
        raise ValueError(
            f"{path}: no trip between zones of {city.name} from {begin:%Y-%m-%d %H:%M} to {end:%H:%M}; the file's "
            f"{len(started)} trips start from {_stamp(started, np.min)} to {_stamp(started, np.max)}"
        )
    minute = ((started[rows] - np.datetime64(begin, "s")) // np.timedelta64(60, "s")).astype(np.int64)
    order = np.argsort(minute, kind="stable")
    rows, minute = rows[order], minute[order]
    return Requests(minute=minute, origin=origin[rows], destination=destination[rows])


def _zone_index(city: City, ids: np.ndarray) -> np.ndarray:
    """Index of each zone number, -1 for zones outside the city."""
    ids = np.nan_to_num(ids.astype(np.float64), nan=-1).astype(np.int64)
    order = np.argsort(city.ids)
    place = np.searchsorted(city.ids[order], ids).clip(max=len(order) - 1)
    return np.where(city.ids[order][place] == ids, order[place], -1)


def _stamp(started: np.ndarray, pick: Callable[[np.ndarray], object]) -> str:
    return str(pick(started)) if len(started) else "never"
