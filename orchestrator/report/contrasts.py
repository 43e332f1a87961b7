"""Figures of the verdict itself: every arm's difference from the baseline, and the seeds behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from orchestrator.maths.verdict import both_sides
from orchestrator.report.drawing import DASHES, INK, MUTED, SOLID, Drawing, one_panel, svg_text
from orchestrator.runs.study import PALETTE
from orchestrator.verdict.headline import estimand
from orchestrator.verdict.outcome import Outcome
from orchestrator.verdict.wording import margin_text, metric_label, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from orchestrator.verdict.outcome import Verdict
    from orchestrator.verdict.tasks import TaskComparison


def differences(verdict: Verdict, colours: Mapping[str, int]) -> list[Drawing]:
    """Every arm's difference with its interval, beside zero and the margin, and the answer in words."""
    shown = [
        (found, found.difference, found.interval)
        for found in verdict.comparisons
        if found.difference is not None and found.interval is not None
    ]
    if not shown:
        return []
    figure, axes = _rows([found.arm for found, _, _ in shown], colours)
    if verdict.margin is not None:
        axes.axvspan(-verdict.margin, verdict.margin, color=MUTED, alpha=0.12, linewidth=0, zorder=0)
    axes.axvline(0.0, color=INK, linewidth=1, zorder=1)
    for row, (found, difference, interval) in enumerate(shown):
        shade = PALETTE[colours[found.arm] % len(PALETTE)]
        sure = found.outcome is not Outcome.UNDECIDED
        axes.plot(interval, [row, row], color=shade, linewidth=2.2, solid_capstyle="butt")
        if found.equivalence_interval is not None:
            axes.plot(found.equivalence_interval, [row, row], color=shade, linewidth=6, alpha=0.35)
        fill = "full" if sure else "none"
        axes.plot(difference, row, marker="o", markersize=8, color=shade, fillstyle=fill, markerfacecoloralt=shade)
        axes.annotate(
            found.outcome.label,
            (1.0, row),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold" if sure else "normal",
            color=INK if sure else MUTED,
            annotation_clip=False,
        )
    axes.set_xlabel(f"difference from {verdict.baseline} in {metric_label(verdict.metric)}")
    together = ", simultaneous over all arms" if len(verdict.comparisons) > 1 else ""
    caption = f"Line: {percent(verdict.confidence)} interval{together}. Filled: decided; hollow: not enough evidence."
    if verdict.margin is not None:
        level = percent(both_sides(verdict.confidence))
        caption += (
            f" Band: the margin of {margin_text(verdict.margin)}, which the thick {level} interval is held against."
        )
    title = f"Difference from {verdict.baseline}"
    return [Drawing(name="differences", title=title, caption=caption, svg=svg_text(figure))]


def seeds(verdict: Verdict, colours: Mapping[str, int]) -> list[Drawing]:
    """Every seed's mean over the last fifth, with its arm's."""
    arms = [arm for arm in verdict.arms if arm.values]
    if sum(len(arm.values) for arm in arms) < 2:
        return []
    figure, axes = _rows([arm.arm for arm in arms], colours)
    for row, arm in enumerate(arms):
        shade = PALETTE[colours[arm.arm] % len(PALETTE)]
        if arm.interval is not None:
            axes.plot(arm.interval, [row, row], color=shade, linewidth=9, alpha=0.22, solid_capstyle="butt")
        axes.plot(
            arm.values, [row] * len(arm.values), linestyle="none", marker="o", markersize=6, color=shade, alpha=0.65
        )
        mean = float(np.mean(arm.values))
        axes.plot([mean, mean], [row - 0.28, row + 0.28], color=shade, linewidth=2.4)
    axes.set_xlabel(metric_label(verdict.metric))
    caption = (
        f"One dot per seed: {estimand(verdict)}. Line: mean; bar: its {percent(verdict.confidence)} interval, for the "
        "arm alone; differences between arms have intervals of their own."
    )
    return [Drawing(name="seeds", title="What each seed counts by", caption=caption, svg=svg_text(figure))]


def tasks(compared: Sequence[TaskComparison], colours: Mapping[str, int]) -> list[Drawing]:
    """Every task's difference, arms side by side, the tasks each gained most on to the left."""
    if not compared:
        return []
    figure, axes = one_panel()
    for found in compared:
        shade = PALETTE[colours[found.arm] % len(PALETTE)]
        dash = DASHES[(colours[found.arm] // SOLID) % len(DASHES)]
        places = [(rank + 0.5) / found.tasks for rank in range(found.tasks)]
        axes.plot(places, found.by_task, color=shade, linestyle=dash, label=found.arm)
    axes.axhline(0.0, color=INK, linewidth=1, zorder=1)
    axes.set_xlabel("share of the held-out tasks, each arm's best first")
    axes.set_ylabel(f"rate of right answers minus {compared[0].baseline}'s")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    if len(compared) > 1:
        axes.legend(frameon=False, fontsize=8.5)
    caption = (
        "Mean over seeds on each task, over the last fifth of the common cost; sampled answers alone make both ends."
    )
    return [Drawing(name="tasks", title="Task by task", caption=caption, svg=svg_text(figure))]


def _rows(names: list[str], colours: Mapping[str, int]) -> tuple[Figure, Axes]:
    """A panel with one row per arm, its name in its colour."""
    figure = Figure(figsize=(6.4, max(2.2, 0.45 * len(names) + 1.1)), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), names)
    for tick, name in zip(axes.get_yticklabels(), names, strict=True):
        tick.set_color(PALETTE[colours[name] % len(PALETTE)])
        tick.set_fontweight("bold")
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return figure, axes
