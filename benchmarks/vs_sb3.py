"""Steps per second of recipe ``ppo`` against stable-baselines3's PPO: same network, batch, epochs, in turns, one run.

    python benchmarks/vs_sb3.py [--environment CartPole-v1] [--steps 40000] [--repeats 3]

Both train two tanh layers of 64 for the actor and for the critic, with Adam, ten epochs of four minibatches on the
plays of eight environments, on one thread. We play whole episodes, stable-baselines3 a fixed number of steps, so ours
goes first and its mean number of steps per update becomes the other's; on an environment of fixed length, such as
MountainCar-v0 (200 steps until it is solved), the two are equal exactly. Counted is everything between the first
step and the last: playing, advantages, updates, logging, and on our side the construction too; no evaluation. Rates are
per second of CPU time, which on one thread is the wall-clock time of a quiet machine and does not move with its load;
wall-clock seconds stand beside. Exit status 1 when the median ratio is below the floor.

Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import stable_baselines3
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from orchestrator.api import load_registry
from orchestrator.experiment import planner as plan
from orchestrator.experiment.files import load_experiment
from orchestrator.runners.trial import run_spec

ENVIRONMENTS, EPOCHS, MINIBATCHES = 8, 10, 4
FLOOR = 0.8  # least ratio of our steps per second to theirs


@dataclass(frozen=True)
class Measured:
    """One training run."""

    steps: int
    updates: int
    wall: float  # seconds
    cpu: float  # seconds of this process

    @property
    def rate(self) -> float:
        """Environment steps per second of CPU time."""
        return self.steps / self.cpu


def ours(environment: str, steps: int, seed: int) -> Measured:
    """Train with recipe ``ppo`` and policy ``mlp``."""
    experiment = f"""
name: vs-sb3
environment: {{use: gymnasium, id: {environment}, seed: {seed}}}
policy: {{use: mlp, hidden: [64, 64], activation: tanh, critic: separate}}
recipe: ppo
objective: {{value_clip: null}}
schedule: {{steps: 100000, tasks_per_step: {ENVIRONMENTS}, epochs: {EPOCHS}, minibatches: {MINIBATCHES}}}
optimizer: {{lr: 3.0e-4, max_grad_norm: 0.5}}
sampling: {{max_turns: 1000}}
evaluation: {{every: 0, first: false, tasks: 1, samples: 1}}
budget: {{generated_tokens: {steps}}}
checkpoints: {{every: 0}}
tracking: {{enabled: false, transcripts: 0}}
seeds: [{seed}]
"""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "experiment.yaml"
        file.write_text(experiment, encoding="utf-8")
        registry = load_registry(["baselines", "gymnasium", "mlp"])
        (trial,) = plan.make(load_experiment(file), registry).trials
        began = time.process_time()
        result = run_spec(trial, Path(directory), registry=registry)
        cpu = time.process_time() - began
        if result.status != "done":
            raise RuntimeError(f"our trial {result.status}: {result.error}")
        rows = [json.loads(line) for line in (Path(directory) / "trials" / trial.id / "metrics.jsonl").open()]
    last = [row["metrics"] for row in rows if row["kind"] == "step"][-1]
    return Measured(int(last["cost/generated_tokens"]), result.step, last["cost/seconds"], cpu)


def theirs(environment: str, steps: int, per_update: float, seed: int) -> Measured:
    """Train with stable-baselines3 on as many steps per update."""
    length = max(1, round(per_update / ENVIRONMENTS))
    model = PPO(
        "MlpPolicy",
        make_vec_env(environment, n_envs=ENVIRONMENTS, seed=seed),
        n_steps=length,
        batch_size=max(2, ENVIRONMENTS * length // MINIBATCHES),
        n_epochs=EPOCHS,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        device="cpu",
        seed=seed,
    )
    began, cpu = time.perf_counter(), time.process_time()
    model.learn(total_timesteps=steps)
    wall = time.perf_counter() - began
    return Measured(
        model.num_timesteps, model.num_timesteps // (length * ENVIRONMENTS), wall, time.process_time() - cpu
    )


def main() -> int:
    """Measure in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--environment", default="CartPole-v1", help="registered Gymnasium name")
    parser.add_argument("--steps", type=int, default=40_000, help="environment steps of each run")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{arguments.environment}; stable-baselines3 {stable_baselines3.__version__}, torch {torch.__version__}, "
        f"gymnasium {gymnasium.__version__}, Python {platform.python_version()}, {platform.machine()}, one thread"
    )
    print(f"{'run':>4} {'':>18} {'steps':>8} {'updates':>8} {'wall s':>8} {'CPU s':>8} {'steps/CPU s':>12}")
    ours(arguments.environment, 200, seed=0)  # imports
    theirs(arguments.environment, 200, 50, seed=0)
    ratios = []
    for repeat in range(arguments.repeats):
        mine = ours(arguments.environment, arguments.steps, seed=repeat)
        other = theirs(arguments.environment, mine.steps, mine.steps / mine.updates, seed=repeat)
        for name, found in (("rl-orchestrator", mine), ("stable-baselines3", other)):
            print(
                f"{repeat:>4} {name:>18} {found.steps:>8} {found.updates:>8} {found.wall:>8.2f} {found.cpu:>8.2f} "
                f"{found.rate:>12.0f}"
            )
        ratios.append(mine.rate / other.rate)
    median = statistics.median(ratios)
    print(
        f"ratio of steps per second, ours to theirs: median {median:.2f}, each {', '.join(f'{r:.2f}' for r in ratios)}"
    )
    return 0 if median >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
