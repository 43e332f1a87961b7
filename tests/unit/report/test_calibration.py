"""The simulation behind the verdict's calibration: its worlds, and a short run of it."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

_PATH = Path(__file__).parents[3] / "benchmarks" / "calibration.py"


@pytest.fixture(scope="module")
def calibration():
    spec = importlib.util.spec_from_file_location("calibration", _PATH)
    module = sys.modules["calibration"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_simulated_curves_rise_from_the_start_to_the_plateau(calibration):
    curves = calibration.simulate(calibration.World(), 2, 40, np.random.default_rng(0), (0.0, 0.10))
    ends = {arm: np.mean([c.values[-1] for c in curves if c.arm == arm]) for arm in ("arm0", "arm1")}

    assert np.mean([c.first for c in curves]) == pytest.approx(0.23, abs=0.05)
    assert ends["arm0"] == pytest.approx(0.23 + 0.20 * (1 - np.exp(-2.4)), abs=0.05)
    assert ends["arm1"] - ends["arm0"] == pytest.approx(0.11, abs=0.03)
    assert {len(c.steps) for c in curves} == {11}


def test_evaluation_measures_the_mean_it_is_given(calibration):
    generator = np.random.default_rng(1)
    difficulty = generator.normal(0.0, 1.5, size=20_000)
    truth = np.array([0.2, 0.5, 0.8])

    assert calibration._evaluate(truth, difficulty, 4, generator) == pytest.approx(truth, abs=0.02)


def test_equal_arms_are_rarely_told_apart_and_different_ones_mostly(calibration):
    world = calibration.WORLDS["typical"]

    assert calibration.rate(world, 2, 5, 100, (0.0, 0.0), seed=3) <= 0.07
    assert calibration.rate(world, 2, 5, 40, (0.0, 0.10), seed=4) >= 0.80


def test_tables_have_a_row_per_world_and_a_column_per_number_of_seeds(calibration):
    rows = [
        calibration.Row(world="typical", arms=2, seeds=seeds, effect=0.0, repeats=500, rate=rate)
        for seeds, rate in ((3, 0.012), (5, 0.04))
    ]

    assert calibration.table(rows, "world").splitlines() == [
        "| world | 3 seeds | 5 seeds |",
        "|---|---:|---:|",
        "| typical, 2 arms | 1.2 % | 4.0 % |",
    ]
