"""How much the training loop costs over a bare torch loop that does the same work by hand.

Both sides train the same tiny model on the same puzzles with the same number of rollouts: sample, check, group-mean
advantages, one forward and backward pass, one AdamW step. The bare side calls the environment, the model's decoder and its
forward pass directly, holds rollouts in plain lists and pads its own tensors: no collector, no contexts, no scores, no batch, no
reduction, no ledger, no hooks. Blocks of steps alternate within one process; the ratio is that of medians of CPU time.

    python benchmarks/floor.py [--blocks 9] [--steps 6] [--limit 1.10]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from orchestrator_plugins.causal_lm.generation import Request

from orchestrator.api import Action, Column, Sampling, Split, load_registry
from orchestrator.experiment.files import parse_experiment
from orchestrator.experiment.planner import make
from orchestrator.runners.trial import build
from orchestrator.testing import make_trial
from orchestrator.training.loop import Training

TASKS, SIBLINGS, MAX_TOKENS, LR = 32, 8, 24, 2e-4
EXPERIMENT = f"""
name: floor
environment: {{use: countdown}}
policy: {{use: causal_lm, model: {{preset: tiny}}}}
rewards: [{{use: exact}}]
sampler: {{use: group, count: {SIBLINGS}}}
advantage: {{use: group_mean}}
objective: {{use: reinforce, reduction: token_mean}}
schedule: {{steps: 1000000, tasks_per_step: {TASKS}}}
sampling: {{max_tokens: {MAX_TOKENS}, max_turns: 1}}
optimizer: {{lr: {LR}}}
"""


class Bare:
    """The same step by hand."""

    def __init__(self, components):
        self.policy, self.environment = components.policy, components.environment
        self.parameters = list(self.policy.module.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LR, weight_decay=0.0, fused=True)
        self.tasks = iter(self.environment.tasks(Split.TRAIN))
        self.sampling = Sampling(max_tokens=MAX_TOKENS)
        self.seed = 0

    def step(self) -> None:
        policy, renderer = self.policy, self.policy.renderer
        tasks = list(itertools.islice(self.tasks, TASKS))
        requests = []
        for task in tasks:
            prompt = renderer.rendering.first([(m["role"], m["content"]) for m in task.prompt])
            for _ in range(SIBLINGS):
                self.seed += 1
                requests.append(Request(prompt=prompt, sampling=self.sampling, seed=self.seed, limit=MAX_TOKENS))
        found = policy._engine.generate(requests)
        rewards = []
        for place, one in enumerate(found):
            episode = self.environment.start(tasks[place // SIBLINGS], 0)
            episode.open()
            action = Action(tokens=one.tokens, logprobs=one.logprobs, text=renderer.read(one.tokens)[0])
            rewards.append(episode.step(action).reward)
            episode.close()
        scores = torch.tensor(rewards).view(TASKS, SIBLINGS)
        advantages = (scores - scores.mean(1, keepdim=True)).view(-1)
        lengths = [len(r.prompt) + len(g.tokens) for r, g in zip(requests, found, strict=True)]
        width, rows = max(lengths), len(found)
        tokens = torch.zeros(rows, width, dtype=torch.int64)
        mask = torch.zeros(rows, width, dtype=torch.bool)
        attention = torch.zeros(rows, width, dtype=torch.int64)
        for row, (request, generated) in enumerate(zip(requests, found, strict=True)):
            tokens[row, : lengths[row]] = torch.tensor(request.prompt + generated.tokens)
            attention[row, : lengths[row]] = 1
            mask[row, len(request.prompt) : lengths[row]] = True
        inputs = {
            "tokens": tokens,
            "attention_mask": attention,
            "temperature": torch.ones(rows),
            "asked": mask,
        }
        logprobs = policy.columns(inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]
        loss = -torch.where(mask, logprobs * advantages[:, None], 0.0).sum() / mask.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        policy.refresh()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=9, help="pairs of blocks measured")
    parser.add_argument("--steps", type=int, default=6, help="steps per block")
    parser.add_argument("--limit", type=float, default=1.10, help="exit 1 when the ratio is above")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    registry = load_registry(only=["baselines", "causal_lm", "countdown"])
    [spec] = make(parse_experiment(EXPERIMENT), registry).trials
    ours, bare = build(spec.settings, registry, seed=0), build(spec.settings, registry, seed=0)
    with tempfile.TemporaryDirectory() as directory:
        trial = make_trial(Path(directory), spec.settings)
        loop, floor = Training(trial, ours), Bare(bare)

        times: dict[str, list[float]] = {"loop": [], "bare": []}
        for block in range(arguments.blocks + 1):
            for name, step in (("loop", loop.one_step), ("bare", floor.step)):
                began = time.process_time()
                for _ in range(arguments.steps):
                    step()
                if block:  # the first warms up
                    times[name].append((time.process_time() - began) / arguments.steps)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(a / b for a, b in zip(times["loop"], times["bare"], strict=True))
    print(json.dumps({"cpu_seconds_per_step": medians, "ratio": round(ratio, 3), "blocks": arguments.blocks}, indent=1))
    raise SystemExit(ratio > arguments.limit)


if __name__ == "__main__":
    main()
