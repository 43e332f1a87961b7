"""What the single-turn methods add to the cost of a step of GRPO over the same numbers of tokens.

Every recipe trains the same tiny model on the same puzzles beside a control: GRPO with the recipe's epochs, mini-batches,
rounds and rollouts. Steps of the two take turns in one process. The control's CPU time is scaled to the method's tokens,
what is outside the update by tokens generated and the update by tokens trained; the ratio is the median over pairs.

Where a recipe pays for a forward pass of the reference policy, the control of the limited ratio pays for one too (its KL
has a tiny weight); the ratio to plain GRPO is printed apart. So are the critic of PPO and the full-vocabulary KL of
SuperHF, for which GRPO has no counterpart. The learning rate is next to nothing, so that all policies stay alike.

    python benchmarks/methods.py [--pairs 9] [--only rover superhf] [--limit 1.15]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from orchestrator.api import Component, Recipe, Score, hookimpl
from orchestrator.experiment import planner as plans
from orchestrator.experiment.files import parse_experiment
from orchestrator.experiment.overlay import merge
from orchestrator.plugging.manager import PluginManager
from orchestrator.plugging.registry import Registry
from orchestrator.runners.trial import build
from orchestrator.testing import make_trial
from orchestrator.training.loop import Training

ROLLOUTS = 128  # a step, about
EXPERIMENT = {
    "name": "methods",
    "environment": {"use": "countdown"},
    "policy": {"use": "causal_lm", "model": {"preset": "tiny"}},
    "rewards": [{"use": "halves"}],
    "schedule": {"steps": 1_000_000, "refresh_reference": "round"},
    "sampling": {"max_tokens": 24, "max_turns": 1},
    "optimizer": {"lr": 1e-12, "warmup": 0, "decay": "constant"},
    "tracking": {"enabled": False},
}
SAME_SCHEDULE = ("epochs", "minibatches", "steps_per_round")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One method beside its control."""

    name: str
    recipe: str
    siblings: int = 8  # rollouts a task, of the control too
    options: Mapping[str, Any] = field(default_factory=dict)  # over the recipe
    control: Mapping[str, Any] = field(default_factory=dict)  # over GRPO
    apart: str = ""  # what it pays for beside its own sums; then the limit does not hold


REFERENCE = {"objective": {"kl_weight": 1e-9}}  # GRPO with a reference pass
PREFERRED = {"rewards": [{"use": "preference", "reward": {"use": "halves"}}]}
P3O_ALONE = {"objective": {"kl_weight": 0.0}}
NO_KL = {"objective": {"kl_weight": 0.0, "measure_kl": False}}
DARS = {"sampler": {"success_at": 1.0, "max_rollouts": 16}}

CASES = (
    Case(name="grpo", recipe="grpo"),
    Case(name="dr_grpo", recipe="dr_grpo"),
    Case(name="dapo", recipe="dapo", siblings=16),
    Case(name="reinforce", recipe="reinforce"),
    Case(name="rloo", recipe="rloo"),
    Case(name="dars", recipe="dars", siblings=16, options=DARS),
    Case(name="dars_breadth", recipe="dars_breadth", siblings=16, options=DARS),
    Case(name="rover", recipe="rover"),
    Case(name="p3o without KL", recipe="p3o", siblings=2, options=P3O_ALONE),
    Case(name="p3o", recipe="p3o", siblings=2, control=REFERENCE),
    Case(name="iterative_dpo", recipe="iterative_dpo", siblings=5, control=REFERENCE),
    Case(name="apo_dpo", recipe="apo_dpo", siblings=5, control=REFERENCE),
    Case(name="sppo", recipe="sppo", siblings=5, options=PREFERRED, control=REFERENCE),
    Case(name="apo_sppo", recipe="apo_sppo", siblings=5, options=PREFERRED, control=REFERENCE),
    Case(name="grao", recipe="grao"),
    Case(name="superhf without KL", recipe="superhf", siblings=16, options=NO_KL),
    Case(name="p3o", recipe="p3o", siblings=2, apart="reference pass"),
    Case(name="iterative_dpo", recipe="iterative_dpo", siblings=5, apart="reference pass"),
    Case(name="sppo", recipe="sppo", siblings=5, options=PREFERRED, apart="reference pass"),
    Case(name="superhf", recipe="superhf", siblings=16, apart="reference pass and full-vocabulary KL"),
    Case(name="ppo", recipe="ppo", siblings=1, apart="critic and a pass for its old values"),
)


class _Halves:
    """Scores siblings 1 and 0 in turn, so that every group has a signal whatever was said."""

    def score(self, group):
        return [Score(value=float(place % 2 == 0)) for place, _ in enumerate(group.rollouts)]


class _Plugin:
    @hookimpl
    def provide_rewards(self):
        return [Component(name="halves", build=lambda _: _Halves())]


class Side:
    """A method's training loop, its steps timed in two parts."""

    def __init__(self, arm: Mapping[str, Any], registry: Registry, directory: Path):
        text = json.dumps({**EXPERIMENT, "arms": {"only": arm}})
        [spec] = plans.make(parse_experiment(text), registry).trials
        trial = make_trial(directory, spec.settings)
        self.schedule = spec.settings.schedule
        self.loop = Training(trial, build(spec.settings, registry, seed=0))
        self.loop.rounds.begin(first=True)
        self._update, self.loop.trainer.update = self.loop.trainer.update, self._timed
        self._in_update = 0.0

    def step(self) -> tuple[float, float, float, float]:
        """CPU seconds outside and in the update, tokens generated and trained (in every pass)."""
        before = self.loop.collector.cost.generated_tokens, self.loop.progress.trained_tokens
        self._in_update = 0.0
        began = time.process_time()
        self.loop.one_step()
        spent = time.process_time() - began
        generated = self.loop.collector.cost.generated_tokens - before[0]
        return spent - self._in_update, self._in_update, generated, self.loop.progress.trained_tokens - before[1]

    def _timed(self, *arguments: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return self._update(*arguments, **named)
        finally:
            self._in_update = time.process_time() - began


def measure(case: Case, registry: Registry, directory: Path, pairs: int) -> tuple[float, list[float]]:
    """Median CPU seconds of the method's step, and the ratio of each pair."""
    tasks = {"schedule": {"tasks_per_step": max(1, ROLLOUTS // case.siblings)}}
    method = Side(merge({"recipe": case.recipe, **tasks}, case.options), registry, directory / "method")
    same = {"schedule": {key: method.schedule[key] for key in SAME_SCHEDULE}, "sampler": {"count": case.siblings}}
    recipe = registry.describe("recipe", case.recipe)
    assert isinstance(recipe, Recipe)
    same["update"] = dict(recipe.overlay.get("update", {}))
    control = Side(merge(merge({"recipe": "grpo", **tasks}, same), case.control), registry, directory / "control")
    seconds, ratios = [], []
    for pair in range(pairs + 2):
        outside, update, generated, trained = method.step()
        grpo_outside, grpo_update, grpo_generated, grpo_trained = control.step()
        if pair < 2:  # warming up
            continue
        expected = grpo_outside * generated / grpo_generated + grpo_update * trained / grpo_trained
        seconds.append(outside + update)
        ratios.append((outside + update) / expected)
    return statistics.median(seconds), ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9, help="pairs of steps measured per method")
    parser.add_argument("--limit", type=float, default=1.15, help="exit 1 when a method that it binds is above")
    parser.add_argument("--only", nargs="*", help="names of the methods measured; default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    manager = PluginManager()
    manager.discover()
    manager.register(_Plugin(), "halves")
    registry = Registry(manager)
    above = []
    print("| method | beside | CPU s a step | ratio | quartiles | limit |\n|---|---|---:|---:|---:|---:|")
    for case in CASES:
        if arguments.only and case.name not in arguments.only:
            continue
        with tempfile.TemporaryDirectory() as directory:
            seconds, ratios = measure(case, registry, Path(directory), arguments.pairs)
        ratio, (low, _, high) = statistics.median(ratios), statistics.quantiles(ratios, n=4)
        beside = "GRPO with a reference pass" if case.control else "GRPO"
        limit = f"none: {case.apart}" if case.apart else f"{arguments.limit:.2f}"
        print(
            f"| {case.name} | {beside} | {seconds:.3f} | {ratio:.2f} | {low:.2f} to {high:.2f} | {limit} |", flush=True
        )
        if not case.apart and ratio > arguments.limit:
            above.append(f"{case.name} {ratio:.2f}")
    if above:
        print(f"above {arguments.limit}: {', '.join(above)}", file=sys.stderr)
    raise SystemExit(bool(above))


if __name__ == "__main__":
    main()
