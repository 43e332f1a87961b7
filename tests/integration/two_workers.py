"""One of the workers of ``test_workers.py``: trains on its share of a batch, once as each case asks, and prints the weights
it ends with."""

import json
import sys

import torch
import torch.distributed as dist

from orchestrator.contract.types import Action, Finish, Rollout, RolloutGroup, Sampling, Score, Task, Turn
from orchestrator.experiment.files import parse_experiment
from orchestrator.experiment.planner import make
from orchestrator.plugging.registry import load_registry
from orchestrator.rollout.assembly import assemble
from orchestrator.runners.trial import build
from orchestrator.training.trainer import Trainer
from orchestrator.training.weights import WeightStore

EXPERIMENT = """
name: workers
environment: {use: countdown}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
schedule: {steps: 1}
optimizer: {use: sgd, lr: 0.5, max_grad_norm: null}
"""


def groups() -> list[RolloutGroup]:
    """Four groups of uneven sizes and lengths, so that averages over workers would be wrong."""
    texts = [["1+2", "3*4-5", "7"], ["9-8*2", "1"], ["2*2", "4+4+4+4", "5", "6"], ["8"]]
    made = []
    for number, siblings in enumerate(texts):
        rollouts = []
        for index, text in enumerate(siblings):
            tokens = tuple(ord(letter) - 28 for letter in text)
            action = Action(tokens=tokens, logprobs=(-1.0,) * len(tokens), text=text, finish=Finish.LENGTH)
            turn = Turn(observation=({"role": "user", "content": f"{number} = 1\n"},), action=action)
            rollouts.append(
                Rollout(task_id=str(number), index=index, seed=index, turns=(turn,), sampling=Sampling(max_tokens=16))
            )
        scores = tuple(Score(value=float(len(text) % 3)) for text in siblings)
        made.append(RolloutGroup(task=Task(id=str(number)), rollouts=tuple(rollouts), scores=scores))
    return made


def train(rank: int, size: int, overrides: list[str]) -> dict:
    registry = load_registry(only=["baselines", "causal_lm", "countdown", "st_ppo"])
    [spec] = make(parse_experiment(EXPERIMENT, ["schedule.minibatches=1", *overrides]), registry).trials
    chosen = spec.settings
    components = build(chosen, registry, seed=0)
    store_of_weights = WeightStore(components.policy.module)
    trainer = Trainer(components.policy, components.advantage, components.objective, chosen, store_of_weights, seed=0)
    metrics = trainer.update(assemble(components.policy, groups()[rank::size]), step=1)
    weights = torch.cat([tensor.flatten() for tensor in store_of_weights.current().values()])
    return {
        "weights": weights.tolist(),
        "norm": metrics["train/grad_norm"],
        "clipped_norm": metrics.get("train/gradient_norm/clipped"),
    }


def main(rank: int, size: int, store: str, cases: dict[str, list[str]]) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    trained = {name: train(rank, size, overrides) for name, overrides in cases.items()}
    if rank == 0:
        print(json.dumps(trained))
    if size > 1:
        dist.barrier()  # one that ends while the other still talks to it can end it with a signal
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4]))
