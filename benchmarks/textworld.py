"""What playing TextWorld costs in a training step: 64 games at once, all turns batched through the policy.

A tiny model is first taught the walkthroughs of the games, so that it plays them rather than babbles, and one step warms up. Then
every step's wall time is cut into acting, the environment, and the rest (scores, packing, the update). Limit: the environment takes
less than 20 % of a step. Games are generated beforehand and cached; that time is not part of a step. The share of CPU time is printed
beside it (processes of games included): on a busy machine it says more, and it is what one process for the games would take.

    python benchmarks/textworld.py [--steps 9] [--teach 120] [--games 16] [--processes 2] [--limit 0.2]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from orchestrator.api import Registry, Split, load_registry
from orchestrator.experiment import planner as plans
from orchestrator.experiment.files import load_experiment, parse_experiment
from orchestrator.runners.trial import build
from orchestrator.testing import make_trial
from orchestrator.training.loop import Training

EPISODES = 64
SWEEP = Path(__file__).parents[1] / "sweeps" / "multi_turn_textworld.yaml"  # has words for these games


def experiment(games: int, processes: int) -> dict[str, Any]:
    words = load_experiment(SWEEP).file["policy"]["model"]["words"]
    return {
        "name": "textworld",
        "environment": {
            "use": "textworld",
            "theme": "basic",
            "prompt": "plain",
            "train_tasks": games,
            "processes": processes,
        },
        "policy": {"use": "causal_lm", "model": {"preset": "tiny", "words": words}},
        "sampling": {"max_tokens": 16, "max_turns": 12},
        "tracking": {"enabled": False},
    }


def training(overlay: dict[str, Any], shared: dict[str, Any], registry: Registry, directory: Path) -> Training:
    """The training loop of one trial, ready for its first step."""
    [spec] = plans.make(parse_experiment(json.dumps({**shared, "arms": {"only": overlay}})), registry).trials
    trial = make_trial(directory, spec.settings)
    loop = Training(trial, build(spec.settings, registry, seed=0))
    loop.rounds.begin(first=True)
    return loop


def one_step(loop: Training) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds by part, and the step's metrics."""
    cost, pool = loop.collector.cost, loop.components.environment.pool
    before = cost.act_seconds, cost.environment_seconds
    began, cpu, games = time.perf_counter(), time.process_time(), _cpu_seconds(pool.processes)
    metrics = loop.one_step()
    games = _cpu_seconds(pool.processes) - games
    seconds = {
        "act": cost.act_seconds - before[0],
        "environment": cost.environment_seconds - before[1],
        "step": time.perf_counter() - began,
        "games, CPU": games,
        "step, CPU": time.process_time() - cpu + games,
    }
    return seconds, metrics


def _cpu_seconds(processes: Sequence[int]) -> float:
    """CPU time that processes have taken so far."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=9, help="steps measured")
    parser.add_argument("--teach", type=int, default=120, help="supervised steps beforehand")
    parser.add_argument("--games", type=int, default=16, help="distinct games, each played by as many siblings")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="that play the games")
    parser.add_argument("--limit", type=float, default=0.2, help="exit 1 when the median share is not below")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    registry, shared = load_registry(), experiment(arguments.games, arguments.processes)
    siblings = EPISODES // arguments.games
    teach = {"recipe": "sft", "schedule": {"tasks_per_step": arguments.games}, "optimizer": {"lr": 2e-3, "warmup": 10}}
    play = {
        "recipe": "grpo_agent",
        "schedule": {"tasks_per_step": arguments.games},
        "sampler": {"count": siblings},
        "optimizer": {"lr": 1e-12, "warmup": 0},
    }
    with tempfile.TemporaryDirectory() as directory:
        taught = training(teach, shared, registry, Path(directory) / "teach")
        list(itertools.islice(taught.components.environment.tasks(Split.TRAIN), arguments.games))  # generates them
        for _ in range(arguments.teach):
            one_step(taught)
        loop = training(play, shared, registry, Path(directory) / "play")
        loop.components.policy.module.load_state_dict(taught.components.policy.module.state_dict())
        loop.components.policy.refresh()
        one_step(loop)
        measured = [one_step(loop) for _ in range(arguments.steps)]
    shares = [seconds["environment"] / seconds["step"] for seconds, _ in measured]
    median = {part: statistics.median(seconds[part] for seconds, _ in measured) for part in measured[0][0]}
    metrics = {name: statistics.median(row[name] for _, row in measured) for name in SHOWN}
    print("| what | median |\n|---|---:|")
    for part, seconds in median.items():
        print(f"| {part}, s | {seconds:.3f} |")
    for name, value in metrics.items():
        print(f"| {name} | {value:.2f} |")
    low, _, high = statistics.quantiles(shares, n=4)
    share = statistics.median(shares)
    cpu = statistics.median(seconds["games, CPU"] / seconds["step, CPU"] for seconds, _ in measured)
    print(f"| games / step, CPU | {cpu:.3f} |")
    print(f"| environment / step | {share:.3f} (quartiles {low:.3f} to {high:.3f}) |")
    if share >= arguments.limit:
        print(f"not below {arguments.limit}", file=sys.stderr)
        raise SystemExit(1)


SHOWN = ("rollout/turns/mean", "rollout/tokens/mean", "rollout/correct", "rollout/failed", "train/rows", "train/tokens")


if __name__ == "__main__":
    main()
