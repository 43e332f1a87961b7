"""Does a bfloat16 model train? Supervised steps on one batch: float32, bfloat16 over float32 weights, and bfloat16 alone.

Each starts from the same weights and takes the same AdamW steps on the same rows; what is compared is how far the loss falls, in the
policy's own precision, and how far the weights go along float32's way, which says less: masters whose rounding stands still go all of it.
bfloat16 alone is what the core refuses to train: the weights are rounded, and torch's optimiser steps on them. Fails where the loss in
bfloat16 falls by less than 0.95 of what it falls by in float32.

    python benchmarks/precision.py [--model FOLDER] [--steps 40] [--lr 1e-5] [--figure precision.png]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchestrator.contract.batch import Column
from orchestrator.contract.types import Action, Finish, Message, Rollout, Turn
from orchestrator.plugging.registry import load_registry

WAYS = ("float32", "bfloat16", "bfloat16 alone")
LEAST = 0.95
LOGPROB = frozenset({Column.LOGPROB})


def main() -> None:
    """Train all three and print, and draw, what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model; none: the tiny preset")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--figure", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = {"preset": "tiny"} if asked.model is None else {"path": str(asked.model)}
    curves, moves = {}, {}
    for way in WAYS:
        curves[way], moves[way] = train(way, model, asked.steps, asked.lr)
    full = moves["float32"]
    print(f"{asked.steps} AdamW steps at a learning rate of {asked.lr:g}, {len(full):,} weights")
    print(f"{'':16} loss before   after   of float32's way   weights that moved")
    for way in WAYS:
        along = float(moves[way] @ full / (full @ full))
        moved = float((moves[way] != 0).double().mean())
        print(f"{way:16} {curves[way][0]:11.4f} {curves[way][-1]:7.4f} {along:18.3f} {moved:20.3f}")
    if asked.figure is not None:
        draw(curves, asked)
    falls = {way: curve[0] - curve[-1] for way, curve in curves.items()}
    share = falls["bfloat16"] / falls["float32"]
    if share < LEAST:
        sys.exit(f"the loss in bfloat16 fell by {share:.3f} of what it fell by in float32; the limit is {LEAST}")


def train(way: str, model: Mapping[str, Any], steps: int, lr: float) -> tuple[list[float], Tensor]:
    """Losses before and after each step, in the policy's own precision; and how far each weight went."""
    dtype = way.split()[0]
    policy = load_registry().build("policy", "causal_lm", {"model": {**model, "dtype": dtype}, "device": "cpu"})
    if way.endswith("alone"):
        policy.module.to(torch.bfloat16)
        policy.module.compute = None
    parameters = list(policy.module.parameters())
    before = [p.detach().float().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    packed = policy.pack(rows(policy))
    losses = []
    for step in range(steps + 1):
        loss = -policy.columns(packed.inputs, LOGPROB)[Column.LOGPROB][packed.mask].mean()
        losses.append(loss.item())
        if step < steps:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return losses, torch.cat([(p.detach().float() - b).flatten() for p, b in zip(parameters, before, strict=True)])


def rows(policy: Any) -> list[Rollout]:
    """Eight sums with their answers."""
    made = []
    for number in range(8):
        prompt = (Message(role="user", content=f"What is {number + 3} + {2 * number}?"),)
        (tokens,) = policy.encode([str(3 * number + 3)])
        action = Action(
            tokens=tokens, logprobs=(0.0,) * len(tokens), text=str(3 * number + 3), finish=Finish.STOP, context_tokens=0
        )
        turn = Turn(observation=prompt, action=action, reward=0.0)
        made.append(Rollout(task_id=str(number), index=0, seed=number, turns=(turn,)))
    return made


def draw(curves: Mapping[str, list[float]], asked: argparse.Namespace) -> None:
    """Loss by step, one line each."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for way, style in zip(WAYS, ("-", "--", ":"), strict=True):
        axes.plot(curves[way], style, label=way.replace("bfloat16 alone", "bfloat16 weights alone"))
    axes.set(xlabel=f"AdamW steps at a learning rate of {asked.lr:g}", ylabel="loss, nats per token")
    axes.legend(frameon=False)
    figure.savefig(asked.figure, dpi=120)


if __name__ == "__main__":
    main()
