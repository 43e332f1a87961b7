"""Designs that add seeds look by look, and races to the best: how often they err, what they find, how many seeds they take.

    python benchmarks/calibration.py sequential              # at most two minutes of CPU
    python benchmarks/calibration.py race --repeats 400      # the table of docs/benchmarks/calibration.md

The rule is ``orchestrator.maths.sequential``, look by look as the runner applies it, with the bounds of the seeds really
there; experiments that came the same way are judged together. Worlds are those of ``worlds.py``. *Interrupted*: at every
look each new seed is missing with a chance of 15 % and there at the next one, as when trials fail and are resumed.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from worlds import WORLDS, counted_by, draw, real_values, resampled

from orchestrator.maths import sequential as rule
from orchestrator.maths.sequential import Course

LOOKS = (3, 5, 8, 12, 20)
MARGIN = 0.05
LOST = 0.15  # chance that a new seed is not there at its look, where runs are interrupted
DEVIATION = 0.028  # of what seeds of the typical world count by, which sets the scale for real curves


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """One cell of a table."""

    world: str
    arms: int  # all of them
    effects: tuple[float, ...] = ()  # on the plateau, of the first arms after the baseline; the rest are equal
    scattered: float = 0.0  # in a race: standard deviation of true values
    spread: float = 0.3
    interrupted: bool = False
    margin: float | None = MARGIN


@dataclass(slots=True, kw_only=True)
class Sweep:
    """One experiment as it goes: what is decided, and the looks made."""

    row: int
    counts: list[tuple[int, ...]] = field(default_factory=list)
    named: dict[int, int] = field(default_factory=dict)  # arm to side
    equivalent: set[int] = field(default_factory=set)
    seeds: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What was measured; shares of experiments."""

    design: Design
    repeats: int
    false: float  # an equal arm named; of a race: the best arm dropped
    found: float  # the first arm named better; of a race: one arm left, and it is the best
    equivalent: float  # the first arm called equivalent; of a race: arms called tied, all within the margin of the best
    seeds: float  # of the first arm, on average; of a race: share of all arms at the last look
    all_seeds: float  # of all arms, on average
    fixed: float | None = None  # of a race: seeds share of the smallest fixed design that certifies as often
    wrong_ties: float = 0.0  # of a race: an arm called tied that is further than the margin below the best


def values_of(design: Design, repeats: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """What seeds count by, [repeats, arms, most], the arms' true values, and the margin."""
    generator = np.random.default_rng(zlib.crc32(repr((design, seed)).encode()))
    most, chunk = LOOKS[-1], max(1, 8_000 // (design.arms * LOOKS[-1]))
    effects = np.zeros((repeats, design.arms))
    effects[:, 1 : 1 + len(design.effects)] = design.effects
    if design.scattered:
        effects = design.scattered * generator.normal(size=effects.shape)
    counts, found = (most,) * design.arms, []
    scale = 1.0
    if design.world not in WORLDS:
        pool = real_values(design.world)
        scale = float(pool.std(ddof=1)) / DEVIATION
    for first in range(0, repeats, chunk):
        size = min(chunk, repeats - first)
        if design.world in WORLDS:
            plateaus = (0.0, *design.effects, *(0.0,) * (design.arms - 1 - len(design.effects)))
            y = counted_by(*draw(WORLDS[design.world], counts, plateaus, design.spread, size, generator))
        else:
            y = resampled(pool, counts, size, generator)
        found.append(y)
    values = np.concatenate(found)
    if design.scattered or design.world not in WORLDS:  # else they are in the curves
        values = values + scale * effects[..., None]
    return values, scale * effects, scale * (design.margin or 0.0)


def measure(design: Design, repeats: int, seed: int, *, race: bool = False) -> Cell:
    """Run a design many times."""
    values, truth, margin = values_of(design, repeats, seed)
    generator = np.random.default_rng(seed + 1)
    sweeps = [Sweep(row=row, seeds=np.zeros(design.arms, dtype=int)) for row in range(repeats)]
    missing = generator.random(values.shape) < (LOST if design.interrupted else 0.0)
    leader = np.zeros(repeats, dtype=int)
    for index, seeds in enumerate(LOOKS):
        alike: dict[object, list[Sweep]] = defaultdict(list)
        for sweep in sweeps:
            on = _going(sweep, design.arms, race)
            if not on:
                continue
            sweep.seeds[on] = seeds
            before = LOOKS[index - 1] if index else 0
            late = missing[sweep.row, :, before:seeds].sum(axis=1) * (sweep.seeds == seeds)
            sweep.counts.append(tuple((sweep.seeds - late).tolist()))
            state = (tuple(sweep.counts), tuple(sorted(sweep.named)), tuple(sorted(sweep.equivalent)))
            alike[state].append(sweep)
        for group in alike.values():
            _look(group, values, missing, index, margin if design.margin else None, leader, race=race)
    return (_raced if race else _compared)(design, sweeps, truth, margin, leader, values)


def _going(sweep: Sweep, arms: int, race: bool) -> list[int]:
    decided = sweep.named.keys() | sweep.equivalent
    if race:
        live = [arm for arm in range(arms) if arm not in sweep.named]
        return [] if len(live) < 2 or sweep.equivalent.issuperset(live) else live
    live = [arm for arm in range(1, arms) if arm not in decided]
    return [0, *live] if live else []


def _look(
    group: Sequence[Sweep],
    values: np.ndarray,
    missing: np.ndarray,
    index: int,
    margin: float | None,
    leader: np.ndarray,
    *,
    race: bool,
) -> None:
    first = group[0]
    rows = [sweep.row for sweep in group]
    before = LOOKS[index - 1] if index else 0
    places = np.arange(values.shape[-1])
    there = places < first.seeds[:, None]  # [A, N]
    late = (places >= before) & (places < LOOKS[index]) & (first.seeds == LOOKS[index])[:, None]
    shown = np.where(there & ~(missing[rows] & late), values[rows], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        count = (~np.isnan(shown)).sum(-1)
        means = np.where(count > 0, np.nansum(shown, -1) / np.maximum(1, count), 0.0)
        squares = np.nansum((shown - means[..., None]) ** 2, -1)
        variances = squares / np.maximum(1, count - 1)
    course = Course(counts=tuple(first.counts), shares=tuple(n / LOOKS[-1] for n in LOOKS[: index + 1]))
    arms = values.shape[1]
    if race:
        live = [arm for arm in range(arms) if arm not in first.named]
        found = rule.race(means, variances, course, live=live, margin=margin)
        for place, sweep in enumerate(group):
            sweep.named.update(dict.fromkeys(np.flatnonzero(found.behind[place]).tolist(), -1))
            sweep.equivalent = set(np.flatnonzero(found.tied[place]).tolist())
            leader[sweep.row] = found.leader[place]
        return
    undecided = [arm for arm in range(1, arms) if arm not in first.named and arm not in first.equivalent]
    looked = rule.look(means, variances, course, open_arms=undecided, named_before=list(first.named), margin=margin)
    for place, sweep in enumerate(group):
        for arm in undecided:
            if looked.named[place, arm - 1]:
                sweep.named[arm] = int(looked.named[place, arm - 1])
            elif looked.equivalent[place, arm - 1]:
                sweep.equivalent.add(arm)


def _compared(
    design: Design, sweeps: Sequence[Sweep], truth: np.ndarray, margin: float, leader: np.ndarray, values: np.ndarray
) -> Cell:
    wrong = [any(truth[s.row, arm] * side <= 0 for arm, side in s.named.items()) for s in sweeps]
    return Cell(
        design=design,
        repeats=len(sweeps),
        false=float(np.mean(wrong)),
        found=float(np.mean([s.named.get(1, 0) > 0 for s in sweeps])),
        equivalent=float(np.mean([1 in s.equivalent for s in sweeps])),
        seeds=float(np.mean([s.seeds[1] for s in sweeps])),
        all_seeds=float(np.mean([s.seeds.mean() for s in sweeps])),
    )


def _raced(
    design: Design, sweeps: Sequence[Sweep], truth: np.ndarray, margin: float, leader: np.ndarray, values: np.ndarray
) -> Cell:
    best = truth.argmax(axis=1)
    live = [[arm for arm in range(design.arms) if arm not in s.named] for s in sweeps]
    certified = [found == [best[s.row]] for s, found in zip(sweeps, live, strict=True)]
    ties = [s.equivalent - s.named.keys() if len(found) > 1 else set() for s, found in zip(sweeps, live, strict=True)]
    gap = truth.max(axis=1)[:, None] - truth
    wrong = [any(gap[s.row, arm] > margin for arm in tied) for s, tied in zip(sweeps, ties, strict=True)]
    share = float(np.mean([s.seeds.mean() / LOOKS[-1] for s in sweeps]))
    made = Cell(
        design=design,
        repeats=len(sweeps),
        false=float(np.mean([best[s.row] in s.named for s in sweeps])),
        found=float(np.mean(certified)),
        equivalent=float(np.mean([bool(tied) and not bad for tied, bad in zip(ties, wrong, strict=True)])),
        seeds=share,
        all_seeds=share * LOOKS[-1],
        wrong_ties=float(np.mean(wrong)),
    )
    settled = made.found + made.equivalent
    return replace(made, fixed=_fixed(values, best, truth, margin if design.margin else None, settled))


def _fixed(
    values: np.ndarray, best: np.ndarray, truth: np.ndarray, margin: float | None, wanted: float
) -> float | None:
    """Seeds, in those of the last look, after which one look settles as often, to a point; None: not by the last look."""
    arms = values.shape[1]
    for seeds in range(2, LOOKS[-1] + 1):
        shown = values[..., :seeds]
        course = Course(counts=((seeds,) * arms,), shares=(1.0,))
        found = rule.race(shown.mean(-1), shown.var(-1, ddof=1), course, margin=margin)
        left = (~found.behind).sum(-1)
        settled = (left == 1) | (found.tied.sum(-1) == left)
        if settled.mean() >= wanted - 0.01:
            return seeds / LOOKS[-1]
    return None


def sequential(repeats: int, seed: int) -> Iterator[Cell]:
    """Comparisons with a baseline; eight arms a tenth as often, since most of them come a way of their own."""
    few = max(20, repeats // 10)
    for effects in ((), (0.04,), (0.06,), (0.10,)):
        yield measure(Design(world="typical", arms=2, effects=effects), repeats, seed)
    for world in (*list(WORLDS)[1:], "cartpole"):
        yield measure(Design(world=world, arms=2), repeats, seed)
    yield measure(Design(world="cartpole", arms=2, effects=(0.10,)), repeats, seed)
    yield measure(Design(world="typical", arms=2, spread=0.6), repeats, seed)
    for world in ("typical", "one seed in ten collapses", "cartpole"):
        yield measure(Design(world=world, arms=2, interrupted=True), few, seed)
    for effects in ((), (0.06,), (0.10,)):
        yield measure(Design(world="typical", arms=9, effects=effects), few, seed)


def races(repeats: int, seed: int, arms: int) -> Iterator[Cell]:
    """Races of many arms; with a margin, and for the certificate alone."""
    for effects, scattered in (((0.10,), 0.0), ((0.06,), 0.0), ((), 0.04), ((), 0.0)):
        design = Design(world="typical", arms=arms, effects=effects, scattered=scattered)
        yield measure(design, repeats, seed, race=True)
    yield measure(Design(world="typical", arms=arms, effects=(0.06,), margin=None), repeats, seed, race=True)
    collapsing = Design(world="one seed in ten collapses", arms=arms, effects=(0.10,))
    yield measure(collapsing, repeats, seed, race=True)
    yield measure(Design(world="cartpole", arms=min(arms, 12), effects=(0.10,)), repeats, seed, race=True)


def table(cells: Sequence[Cell], *, race: bool) -> str:
    """The cells as Markdown."""
    if race:
        head = ["world", "arms", "truth", "draws", "best dropped", "best alone left", "tied, rightly", "tied, wrongly"]
        head += ["seeds", "fixed design that settles as often"]
    else:
        head = ["world", "arms", "spread", "difference", "draws", "false", "named better", "equivalent"]
        head += ["seeds of the arm", "of all arms"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for cell in cells:
        design = cell.design
        where = f"{design.world}, interrupted" if design.interrupted else design.world
        if race:
            truth = f"one +{design.effects[0]:.2f}" if design.effects else f"N(0, {design.scattered:g})"
            truth += "" if design.margin else ", no margin"
            fixed = "none up to 20" if cell.fixed is None else f"{100 * cell.fixed:.0f} %"
            row = [where, str(design.arms), truth, f"{cell.repeats:,}"]
            row += [f"{100 * share:.1f}" for share in (cell.false, cell.found, cell.equivalent, cell.wrong_ties)]
            row += [f"{100 * cell.seeds:.0f} %", fixed]
        else:
            effect = f"{design.effects[0]:.2f}" if design.effects else "0"
            row = [where, str(design.arms - 1), f"{design.spread:g}" if design.world in WORLDS else "real", effect]
            row += [f"{cell.repeats:,}"]
            row += [f"{100 * share:.1f}" for share in (cell.false, cell.found, cell.equivalent)]
            row += [f"{cell.seeds:.1f}", f"{cell.all_seeds:.1f}"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)
