"""The simulation behind the verdict's calibration: its worlds, that it judges as reports do, and a short run of it."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from orchestrator.maths.verdict import decide
from orchestrator.runs.curves import common_cost
from orchestrator.verdict.judge import judge

_BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _path():
    sys.path.insert(0, str(_BENCHMARKS))
    yield
    sys.path.remove(str(_BENCHMARKS))


@pytest.fixture(scope="module")
def worlds(_path):
    return importlib.import_module("worlds")


@pytest.fixture(scope="module")
def calibration(_path):
    return importlib.import_module("calibration")


@pytest.fixture(scope="module")
def earlier(_path):
    return importlib.import_module("earlier_rule")


def drawn(worlds, world, counts, effects, spread=0.0, size=40, seed=0):
    return worlds.draw(world, counts, effects, spread, size, np.random.default_rng(seed))


def test_simulated_curves_rise_from_the_start_to_the_plateau(worlds):
    costs, values = drawn(worlds, worlds.World(), (20, 20), (0.0, 0.10))

    assert values[..., 0].mean() == pytest.approx(0.23, abs=0.02)
    assert values[:, 0, :, -1].mean() == pytest.approx(0.23 + 0.20 * (1 - np.exp(-2.4)), abs=0.02)
    assert (values[:, 1] - values[:, 0])[..., -1].mean() == pytest.approx(0.30 * 0.95 - 0.20 * 0.91, abs=0.02)
    assert costs[..., -1].mean(axis=(0, 2)) == pytest.approx([1.2e6, 1.5e6], rel=0.01)


def test_evaluation_measures_the_mean_it_is_given(worlds):
    truth = np.full((400, 1), 0.0) + np.array([0.2, 0.5, 0.8])

    for tasks, samples in ((16, 1), (128, 4)):
        measured = worlds.evaluated(truth, worlds.World(tasks=tasks, samples=samples), np.random.default_rng(1))

        assert measured.mean(axis=0) == pytest.approx(truth[0], abs=0.025)
        assert np.allclose(np.rint(measured * tasks * samples), measured * tasks * samples)


def test_spreads_differ_between_arms_by_as_much_as_is_asked(worlds):
    _, alike = drawn(worlds, worlds.World(samples=4000), (30,) * 4, (0.0,) * 4, size=100)
    _, unlike = drawn(worlds, worlds.World(samples=4000), (30,) * 4, (0.0,) * 4, spread=0.6, size=100)

    scatter = [np.log(values[..., -1].std(axis=-1)).std() for values in (alike, unlike)]
    assert scatter[0] < 0.2
    assert scatter[1] == pytest.approx(0.6, abs=0.12)


@pytest.mark.parametrize("counts", [(3, 3), (4, 2, 3), (6, 3, 3, 3)])
def test_the_simulation_judges_as_reports_do(worlds, counts):
    costs, values = drawn(worlds, worlds.World(), counts, (0.0, 0.08, *(0.0,) * (len(counts) - 2)), spread=0.3, size=10)

    y = worlds.counted_by(costs, values)
    found = decide(np.nanmean(y, axis=-1), np.nanvar(y, axis=-1, ddof=1), counts, margin=0.05)

    for row in range(10):
        verdict = judge(worlds.as_curves(costs[row], values[row]), metric="eval/pass_at_1", margin=0.05, resamples=10)
        assert [c.p_adjusted for c in verdict.comparisons] == pytest.approx(found.p_adjusted[row])
        assert [c.outcome in ("better", "worse") for c in verdict.comparisons] == (found.named[row] != 0).tolist()
        assert [c.outcome == "equivalent" for c in verdict.comparisons] == found.equivalent[row].tolist()


def test_without_a_window_curves_are_read_at_the_common_cost(worlds):
    costs, values = drawn(worlds, worlds.World(), (3, 3), (0.0, 0.0), size=1)
    curves = worlds.as_curves(costs[0], values[0])

    found = worlds.counted_by(costs, values, window=0.0)[0]

    assert found.ravel() == pytest.approx([curve.at(common_cost(curves)) for curve in curves])


def test_real_curves_are_those_of_one_arm_over_240_seeds(worlds, calibration):
    for name in calibration.REAL:
        curves = worlds.real_curves(name)

        assert sorted(curve.seed for curve in curves) == list(range(240))
        assert all((np.diff(curve.costs) >= 0).all() and np.isfinite(curve.values).all() for curve in curves)
        assert np.ptp(worlds.real_values(name)) > 0


def test_resampled_designs_use_no_seed_twice(worlds):
    values = np.arange(20.0)

    found = worlds.resampled(values, (4, 2, 3), 50, np.random.default_rng(0))

    assert found.shape == (50, 3, 4)
    assert np.isnan(found).sum(axis=(1, 2)).tolist() == [3] * 50
    assert all(len(set(row[~np.isnan(row)])) == 9 for row in found.reshape(50, -1))
    assert np.nanmean(found) == pytest.approx(9.5, abs=1)


def test_equal_arms_are_rarely_told_apart_and_different_ones_mostly(calibration, worlds):
    typical = worlds.WORLDS["typical"]

    equal = calibration.measure("typical", typical, (5, 5), 0.0, 0.0, 400, seed=3)
    different = calibration.measure("typical", typical, (5, 5), 0.0, 0.10, 400, seed=4)

    assert equal.false <= 0.085
    assert different.found >= 0.95
    assert different.predicted == pytest.approx(different.found, abs=0.05)
    assert not equal.exceeds


def test_a_cell_above_five_percent_is_drawn_again_and_that_figure_counts(calibration, monkeypatch):
    asked = []

    def measure(name, world, counts, spread, effect, repeats, seed, **_):
        asked.append((repeats, seed))
        false = 0.07 if repeats == 100 else 0.045
        parts = {"equivalent": 0.0, "found": 0.0, "predicted": 0.0, "effect": 0.0}
        return calibration.Cell(world=name, counts=counts, spread=spread, repeats=repeats, false=false, **parts)

    monkeypatch.setattr(calibration, "measure", measure)

    (cell,) = calibration.false_winners([("typical", None, (3, 3), 0.0)], 100, seed=5)

    assert asked == [(100, 5), (1000, 6)]
    assert (cell.false, cell.drawn_before, cell.repeats) == (0.045, 0.07, 1000)


def test_tables_have_a_row_per_world_and_a_column_per_number_of_seeds(calibration):
    parts = {"equivalent": 0.0, "found": 0.0, "predicted": 0.0, "effect": 0.0, "world": "typical", "repeats": 500}
    cells = [
        calibration.Cell(counts=(seeds, seeds), spread=spread, false=rate, **parts)
        for spread, seeds, rate in ((0.0, 3, 0.012), (0.0, 5, 0.04), (0.3, 3, 0.05), (0.3, 5, 0.051))
    ]

    assert calibration.grid(cells, "false").splitlines() == [
        "| spread: | 0: 3 seeds | 5 | 0.3: 3 seeds | 5 |",
        "|---|---:|---:|---:|---:|",
        "| typical, 1 arm | 1.2 | 4.0 | 5.0 | 5.1 |",
    ]


def test_designs_of_many_looks_are_measured_as_they_are_run(calibration):
    looks = calibration.looks
    equal = looks.measure(looks.Design(world="typical", arms=2), 60, 0)
    better = looks.measure(looks.Design(world="typical", arms=2, effects=(0.10,), interrupted=True), 20, 0)
    raced = looks.measure(looks.Design(world="typical", arms=3, effects=(0.10,)), 20, 0, race=True)

    assert equal.equivalent > 0.85
    assert equal.false <= 0.1
    assert 6 < equal.seeds < 12
    assert (better.found, better.false) == (1.0, 0.0)
    assert better.seeds < 7
    assert raced.found > 0.9
    assert raced.seeds < raced.fixed
    assert "| typical, interrupted | 1 | 0.3 | 0.10 | 20 | 0.0 | 100.0 |" in looks.table([better], race=False)
    assert "| typical | 3 | one +0.10 | 20 |" in looks.table([raced], race=True)


def test_the_rule_before_needs_welchs_test_and_the_bootstrap(earlier):
    control, sample = np.array([0.40, 0.44, 0.42, 0.41]), np.array([0.46, 0.47, 0.45, 0.48])
    exact = stats.ttest_ind(sample, control, equal_var=False)

    assert earlier.welch(sample, control) == pytest.approx((exact.statistic, exact.pvalue))
    assert earlier.decide([control, sample, control + 0.001]) == [
        (1, pytest.approx(2 * exact.pvalue)),
        (0, pytest.approx(1.0)),
    ]
