"""The plan of a run, written to its folder and read back."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.contract.plan import Plan
from orchestrator.errors import ConfigError, Problem

_FILE = "plan.json"


def save_plan(plan: Plan, directory: Path) -> Path:
    """Write ``plan.json`` into a run's directory, aside first and then renamed into place."""
    directory.mkdir(parents=True, exist_ok=True)
    aside = directory / f".{_FILE}.{os.getpid()}"
    with aside.open("w", encoding="utf-8") as file:
        file.write(plan.to_json())
        file.flush()
        os.fsync(file.fileno())
    return aside.replace(directory / _FILE)


def load_plan(directory: Path) -> Plan:
    """Read the plan of a run.

    :raises ConfigError: the directory holds no readable plan
    """
    path = directory / _FILE
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([Problem(str(directory), f"is no run: it has no {_FILE}. Runs live in runs/")]) from None
    except (OSError, ValueError) as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error}")]) from error
