"""Published tables of reproductions, judged again: what the rule before said, and what today's would.

The runs are gone; the tables hold enough. With three seeds the interval of an interquartile mean ends at the lowest and
the highest seed, so that all three values follow from it, to the rounding of the table. With five, difference, interval
and p give the standard error and its degrees of freedom, hence the two variances' sum; the variance common to all arms
is taken for half their mean, which is an approximation. Values are those at the end of the budget: tables hold no curves.

    python benchmarks/rejudge.py
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from scipy.special import stdtr, stdtrit

from orchestrator.maths.verdict import PRIOR, bound, decide, moments
from orchestrator.verdict.wording import p_text, signed

PAGES = Path(__file__).parents[1] / "docs" / "reproductions"
NUMBER = r"[+-]?\d+\.\d+"
THREE = re.compile(
    rf"\| (\w+) \| ({NUMBER}) \[({NUMBER}), ({NUMBER})\] \|(?: {NUMBER} \[{NUMBER}, {NUMBER}\] \| [\d.]+ \| ([\d.]+))?"
)
FIVE = re.compile(
    rf"\| ([^|]+) \|.* ({NUMBER}) \[({NUMBER}), ({NUMBER})\] \| (<? ?[\d.]+) \| (not enough evidence|better|worse) "
)


def three_seeds(page: str) -> list[tuple[str, str, str, str]]:
    """Judge a table of interquartile means over three seeds: arm, difference, p before, what is said now."""
    rows = [found for line in (PAGES / page).read_text().splitlines() if (found := THREE.match(line))]
    samples = []
    for row in rows:
        centre, low, high = (float(row[group]) for group in (2, 3, 4))
        samples.append([low, 1.5 * centre - 0.25 * (low + high), high])
    found = decide(*moments(samples))
    words = {1: "better", -1: "worse", 0: "not enough evidence"}
    return [
        (row[1], signed(float(d)), row[5], f"{words[int(side)]}, p {p_text(float(p))}")
        for row, d, side, p in zip(rows[1:], found.difference, found.named, found.p_adjusted, strict=True)
    ]


def five_seeds(page: str, seeds: int = 5) -> list[tuple[str, str, str, str]]:
    """Judge a table of differences with Bonferroni's intervals, approximately: arm, difference, before, distance now."""
    rows = [found for line in (PAGES / page).read_text().splitlines() if (found := FIVE.match(line))]
    arms, errors = len(rows), []
    for row in rows:
        difference, reach = float(row[2]), (float(row[4]) - float(row[3])) / 2
        p, freedom = float(row[5].strip("< ")), np.linspace(seeds - 1, 2 * (seeds - 1), 81)
        error = reach / stdtrit(freedom, 1 - 0.025 / arms)
        implied = np.minimum(1.0, arms * 2 * stdtr(freedom, -abs(difference) / error))
        fits = np.abs(np.log(np.maximum(implied, 1e-9) / p)) if p < 0.9995 else np.abs(freedom - 1.5 * (seeds - 1))
        errors.append(float(error[fits.argmin()]))
    both = seeds * np.square(errors)  # variance of the arm plus that of the baseline
    weight = PRIOR / (PRIOR + seeds - 1)
    distance = np.array([float(row[2]) for row in rows]) / np.sqrt((weight * both.mean() + (1 - weight) * both) / seeds)
    far = bound((seeds,) * (arms + 1))
    return [
        (
            row[1].strip(),
            signed(float(row[2])),
            f"{row[6]}, p {row[5].strip()}",
            f"{abs(t):.1f} of {far:.1f} standard errors: {'named' if abs(t) > far else 'not enough evidence'}",
        )
        for row, t in zip(rows, distance, strict=True)
    ]


def main() -> None:
    """Print all tables; arms that both rules name, or neither, are left out of the second kind."""
    print("| page | arm | difference | before | now |\n|---|---|---:|---|---|")
    for arm, difference, before, now in three_seeds("compare_all.md"):
        print(f"| compare_all | {arm} | {difference} | not enough evidence, p {before} | {now} |")
    for page in ("apo", "dars", "dars_p3o", "dars_rover", "grao", "p3o", "rover", "sppo", "superhf"):
        for arm, difference, before, now in five_seeds(f"{page}.md"):
            if before.startswith("not") == now.endswith("named"):
                print(f"| {page} | {arm} | {difference} | {before} | {now} |")


if __name__ == "__main__":
    main()
