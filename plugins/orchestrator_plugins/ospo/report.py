"""The report's section: the city's map, with where passengers want to go and where they come from."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.api import ConfigError, read_rows

from .config import DispatchConfig
from .environment import Dispatch

RESULTS = ("fleet_reward", "served", "service_rate", "pickup_minutes", "confirm_minutes", "detour_minutes")


def render(directory: Any) -> str | None:
    """Draw the city of a run and tabulate what became of its fleets; None for runs of other environments."""
    directory = Path(directory)
    plan = directory / "plan.json"
    if not plan.is_file():
        return None
    experiment = json.loads(plan.read_text(encoding="utf-8"))["experiment"]
    named = dict(experiment["environment"])
    if named.pop("use", None) != "dispatch":
        return None
    try:
        world = Dispatch(DispatchConfig.model_validate(named))
    except ConfigError as error:  # the trip records may be on another machine
        return f"<p>No map: {html.escape(str(error))}</p>"
    return f"{city_map(world)}{_table(_last_evaluations(directory))}"


def city_map(world: Dispatch) -> str:
    """Two maps side by side as inline SVG: zones by the day's pick-ups and by its drop-offs."""
    from matplotlib.figure import Figure

    city, day = world.city, world.day
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    north, east = city.centres[:, 0], city.centres[:, 1]
    kilometres = city.router.scale
    for axis, (title, zones) in zip(
        figure.subplots(1, 2), (("pick-ups", day.origin), ("drop-offs", day.destination)), strict=True
    ):
        counts = np.bincount(zones, minlength=len(city.ids))
        axis.scatter(east, north, s=14, color="0.75", zorder=1)
        drawn = axis.scatter(
            east, north, s=600 * counts / max(counts.max(), 1), c=counts, cmap="viridis", alpha=0.8, zorder=2
        )
        axis.set_title(f"{title} by zone ({len(day)} requests)", fontsize=9)
        axis.set_aspect(kilometres[0] / kilometres[1])
        axis.set_xticks([])
        axis.set_yticks([])
        figure.colorbar(drawn, ax=axis, shrink=0.5)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    caption = f"{city.name}: {len(city.ids)} zones; {world.config.vehicles} vehicles, {world.config.minutes} minutes"
    return f"<figure>{drawing[drawing.index('<svg') :]}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _last_evaluations(directory: Path) -> Iterator[tuple[str, Mapping[str, float]]]:
    """The newest evaluation of each trial that measured a fleet."""
    for file in sorted(directory.glob("trials/*/metrics.jsonl")):
        found: Mapping[str, float] | None = None
        for row in read_rows(file):
            if row["kind"] == "evaluation" and f"eval/episode/{RESULTS[0]}" in row["metrics"]:
                found = row["metrics"]
        if found is not None:
            yield file.parent.name, found


def _table(rows: Iterator[tuple[str, Mapping[str, float]]]) -> str:
    lines = [
        f"<tr><td>{html.escape(trial)}</td>"
        + "".join(f"<td>{metrics.get(f'eval/episode/{name}', float('nan')):.3f}</td>" for name in RESULTS)
        + "</tr>"
        for trial, metrics in rows
    ]
    if not lines:
        return ""
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in ("trial", *RESULTS))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
