"""The report's section: what clipping removed, who collapsed, and what that says about the paper's claims."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.api import Settings, Study

from .claims import Claim, Run, judge
from .config import StPpoConfig

METHODS = {("token", "none"): "token", ("turn", "none"): "turn", ("token", "raw"): "s", ("turn", "raw"): "st"}
SUCCESS, TOKENS, TURNS = "rollout/correct", "train/clip_fraction", "st_ppo/clip_fraction/turns"
NORM, KEPT, FACTOR = "train/gradient_norm/clipped", "train/gradient_norm/loss", "st_ppo/factor/p50"
STEEPEST, MEDIAN, ABOVE = "st_ppo/gradient_norm/max", "st_ppo/gradient_norm/median", "st_ppo/divisor/above_one"


def render(study: Study) -> str | None:
    """Tabulate and draw a run's arms with the objective ``st_ppo``; None for runs without one."""
    settings, runs = read_runs(study)
    if not runs:
        return None
    parts = [_table(runs)]
    for rate, arms in _by_learning_rate(settings).items():
        claims = judge(_methods({arm: settings[arm] for arm in arms}, runs))
        parts.append(_claims(claims, rate, several=len({_rate(one) for one in settings.values()}) > 1))
    return "".join([*parts, _figure(runs, study.palette)])


def read_runs(study: Study) -> tuple[dict[str, Settings], dict[str, list[Run]]]:
    """Settings and runs by arm, of the arms with the objective ``st_ppo`` whose trials left metrics.

    Only trials that enter the verdict count: those that a search tried are no seeds of its arm.
    """
    settings: dict[str, Settings] = {}
    runs: dict[str, list[Run]] = {}
    for trial in study.confirmations:
        if trial.settings.objective is None or trial.settings.objective.use != "st_ppo":
            continue
        steps = {row["step"]: row["metrics"] for row in trial.rows if row["kind"] == "step"}
        if steps:
            settings[trial.arm] = trial.settings
            runs.setdefault(trial.arm, []).append(_run(trial.seed, [steps[step] for step in sorted(steps)]))
    return settings, runs


def method(settings: Settings) -> str | None:
    """Which method of the claims an arm is: token, turn, s, st or replayed; None for variants of them."""
    assert settings.objective is not None
    objective = StPpoConfig.model_validate(settings.objective.options)
    default = StPpoConfig()
    if (objective.clip_low, objective.clip_high) != (default.clip_low, default.clip_high):
        return None
    if objective.replay_factors:
        return "replayed" if objective.ratio == "token" else None
    if (objective.turn_gradient, objective.turn_advantage, objective.correction_scale) != ("full", "per_token", 1.0):
        return None
    return METHODS.get((objective.ratio, objective.correction))


def _run(seed: int, steps: Sequence[Mapping[str, float]]) -> Run:
    def series(name: str) -> np.ndarray:
        return np.array([step.get(name, np.nan) for step in steps], dtype=float)

    return Run(
        seed=seed,
        success=series(SUCCESS),
        clipped_tokens=series(TOKENS),
        clipped_turns=series(TURNS),
        clipped_norm=series(NORM),
        extra={name: series(name) for name in (KEPT, FACTOR, STEEPEST, MEDIAN, ABOVE)},
    )


def _methods(settings: Mapping[str, Settings], runs: Mapping[str, list[Run]]) -> dict[str, list[Run]]:
    """Runs by method; the first arm of each method counts."""
    found: dict[str, list[Run]] = {}
    for arm, one in settings.items():
        name = method(one)
        if name is not None:
            found.setdefault(name, runs[arm])
    return found


def _rate(settings: Settings) -> float:
    return settings.optimizer.lr


def _by_learning_rate(settings: Mapping[str, Settings]) -> dict[float, list[str]]:
    found: dict[float, list[str]] = {}
    for arm, one in settings.items():
        found.setdefault(_rate(one), []).append(arm)
    return found


# --- HTML -------------------------------------------------------------------------------------------------


def _table(runs: Mapping[str, list[Run]]) -> str:
    columns = {
        "seeds": lambda one: f"{len(one)}",
        "collapsed": lambda one: f"{sum(run.collapsed_at is not None for run in one)}",
        "down at the end": lambda one: f"{sum(run.is_down for run in one)}",
        "best success": lambda one: _mean([np.nanmax(run.success) for run in one]),
        "final success": lambda one: _mean([run.final for run in one]),
        "clipped tokens, first": lambda one: _mean([run.clipped_tokens[0] for run in one], 3),
        "clipped tokens": lambda one: _mean([run.clipped_tokens for run in one], 3),
        "clipped turns": lambda one: _mean([run.clipped_turns for run in one], 3),
        "‖C‖": lambda one: _mean([run.clipped_norm for run in one]),
        "‖∇J‖": lambda one: _mean([run.extra[KEPT] for run in one]),
        "largest / median ‖∇J‖": lambda one: _steepness(one),
        "median 1/d": lambda one: _mean([run.extra[FACTOR] for run in one]),
        "steps with d > 1": lambda one: _mean([run.extra[ABOVE] for run in one]),
    }
    head = "".join(f"<th>{name}</th>" for name in ("arm", *columns))
    rows = "".join(
        f"<tr><td>{html.escape(arm)}</td>{''.join(f'<td>{cell(one)}</td>' for cell in columns.values())}</tr>"
        for arm, one in runs.items()
    )
    return (
        "<p>Means over seeds and iterations of the policy that sampled. Collapsed: success at least 0.2 below its maximum "
        "so far for ten iterations; down at the end: in the last five, but not for ten; final: the last five iterations. Median 1/d: "
        "of each iteration's optimiser steps.</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _mean(parts: Sequence[Any], digits: int = 2) -> str:
    values = np.concatenate([np.atleast_1d(part) for part in parts])
    return f"{np.nanmean(values):.{digits}f}" if np.isfinite(values).any() else "-"


def _steepness(runs: Sequence[Run]) -> str:
    steepest = np.concatenate([run.extra[STEEPEST] for run in runs])
    usual = np.concatenate([run.extra[MEDIAN] for run in runs])
    known = np.isfinite(steepest) & np.isfinite(usual) & (usual > 0)
    return f"{steepest[known].max() / np.median(usual[known]):.1f}" if known.any() else "-"


def _claims(claims: Sequence[Claim], rate: float, *, several: bool) -> str:
    where = f" at learning rate {rate:g}" if several else ""
    rows = "".join(
        f"<tr><td>{claim.name}</td><td>{html.escape(claim.words)}</td><td>{claim.verdict}</td>"
        f"<td>{html.escape(claim.evidence)}</td></tr>"
        for claim in claims
    )
    return (
        f"<h3>Claims{where}</h3><table class='prose'><thead><tr><th></th><th>claim</th><th>verdict</th><th>evidence</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _figure(runs: Mapping[str, list[Run]], palette: Mapping[str, str]) -> str:
    """Success and ‖C‖ by iteration as inline SVG: a line per arm, the mean over its seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    success, norm = figure.subplots(1, 2)
    for place, (arm, one) in enumerate(runs.items()):
        style = {"color": palette[arm], "linestyle": "-" if place < 5 else "--", "linewidth": 1.6}
        for axis, name in ((success, "success"), (norm, "clipped_norm")):
            line = _mean_line([getattr(run, name) for run in one])
            if np.isfinite(line).any():
                axis.plot(np.arange(1, len(line) + 1), line, label=arm if axis is success else None, **style)
    success.set_title("success of the policy that sampled", fontsize=9)
    norm.set_title("norm of the clipped-away gradient ‖C‖", fontsize=9)
    if norm.lines:
        norm.set_yscale("log")
    for axis in (success, norm):
        axis.set_xlabel("iteration")
        axis.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    return f"<figure>{drawing[drawing.index('<svg') :]}<figcaption>Mean over seeds.</figcaption></figure>"


def _mean_line(series: Sequence[np.ndarray]) -> np.ndarray:
    """Mean at each iteration over the runs that came so far and measured it."""
    stacked = np.full((len(series), max(map(len, series))), np.nan)
    for row, values in zip(stacked, series, strict=True):
        row[: len(values)] = values
    known = np.isfinite(stacked)
    return np.where(known.any(0), np.where(known, stacked, 0.0).sum(0) / np.maximum(known.sum(0), 1), np.nan)
