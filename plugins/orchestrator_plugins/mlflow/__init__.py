"""MLflow: one parent run per sweep, one nested run per trial, shipped by a process beside the driver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.api import Command, Problem, Trial, TrialResult, hookimpl

if TYPE_CHECKING:
    from orchestrator.api import Plan


@hookimpl
def check_plan(plan: Plan) -> list[Problem]:
    from .settings import problems

    return problems(plan)


@hookimpl
def on_sweep_start(plan: Plan, directory: Path) -> None:
    from .companion import start

    start(plan, directory)


@hookimpl
def on_trial_start(trial: Trial) -> None:
    from .settings import describe_trial

    describe_trial(trial)


@hookimpl
def on_sweep_end(plan: Plan, directory: Path, results: Sequence[TrialResult]) -> None:
    from .companion import finish

    finish(directory)


@hookimpl
def provide_commands() -> list[Command]:
    return [Command(name="mlflow-sync", run=_sync, summary="send MLflow what a run could not send while it lasted")]


def _sync(run: Path) -> None:
    """Send MLflow what a run could not send while it lasted."""
    from .companion import sync

    sync(run)
