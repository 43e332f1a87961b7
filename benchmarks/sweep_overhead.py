"""What a sweep costs beside its trials: 100 trials of no work here and through plain Ray Tune, and the driver's memory.

Run: python benchmarks/sweep_overhead.py [--trials 100] [--pairs 3]

Both play on the same Ray cluster of this machine, in turn, after one warm-up of each. Plain Ray Tune is a class
trainable that is done at once, with ``reuse_actors=True`` and its default loggers and reporters silenced as far as an
option exists. Ours does what it does for any trial: journal, plugin fingerprint, result file, tracker hooks.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

PLUGIN = """
from orchestrator.api import Component, PluginConfig, Speaks, TrialResult, hookimpl


class IdleConfig(PluginConfig):
    steps: int = 0


class Idle:
    speaks = Speaks.FEATURES

    def __init__(self, config):
        self.steps = config.steps

    def tasks(self, split):
        return ()

    def start(self, task, seed):
        raise NotImplementedError


@hookimpl
def provide_environments():
    return [Component(name="idle", config=IdleConfig, build=Idle, speaks=Speaks.FEATURES)]


@hookimpl
def run_trial(trial, components):
    if trial.settings.procedure != "idle":
        return None
    for step in range(1, components.environment.steps + 1):
        row = {f"metric/{index}": float(step) for index in range(25)}
        (trial.record if step % 100 else trial.report)(step, row | {"cost/generated_tokens": float(step)})
    return TrialResult(trial=trial.id, arm=trial.arm, seed=trial.seed, status="done", step=components.environment.steps)
"""


def install(folder: Path) -> None:
    """Make the idle plugin importable here and in the workers to come."""
    (folder / "idle_plugin.py").write_text(PLUGIN)
    info = folder / "idle_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: idle-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[orchestrator.plugins]\nidle_benchmark = idle_plugin\n")
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))


def ours(trials: int, folder: Path, *, steps: int = 0) -> float:
    """Seconds our runner takes for so many idle trials."""
    from orchestrator.api import load_registry
    from orchestrator.contract.plan import Plan, TrialSpec
    from orchestrator.contract.settings import Experiment, Settings
    from orchestrator.runners import tune

    data = {"name": "idle", "procedure": "idle", "environment": {"use": "idle", "steps": steps}}
    settings = Settings.model_validate(data)
    specs = tuple(TrialSpec(id=f"idle-s{seed}", arm="idle", seed=seed, settings=settings) for seed in range(trials))
    plan = Plan(
        name="idle",
        experiment=Experiment.model_validate(data),
        trials=specs,
        fingerprint=load_registry().manager.fingerprint(),
    )
    began = time.perf_counter()
    results = tune.run(plan, folder)
    elapsed = time.perf_counter() - began
    assert [result.status for result in results] == ["done"] * trials, results[0]
    return elapsed


def plain(trials: int, folder: Path) -> float:
    """Seconds plain Ray Tune takes for as many."""
    from ray import tune
    from ray.tune import CheckpointConfig, RunConfig, Trainable, TuneConfig, Tuner

    class Nothing(Trainable):
        def step(self) -> dict:
            return {"done": True, "value": 0.0}

        def reset_config(self, new_config: dict) -> bool:
            return True

    began = time.perf_counter()
    results = Tuner(
        tune.with_resources(Nothing, {"cpu": 1}),
        param_space={"seed": tune.grid_search(list(range(trials)))},
        tune_config=TuneConfig(reuse_actors=True),
        run_config=RunConfig(
            storage_path=str(folder), verbose=0, checkpoint_config=CheckpointConfig(checkpoint_at_end=False)
        ),
    ).fit()
    elapsed = time.perf_counter() - began
    assert len(results) == trials
    assert not results.errors, results.errors[0]
    return elapsed


def memory_after(steps: int, folder: Path) -> float:
    """Mebibytes the driver holds after a trial of so many steps."""
    import psutil

    ours(1, folder, steps=steps)
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def main() -> None:
    """Measure and print one JSON object."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=100)
    arguments.add_argument("--pairs", type=int, default=3)
    chosen = arguments.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder)
        import orchestrator.runners.cluster  # sets what Ray reads when it is imported

        del orchestrator
        import ray

        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
        ours(4, folder / "warm-ours")
        plain(4, folder / "warm-plain")
        pairs = []
        for pair in range(chosen.pairs):
            there = plain(chosen.trials, folder / f"plain-{pair}")
            here = ours(chosen.trials, folder / f"ours-{pair}")
            pairs.append({"plain": round(there, 2), "ours": round(here, 2), "ratio": round(here / there, 3)})
        sizes = (1_000, 20_000, 1_000, 20_000)
        memory = [
            {"steps": steps, "driver_mib": round(memory_after(steps, folder / f"memory-{index}"), 1)}
            for index, steps in enumerate(sizes)
        ]
        ray.shutdown()
    ratio = statistics.median(pair["ratio"] for pair in pairs)
    print(json.dumps({"trials": chosen.trials, "pairs": pairs, "median_ratio": ratio, "memory": memory}, indent=1))


if __name__ == "__main__":
    main()
