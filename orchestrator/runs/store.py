"""The plan of a run, written to its folder and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from orchestrator.contract.plan import Plan
from orchestrator.errors import ConfigError, Problem
from orchestrator.runs.atomic import write_text
from orchestrator.runs.layout import RunFolder


def save_plan(plan: Plan, directory: Path) -> None:
    """Write a plan into a run's directory, whole or not at all."""
    write_text(RunFolder(directory).plan, plan.to_json())


def load_plan(directory: Path) -> Plan:
    """Read the plan of a run.

    :raises ConfigError: the directory holds no readable plan
    """
    path = RunFolder(directory).plan
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([Problem(str(directory), f"is no run: it has no {path.name}. Runs live in runs/")]) from None
    except (OSError, ValueError) as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error}")]) from error


def code_of(directory: Path) -> Mapping[str, str]:
    """Digests of the modules that a run's experiment names, without reading the rest of its plan; none without a plan.

    :raises ConfigError: the plan is not readable
    """
    path = RunFolder(directory).plan
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).get("code", {}))
    except FileNotFoundError:  # a measurement, or a trial played by itself
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error}")]) from error
