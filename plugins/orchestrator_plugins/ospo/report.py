"""The report's section: the city's map, with where passengers want to go and where they come from."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping

import numpy as np

from orchestrator.api import ConfigError, Study

from .config import DispatchConfig
from .environment import Dispatch

RESULTS = ("fleet_reward", "served", "service_rate", "pickup_minutes", "confirm_minutes", "detour_minutes")


def render(study: Study) -> str | None:
    """Draw the city of a run and tabulate what became of its fleets; None for runs of other environments."""
    environment = study.experiment.environment
    if environment.use != "dispatch":
        return None
    try:
        world = Dispatch(DispatchConfig.model_validate(environment.options))
    except ConfigError as error:  # the trip records may be on another machine
        return f"<p>No map: {html.escape(str(error))}</p>"
    return f"{city_map(world)}{_table(_last_evaluations(study))}"


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


def _last_evaluations(study: Study) -> Iterator[tuple[str, Mapping[str, float]]]:
    """The newest evaluation of each trial that enters the verdict and measured a fleet."""
    for trial in study.confirmations:
        found = [row["metrics"] for row in trial.rows if f"eval/episode/{RESULTS[0]}" in row["metrics"]]
        if found:
            yield trial.id, found[-1]


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
