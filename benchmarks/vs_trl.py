"""CPU seconds per training step against TRL's GRPOTrainer: same model, prompts, completions and update.

    OMP_NUM_THREADS=1 python benchmarks/vs_trl.py [--steps 12] [--case fixed|varied]

Both sides start from the same weights (Qwen2 architecture, about 1.1 million parameters), play 8 prompts x 8
completions a step at temperature 1 and make one AdamW update of the clipped objective, no KL term, float32, one
thread, in one process, their steps taken in turn. Two cases:

- ``fixed``: the end of text is never drawn, so every completion has exactly 32 tokens;
- ``varied``: every token is the last with chance 1/25, and at most 96 are allowed.

Our side is the core's own collector, batch assembly, trainer (group-standardised advantages, clipped objective) and
refresh of the acting weights. TRL runs with its plain transformers engine, dynamic cache, no reference model,
no gradient checkpointing, no evaluation, saving or reporting; ``generate`` is timed inside it, the rest of its step is
called update (its reward call, which both sides share, costs nothing here).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import threading
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from orchestrator.api import Feedback, Sampling, Speaks, Task, load_registry
from orchestrator.contract.settings import Settings
from orchestrator.rollout.assembly import assemble
from orchestrator.rollout.collector import Collector
from orchestrator.training.trainer import Trainer
from orchestrator.training.weights import WeightStore

MODEL = {"preset": "tiny", "hidden": 144, "layers": 4, "heads": 4, "kv_heads": 2, "mlp": 480, "context": 256}
PROMPTS, SIBLINGS, LR = 8, 8, 1e-6
CASES = {"fixed": {"tokens": 32, "ends": 0.0}, "varied": {"tokens": 96, "ends": 1 / 25}}


def reward_of(text: str) -> float:
    """Something cheap that differs between siblings."""
    return float(sum(map(ord, text)) % 7)


class Quiz:
    """Countdown-like prompts of one turn; the reward looks at the text only."""

    speaks = Speaks.MESSAGES

    def tasks(self, split: object) -> list[Task]:
        """A prompt of 17 to 19 tokens each."""
        contents = [f"{3 + i} {8 - i % 3} {10 + i} 2 = {24 + 7 * i}" for i in range(PROMPTS)]
        return [Task(id=str(i), prompt=({"role": "user", "content": c},)) for i, c in enumerate(contents)]

    def start(self, task: Task, seed: int) -> _Question:
        """Ask."""
        return _Question(task)


class _Question:
    def __init__(self, task: Task):
        self._task = task

    def open(self):
        return self._task.prompt

    def step(self, action) -> Feedback:
        return Feedback(observation=None, reward=reward_of(action.text), done=True)

    def close(self) -> None:
        pass


def build_policy(ends: float):
    """A policy whose chance to end after any token is ``ends``, whatever the context."""
    policy = load_registry().build("policy", "causal_lm", {"model": MODEL})
    transformer = policy.module.transformer
    embedding = transformer.get_input_embeddings().weight
    with torch.no_grad():
        # the first coordinate of every state stays at its embedding's: a constant the head can lean on
        embedding[:, 0] = 1.0
        for layer in transformer.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        transformer.model.norm.weight[0] = 1.0
        eos = transformer.config.eos_token_id
        embedding[eos] = 0
        embedding[eos, 0] = -40.0
        if ends:
            low, high = 0.0, 40.0
            for _ in range(40):  # the chance grows with the logit: bisect
                embedding[eos, 0] = middle = (low + high) / 2
                low, high = (middle, high) if _chance(transformer, eos) < ends else (low, middle)
    policy.refresh()
    return policy


def _chance(transformer, token: int) -> float:
    ids = torch.randint(7, 100, (4, 40), generator=torch.Generator().manual_seed(0))
    return torch.softmax(transformer(input_ids=ids).logits, -1)[..., token].mean().item()


class Ours:
    """One step of the core's own parts, timed."""

    def __init__(self, case: dict):
        self.policy = build_policy(case["ends"])
        registry = load_registry()
        settings = Settings.model_validate(
            {"name": "vs-trl", "environment": {"use": "quiz"}, "optimizer": {"lr": LR, "max_grad_norm": 1.0}}
        )
        self._environment = Quiz()
        self._sampler = registry.build("sampler", "group", {"count": SIBLINGS})
        self._trainer = Trainer(
            self.policy,
            registry.build("advantage", "group_mean", {"standardise": True}),
            registry.build("objective", "clipped", {}),
            settings,
            WeightStore(self.policy.module),
            seed=0,
        )
        self._collector = Collector(self._environment, self.policy, sampling=Sampling(max_tokens=case["tokens"]))
        self._steps = 0
        self.gap = 0.0

    def step(self) -> tuple[float, float, int]:
        """CPU seconds of sampling and of updating, and the tokens generated."""
        self._steps += 1
        began = time.process_time()
        self._collector.begin(self._steps)
        before = self._collector.cost.generated_tokens
        groups = self._collector.settle(self._sampler.sample(self._environment.tasks(None), self._collector))
        sampled = time.process_time()
        metrics = self._trainer.update(assemble(self.policy, groups), self._steps)
        self.policy.refresh()
        ended = time.process_time()
        self.gap = max(self.gap, metrics["train/act_train_logprob_gap"])
        return sampled - began, ended - sampled, self._collector.cost.generated_tokens - before


class Theirs:
    """TRL's trainer in a thread of its own, held between steps."""

    def __init__(self, case: dict, folder: Path, steps: int):
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
        from trl import GRPOConfig, GRPOTrainer

        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._times: list[tuple[float, float, int]] = []
        outer = self

        class Gate(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                outer._go.acquire()
                outer._generation, outer._tokens = 0.0, 0
                outer._began = time.process_time()

            def on_step_end(self, args, state, control, **kwargs):
                whole = time.process_time() - outer._began
                outer._times.append((outer._generation, whole - outer._generation, outer._tokens))
                outer._done.release()

        class Timed(GRPOTrainer):
            def _generate_single_turn(self, *arguments, **settings):
                began = time.process_time()
                result = super()._generate_single_turn(*arguments, **settings)
                outer._generation += time.process_time() - began
                outer._tokens += sum(len(ids) for ids in result[0])
                return result

        prompts = [{"prompt": [dict(message) for message in task.prompt]} for task in Quiz().tasks(None)]
        config = GRPOConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=PROMPTS * SIBLINGS,
            num_generations=SIBLINGS,
            max_completion_length=case["tokens"],
            max_steps=steps,
            learning_rate=LR,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            beta=0.0,
            num_iterations=1,
            loss_type="grpo",
            temperature=1.0,
            top_k=0,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            disable_dropout=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            optim="adamw_torch",
            dataloader_pin_memory=False,
            seed=0,
        )
        self._trainer = Timed(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            processing_class=AutoTokenizer.from_pretrained(folder),
            reward_funcs=lambda completions, **_: [reward_of(c[0]["content"]) for c in completions],
            args=config,
            train_dataset=Dataset.from_list(prompts),
            callbacks=[Gate()],
        )
        self._thread = threading.Thread(target=self._trainer.train, daemon=True)
        self._thread.start()

    def step(self) -> tuple[float, float, int]:
        """CPU seconds of generating and of everything else, and the tokens generated."""
        self._go.release()
        self._done.acquire()
        return self._times[-1]

    def close(self) -> None:
        """Wait for the trainer to end."""
        self._thread.join(60)


def compare(name: str, steps: int, warm: int = 2) -> dict[str, float]:
    """Take steps in turn; medians of CPU seconds."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(case)
        ours.policy.export(Path(folder))
        theirs = Theirs(case, Path(folder), steps + warm)
        rows = [(ours.step(), theirs.step()) for _ in range(steps + warm)][warm:]
        theirs.close()
    mine, other = zip(*rows, strict=True)
    report: dict[str, float] = {"steps": steps}
    for who, times in (("ours", mine), ("trl", other)):
        sample, update, tokens = zip(*times, strict=True)
        report |= {
            f"{who}/sample": statistics.median(sample),
            f"{who}/update": statistics.median(update),
            f"{who}/step": statistics.median(a + b for a, b in zip(sample, update, strict=True)),
            f"{who}/tokens": statistics.mean(tokens) / (PROMPTS * SIBLINGS),
        }
    report |= {
        f"times faster/{part}": report[f"trl/{part}"] / report[f"ours/{part}"] for part in ("sample", "update", "step")
    }
    ratios = sorted((b[0] + b[1]) / (a[0] + a[1]) for a, b in rows)
    report |= {"times faster/paired": statistics.median(ratios), "log-probability gap": ours.gap}
    return report


def show(name: str, report: dict[str, float]) -> None:
    """Print a table."""
    print(f"\n{name}: {report['steps']} steps of {PROMPTS} prompts x {SIBLINGS} completions, medians of CPU seconds")
    print(f"{'':12}{'sample':>9}{'update':>9}{'step':>9}{'tokens':>9}")
    for who in ("ours", "trl"):
        print(
            f"{who:12}" + "".join(f"{report[f'{who}/{part}']:9.3f}" for part in ("sample", "update", "step", "tokens"))
        )
    print(f"{'ratio':12}" + "".join(f"{report[f'times faster/{part}']:9.2f}" for part in ("sample", "update", "step")))
    print(
        f"paired ratio of steps {report['times faster/paired']:.2f}; recorded against recomputed {report['log-probability gap']:.1e}"
    )


def main() -> None:
    """Run both cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--case", choices=tuple(CASES), action="append")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    reports = {name: compare(name, options.steps) for name in options.case or CASES}
    if options.json:
        print(json.dumps(reports, indent=2))
    else:
        for name, report in reports.items():
            show(name, report)


if __name__ == "__main__":
    main()
