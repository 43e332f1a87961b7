"""Runs whose seeds are added look by look, their trials' files written by the test: what an arm reaches, it reaches at once."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from orchestrator.contract.plan import Plan
from orchestrator.contract.settings import Experiment
from orchestrator.contract.types import TrialResult
from orchestrator.errors import Failure
from orchestrator.experiment.planner import confirmations
from orchestrator.runners.sweep import Sweep
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.results import write_result
from orchestrator.runs.store import save_plan
from orchestrator.testing import make_settings

LEVEL = {"base": 0.50, "equal": 0.50, "good": 0.90, "near": 0.57, "last": 0.20}
LOOKS = [2, 3, 5]


class Watcher:
    def __init__(self):
        self.said = []

    def trial_update(self, trial, status, step, metrics):
        pass

    def looked(self, said):
        self.said.append(said)


def planned(arms=("base", "equal", "good"), looks=LOOKS, **report):
    settings = make_settings()
    report = {"metric": "eval/reward/mean", "margin": 0.2, **report}
    experiment = Experiment.model_validate(
        {
            "name": "test",
            "environment": {"use": "test"},
            "arms": {arm: {} for arm in arms},
            "seeds": {"first": looks[0], "at_most": looks[-1], "looks": looks},
            "report": report,
        }
    )
    plan = Plan(name="test", experiment=experiment, trials=(), fingerprint={}, arms=dict.fromkeys(arms, settings))
    return dataclasses.replace(plan, trials=confirmations(plan, {key: {} for key in arms}))


def value(arm, seed):
    return LEVEL[arm] + 0.01 * np.random.default_rng([len(arm), ord(arm[0]), seed]).normal()


def play(sweep, spec, failing=()):
    """One trial from its start to its end."""
    sweep.started(spec.id)
    folder = RunFolder(sweep.directory).trial(spec.id)
    folder.path.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "step": s,
            "kind": "evaluation",
            "time": 0,
            "metrics": {"cost/generated_tokens": 10.0 * s, "eval/reward/mean": v},
        }
        for s, v in ((0, 0.2), (4, value(spec.arm, spec.seed)), (5, value(spec.arm, spec.seed)))
    ]
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status = "failed" if spec.id in failing else "done"
    error = Failure(type="ValueError", message="no") if status == "failed" else None
    write_result(folder, TrialResult(trial=spec.id, arm=spec.arm, seed=spec.seed, status=status, step=5, error=error))
    sweep.ended(spec.id, status, error=error)


def play_all(sweep, failing=()):
    while (spec := sweep.next()) is not None:
        play(sweep, spec, failing)
    assert sweep.finished


def begun(directory, plan):
    directory.mkdir(parents=True, exist_ok=True)
    save_plan(plan, directory)
    return Sweep(plan, directory, Watcher())
