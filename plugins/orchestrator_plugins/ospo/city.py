"""Cities: zones, the box coordinates are scaled with, and a router that says how far and how long.

Coordinates are pairs (north, east): latitude and longitude in degrees, or kilometres in the grid.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

# Bounds of the scaled coordinates; released code of arXiv:2507.15351.
MANHATTAN_BOX = ((40.68878421555262, 40.875967791801536), (-74.04528828347375, -73.91037864632285))


class Router(Protocol):
    """Distances and times between places; arrays broadcast over all but their last dimension of 2."""

    def km(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Direct distance in kilometres."""

    def minutes(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Direct driving time in minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedGrid:
    """A street grid turned by an angle, driven at constant speed: L1 distance along its axes.

    :param scale: kilometres per unit of each coordinate
    :param degrees: how far the grid's long axis is turned clockwise from north
    :param factor: detours, one-way streets
    :param speed: km/h
    """

    scale: tuple[float, float] = (1.0, 1.0)
    degrees: float = 0.0
    factor: float = 1.0
    speed: float = 24.0

    def axes(self, places: np.ndarray) -> np.ndarray:
        """Coordinates along the grid's axes (long, short), in kilometres. [..., 2]"""
        angle = math.radians(self.degrees)
        north, east = places[..., 0] * self.scale[0], places[..., 1] * self.scale[1]
        along = north * math.cos(angle) + east * math.sin(angle)
        across = east * math.cos(angle) - north * math.sin(angle)
        return np.stack([along, across], axis=-1)

    def km(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        return np.abs(self.axes(np.asarray(start) - np.asarray(end))).sum(-1) * self.factor

    def minutes(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        return self.km(start, end) * (60.0 / self.speed)


@dataclass(frozen=True, slots=True, kw_only=True)
class City:
    """Zones with their centres, and how to drive between them."""

    name: str
    ids: np.ndarray  # [Z] int, the zones' numbers in trip records
    centres: np.ndarray  # [Z, 2]
    box: tuple[tuple[float, float], tuple[float, float]]  # (low, high) of each coordinate, for scaling
    router: RotatedGrid
    busy_centre: tuple[float, float]  # where synthetic demand peaks
    spread: tuple[float, float] = (4.0, 2.0)  # km along and across the grid
    floor: float = 0.03  # least weight of an origin

    def scaled(self, places: np.ndarray) -> np.ndarray:
        """Coordinates with the box mapped to [0, 1]."""
        low = np.array([self.box[0][0], self.box[1][0]])
        high = np.array([self.box[0][1], self.box[1][1]])
        return (places - low) / (high - low)


def grid(speed: float | None = None) -> City:
    """4 x 16 cells of a 3.6 x 20 km rectangle."""
    north = (np.arange(16) + 0.5) * 20 / 16
    east = (np.arange(4) + 0.5) * 3.6 / 4
    centres = np.stack(np.meshgrid(north, east, indexing="ij"), axis=-1).reshape(-1, 2)
    return City(
        name="grid",
        ids=np.arange(1, 65),
        centres=centres,
        box=((0.0, 20.0), (0.0, 3.6)),
        router=RotatedGrid(speed=24.0 if speed is None else speed),
        busy_centre=(7.6, 1.8),
    )


def manhattan(speed: float | None = None, zones_file: str | None = None) -> City:
    """The 69 taxi zones of Manhattan; streets turned by 29 degrees, 10 % longer than straight along them, 32 km/h.

    :param zones_file: CSV with the columns zone, lat, lon in place of the built-in centres, which are approximate
    :raises ValueError: the file lacks a column or holds no zone
    """
    zones = MANHATTAN_ZONES if zones_file is None else read_zones(Path(zones_file))
    latitude = math.radians(40.78)
    return City(
        name="manhattan",
        ids=np.array(list(zones)),
        centres=np.array(list(zones.values()), dtype=np.float64),
        box=MANHATTAN_BOX,
        router=RotatedGrid(
            scale=(111.2, 111.32 * math.cos(latitude)), degrees=29.0, factor=1.1, speed=32.0 if speed is None else speed
        ),
        busy_centre=(40.757, -73.978),
    )


def read_zones(path: Path) -> dict[int, tuple[float, float]]:
    """Read zone centres from a CSV file with the columns zone, lat, lon.

    :raises ValueError: naming a missing column, or when there is no row
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in ("zone", "lat", "lon") if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path}: no column {', '.join(missing)}; expected zone, lat, lon, got {reader.fieldnames}"
            )
        zones = {int(row["zone"]): (float(row["lat"]), float(row["lon"])) for row in reader}
    if not zones:
        raise ValueError(f"{path}: no zone in it")
    return zones


# Centres by location number of the TLC's taxi zones, to about 300 m, placed by hand from a map. For exact centroids
# compute them from the TLC's shape file and give them as `zones_file`.
MANHATTAN_ZONES: dict[int, tuple[float, float]] = {
    4: (40.7241, -73.9774),  # Alphabet City
    12: (40.7030, -74.0157),  # Battery Park
    13: (40.7120, -74.0160),  # Battery Park City
    24: (40.8018, -73.9655),  # Bloomingdale
    41: (40.8045, -73.9514),  # Central Harlem
    42: (40.8186, -73.9408),  # Central Harlem North
    43: (40.7825, -73.9655),  # Central Park
    45: (40.7125, -73.9977),  # Chinatown
    48: (40.7622, -73.9897),  # Clinton East
    50: (40.7663, -73.9950),  # Clinton West
    68: (40.7485, -73.9998),  # East Chelsea
    74: (40.8017, -73.9374),  # East Harlem North
    75: (40.7904, -73.9454),  # East Harlem South
    79: (40.7276, -73.9856),  # East Village
    87: (40.7068, -74.0077),  # Financial District North
    88: (40.7033, -74.0113),  # Financial District South
    90: (40.7423, -73.9961),  # Flatiron
    100: (40.7537, -73.9884),  # Garment District
    103: (40.6894, -74.0453),  # Governor's, Ellis and Liberty Islands
    104: (40.6990, -74.0400),  # Governor's, Ellis and Liberty Islands
    105: (40.6892, -74.0168),  # Governor's, Ellis and Liberty Islands
    107: (40.7368, -73.9841),  # Gramercy
    113: (40.7326, -73.9943),  # Greenwich Village North
    114: (40.7283, -73.9974),  # Greenwich Village South
    116: (40.8265, -73.9492),  # Hamilton Heights
    120: (40.8580, -73.9288),  # Highbridge Park
    125: (40.7266, -74.0075),  # Hudson Square
    127: (40.8651, -73.9194),  # Inwood
    128: (40.8712, -73.9249),  # Inwood Hill Park
    137: (40.7404, -73.9766),  # Kips Bay
    140: (40.7655, -73.9545),  # Lenox Hill East
    141: (40.7669, -73.9596),  # Lenox Hill West
    142: (40.7715, -73.9817),  # Lincoln Square East
    143: (40.7757, -73.9876),  # Lincoln Square West
    144: (40.7209, -73.9963),  # Little Italy, NoLiTa
    148: (40.7188, -73.9906),  # Lower East Side
    151: (40.7979, -73.9683),  # Manhattan Valley
    152: (40.8177, -73.9538),  # Manhattanville
    153: (40.8757, -73.9109),  # Marble Hill
    158: (40.7352, -74.0085),  # Meatpacking, West Village West
    161: (40.7580, -73.9777),  # Midtown Center
    162: (40.7567, -73.9720),  # Midtown East
    163: (40.7645, -73.9776),  # Midtown North
    164: (40.7488, -73.9851),  # Midtown South
    166: (40.8095, -73.9614),  # Morningside Heights
    170: (40.7478, -73.9780),  # Murray Hill
    186: (40.7485, -73.9922),  # Penn Station, Madison Square West
    194: (40.7930, -73.9243),  # Randalls Island
    202: (40.7618, -73.9502),  # Roosevelt Island
    209: (40.7084, -74.0034),  # Seaport
    211: (40.7238, -74.0014),  # SoHo
    224: (40.7322, -73.9766),  # Stuyvesant Town
    229: (40.7569, -73.9651),  # Sutton Place, Turtle Bay North
    230: (40.7599, -73.9842),  # Times Square
    231: (40.7178, -74.0079),  # TriBeCa
    232: (40.7148, -73.9830),  # Two Bridges, Seward Park
    233: (40.7499, -73.9704),  # United Nations, Turtle Bay South
    234: (40.7403, -73.9904),  # Union Square
    236: (40.7804, -73.9570),  # Upper East Side North
    237: (40.7684, -73.9659),  # Upper East Side South
    238: (40.7917, -73.9732),  # Upper West Side North
    239: (40.7838, -73.9785),  # Upper West Side South
    243: (40.8573, -73.9354),  # Washington Heights North
    244: (40.8418, -73.9415),  # Washington Heights South
    246: (40.7531, -74.0042),  # West Chelsea, Hudson Yards
    249: (40.7347, -74.0028),  # West Village
    261: (40.7092, -74.0130),  # World Trade Center
    262: (40.7757, -73.9467),  # Yorkville East
    263: (40.7787, -73.9514),  # Yorkville West
}
