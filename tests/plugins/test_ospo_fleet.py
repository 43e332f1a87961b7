"""Vehicles, tours, rewards, matching: the arithmetic of dispatch, by hand and by brute force."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orchestrator_plugins.ospo.city import MANHATTAN_BOX, RotatedGrid, grid, manhattan
from orchestrator_plugins.ospo.config import RewardConfig
from orchestrator_plugins.ospo.fleet import Fleet, pair_reward, tour
from orchestrator_plugins.ospo.matching import match
from orchestrator_plugins.ospo.observation import vehicle_features


@dataclass(frozen=True)
class Blocks:
    """A router of blocks: one minute and 400 m each."""

    def minutes(self, start, end):
        return np.abs(np.asarray(start, float) - np.asarray(end, float)).sum(-1)

    def km(self, start, end):
        return 0.4 * self.minutes(start, end)


def at(*places):
    return np.array(places, dtype=np.float64)


def fleet_at(*places, seats=3) -> Fleet:
    return Fleet(at(*places), seats, Blocks())


def serve(fleet: Fleet, vehicle: int, origin, destination):
    vehicles = np.array([vehicle])
    plan = fleet.insertion(vehicles, at(origin), at(destination))
    fleet.take(vehicles, at(origin), at(destination), plan)
    return plan


@pytest.mark.parametrize(
    ("added", "late", "pickup", "metres", "expected"),
    [(9, 0, 3, 2000, 4.4), (45, 2, 12, 6000, 3.733333), (-2, 0, 1, 500, 3.55)],
)
def test_reward_of_a_pair(added, late, pickup, metres, expected):
    reward = pair_reward(metres / 1000, pickup, late, added, weights=RewardConfig(), late_limit=40)

    assert reward == pytest.approx(expected, abs=1e-6)


def test_an_addition_of_exactly_the_limit_costs_nothing_extra():
    at_limit, beyond = (
        pair_reward(0.0, 0.0, 0, added, weights=RewardConfig(added=0.0), late_limit=40) for added in (40.0, 52.0)
    )

    assert at_limit == 3
    assert beyond == pytest.approx(3 - 5 * 12 / 60)


def test_bookkeeping_of_a_pair_with_one_on_board():
    fleet = fleet_at((0, 0))
    fleet.count[0], fleet.goal[0, 0] = 1, (2, 4)
    fleet.remaining[0, 0], fleet.promised[0, 0] = 7, 10

    plan = fleet.insertion(np.array([0]), at((2, 1)), at((5, 1)))

    assert plan.pickup.tolist() == [3]
    assert plan.arrival.tolist() == [[3, 9, 0]]  # (2,4) first; both orders take 9 minutes, the first is driven
    assert plan.promised.tolist() == [[9, 12, 0]]  # 3 + 3 + (10 - 7); 9 + 3
    assert plan.added.tolist() == [11]
    assert plan.late.tolist() == [0]
    assert plan.detour.tolist() == [[-1, 6, 0]]
    km = Blocks().km(at((2, 1)), at((5, 1)))
    reward = pair_reward(km, plan.pickup, plan.late, plan.added, weights=RewardConfig(), late_limit=40)
    assert reward.tolist() == pytest.approx([3.5])


def test_planning_changes_nothing():
    fleet = fleet_at((0, 0))
    before = {name: np.copy(value) for name, value in vars(fleet).items() if isinstance(value, np.ndarray)}

    fleet.insertion(np.array([0, 0]), at((1, 0), (2, 0)), at((3, 0), (4, 0)))

    for name, value in before.items():
        np.testing.assert_array_equal(getattr(fleet, name), value)


def test_whole_minutes_per_leg():
    router = RotatedGrid(speed=60.0)

    exact = tour(at((0, 0)), at((0.9, 0), (1.8, 0))[None], router)
    truncated = tour(at((0, 0)), at((0.9, 0), (1.8, 0))[None], router, truncate=True)

    np.testing.assert_allclose(exact, [[0.9, 1.8]])
    assert truncated.tolist() == [[0, 0]]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=5))
def test_the_tour_is_the_shortest_and_visits_everything(places):
    start, *stops = places

    (arrivals,) = tour(at(start), at(*stops)[None], Blocks())

    def length(order):
        path = [start, *(stops[i] for i in order)]
        return sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in itertools.pairwise(path))

    best = min(itertools.permutations(range(len(stops))), key=length)
    assert arrivals.max() == length(best)
    driven, here = 0.0, start
    for index in best:
        driven += abs(here[0] - stops[index][0]) + abs(here[1] - stops[index][1])
        here = stops[index]
        assert arrivals[index] == driven


def test_a_ride_from_request_to_arrival():
    fleet = fleet_at((0, 0))

    serve(fleet, 0, (0, 2), (0, 5))  # 2 minutes to the pick-up, 3 to the drop-off
    assert fleet.busy.tolist() == [True]
    assert fleet.position.tolist() == [[0, 2]]

    minutes = []
    for _ in range(5):
        promised, detour = fleet.advance()
        minutes.append((fleet.busy[0].item(), fleet.remaining[0, 0].item(), promised.tolist()))
    assert minutes == [(True, 3, []), (False, 3, []), (False, 2, []), (False, 1, []), (False, 0, [5])]
    assert detour.tolist() == [0]
    assert fleet.count.tolist() == [0]
    assert fleet.position.tolist() == [[0, 5]]


def test_what_is_left_of_the_minute_of_the_pickup_is_driven():
    fleet = fleet_at((0, 0))
    serve(fleet, 0, (0, 0.25), (0, 5.25))

    fleet.advance()

    assert fleet.pickup_left.tolist() == [0]
    assert fleet.remaining[0, 0] == pytest.approx(4.25)
    np.testing.assert_allclose(fleet.position, [[0, 1]])


def test_a_full_vehicle_is_busy_until_somebody_leaves():
    fleet = fleet_at((0, 0), seats=2)
    serve(fleet, 0, (0, 0), (0, 2))
    fleet.advance()
    assert fleet.busy.tolist() == [False]  # a passenger and a free seat: rides are bundled
    serve(fleet, 0, (0, 1), (0, 4))

    fleet.advance()

    assert fleet.count.tolist() == [1]  # the first arrived after the second minute
    assert fleet.busy.tolist() == [False]
    np.testing.assert_allclose(fleet.goal[0], [[0, 4], [0, 0]])
    assert fleet.remaining[0].tolist() == [2, 0]


def test_a_trip_to_where_it_starts_is_over_at_once():
    fleet = fleet_at((0, 0))
    serve(fleet, 0, (0, 0), (0, 0))

    promised, _ = fleet.advance()

    assert promised.tolist() == [0]
    assert fleet.count.tolist() == [0]


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_passengers_are_conserved_and_arrive_when_promised(seed, seats):
    generator = np.random.default_rng(seed)
    fleet = fleet_at(*generator.integers(0, 8, (4, 2)), seats=seats)
    boarded = delivered = 0
    for minute in range(40):
        free = np.flatnonzero(~fleet.busy)
        chosen = free[generator.random(len(free)) < (0.5 if minute < 20 else 0)]
        origin, destination = generator.integers(0, 8, (2, len(chosen), 2)).astype(float)
        fleet.take(chosen, origin, destination, fleet.insertion(chosen, origin, destination))
        boarded += len(chosen)
        promised, detour = fleet.advance()
        delivered += len(promised)
        assert delivered + fleet.count.sum() == boarded
        assert (detour >= -1e-9).all() or seats > 1
        assert (fleet.count <= seats).all()
        assert (fleet.remaining >= 0).all()
        empty = np.arange(seats) >= fleet.count[:, None]
        assert (fleet.remaining[empty] == 0).all()
        assert (fleet.goal[empty] == 0).all()
        # What is left of each tour is the distance really left: positions and clocks agree.
        for vehicle in np.flatnonzero((fleet.pickup_left == 0) & (fleet.count > 0)):
            order = np.argsort(fleet.remaining[vehicle, : fleet.count[vehicle]], kind="stable")
            stops = [fleet.position[vehicle], *fleet.goal[vehicle, order]]
            length = sum(Blocks().minutes(a, b) for a, b in itertools.pairwise(stops))
            assert length == pytest.approx(fleet.remaining[vehicle].max(), abs=1e-6)


# --- matching ---------------------------------------------------------------------------------------------


def worth(scores, chosen):
    return sum(scores[row, column] for row, column in enumerate(chosen) if column >= 0)


def test_matching_leaves_one_of_three_idle():
    scores = np.array([[0.6, 0.4], [0.55, 0.45], [0.5, 0.5]])

    chosen = match(scores)

    assert worth(scores, chosen) == pytest.approx(1.1)
    assert sorted(chosen) == [-1, 0, 1]


def test_matching_never_makes_a_forbidden_pair():
    scores = np.array([[-1e8, -1e8], [0.2, 0.8]])

    assert match(scores).tolist() == [-1, 1]


def test_matching_without_requests_leaves_everybody_idle():
    assert match(np.zeros((3, 0))).tolist() == [-1, -1, -1]


@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_matching_is_optimal(vehicles, requests, seed):
    scores = np.random.default_rng(seed).normal(size=(vehicles, requests)).round(2)

    chosen = match(scores)

    options = itertools.product(range(-1, requests), repeat=vehicles)
    fair = (o for o in options if len({c for c in o if c >= 0}) == sum(c >= 0 for c in o))
    assert worth(scores, chosen) == pytest.approx(max(worth(scores, option) for option in fair))
    made = [c for c in chosen if c >= 0]
    assert len(made) == len(set(made))


# --- cities and features ----------------------------------------------------------------------------------


def test_scaling_of_a_vehicle():
    city = manhattan()
    fleet = Fleet(at((40.75, -73.98), (40.75, -73.98)), 3, city.router)
    fleet.count[0], fleet.pickup_left[0] = 1, 3
    fleet.goal[0, 0] = (40.76, -73.97)
    fleet.remaining[0, 0], fleet.promised[0, 0], fleet.detour[0, 0] = 6, 14, 2

    row = vehicle_features(fleet, city, 15, np.array([12.0, 6.0]))[0]

    np.testing.assert_allclose(row[:8], [0.327036, 0.483941, 0.666667, 0.05, 1, 0.25, 1.2, 0.9], atol=1e-6)
    np.testing.assert_allclose(row[8:13], [0.38046, 0.558065, 0.1, 0.233333, 0.033333], atol=1e-6)
    assert (row[13:] == 0).all()


def test_the_released_defect_of_longitude_is_available_for_comparison():
    city = manhattan()
    fleet = Fleet(at((40.75, -73.98)), 3, city.router)
    fleet.count[0], fleet.goal[0, 0] = 1, (40.76, -73.97)

    row = vehicle_features(fleet, city, 0, np.zeros(1), released_longitude=True)[0]

    assert row[9] == pytest.approx(-549.293, abs=1e-3)
    assert (row[13:] == 0).all()


def test_manhattan_has_its_zones_inside_the_box():
    city = manhattan()

    assert len(city.ids) == 69 == len(set(city.ids.tolist()))
    scaled = city.scaled(city.centres)
    assert scaled.min() >= -0.01
    assert scaled.max() <= 1.01
    assert city.box == MANHATTAN_BOX


def test_distances_across_manhattan():
    city = manhattan()
    index = {number: place for place, number in enumerate(city.ids.tolist())}
    times_square, battery = city.centres[index[230]], city.centres[index[12]]

    # About 6.9 km as the crow flies; streets of a turned grid are longer, not twice as long.
    assert 7.0 < city.router.km(times_square, battery) < 9.5
    assert city.router.minutes(times_square, battery) == pytest.approx(city.router.km(times_square, battery) / 32 * 60)


def test_a_turned_grid_measures_along_its_axes():
    router = RotatedGrid(degrees=90, factor=2.0, speed=30)

    assert router.km(at((0, 0)), at((3, 4))).tolist() == pytest.approx([14])
    assert router.minutes(at((0, 0)), at((3, 4))).tolist() == pytest.approx([28])


def test_the_grid_city_is_a_rectangle_of_cells():
    city = grid()

    assert city.centres.shape == (64, 2)
    assert city.centres[0].tolist() == [0.625, 0.45]
    assert city.centres[-1].tolist() == pytest.approx([19.375, 3.15])


def test_zones_from_a_file(tmp_path):
    file = tmp_path / "zones.csv"
    file.write_text("zone,lat,lon\n4,40.72,-73.97\n12,40.70,-74.01\n")

    city = manhattan(zones_file=str(file))

    assert city.ids.tolist() == [4, 12]
    assert city.centres.tolist() == [[40.72, -73.97], [40.70, -74.01]]


def test_a_zone_file_without_a_column_is_refused_by_name(tmp_path):
    file = tmp_path / "zones.csv"
    file.write_text("zone,lat\n4,40.72\n")

    with pytest.raises(ValueError, match="no column lon"):
        manhattan(zones_file=str(file))
