"""What a search tried and chose, in words, as a table and as a figure: the Pareto front where several metrics are compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from orchestrator.contract.metrics import compared
from orchestrator.contract.search import Goal, Tried
from orchestrator.report.drawing import INK, MARKERS, Drawing, svg_text
from orchestrator.runs.searched import Searched
from orchestrator.runs.study import PALETTE, Study
from orchestrator.verdict.wording import DASH, metric_label, number

_WORDS = {"done": "to the end", "stopped": "stopped early", "failed": "failed", "running": "not finished"}


def chosen_words(study: Study) -> list[str]:
    """What the search chose, a sentence for each arm."""
    return [_sentence(one, study) for one in study.searched]


def front_table(study: Study) -> tuple[list[str], list[list[str]]]:
    """The Pareto front of each arm, best by the first metric first; empty where one metric was compared."""
    fronts = [one for one in study.searched if one.front]
    if not fronts:
        return [], []
    paths = list(dict.fromkeys(path for one in fronts for tried in one.front for path in tried.values))
    goals = [f"{_name(goal, study)} ({goal.mode})" for goal in fronts[0].goals]
    rows = []
    for one in fronts:
        for tried in sorted(one.front, key=lambda tried: (tried.scores or (), -tried.index), reverse=True):
            values = one.values(tried) or ()
            settings = [_word(tried.values[path]) if path in tried.values else DASH for path in paths]
            mark = "confirmed" if tried is one.chosen or tried == one.chosen else ""
            rows.append([one.arm, str(tried.index), *map(number, values), *settings, mark])
    return ["arm", "sample", *goals, *paths, "chosen"], rows


def front_note(study: Study) -> str:
    """What the front says, and which of it is confirmed."""
    first = next((_name(one.goals[0], study) for one in study.searched if one.front), "")
    return (
        "On the front are the configurations that no other of their arm is at least as good as in every metric and better "
        f"in one, by their tuning seeds. The one best by {first}, the metric named first, is confirmed on the experiment's "
        "seeds, and only that enters the verdict."
    )


def draw_fronts(study: Study, colours: Mapping[str, int]) -> list[Drawing]:
    """The first metric against each other one: every configuration, and the front of each arm."""
    fronts = [one for one in study.searched if one.front]
    if not fronts:
        return []
    goals = fronts[0].goals
    others = range(1, len(goals))
    figure = Figure(figsize=(6.4 * len(others), 3.9), layout="constrained")
    panels = figure.subplots(1, len(others), squeeze=False)[0]
    for other, axes in zip(others, panels, strict=True):
        for one in fronts:
            index = colours[one.arm]
            look: dict[str, Any] = {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)]}
            points = [(values[other], values[0]) for tried in one.tried if (values := one.values(tried)) is not None]
            axes.plot(
                *zip(*points, strict=True), linestyle="none", markersize=4.5, fillstyle="none", alpha=0.55, **look
            )
            front = sorted(
                (values[other], values[0]) for tried in one.front if (values := one.values(tried)) is not None
            )
            reach = "steps-post" if goals[other].mode == "min" else "steps-pre"  # what some configuration reaches there
            axes.plot(*zip(*front, strict=True), drawstyle=reach, linewidth=1.4, markersize=6, label=one.arm, **look)
            if one.chosen is not None and (values := one.values(one.chosen)) is not None:
                ring: dict[str, Any] = {"marker": "o", "markersize": 13, "fillstyle": "none", "color": INK}
                axes.plot(values[other], values[0], linewidth=1.2, **ring)
        axes.set_xlabel(f"{metric_label(_name(goals[other], study))} ({_wanted(goals[other])})")
        axes.set_ylabel(f"{metric_label(_name(goals[0], study))} ({_wanted(goals[0])})")
        axes.margins(0.08)
        if len(fronts) > 1:
            axes.legend(frameon=False)
    caption = (
        "Every configuration tried (hollow), by the mean over its tuning seeds. Filled and joined: the front, which no "
        "other beats in every metric. Ringed: confirmed, the best of the front by the first metric."
    )
    return [Drawing(name="pareto", title="Pareto front", caption=caption, svg=svg_text(figure), wide=len(others) > 1)]


def to_json(study: Study) -> list[dict[str, Any]]:
    """What each arm's search tried and chose, with the sentence that says it."""
    return [
        {
            "arm": one.arm,
            "says": _sentence(one, study),
            "metrics": [{"metric": _name(goal, study), "mode": goal.mode} for goal in one.goals],
            "chosen": None if one.chosen is None else _row(one, one.chosen),
            "front": [_row(one, tried) for tried in one.front],
            "tried": [_row(one, tried) for tried in one.tried],
        }
        for one in study.searched
    ]


def _row(one: Searched, tried: Tried) -> dict[str, Any]:
    return {
        "sample": tried.index,
        "searched": dict(tried.values),
        "status": tried.status,
        "values": one.values(tried),
        "cost": tried.cost,
    }


def _sentence(one: Searched, study: Study) -> str:
    counts = Counter(tried.status for tried in one.tried)
    ended = ", ".join(f"{counts[status]} {word}" for status, word in _WORDS.items() if counts[status])
    tried = f"{one.arm}: {len(one.tried)} configuration{'s' * (len(one.tried) != 1)} tried ({ended or 'none yet'})"
    goals = " and ".join(f"{metric_label(_name(goal, study))}" for goal in one.goals)
    if one.chosen is None:
        over = one.tried and all(tried.status != "running" for tried in one.tried)
        return f"{tried}; nothing is chosen, since {f'none measured {goals}' if over else 'the search has not ended'}."
    settings = ", ".join(f"{path} = {_word(value)}" for path, value in one.chosen.values.items())
    values = one.values(one.chosen)
    reached = f", which reached {_reached(one, values, study)}" if values else ""
    if len(one.goals) > 1:
        of = f"of {len(one.front)} on the Pareto front the best by {metric_label(_name(one.goals[0], study))}, "
        return f"{tried}; confirmed: {of}{settings}{reached}."
    return f"{tried}; confirmed: {settings}{reached}{_runner_up(one)}."


def _reached(one: Searched, values: tuple[float, ...], study: Study) -> str:
    return " and ".join(
        f"{number(value)} in {metric_label(_name(goal, study))}" for goal, value in zip(one.goals, values, strict=True)
    )


def _runner_up(one: Searched) -> str:
    """How far the next best came, so that a reader sees how much the choice rests on."""
    assert one.chosen is not None
    others = [t for t in one.tried if t is not one.chosen and t.status == one.chosen.status and t.score is not None]
    if not others:
        return ""
    values = one.values(max(others, key=lambda tried: tried.score or 0.0))
    return f" (the next best {number(values[0])})" if values else ""


def _name(goal: Goal, study: Study) -> str:
    measured = {name for trial in study.tuning for name in trial.last}
    return compared(measured, goal.metric)


def _wanted(goal: Goal) -> str:
    return "more is better" if goal.mode == "max" else "less is better"


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
