"""The sweeps that faults are tried on: one of every kind, each a few seconds long and alike whenever it is played."""

from __future__ import annotations

from typing import Any

import ladder

_WORLD = {"bonus": 1.0, "seconds": 0.02}
_ARMS: dict[str, Any] = {"plain": {}, "fast": {"optimizer": {"lr": 0.1}}}
_SEARCH: dict[str, Any] = {
    "arms": {"plain": {}},
    "search": {"optimizer.lr": {"loguniform": [1e-4, 1.0]}},
    "resources": {"concurrent": 1},
}
_METRIC = "eval/reward/mean"


def kinds() -> dict[str, dict[str, Any]]:
    """Experiments by kind."""
    return {
        "single": ladder.experiment(_WORLD, schedule={"steps": 40, "tasks_per_step": 2}, checkpoints={"every": 7}),
        "arms": ladder.experiment(_WORLD, arms=_ARMS, seeds=[0, 1], resources={"concurrent": 2, "cpus": 0.5}),
        "start": ladder.experiment(
            _WORLD,
            arms=_ARMS,
            start={"recipe": "reinforce", "schedule": {"steps": 6}},
            resources={"concurrent": 2, "cpus": 0.5},
        ),
        "rounds": ladder.experiment(
            _WORLD,
            arms=_ARMS,
            objective={"use": "clipped"},
            schedule={"steps": 9, "tasks_per_step": 2, "steps_per_round": 3, "epochs": 2},
        ),
        "stateful": ladder.experiment(_WORLD, arms=_ARMS, sampler={"use": "alternating"}),
        "asha": ladder.experiment(
            _WORLD,
            **_SEARCH,
            tune={"samples": 5, "scheduler": {"use": "asha", "factor": 2.0}, "metric": _METRIC},
        ),
        "optuna": ladder.experiment(_WORLD, **_SEARCH, tune={"samples": 4, "searcher": "optuna", "metric": _METRIC}),
        "mlflow": ladder.experiment(_WORLD, arms=_ARMS, tracking={"enabled": True, "transcripts": 1}),
    }
