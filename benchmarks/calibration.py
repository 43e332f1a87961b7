"""How often does the verdict name a winner where there is none, and how often does it find one where there is?

Simulates learning curves as held-out evaluations show them: a rise from a shared warm start to a plateau that differs
by seed, training that wanders, seeds that now and then collapse, evaluation by a finite number of tasks and samples
(the tasks shared by all arms), arms that spend different amounts per step. Every comparison goes through
``orchestrator.verdict.judge.judge``, the code behind every report.

    python benchmarks/calibration.py            # the tables of docs/benchmarks/calibration.md, as Markdown
    python benchmarks/calibration.py --json     # for machines
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
from scipy.special import bdtrc

from orchestrator.runs.curves import Curve
from orchestrator.verdict.judge import Outcome, judge

STEPS = np.arange(0, 101, 10)  # evaluations
RESAMPLES = 2_000  # of the bootstrap: enough for one comparison in hundreds


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How curves scatter. The defaults resemble a small language model on countdown puzzles."""

    start: float = 0.23  # pass@1 of the shared warm start
    gain: float = 0.20  # reached by an average seed
    plateau_spread: float = 0.020  # of the plateau over seeds, standard deviation
    wander: float = 0.006  # random walk per evaluation, standard deviation
    shared: float = 0.0  # share of the plateau's variance that arms with the same seed have in common
    collapse: float = 0.0  # probability that a seed loses what it learned on the way
    tasks: int = 128  # held-out tasks, the same for all
    samples: int = 4  # rollouts per task and evaluation


WORLDS = {
    "typical": World(),
    "seeds correlated over arms": World(shared=0.6),
    "one seed in ten collapses": World(collapse=0.1),
    "coarse evaluation, 16 tasks x 1": World(tasks=16, samples=1),
    "seeds scatter widely": World(plateau_spread=0.06),
}


def simulate(
    world: World, arms: int, seeds: int, generator: np.random.Generator, effects: tuple[float, ...]
) -> list[Curve]:
    """Draw one experiment.

    :param effects: true difference of each arm's plateau from the world's
    """
    difficulty = generator.normal(0.0, 1.5, size=world.tasks)  # logits around the policy's mean
    common = generator.normal(size=seeds)
    curves = []
    for arm in range(arms):
        speed = 12_000 * (1 + 0.25 * arm)  # tokens per step: methods differ in how long they let answers grow
        for seed in range(seeds):
            own = generator.normal()
            luck = world.plateau_spread * (np.sqrt(world.shared) * common[seed] + np.sqrt(1 - world.shared) * own)
            costs = STEPS * speed * generator.uniform(0.95, 1.05)
            rise = 1 - np.exp(-costs / 500_000)
            mean = world.start + (world.gain + luck + effects[arm]) * rise
            mean = mean + world.wander * np.concatenate([[0.0], generator.normal(size=STEPS.size - 1).cumsum()])
            if generator.random() < world.collapse:
                mean = np.where(generator.integers(20, 100) <= STEPS, 0.5 * mean, mean)
            values = _evaluate(np.clip(mean, 0.005, 0.995), difficulty, world.samples, generator)
            curves.append(
                Curve(arm=f"arm{arm}", seed=seed, steps=STEPS.astype(float), costs=costs.astype(float), values=values)
            )
    return curves


def rate(world: World, arms: int, seeds: int, repeats: int, effects: tuple[float, ...], seed: int) -> float:
    """Share of experiments in which any arm is named better or worse than the first."""
    generator = np.random.default_rng(seed)
    named = 0
    for _ in range(repeats):
        curves = simulate(world, arms, seeds, generator, effects)
        verdict = judge(curves, metric="eval/pass_at_1", resamples=RESAMPLES)
        named += any(comparison.outcome is not Outcome.UNDECIDED for comparison in verdict.comparisons)
    return named / repeats


def _evaluate(mean: np.ndarray, difficulty: np.ndarray, samples: int, generator: np.random.Generator) -> np.ndarray:
    """Pass rates measured on finite tasks and samples: [n] true means to [n] measured ones."""
    logits = np.log(mean / (1 - mean))[:, None] * 1.35 + difficulty[None, :]  # 1.35: spread of tasks flattens the mean
    right = generator.binomial(samples, 1 / (1 + np.exp(-logits)))
    return right.mean(axis=1) / samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One cell of a table."""

    world: str
    arms: int
    seeds: int
    effect: float
    repeats: int
    rate: float


def run(repeats: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Measure false winners in every world, and the power in the typical one."""
    false, power = [], []
    for name, world in WORLDS.items():
        for arms in (2, 4) if name == "typical" else (2,):
            for seeds in (2, 3, 5, 10):
                named = rate(world, arms, seeds, repeats, (0.0,) * arms, seed + len(false))
                false.append(Row(world=name, arms=arms, seeds=seeds, effect=0.0, repeats=repeats, rate=named))
    for effect in (0.02, 0.04, 0.06, 0.10, 0.15):
        for seeds in (2, 3, 5, 10):
            found = rate(WORLDS["typical"], 2, seeds, repeats, (0.0, effect), seed + 100 + len(power))
            power.append(Row(world="typical", arms=2, seeds=seeds, effect=effect, repeats=repeats, rate=found))
    return false, power


def table(rows: list[Row], label: str) -> str:
    """Lay rows out as a Markdown table, one column per number of seeds."""
    seeds = sorted({row.seeds for row in rows})
    lines = [f"| {label} | " + " | ".join(f"{n} seeds" for n in seeds) + " |", "|---|" + "---:|" * len(seeds)]
    keys = dict.fromkeys((row.world, row.arms, row.effect) for row in rows)
    for world, arms, effect in keys:
        cells = [row.rate for row in rows if (row.world, row.arms, row.effect) == (world, arms, effect)]
        name = f"+{effect:.2f}" if effect else f"{world}, {arms} arms"
        lines.append(f"| {name} | " + " | ".join(f"{100 * cell:.1f} %" for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line; exit 1 when a cell errs more than 5 % of the time beyond doubt (p < 0.001)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=500, help="simulated comparisons per cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    began = time.process_time()
    false, power = run(options.repeats, options.seed)
    seconds = time.process_time() - began
    if options.json:
        print(json.dumps({"false": [asdict(r) for r in false], "power": [asdict(r) for r in power], "cpu": seconds}))
    else:
        print(f"A winner named between equal arms ({options.repeats} comparisons per cell)\n")
        print(table(false, "world"))
        print(f"\nThe better arm named ({options.repeats} comparisons per cell)\n")
        print(table(power, "true difference in plateau"))
        print(f"\n{seconds:.0f} s of CPU")
    sys.exit(int(any(bdtrc(round(row.rate * row.repeats) - 1, row.repeats, 0.05) < 0.001 for row in false)))


if __name__ == "__main__":
    main()
