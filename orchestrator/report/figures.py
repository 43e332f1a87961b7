"""The report's figures: what arms learned, what the search tried, whether training was sound."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from orchestrator.contract.metrics import COST
from orchestrator.experiment import search
from orchestrator.maths.statistics import bootstrap_interval
from orchestrator.report.contrasts import differences, seeds, tasks
from orchestrator.report.drawing import (
    CROWD,
    DASHES,
    INK,
    MARKERS,
    MUTED,
    SOLID,
    STYLE,
    WIDE,
    Drawing,
    label_ends,
    one_panel,
    svg_text,
)
from orchestrator.report.searches import draw_fronts
from orchestrator.runs.curves import Curve, by_arm, costless
from orchestrator.runs.study import PALETTE, Study
from orchestrator.verdict.wording import count_text, metric_label, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from orchestrator.contract.settings import Experiment
    from orchestrator.verdict.outcome import Verdict
    from orchestrator.verdict.tasks import TaskComparison

RESAMPLES = 2_000  # of the bands
GRID = 41  # places at which a band is computed

HEALTH = {  # what says whether training was sound, by metric
    "rollout/reward/mean": "training reward",
    "train/entropy": "token entropy (nats)",
    "train/kl_reference": "KL to the reference (nats)",
    "train/clip_fraction": "clipped share of tokens",
    "train/grad_norm": "gradient norm",
    "train/act_train_logprob_gap": "act/train log-probability gap",
}


def draw(study: Study, verdict: Verdict | None, compared: Sequence[TaskComparison] = ()) -> list[Drawing]:
    """Draw every figure the study has data for.

    :param compared: arms and baseline task by task
    """
    with matplotlib.rc_context(STYLE):
        colours = {arm: index for index, arm in enumerate(study.arms)}
        drawings: list[Drawing] = []
        if verdict is not None:
            drawings += differences(verdict, colours)
            drawings += seeds(verdict, colours)
            drawings += _learning_curves(study, verdict, colours)
            drawings += _pass_at_k(study, verdict, colours)
            drawings += tasks(compared, colours)
        drawings += _search(study, verdict, colours)
        drawings += draw_fronts(study, colours)
        drawings += _health(study, colours)
        return drawings


def _learning_curves(study: Study, verdict: Verdict, colours: Mapping[str, int]) -> list[Drawing]:
    trials = [trial for trial in study.confirmations if trial.status != "failed"]
    label = metric_label(verdict.metric)
    drawings = []
    for name, cost, axis, mark in (
        ("curves-tokens", COST, "generated tokens", verdict.cost if verdict.cost_name != "steps" else None),
        ("curves-steps", None, "training steps", verdict.cost if verdict.cost_name == "steps" else None),
    ):
        curves = [curve for trial in trials if (curve := trial.curve(verdict.metric, cost)) is not None]
        if not curves or max(curve.reach for curve in curves) == 0:
            continue
        figure, axes = one_panel()
        crowded, ends = len({curve.arm for curve in curves}) >= CROWD, {}
        idle, widest = costless(curves), max(curve.reach for curve in curves)
        for arm, found in by_arm(curves).items():
            # a level line for who spends nothing
            reach = widest if arm in idle else min(curve.reach for curve in found)
            ends[arm] = _band(axes, found, colours[arm], verdict.confidence, reach=reach, crowded=crowded)
        if mark:
            axes.axvspan(verdict.window.low, mark, color=MUTED, alpha=0.12, linewidth=0, zorder=0)
            axes.annotate(
                "compared here",
                (mark, 0.015),
                xycoords=("data", "axes fraction"),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                fontsize=8.5,
                color=MUTED,
            )
        axes.set_xlabel(axis)
        axes.set_ylabel(label)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(value)))
        axes.margins(x=0.01)
        label_ends(axes, ends, colours)
        drawings.append(
            Drawing(
                name=name,
                title=f"{label} against {axis}",
                caption=f"Mean over seeds with its {percent(verdict.confidence)} bootstrap band"
                + ("." if crowded else "; single seeds faint.")
                + (" Grey: the stretch of cost over which curves are averaged." if mark else ""),
                svg=svg_text(figure),
            )
        )
    return drawings


def _band(
    axes: Axes, curves: Sequence[Curve], colour: int, confidence: float, *, reach: float, crowded: bool
) -> tuple[float, float]:
    """Draw one arm up to a cost; returns where its line ends."""
    shade, dash = PALETTE[colour % len(PALETTE)], DASHES[(colour // SOLID) % len(DASHES)]
    places = np.linspace(max(float(curve.costs[0]) for curve in curves), reach, GRID)
    values = np.array([curve.at(places) for curve in curves])  # [seeds, places]
    centre = values.mean(axis=0)
    if len(curves) > 1:
        for curve in () if crowded else curves:
            axes.plot(curve.costs, curve.values, color=shade, linewidth=0.8, alpha=0.35, zorder=2)
        bands = [bootstrap_interval([column], _mean, confidence=confidence, resamples=RESAMPLES) for column in values.T]
        low, high = np.array(bands).T
        axes.fill_between(places, low, high, color=shade, alpha=0.06 if crowded else 0.14, linewidth=0, zorder=1)
    axes.plot(places, centre, color=shade, linestyle=dash, zorder=3, solid_capstyle="round")
    return float(places[-1]), float(centre[-1])


def _pass_at_k(study: Study, verdict: Verdict, colours: Mapping[str, int]) -> list[Drawing]:
    pattern = re.compile(r"eval/pass_at_(\d+)")
    trials = [trial for trial in study.confirmations if trial.status in ("done", "stopped")]
    found = {int(match[1]) for trial in trials for name in trial.last if (match := pattern.fullmatch(name))}
    if len(found) < 2:
        return []
    cost = COST if verdict.cost_name != "steps" else None
    figure, axes = one_panel()
    places, ends = sorted(found), {}
    for arm in study.arms:
        own = [trial for trial in trials if trial.arm == arm]
        samples = [
            [c.over(*verdict.window) for trial in own if (c := trial.curve(f"eval/pass_at_{k}", cost)) is not None]
            for k in places
        ]
        if not own or not all(samples):
            continue
        shade = PALETTE[colours[arm] % len(PALETTE)]
        centre = [float(np.mean(sample)) for sample in samples]
        if min(len(sample) for sample in samples) > 1:
            bands = [
                bootstrap_interval([s], _mean, confidence=verdict.confidence, resamples=RESAMPLES) for s in samples
            ]
            low, high = np.array(bands).T
            axes.fill_between(places, low, high, color=shade, alpha=0.14, linewidth=0)
        axes.plot(places, centre, color=shade, marker=MARKERS[colours[arm] % len(MARKERS)], markersize=5)
        ends[arm] = (float(places[-1]), centre[-1])
    if not ends:
        return []
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [str(k) for k in places])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("k (samples per task)")
    axes.set_ylabel("pass@k on held-out tasks")
    label_ends(axes, ends, colours)
    caption = (
        f"Unbiased pass@k, mean over the last fifth of the common cost, with its {percent(verdict.confidence)} bootstrap "
        "band over seeds."
    )
    return [Drawing(name="pass-at-k", title="pass@k", caption=caption, svg=svg_text(figure))]


def _search(study: Study, verdict: Verdict | None, colours: Mapping[str, int]) -> list[Drawing]:
    """One panel per arm and searched option: what each configuration reached."""
    space = {path: spec for run in study.runs for path, spec in _space(run.plan.experiment).items()}
    trials = [trial for trial in study.tuning if trial.status in ("done", "stopped")]
    arms = [arm for arm in study.arms if any(trial.arm == arm for trial in trials)]
    paths = [path for path in space if any(path in trial.spec.searched for trial in trials)]
    named = study.experiment.tune.metrics
    metric = named[0] if named else (verdict.metric if verdict else None)
    if not arms or not paths or metric is None:
        return []
    columns = min(4, len(arms))
    rows = -(-len(arms) // columns)
    figure = Figure(figsize=(WIDE, 2.6 * rows * len(paths)), layout="constrained")
    panels = figure.subplots(rows * len(paths), columns, squeeze=False, sharey=True)
    for place, (path, arm) in enumerate((path, arm) for path in paths for arm in arms):
        block, index = divmod(place, len(arms))
        axes = panels[block * rows + index // columns][index % columns]
        points = [
            (trial.spec.searched[path], trial.last[metric], trial.status)
            for trial in trials
            if trial.arm == arm and path in trial.spec.searched and metric in trial.last
        ]
        chosen = {
            _plain(trial.spec.searched[path])
            for trial in study.confirmations
            if trial.arm == arm and path in trial.spec.searched
        }
        _search_panel(axes, points, chosen, space[path], PALETTE[colours[arm] % len(PALETTE)])
        axes.set_title(arm, color=PALETTE[colours[arm] % len(PALETTE)])
        axes.set_xlabel(path)
        if index % columns == 0:
            axes.set_ylabel(metric_label(metric).removesuffix(" on held-out tasks"))
    if not any(axes.lines for axes in panels.flat):
        return []
    for axes in panels.flat:
        axes.set_visible(axes.has_data())
    caption = (
        f"{metric_label(metric)} at the end of each tuning trial against the value tried. Hollow: stopped early. "
        "Ringed: the value chosen for confirmation."
    )
    return [Drawing(name="search", title="Search space", caption=caption, svg=svg_text(figure), wide=True)]


def _search_panel(
    axes: Axes, points: Sequence[tuple[Any, float, str]], chosen: set[Any], spec: Mapping[str, Any], shade: str
) -> None:
    kind = next(iter(spec), "choice")
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value, _, _ in points)
    if kind in ("choice", "grid", "values") or not numeric:
        offered: Any = next(iter(spec.values()), [])
        tried = (value for value, _, _ in points)
        names = list(dict.fromkeys(str(value) for value in (*(offered if isinstance(offered, list) else ()), *tried)))
        place: Callable[[Any], float] = lambda value: float(names.index(str(value)))  # noqa: E731
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    else:
        place = float
        low, high = (float(end) for end in spec[kind][:2])
        if kind.startswith("log"):
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlim(low / 1.3, high * 1.3)
        else:
            axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    for value, measured, status in points:
        axes.plot(
            place(value),
            measured,
            marker="o",
            markersize=5.5,
            color=shade,
            fillstyle="none" if status == "stopped" else "full",
        )
        if _plain(value) in chosen:
            axes.plot(place(value), measured, marker="o", markersize=12, color=INK, fillstyle="none", linewidth=1.2)


def _health(study: Study, colours: Mapping[str, int]) -> list[Drawing]:
    trials = [trial for trial in study.confirmations if trial.rows]
    shown = [metric for metric in HEALTH if any(trial.series(metric)[0].size > 1 for trial in trials)]
    if not shown:
        return []
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(WIDE, 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, metric in zip(panels, shown, strict=False):
        for trial in trials:
            steps, values = trial.series(metric)
            if steps.size:
                axes.plot(steps, values, color=PALETTE[colours[trial.arm] % len(PALETTE)], linewidth=0.9, alpha=0.65)
        if metric == "train/act_train_logprob_gap":
            axes.axhline(1e-4, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
            if any((trial.series(metric)[1] > 0).any() for trial in trials):
                axes.set_yscale("log")
        axes.set_title(HEALTH[metric])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in list(figure.axes)[len(shown) :]:
        axes.set_visible(False)
    for axes in figure.axes[max(0, len(shown) - columns) : len(shown)]:
        axes.set_xlabel("training steps")
    caption = "One line per trial, in the colour of its arm. The act/train gap should stay below the dashed 1e-4."
    return [Drawing(name="health", title="Training health", caption=caption, svg=svg_text(figure), wide=True)]


def _space(experiment: Experiment) -> dict[str, Mapping[str, Any]]:
    found = search.flatten(experiment.search)
    return {path: spec for path, spec in found.items() if isinstance(spec, dict)}


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool | None) else str(value)


def _mean(resampled: np.ndarray) -> np.ndarray:
    return resampled.mean(axis=-1)
