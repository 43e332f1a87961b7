"""What is tracked where: read from the experiment by the driver, written down for the shipper."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.api import ConfigError, Plan, Problem, Trial, flatten, reveal, write_json

from .store import file_of

SWEEP = "mlflow/sweep.json"  # in the run's directory
TRIAL = "tracking.json"  # in a trial's directory
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")


def problems(plan: Plan) -> list[Problem]:
    """Judge ``tracking.uri``."""
    tracking = plan.experiment.tracking
    if tracking.uri is None or not tracking.enabled:
        return []
    try:
        uri = reveal(tracking.uri, "tracking.uri")
    except ConfigError as error:
        return list(error.problems)
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if uri.partition("?")[0] in ("sqlite:", "sqlite://", "sqlite:///", "sqlite:///:memory:"):
        return [
            Problem(
                "tracking.uri", f"{uri!r} keeps nothing once the run is over; name a file: sqlite:////absolute/path"
            )
        ]
    if scheme in _SCHEMES or uri == "databricks":
        return []
    return [
        Problem(
            "tracking.uri",
            f"{tracking.uri!r} is no MLflow store or server; expected something like http://127.0.0.1:5000 or "
            f"sqlite:////absolute/path/mlflow.db (schemes: {', '.join(_SCHEMES)})",
        )
    ]


def describe_sweep(plan: Plan, directory: Path) -> bool:
    """Write down how a run is tracked; False when it is not.

    Without ``tracking.uri`` metrics go to a sqlite file in the folder that holds the runs, artefacts beside it: no path
    is written down, since the folder may move.
    """
    tracking = plan.experiment.tracking
    if not tracking.enabled:
        return False
    file = None if tracking.uri is None else file_of(tracking.uri)
    write_json(
        directory / SWEEP,
        {
            "uri": tracking.uri if file is None else f"sqlite:///{file}",
            "experiment": tracking.experiment or plan.name,
            "name": directory.resolve().name,
            "params": _params(plan.experiment.model_dump(mode="json")),
        },
    )
    return True


def describe_trial(trial: Trial) -> None:
    """Write down, beside its metrics, what a trial is."""
    if trial.settings.tracking.enabled:
        write_json(
            trial.directory / TRIAL,
            {
                "id": trial.id,
                "tags": {"arm": trial.arm, "seed": str(trial.seed), "phase": str(trial.phase)},
                "params": _params(trial.config),
            },
        )


def _params(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings by dotted name with text values; what was left at null is left out."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, default=str)
        for name, value in flatten(config).items()
        if value is not None and value not in ({}, [], ())
    }


def read_json(path: Path) -> Any:
    """Read what ``write_json`` wrote; None where there is nothing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
