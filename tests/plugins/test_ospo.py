"""Dispatch: the world, and the demand it serves."""

from __future__ import annotations

import itertools
import pickle
import time

import numpy as np
import pytest
from dispatch_days import SMALL, first_task, play, scorer, small_world
from hypothesis import given, settings
from hypothesis import strategies as st
from orchestrator_plugins.ospo.city import grid
from orchestrator_plugins.ospo.config import DemandConfig, DispatchConfig, PairScorerConfig
from orchestrator_plugins.ospo.demand import (
    Requests,
    destination_weights,
    origin_weights,
    read_trips,
    synthetic,
)
from orchestrator_plugins.ospo.environment import Dispatch, DispatchEpisode
from orchestrator_plugins.ospo.policy import PairScorer
from orchestrator_plugins.ospo.yardsticks import Nearest

from orchestrator.api import (
    Action,
    ConfigError,
    Environment,
    Features,
    MultiAgentEpisode,
    Policy,
    Sampling,
    Speaks,
    Split,
    Stateful,
    load_registry,
)

# --- the world --------------------------------------------------------------------------------------------


def test_components_fill_their_roles():
    registry = load_registry(["ospo"])
    world = registry.build("environment", "dispatch", SMALL)

    assert isinstance(world, Environment)
    assert isinstance(world.start(first_task(world), 0), MultiAgentEpisode)
    for name in ("pair_scorer", "nearest", "best_pair"):
        policy = registry.build("policy", name)
        assert isinstance(policy, Policy)
        assert policy.speaks == Speaks.FEATURES
    assert isinstance(registry.build("policy", "pair_scorer"), Stateful)
    assert set(registry.names("recipe")) >= {"ospo", "grpo_dispatch", "ppo_dispatch"}


def test_everybody_free_is_asked_and_the_busy_wait():
    world = small_world()
    running = world.start(first_task(world), 0)
    asked = running.open()
    assert list(asked) == list(world.agents)

    idle = Action(tokens=(), logprobs=())
    feedback = running.step(dict.fromkeys(asked, idle) | {"v0003": Action(tokens=(0,), logprobs=(0.0,))})

    assert running.fleet.count.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert feedback["v0003"].reward == running.fleet.earned[3] != 0
    waits = running.fleet.busy[3]
    assert (feedback["v0003"].observation is None) == waits
    assert all(feedback[agent].reward == 0 for agent in asked if agent != "v0003")


def test_a_request_named_twice_goes_to_the_first_vehicle():
    world = small_world()
    running = world.start(first_task(world), 0)

    running.step(dict.fromkeys(running.open(), Action(tokens=(0,), logprobs=(0.0,))))

    assert running.fleet.count.tolist() == [1] + [0] * 7


def test_the_last_action_and_no_token_both_stay_idle():
    world = small_world()
    running = world.start(first_task(world), 0)

    asked = running.open()
    running.step(dict.fromkeys(asked, Action(tokens=(world.actions - 1,), logprobs=(0.0,))))

    assert running.fleet.count.sum() == 0


def test_a_request_that_is_not_offered_is_an_error():
    world = small_world()
    running = world.start(first_task(world), 0)

    with pytest.raises(ValueError, match=r"agent v0000 chose request 31 in minute 0; there are \d"):
        running.step(dict.fromkeys(running.open(), Action(tokens=(31,), logprobs=(0.0,))))


def test_a_request_is_offered_five_times():
    world = small_world()
    requests = Requests(minute=np.array([2]), origin=np.array([5]), destination=np.array([9]))
    running = DispatchEpisode(world, requests, np.arange(8))
    asked, offered = running.open(), []
    while asked:
        (view, *_) = asked.values()
        offered.append(len(view.snapshot.requests))
        feedback = running.step(dict.fromkeys(asked, Action(tokens=(), logprobs=())))
        asked = {a: f.observation for a, f in feedback.items() if not f.done and f.observation is not None}

    assert offered == [0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_a_minute_without_a_decision_is_still_a_step():
    world = small_world()
    nothing = Requests(minute=np.array([], int), origin=np.array([], int), destination=np.array([], int))
    asked = DispatchEpisode(world, nothing, np.arange(8)).open()

    assert list(asked) == ["v0000"]
    assert asked["v0000"].legal.tolist() == [False] * 32 + [True]


def test_an_observation_is_ordinary_features():
    world = small_world()
    (view, *_) = world.start(first_task(world), 0).open().values()
    count = len(view.snapshot.requests)

    assert isinstance(view, Features)
    assert view.values.shape == (world.features,) == (23 + 32 * 5,)
    assert view.values.dtype == np.float32
    assert view.legal.shape == (world.actions,)
    np.testing.assert_array_equal(view.values[:23], view.snapshot.vehicles[0])
    np.testing.assert_array_equal(view.values[23 : 23 + 5 * count].reshape(count, 5), view.snapshot.requests)
    assert (view.values[23 + 5 * count :] == 0).all()
    assert view.legal.sum() == count + 1
    copied = pickle.loads(pickle.dumps(view))
    np.testing.assert_array_equal(copied.values, view.values)


def test_relative_inputs_are_direct_km_and_minutes_to_the_pickup():
    world = small_world(relative=True)
    running = world.start(first_task(world), 0)
    views = list(running.open().values())

    pairs = views[3].pairs()

    assert pairs.shape[1] == 7 == world.pair_features
    np.testing.assert_allclose(pairs[:, 6], running.pickup_minutes([3])[0] / 60, rtol=1e-5)
    np.testing.assert_allclose(pairs[:, 5] * 10, running._km[running._open], rtol=1e-5)
    assert views[3].values.shape == (world.features,)


def test_a_task_is_one_world():
    world = small_world()
    policy = Nearest()
    task, other = itertools.islice(world.tasks(Split.TRAIN), 2)

    first, second, third = (play(world, policy, task=t)[1] for t in (task, task, other))

    assert first == second
    assert first != third
    assert next(iter(world.tasks(Split.EVAL))).id != task.id


def test_fresh_days_differ_and_one_day_does_not():
    one, fresh = small_world(), small_world(demand={"days": "fresh"})
    tasks = list(itertools.islice(one.tasks(Split.TRAIN), 2))

    same = [one.start(t, 0)._requests for t in tasks]
    different = [fresh.start(t, 0)._requests for t in tasks]

    def trips(requests):
        return set(zip(requests.minute.tolist(), requests.origin.tolist(), requests.destination.tolist(), strict=True))

    assert len(trips(same[0]) & trips(same[1])) > 0.8 * len(trips(same[0]))
    assert len(trips(different[0]) & trips(different[1])) < 0.5 * len(trips(different[0]))


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.floats(0.2, 12), st.integers(1, 4))
def test_accounts_balance(seed, volume, seats):
    world = small_world(seats=seats, demand={"per_vehicle": volume, "seed": seed, "days": "fresh"})

    rollouts, metrics, running = play(world, scorer(world), Sampling())

    decisions = [turn for rollout in rollouts for turn in rollout.turns if turn.action.tokens]
    assert metrics["served"] == len(decisions) <= metrics["requests"]
    assert metrics["delivered"] + running.fleet.count.sum() == metrics["served"]
    assert metrics["fleet_reward"] == pytest.approx(sum(turn.reward for turn in decisions), abs=1e-6)
    assert metrics["fleet_reward"] == pytest.approx(running.fleet.earned.sum(), abs=1e-6)
    discounted = sum(0.99**turn.step * turn.reward for turn in decisions)
    assert metrics["discounted_reward"] == pytest.approx(discounted, abs=1e-6)
    assert 0 <= metrics["confirm_minutes"] <= 4
    assert running.clock == world.config.minutes


def test_exact_rewards_are_those_that_are_paid():
    world = small_world()
    running = world.start(first_task(world), 0)
    asked = running.open()
    foreseen = running.pair_rewards(np.arange(8))
    slots = np.arange(8) % foreseen.shape[1]
    actions = {a: Action(tokens=(int(s),), logprobs=(0.0,)) for a, s in zip(asked, slots, strict=True)}

    feedback = running.step(actions)

    for row in range(min(8, foreseen.shape[1])):
        assert feedback[f"v{row:04d}"].reward == pytest.approx(foreseen[row, slots[row]])


def test_a_snapshot_knows_when_its_minute_is_over():
    world = small_world()
    running = world.start(first_task(world), 0)
    asked = running.open()
    running.step(dict.fromkeys(asked, Action(tokens=(), logprobs=())))

    with pytest.raises(RuntimeError, match="at minute 1, not at 0"):
        asked["v0000"].snapshot.pickup_minutes(np.array([0]))


def test_a_thousand_vehicles_at_peak_take_at_most_three_seconds():
    world = Dispatch(DispatchConfig())
    policy = PairScorer(PairScorerConfig(seed=0))
    policy.prepare(world, frozenset())

    seconds = []
    while len(seconds) < 3 and min(seconds, default=3) >= 3:  # the best of three: other processes share the caches
        began = time.process_time()
        _, metrics, _ = play(world, policy)
        seconds.append(time.process_time() - began)

    assert metrics["requests"] > 3500
    assert metrics["served"] > 2000
    assert min(seconds) < 3


# --- demand -----------------------------------------------------------------------------------------------


def test_synthetic_demand_has_its_documented_statistics():
    city = grid()
    generator = np.random.default_rng(0)

    day = synthetic(city, 30, 3000, DemandConfig(), generator)

    assert len(day) == pytest.approx(3000 * 3.9, rel=0.03)
    assert (np.diff(day.minute) >= 0).all()
    assert (day.origin != day.destination).all()
    observed = np.bincount(day.origin, minlength=64) / len(day)
    assert np.abs(observed - origin_weights(city)).max() < 0.006
    assert city.ids[observed.argmax()] in city.ids[np.argsort(-origin_weights(city))[:4]]
    # Mean of the model's direct distances, worked out from its two weight functions.
    km = city.router.km(city.centres[:, None], city.centres[None])
    expected = (origin_weights(city)[:, None] * destination_weights(city) * km).sum()
    assert city.router.km(city.centres[day.origin], city.centres[day.destination]).mean() == pytest.approx(
        expected, rel=0.03
    )


def test_uniform_arrivals_have_a_fixed_total():
    day = synthetic(grid(), 30, 30, DemandConfig(arrivals="uniform"), np.random.default_rng(1))

    assert len(day) == 117


def test_a_sample_is_a_share_in_order():
    day = synthetic(grid(), 30, 30, DemandConfig(arrivals="uniform"), np.random.default_rng(1))

    sample = day.sample(0.95, np.random.default_rng(0))

    assert len(sample) == round(0.95 * 117)
    assert (np.diff(sample.minute) >= 0).all()


TRIPS = [  # pick-up, from, to
    ("2024-07-17 19:03:59", 161, 236),
    ("2024-07-17 19:00:00", 4, 12),
    ("2024-07-17 19:29:30", 68, 68),  # within one zone: kept
    ("2024-07-17 19:30:00", 4, 12),  # after the stretch
    ("2024-07-17 18:59:59", 4, 12),  # before it
    ("2024-06-17 19:10:00", 4, 12),  # another month, same day and hour
    ("2023-07-17 19:10:00", 4, 12),  # another year
    ("2024-07-17 19:10:00", 4, 132),  # an airport
    ("2024-07-17 19:10:00", 264, 4),  # unknown
]


def write_trips(path, *, drop=()):
    """A file with the columns that the TLC published in 2024."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    count = len(TRIPS)
    times = np.array([row[0] for row in TRIPS], dtype="datetime64[us]")
    columns = {
        "VendorID": pa.array([2] * count, pa.int32()),
        "tpep_pickup_datetime": pa.array(times),
        "tpep_dropoff_datetime": pa.array(times + np.timedelta64(11, "m")),
        "passenger_count": pa.array([None] + [1] * (count - 1), pa.int64()),
        "trip_distance": pa.array([1.5] * count),
        "RatecodeID": pa.array([1] * count, pa.int64()),
        "store_and_fwd_flag": pa.array(["N"] * count),
        "PULocationID": pa.array([row[1] for row in TRIPS], pa.int32()),
        "DOLocationID": pa.array([row[2] for row in TRIPS], pa.int32()),
        "payment_type": pa.array([1] * count, pa.int64()),
    }
    for name in [
        "fare_amount",
        "extra",
        "mta_tax",
        "tip_amount",
        "tolls_amount",
        "improvement_surcharge",
        "total_amount",
        "congestion_surcharge",
        "Airport_fee",
    ]:
        columns[name] = pa.array([2.5] * count)
    parquet.write_table(pa.table({name: column for name, column in columns.items() if name not in drop}), path)
    return str(path)


def test_trip_records_are_replayed(tmp_path):
    path = write_trips(tmp_path / "yellow_tripdata_2024-07.parquet")
    world = Dispatch(DispatchConfig(vehicles=5, demand={"source": "tlc", "path": path, "share": 1.0}))

    requests = world.start(first_task(world), 0)._requests

    ids = world.city.ids
    assert requests.minute.tolist() == [0, 3, 29]
    assert ids[requests.origin].tolist() == [4, 161, 68]
    assert ids[requests.destination].tolist() == [12, 236, 68]
    _, metrics, _ = play(world, Nearest())
    assert metrics["served"] == 3


def test_a_missing_column_is_named(tmp_path):
    path = write_trips(tmp_path / "trips.parquet", drop=("DOLocationID",))

    with pytest.raises(ConfigError, match=r"no column DOLocationID; it has VendorID"):
        Dispatch(DispatchConfig(demand={"source": "tlc", "path": path}))


def test_a_stretch_without_trips_says_what_the_file_holds(tmp_path):
    path = write_trips(tmp_path / "trips.parquet")
    config = DemandConfig(source="tlc", path=path, hour=3)

    with pytest.raises(ValueError, match=r"from 2024-07-17 03:00 to 03:30; the file's 9 trips start from 2023-07-17"):
        read_trips(grid(), 30, config)


def test_a_missing_file_and_a_missing_path_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no file"):
        Dispatch(DispatchConfig(demand={"source": "tlc", "path": str(tmp_path / "none.parquet")}))
    with pytest.raises(ValueError, match=r"demand\.path names no Parquet file"):
        DemandConfig(source="tlc")
