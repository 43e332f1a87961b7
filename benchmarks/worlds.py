"""Worlds in which arms are equal, or differ by a known amount: simulated learning curves, and real ones resampled.

The simulated world has curves as held-out evaluations show them: a rise from a shared warm start to a plateau that
differs by seed, training that wanders, seeds that now and then collapse, evaluation by finitely many tasks and answers
(the tasks shared by all arms), arms that spend different amounts per step and scatter unequally. The real ones are the
curves of one arm over 240 seeds (``benchmarks/data``), of which every design draws its own, so that its arms are equal
by construction.

    python benchmarks/worlds.py RUN NAME        # writes the curves of a run with one arm to benchmarks/data/NAME.csv
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.maths.verdict import WINDOW, window_mean
from orchestrator.report.content import gather
from orchestrator.runs.curves import Curve

DATA = Path(__file__).parent / "data"
STEPS = np.arange(0, 101, 10)  # evaluations
EXACT = 64  # answers an evaluation up to which every one is drawn; beyond, their sum is taken for normal
GRID = np.linspace(0.005, 0.995, 100)  # true pass rates at which the mean over tasks is tabulated


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How curves scatter. The defaults resemble a small language model on countdown puzzles."""

    start: float = 0.23  # pass@1 of the shared warm start
    gain: float = 0.20  # reached by an average seed
    plateau_spread: float = 0.020  # of the plateau over seeds, standard deviation
    wander: float = 0.006  # random walk per evaluation, standard deviation
    shared: float = 0.0  # share of the plateau's variance that arms with the same seed have in common
    collapse: float = 0.0  # probability that a seed loses half of what it is on the way
    tasks: int = 128  # held-out tasks, the same for all
    samples: int = 4  # rollouts per task and evaluation
    tails: float = np.inf  # degrees of freedom of Student's distribution of plateaus, of the same variance
    baseline: float = 1.0  # scatter of the baseline's training, in that of the arms
    calm: float = 1.0  # scatter of every second arm's training


WORLDS = {
    "typical": World(),
    "seeds correlated over arms": World(shared=0.6),
    "one seed in ten collapses": World(collapse=0.1),
    "coarse evaluation, 16 tasks x 1": World(tasks=16, samples=1),
    "seeds scatter widely": World(plateau_spread=0.06),
}


def draw(
    world: World,
    counts: tuple[int, ...],
    effects: tuple[float, ...],
    spread: float,
    size: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Curves of ``size`` experiments.

    :param counts: [A] seeds of every arm, the baseline first
    :param effects: [A] true difference of each arm's plateau from the world's
    :param spread: standard deviation of the logarithm by which an arm's training scatters
    :returns: costs and values, [size, A, N, 11] each, N the most seeds; the surplus of an arm is nan
    """
    arms, seeds = len(counts), max(counts)
    scatter = np.exp(spread * generator.normal(size=(size, arms, 1)))
    scatter[:, 0] *= world.baseline
    scatter[:, 2::2] *= world.calm
    own = _standard(world.tails, (size, arms, seeds), generator)
    common = generator.normal(size=(size, 1, seeds))
    luck = world.plateau_spread * scatter * (np.sqrt(world.shared) * common + np.sqrt(1 - world.shared) * own)
    speed = 12_000 * (1 + 0.25 * np.arange(arms))[:, None]  # tokens per step: methods differ in how long answers grow
    costs = STEPS * (speed * generator.uniform(0.95, 1.05, size=(size, arms, seeds)))[..., None]
    walk = generator.normal(size=(*luck.shape, STEPS.size))
    walk[..., 0] = 0.0
    mean = (world.gain + luck + np.array(effects)[:, None])[..., None] * (1 - np.exp(-costs / 500_000))
    mean += world.start + world.wander * scatter[..., None] * walk.cumsum(axis=-1)
    if world.collapse:
        since = generator.integers(20, 100, size=(*luck.shape, 1))
        gone = generator.random((*luck.shape, 1)) < world.collapse
        mean = np.where(gone & (since <= STEPS), 0.5 * mean, mean)
    values = evaluated(np.clip(mean, GRID[0], GRID[-1]), world, generator)
    values[:, np.arange(seeds)[None, :] >= np.array(counts)[:, None]] = np.nan
    return costs, values


def counted_by(costs: np.ndarray, values: np.ndarray, window: float = WINDOW) -> np.ndarray:
    """What every seed counts by, [..., A, N] from [..., A, N, 11]: the mean of the last fifth of the common cost.

    :param window: another share of it; 0: the value at its end
    """
    there = ~np.isnan(values[..., 0])
    common = np.where(there, costs[..., -1], np.inf).min(axis=(-2, -1), keepdims=True)
    place = common / (costs[..., -1] / (STEPS.size - 1))  # in evaluations, which lie evenly
    pairs = np.cumsum((values[..., 1:] + values[..., :-1]) / 2, axis=-1)
    area = np.concatenate([np.zeros((*values.shape[:-1], 1)), pairs], axis=-1)

    def around(x: np.ndarray) -> tuple[np.ndarray, ...]:  # area before the evaluation, values beside, way between them
        whole = np.clip(x.astype(int), 0, STEPS.size - 2)[..., None]
        found = [np.take_along_axis(a, whole + s, axis=-1)[..., 0] for a, s in ((area, 0), (values, 0), (values, 1))]
        return (*found, x - whole[..., 0])

    def until(x: np.ndarray) -> np.ndarray:  # integral of the curve, linear between evaluations
        before, left, right, part = around(x)
        return before + left * part + (right - left) * part**2 / 2

    if window == 0:
        _, left, right, part = around(place)
        return left + (right - left) * part
    return (until(place) - until((1 - window) * place)) / (window * place)


def evaluated(mean: np.ndarray, world: World, generator: np.random.Generator) -> np.ndarray:
    """Pass rates measured on finitely many tasks and answers: [size, ...] true means to measured ones."""
    size, answers = mean.shape[0], world.tasks * world.samples
    difficulty = generator.normal(0.0, 1.5, size=(size, world.tasks))  # logits around the policy's mean
    if answers <= EXACT:
        chance = _chance(mean[..., None], difficulty.reshape(size, *[1] * (mean.ndim - 1), world.tasks))
        return generator.binomial(world.samples, chance).mean(axis=-1) / world.samples
    table = _chance(GRID[None, :, None], difficulty[:, None, :])  # [size, grid, tasks]
    rate, variance = table.mean(axis=-1), (table * (1 - table)).mean(axis=-1) / answers
    place = (mean - GRID[0]) / (GRID[1] - GRID[0])
    low = np.minimum(place.astype(int), GRID.size - 2)
    part, row = place - low, np.arange(size).reshape(-1, *[1] * (mean.ndim - 1))
    expected = rate[row, low] * (1 - part) + rate[row, low + 1] * part
    noise = np.sqrt(variance[row, low] * (1 - part) + variance[row, low + 1] * part)
    right = np.rint((expected + noise * generator.normal(size=mean.shape)) * answers)
    return np.clip(right, 0, answers) / answers


def as_curves(costs: np.ndarray, values: np.ndarray) -> list[Curve]:
    """One experiment of :func:`draw` as the product reads it."""
    return [
        Curve(arm=f"arm{arm}", seed=seed, steps=STEPS.astype(float), costs=costs[arm, seed], values=values[arm, seed])
        for arm in range(values.shape[0])
        for seed in range(values.shape[1])
        if not np.isnan(values[arm, seed, 0])
    ]


def real_curves(name: str) -> list[Curve]:
    """The curves of one arm over many seeds, from ``benchmarks/data/NAME.csv``."""
    rows: dict[int, list[tuple[float, float, float]]] = {}
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            point = (float(row["step"]), float(row["cost"]), float(row["value"]))
            rows.setdefault(int(row["seed"]), []).append(point)
    curves = []
    for seed, points in rows.items():
        steps, costs, values = np.array(points).T
        curves.append(Curve(arm="one", seed=seed, steps=steps, costs=costs, values=values))
    return curves


def real_values(name: str) -> np.ndarray:
    """What every real seed counts by, at the budget that all of them reach: [seeds]."""
    curves = real_curves(name)
    budget = min(curve.reach for curve in curves)
    return np.array([window_mean(c.costs, c.values, (1 - WINDOW) * budget, budget) for c in curves])


def resampled(values: np.ndarray, counts: tuple[int, ...], size: int, generator: np.random.Generator) -> np.ndarray:
    """Designs of equal arms: [size, A, N] of the values, none twice in a design; the surplus of an arm is nan."""
    total, most = sum(counts), max(counts)
    chosen = values[generator.random((size, values.size)).argsort(axis=1)[:, :total]]
    filled = np.full((size, len(counts), most), np.nan)
    filled[:, np.arange(most)[None, :] < np.array(counts)[:, None]] = chosen
    return filled


def _chance(mean: np.ndarray, difficulty: np.ndarray) -> np.ndarray:
    """Chance of a right answer on a task; 1.35: the spread of tasks flattens the mean."""
    return 1 / (1 + np.exp(-(np.log(mean / (1 - mean)) * 1.35 + difficulty)))


def _standard(freedom: float, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Draws of variance 1, normal or of Student's distribution."""
    if np.isinf(freedom):
        return generator.normal(size=shape)
    return generator.standard_t(freedom, size=shape) * np.sqrt((freedom - 2) / freedom)


def main() -> None:
    """Save the curves of a run by what it is judged by."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    report = gather([Path(sys.argv[1])])
    if report.verdict is None or len(report.study.arms) != 1:
        raise SystemExit(f"{sys.argv[1]}: expected a finished run of one arm. {report.unjudged}")
    lines = ["seed,step,cost,value"]
    for trial in report.study.confirmations:
        curve = trial.curve(report.verdict.metric)
        if curve is not None and trial.status == "done":
            points = zip(curve.steps, curve.costs, curve.values, strict=True)
            lines += [f"{curve.seed},{step:.0f},{cost:.0f},{value:.6g}" for step, cost, value in points]
    (DATA / f"{sys.argv[2]}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
