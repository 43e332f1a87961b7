"""How often does the verdict name a winner where there is none, and how often does it find one where there is?

    python benchmarks/calibration.py            # the tables of docs/benchmarks/calibration.md, as Markdown
    python benchmarks/calibration.py --quick    # fewer draws, in less than ten minutes
    python benchmarks/calibration.py --json     # for machines
    python benchmarks/calibration.py sequential # designs that add seeds until arms are decided, see looks.py
    python benchmarks/calibration.py race       # races to the best

Two worlds (``worlds.py``): simulated curves, and the curves of real runs resampled into designs of equal arms. The rule
is ``orchestrator.maths.verdict.decide``, as ``orchestrator.verdict.judge`` calls it behind every report; a test holds the
two together. A cell that errs in more than 5 % of its draws is drawn again ten times as often, with fresh numbers, and
that figure counts: the worst of many cells would overstate the truth otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import earlier_rule
import looks
import numpy as np
from scipy.special import bdtrc
from worlds import WORLDS, World, counted_by, draw, real_values, resampled

from orchestrator.maths.power import power, smallest_difference
from orchestrator.maths.verdict import decide

SPREADS = (0.0, 0.3, 0.6)
ARMS = (1, 3, 8, 15)  # compared with the baseline
SEEDS = (2, 3, 5, 10)
REAL = ("cartpole",)
UNEVEN = {  # seeds of the baseline, then of the arms
    "baseline 10, an arm of 2": (10, 2),
    "baseline 10, three arms of 2": (10, 2, 2, 2),
    "baseline 12, fifteen arms of 3": (12, *(3,) * 15),
    "baseline 3, an arm of 10": (3, 10),
    "five seeds each, one arm lost three": (5, 5, 5, 2),
    "five seeds each, the baseline lost three": (2, 5, 5, 5),
    "fifteen arms of 3, the baseline doubled": (6, *(3,) * 15),
}
HARD = {  # beyond what the rule was made for, fifteen arms of three seeds but where said
    "the baseline scatters three times as much": (World(baseline=3.0), (3,) * 16),
    "the same, the baseline doubled": (World(baseline=3.0), (6, *(3,) * 15)),
    "every second arm at a fifth of the scatter": (World(calm=0.2), (3,) * 16),
    "heavy tails (Student, 3 degrees)": (World(tails=3.0), (3,) * 16),
    "heavy tails, one arm": (World(tails=3.0), (3, 3)),
}
MARGIN = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One design in one world, drawn many times."""

    world: str
    counts: tuple[int, ...]
    spread: float  # of arms' scatter; 0 for real curves
    effect: float  # true difference of the first arm's plateau; real curves: of what its seeds count by
    repeats: int
    false: float  # share of draws in which an arm that is equal to the baseline was named
    found: float  # share of draws in which the first arm was named better
    predicted: float  # the same by orchestrator.maths.power, from the scatter and the difference that were drawn
    equivalent: float  # share of draws in which the first arm was called equivalent, margin 0.05 or its own difference
    limit: float = 0.06  # what false winners are held against
    drawn_before: float | None = None  # the share of false winners at the first drawing, where it was above 5 %

    @property
    def exceeds(self) -> bool:
        """Whether the limit is exceeded beyond doubt (p < 0.001)."""
        return bool(bdtrc(round(self.false * self.repeats) - 1, self.repeats, self.limit) < 0.001)


def measure(
    name: str,
    world: World | np.ndarray,
    counts: tuple[int, ...],
    spread: float,
    effect: float,
    repeats: int,
    seed: int,
    margin: float | None = MARGIN,
    earlier: bool = False,
) -> Cell:
    """Draw one cell.

    :param world: simulated, or what real seeds count by
    :param margin: None: the true difference itself, where calling the arm equivalent is an error
    :param earlier: by the rule before, which read curves at their end and knew no equivalence
    """
    generator = np.random.default_rng(zlib.crc32(repr((name, counts, spread, effect, seed)).encode()))
    effects = (0.0, effect, *(0.0,) * (len(counts) - 2))
    chunk = max(40, (20_000 if isinstance(world, World) and world.samples == 1 else 80_000) // sum(counts))
    values = []
    for first in range(0, repeats, chunk):
        size = min(chunk, repeats - first)
        if isinstance(world, World):
            curves = draw(world, counts, effects, spread, size, generator)
            values.append(counted_by(*curves, **({"window": 0.0} if earlier else {})))
        else:
            values.append(resampled(world, counts, size, generator) + np.array(effects)[:, None])
    y = np.concatenate(values)
    means, variances = np.nanmean(y, axis=-1), np.nanvar(y, axis=-1, ddof=1)
    difference = float((means[:, 1] - means[:, 0]).mean()) if effect else 0.0
    freedom = np.array(counts) - 1
    deviation = float(np.sqrt((variances.mean(axis=0) * freedom).sum() / freedom.sum()))
    relative = (np.sqrt(variances.mean(axis=0)) / deviation).tolist()
    if earlier:
        each = [[row[arm, :count] for arm, count in enumerate(counts)] for row in y]
        named = np.array([[side for side, _ in earlier_rule.decide(samples)] for samples in each])
        equivalent = np.zeros(named.shape, dtype=bool)
    else:
        found = decide(means, variances, counts, margin=abs(difference) if margin is None else margin)
        named, equivalent = found.named, found.equivalent
    equal = named[:, 1:] if effect else named
    return Cell(
        world=name,
        counts=counts,
        spread=spread,
        effect=effect,
        repeats=repeats,
        false=float((equal != 0).any(axis=1).mean()) if equal.size else 0.0,
        found=float((named[:, 0] > 0).mean()),
        predicted=power(difference, deviation, counts, spread=spread, relative=relative) if effect else 0.0,
        equivalent=float(equivalent[:, 0].mean()),
        limit=0.07 if spread > 0.3 else 0.06,
    )


def false_winners(
    worlds: Sequence[tuple[str, World | np.ndarray, tuple[int, ...], float]],
    repeats: int,
    seed: int,
    earlier: bool = False,
) -> Iterator[Cell]:
    """Equal arms; a cell above 5 % is drawn again, afresh, ten times as often."""
    for name, world, counts, spread in worlds:
        cell = measure(name, world, counts, spread, 0.0, repeats, seed, earlier=earlier)
        if cell.false > 0.05 and not earlier:
            first = cell.false
            cell = measure(name, world, counts, spread, 0.0, 10 * repeats, seed + 1)
            cell = Cell(**{**asdict(cell), "drawn_before": first})
        yield cell


def equal_designs() -> list[tuple[str, World | np.ndarray, tuple[int, ...], float]]:
    """Every world at every spread with every number of arms and seeds."""
    return [
        (name, world, (seeds,) * (arms + 1), spread)
        for name, world in WORLDS.items()
        for arms in ARMS
        for spread in SPREADS
        for seeds in SEEDS
    ]


def tables(repeats: int, seed: int) -> dict[str, Iterator[Cell]]:
    """Every table by name, its cells drawn as they are asked for."""
    typical = WORLDS["typical"]
    uneven = [(name, typical, counts, spread) for name, counts in UNEVEN.items() for spread in SPREADS]
    hard = [(name, world, counts, spread) for name, (world, counts) in HARD.items() for spread in SPREADS]
    designs = [(n,) * (k + 1) for k in ARMS for n in SEEDS] + [(2 * n, *(n,) * k) for k in (8, 15) for n in (3, 5)]
    sizes = [((n, n), effect) for effect in (0.02, 0.04, 0.06, 0.10, 0.15) for n in SEEDS]
    pairs = [(n,) * (k + 1) for k in (1, 8) for n in (3, 5, 10, 20)]
    before = [("typical", typical, (n,) * (k + 1), s) for k in ARMS for s in SPREADS for n in SEEDS]
    few = max(100, repeats // 5)

    def real() -> Iterator[Cell]:
        for name in REAL:
            values = real_values(name)
            same = [(name, values, (n,) * (k + 1), 0.0) for k in ARMS for n in SEEDS]
            other = [(f"{name}, {words}", values, counts, 0.0) for words, counts in UNEVEN.items()]
            yield from false_winners([*same, *other], repeats, seed)

    def real_power() -> Iterator[Cell]:
        for name in REAL:
            values = real_values(name)
            for counts in designs:
                effect = smallest_difference(float(values.std(ddof=1)), counts)
                yield measure(name, values, counts, 0.0, effect, repeats, seed)

    return {
        "equal": false_winners(equal_designs(), repeats, seed),
        "uneven": false_winners(uneven, repeats, seed),
        "hard": false_winners(hard, repeats, seed),
        "real": real(),
        "power": (measure("typical", typical, c, s, 0.10, repeats, seed) for c in designs for s in SPREADS),
        "sizes": (measure("typical", typical, c, 0.0, effect, repeats, seed) for c, effect in sizes),
        "real power": real_power(),
        "equivalent": (measure("typical", typical, c, 0.3, e, repeats, seed) for c in pairs for e in (0.0, 0.02)),
        "at the margin": (measure("typical", typical, c, 0.3, MARGIN, repeats, seed, margin=None) for c in pairs),
        "earlier": false_winners([*before, *uneven], few, seed, earlier=True),
        "earlier power": (
            measure("typical", typical, c, s, 0.10, few, seed, earlier=True) for c in designs for s in SPREADS
        ),
    }


def label(cell: Cell) -> str:
    """A design in words."""
    return f"{cell.world}, {len(cell.counts) - 1} arm{'s' if len(cell.counts) > 2 else ''}"


def grid(cells: Sequence[Cell], what: str) -> str:
    """A row for every world and number of arms, a column for every spread and number of seeds."""
    spreads, seeds = (sorted({value(c) for c in cells}) for value in (lambda c: c.spread, lambda c: c.counts[1]))
    head = [f"{spread:g}: {n} seeds" if place == 0 else f"{n}" for spread in spreads for place, n in enumerate(seeds)]
    lines = ["| spread: | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for name in dict.fromkeys(map(label, cells)):
        row = {(c.spread, c.counts[1]): getattr(c, what) for c in cells if label(c) == name}
        shown = (f"{100 * row[s, n]:.1f}" if (s, n) in row else "" for s in spreads for n in seeds)
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def by_spread(cells: Sequence[Cell], what: str) -> str:
    """A row for every design, a column for every spread."""
    spreads = sorted({cell.spread for cell in cells})
    lines = ["| design | " + " | ".join(f"spread {s:g}" for s in spreads) + " |", "|---|" + "---:|" * len(spreads)]
    for name in dict.fromkeys(cell.world for cell in cells):
        row = {cell.spread: getattr(cell, what) for cell in cells if cell.world == name}
        lines.append(f"| {name} | " + " | ".join(f"{100 * row[s]:.1f}" for s in spreads) + " |")
    return "\n".join(lines)


def designs(cells: Sequence[Cell], *columns: tuple[str, str]) -> str:
    """A row for every cell: arms, seeds of the baseline and of an arm, and the columns asked for."""
    lines = [
        "| world | arms | seeds, baseline | seeds, arm | difference | "
        + " | ".join(name for name, _ in columns)
        + " |",
        "|---|---:|---:|---:|---:|" + "---:|" * len(columns),
    ]
    for c in cells:
        shown = " | ".join(f"{100 * getattr(c, what):.1f}" for _, what in columns)
        lines.append(f"| {c.world} | {len(c.counts) - 1} | {c.counts[0]} | {c.counts[1]} | {c.effect:.3g} | {shown} |")
    return "\n".join(lines)


def designs_by_spread(cells: Sequence[Cell]) -> str:
    """A row for every design, what was found and predicted at every spread."""
    spreads = sorted({cell.spread for cell in cells})
    lines = [
        "| arms | seeds, baseline | seeds, arm | " + " | ".join(f"spread {s:g} (predicted)" for s in spreads) + " |",
        "|---:|---:|---:|" + "---:|" * len(spreads),
    ]
    for counts in dict.fromkeys(cell.counts for cell in cells):
        row = {cell.spread: cell for cell in cells if cell.counts == counts}
        shown = " | ".join(f"{100 * row[s].found:.0f} ({100 * row[s].predicted:.0f})" for s in spreads)
        lines.append(f"| {len(counts) - 1} | {counts[0]} | {counts[1]} | {shown} |")
    return "\n".join(lines)


def summary(found: dict[str, list[Cell]]) -> str:
    """Average and worst cells, those drawn again, and how well power is predicted."""
    lines = []
    for table in ("equal", "uneven", "hard", "real"):
        cells = found.get(table, [])
        if not cells:
            continue
        mean = np.mean([c.false for c in cells])
        lines.append(f"- {table}: {len(cells)} cells, {100 * mean:.1f} % on average")
        for spread in sorted({c.spread for c in cells}):
            some = [c for c in cells if c.spread == spread]
            worst = max(some, key=lambda c: c.false)
            lines.append(
                f"  - spread {spread:g}: {100 * np.mean([c.false for c in some]):.1f} %, worst {100 * worst.false:.1f} % "
                f"of {worst.repeats:,} ({label(worst)}, seeds {worst.counts[0]} and {worst.counts[1]})"
            )
        again = [c for c in cells if c.drawn_before is not None]
        if again:
            before, after = (
                100 * max(values) for values in zip(*((c.drawn_before, c.false) for c in again), strict=True)
            )
            lines.append(f"  - {len(again)} drawn again: worst {before:.1f} % before, {after:.1f} % after")
    for table in ("power", "sizes", "real power"):
        gaps = [abs(c.found - c.predicted) for c in found.get(table, [])]
        if not gaps:
            continue
        lines.append(f"- {table}: predicted within {100 * max(gaps):.1f} points, {100 * np.mean(gaps):.1f} on average")
    return "\n".join(lines)


def render(found: dict[str, list[Cell]]) -> Iterator[str]:
    """The page's tables, those that were measured."""
    both = ("named", "found"), ("predicted", "predicted")
    earlier = found.get("earlier", [])
    shown = {
        "equal": ("A winner named between equal arms, %", lambda c: grid(c, "false")),
        "uneven": ("The same, unequal numbers of seeds", lambda c: by_spread(c, "false")),
        "hard": ("The same, beyond what the rule was made for", lambda c: by_spread(c, "false")),
        "real": ("The same, real curves resampled", lambda c: designs(c, ("named", "false"))),
        "power": ("An arm 0.10 better, named (predicted), %", designs_by_spread),
        "sizes": ("One arm better by as much, named, %", lambda c: designs(c, *both)),
        "real power": ("Real curves, an arm moved by what is found at 80 %", lambda c: designs(c, *both)),
        "equivalent": ("Called equivalent within 0.05, %", lambda c: designs(c, ("equivalent", "equivalent"))),
        "at the margin": ("The same at a difference of the margin", lambda c: designs(c, ("equivalent", "equivalent"))),
        "earlier": (
            "The rule before: a winner named between equal arms, %",
            lambda c: (
                grid([one for one in c if one.world == "typical"], "false")
                + "\n\n"
                + by_spread([one for one in earlier if one.world != "typical"], "false")
            ),
        ),
        "earlier power": ("The rule before: an arm 0.10 better, named, %", designs_by_spread),
    }
    yield f"### Summary\n\n{summary(found)}"
    for name, (title, text) in shown.items():
        if name in found:
            yield f"### {title}\n\n{text(found[name])}"


def _many_looks(options: argparse.Namespace) -> int:
    """Measure designs of many looks; 1 when one errs more often than promised beyond doubt."""
    race, began = options.design == "race", time.process_time()
    repeats = options.repeats or (100 if race else 400)
    made = looks.races(repeats, options.seed, options.arms) if race else looks.sequential(repeats, options.seed)
    cells = list(made)
    seconds = time.process_time() - began
    if options.json:
        print(json.dumps({"cells": [asdict(cell) for cell in cells], "cpu": seconds}))
    else:
        print(f"{looks.table(cells, race=race)}\n\n{seconds:.0f} s of CPU")
    return int(any(bdtrc(round(c.false * c.repeats) - 1, c.repeats, 0.06) < 0.001 for c in cells))


def main() -> None:
    """Run from the command line; exit 1 when a cell errs more often than promised beyond doubt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("design", nargs="?", choices=("fixed", "sequential", "race"), default="fixed")
    parser.add_argument(
        "--repeats",
        type=int,
        help="draws per cell: 2,000, of which ten times as many above 5 %%; 400 sequential; 100 race",
    )
    parser.add_argument("--arms", type=int, default=8, help="of a race")
    parser.add_argument("--quick", action="store_true", help="200 draws per cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="+", help="names of tables, such as equal or power; a cell's draws do not depend on it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    began = time.process_time()
    if options.design != "fixed":
        sys.exit(_many_looks(options))
    offered = tables(200 if options.quick else options.repeats or 2_000, options.seed)
    found = {name: list(offered[name]) for name in options.only or offered}
    seconds = time.process_time() - began
    if options.json:
        print(json.dumps({name: [asdict(cell) for cell in cells] for name, cells in found.items()} | {"cpu": seconds}))
    else:
        print("\n\n".join(render(found)))
        print(f"\n{seconds:.0f} s of CPU")
    judged = [cell for table in ("equal", "uneven", "real") for cell in found.get(table, [])]
    sys.exit(int(any(cell.exceeds for cell in judged)))


if __name__ == "__main__":
    main()
