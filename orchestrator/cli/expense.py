"""What a plan's trials will take: measured on request, and shown with where it comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.text import Text

from orchestrator.cli.console import err, table
from orchestrator.errors import OrchestratorError, describe
from orchestrator.experiment.planner import start_settings
from orchestrator.runs.measurements import Measurement, Measurements, cost_key
from orchestrator.verdict.expense import Expense, expect, places
from orchestrator.verdict.wording import seconds_text

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.contract.plan import Plan
    from orchestrator.experiment.estimate import Estimate
    from orchestrator.plugging.registry import Registry
    from orchestrator.runs.study import Study


def measured(plan: Plan, registry: Registry, *, anew: bool) -> tuple[dict[str, Measurement | None], bool]:
    """What is known of each arm's cost on this machine, and whether a measurement failed.

    :param anew: measure now, arms that cost the same once; False: launch nothing
    """
    known = Measurements()
    if known.problem is not None:
        _say(known.problem)
    keys = {arm: cost_key(settings, registry) for arm, settings in plan.arms.items()}
    failed = False
    if anew:
        alike: dict[str, list[str]] = {}
        for arm, key in keys.items():
            alike.setdefault(key, []).append(arm)
        for key, arms in alike.items():
            failed |= not _measure(plan, arms, key, known)
    return {arm: known.find(key) for arm, key in keys.items()}, failed


def show_expense(
    plan: Plan,
    sizes: Mapping[str, Estimate],
    known: Mapping[str, Measurement | None],
    like: Study | None,
    console: Console,
) -> None:
    """Print the expected time and memory."""
    import torch

    at_once = places(plan.experiment.resources, os.cpu_count() or 1, torch.cuda.device_count())
    found = expect(plan, sizes, known, like, at_once)
    console.print(Text("\nwhat it will take", style="bold"))
    if any(trial.source for trial in found.arms.values()):
        with_gpus = any(trial.gpu_memory is not None for trial in found.arms.values())
        made = table("arm", "time of a trial", "its memory", *(["on GPUs"] if with_gpus else []), "source")
        for arm, trial in found.arms.items():
            cells = [_seconds(trial.seconds), _bytes(trial.memory), *([_bytes(trial.gpu_memory)] if with_gpus else [])]
            made.add_row(Text(arm), *cells, Text(trial.source or "unknown; --measure runs three steps of each arm"))
        console.print(made)
    console.print(Text(f"  {_together(plan, found)}"), soft_wrap=True)


def _measure(plan: Plan, arms: list[str], key: str, known: Measurements) -> bool:
    from orchestrator.runners.measure import STEPS, measure

    settings = plan.arms[arms[0]]
    skipped = ", the start phase skipped" if settings.start is not None else ""
    steps = f"{STEPS} steps and " if settings.schedule.steps else ""
    names = f"arm{'s' * (len(arms) > 1)} {', '.join(arms)}"
    _say(f"measuring {names}: {steps}one evaluation{skipped}")
    try:
        found = measure(settings, plan.fingerprint)
    except OrchestratorError as error:
        _say(f"{names} could not be measured: {describe(error)}", style="red")
        return False
    try:
        known.keep(key, found)
    except OSError as error:
        _say(f"the measurement is shown and not remembered: {known.path} cannot be written ({error})")
    return True


def _together(plan: Plan, found: Expense) -> str:
    if found.seconds is None:
        return (
            "time, one after another: unknown; --measure runs three steps of each arm, --like RUN takes it from an "
            "earlier run"
        )
    most = "at most " if found.at_most else ""
    said = f"time, one after another: {most}{seconds_text(found.seconds)}"
    if found.places is None:
        said += "; at once: as the cluster allows"
    elif found.places > 1 and found.seconds_at_once is not None:
        said += f"; {found.places} at once: {most}{seconds_text(found.seconds_at_once)}"
    starts = any(start_settings(settings) is not None for settings in plan.arms.values())
    return f"{said}{'; start phases come on top, and are skipped when measuring' * starts}"


def _seconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else seconds_text(seconds)


def _bytes(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _say(text: str, style: str | None = None) -> None:
    err.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
