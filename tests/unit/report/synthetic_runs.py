"""Builds run directories as the core leaves them, with learning curves that look like learning curves."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from orchestrator.contract.component import PluginInfo, ReportSection
from orchestrator.contract.plan import Phase, Plan, TrialSpec
from orchestrator.contract.settings import Experiment, Settings
from orchestrator.runs.layout import RunFolder

METHODS: dict[str, dict[str, Any]] = {
    "grpo": {
        "advantage": {"use": "group_mean", "standardise": True},
        "objective": {"use": "clipped", "clip_high": 0.2},
    },
    "dars": {
        "advantage": {"use": "group_mean", "standardise": False},
        "objective": {"use": "clipped", "clip_high": 0.28},
    },
    "rloo": {"advantage": {"use": "leave_one_out"}, "objective": {"use": "reinforce"}},
    "rover": {"advantage": {"use": "group_mean", "standardise": False}, "objective": {"use": "rover"}},
}


def build_run(
    directory: Path,
    *,
    gains: Mapping[str, float],
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    steps: int = 100,
    budget: int | None = 1_500_000,
    statuses: Mapping[str, str] | None = None,
    search: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    report: Mapping[str, Any] | None = None,
    source: str | None = None,
    spread: float = 0.02,
    own_seeds: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Write one run directory.

    :param gains: plateau above the warm start, by arm; the first arm is the baseline
    :param statuses: by trial id, where not ``done``: pending, running, stopped or failed
    :param search: section of the experiment file; adds eight tuning trials per arm, known to the journal only
    :param metrics: extra values on every step row
    :param report: section of the experiment file
    :param own_seeds: by arm, where not ``seeds``
    """
    own = own_seeds or {}
    shared = {
        "name": "dars-vs-grpo",
        "environment": {"use": "countdown", "numbers": [3, 4]},
        "policy": {"use": "causal_lm", "model": {"preset": "tiny"}},
        "evaluation": {"every": 10, "tasks": 128, "samples": 16, "k": [1, 4, 16]},
        "schedule": {"steps": steps, "tasks_per_step": 32},
        "budget": {"generated_tokens": budget},
        "resources": {"cpus": 1, "gpus": 0, "workers": 1},
        "report": dict(report or {}),
    }
    arms = {arm: Settings.model_validate(shared | {"recipe": arm} | METHODS.get(arm, {})) for arm in gains}
    specs = [
        TrialSpec(id=f"{arm}-s{seed}", arm=arm, seed=seed, settings=settings)
        for seed in dict.fromkeys((*seeds, *(seed for several in own.values() for seed in several)))
        for arm, settings in arms.items()
        if seed in own.get(arm, seeds)
    ]
    overlays = {arm: {"seeds": list(own[arm])} if arm in own else {} for arm in arms}
    plan = Plan(
        name="dars-vs-grpo",
        experiment=Experiment.model_validate(
            shared | {"seeds": list(seeds), "search": dict(search or {}), "arms": overlays}
        ),
        trials=tuple(specs) if not search else (),
        fingerprint={"baselines": "rl-orchestrator 0.1.0 0123456789abcdef"},
        arms=arms,
        commit="0a1b2c3d",
        source=source,
    )
    directory.mkdir(parents=True)
    (directory / "plan.json").write_text(plan.to_json())
    generator = np.random.default_rng(7)
    if search:
        tuning = _tuning_specs(arms, search, generator)
        chosen = {spec.arm: spec.searched for spec in sorted(tuning, key=_badness, reverse=True)}
        specs = [replace(spec, searched=chosen[spec.arm]) for spec in specs]
        records = [{"kind": "trials", "specs": [spec.to_json() for spec in (*tuning, *specs)], "time": 0.0}]
        (directory / "journal.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        for spec in tuning:
            _write_trial(
                directory,
                spec,
                gains[spec.arm] - 0.06 * _badness(spec),
                steps // 2,
                "done",
                generator,
                metrics or {},
                spread,
            )
    for spec in specs:
        status = (statuses or {}).get(spec.id, "done")
        _write_trial(directory, spec, gains[spec.arm], steps, status, generator, metrics or {}, spread)
    return directory


def _tuning_specs(
    arms: Mapping[str, Settings], search: Mapping[str, Any], generator: np.random.Generator
) -> list[TrialSpec]:
    (path,) = search
    return [
        TrialSpec(
            id=f"tune-{arm}-{index:03d}-s1000",
            arm=arm,
            seed=1000,
            phase=Phase.TUNE,
            sample=index,
            searched={path: float(10 ** generator.uniform(-5, -3))},
            settings=settings,
        )
        for arm, settings in arms.items()
        for index in range(8)
    ]


def _badness(spec: TrialSpec) -> float:
    (value,) = spec.searched.values()
    return abs(float(np.log10(value)) + 3.5)


def _write_trial(
    directory: Path,
    spec: TrialSpec,
    gain: float,
    steps: int,
    status: str,
    generator: np.random.Generator,
    extra: Mapping[str, float],
    spread: float,
) -> None:
    if status == "pending":
        return
    folder = directory / "trials" / spec.id
    folder.mkdir(parents=True)
    last = {"done": steps, "running": steps // 2, "stopped": int(steps * 0.7), "failed": steps // 5}[status]
    per_step = 16_000 * (1.15 if spec.arm == "dars" else 1.0)
    plateau = gain + spread * generator.normal()
    wander, rows, metrics, evaluations = 0.0, [], {}, []
    difficulty = np.random.default_rng(99).normal(0.0, 1.5, size=128)  # the same tasks for all
    answers = np.random.default_rng([zlib.crc32(spec.id.encode())])
    for step in range(last + 1):
        tokens = round(step * per_step)
        costs = {
            "cost/generated_tokens": float(tokens),
            "cost/prompt_tokens": 0.4 * tokens,
            "cost/trained_tokens": 0.95 * tokens,
            "cost/seconds": 0.95 * step,
            "cost/device_seconds": 0.95 * step,
            "cost/evaluation_tokens": 50_000.0 * (step // 10 + 1),
        }
        wander += 0.004 * generator.normal()
        true = 0.23 + (plateau + wander) * (1 - np.exp(-tokens / 500_000))
        if step:
            metrics = costs | {
                "rollout/reward/mean": true + 0.03 * generator.normal(),
                "train/entropy": 1.1 * np.exp(-step / 90) + 0.02 * generator.normal(),
                "train/clip_fraction": 0.02 + 0.005 * generator.random(),
                "train/grad_norm": 0.8 + 0.2 * generator.random(),
                "train/act_train_logprob_gap": 1e-6 * (1 + generator.random()),
                **extra,
            }
            rows.append({"step": step, "kind": "step", "time": 1e9 + step, "metrics": metrics})
        if step % 10 == 0:
            rates = np.clip(generator.beta(1.2, 1.2 * (1 - true) / true, size=128), 1e-3, 1)
            evaluation = costs | {
                f"eval/pass_at_{k}": float(np.mean(1 - (1 - rates) ** k)) + 0.008 * generator.normal() for k in (4, 16)
            }
            evaluation["eval/pass_at_1"] = true + 0.012 * generator.normal()
            evaluation["eval/reward/mean"] = evaluation["eval/pass_at_1"]
            rows.append({"step": step, "kind": "evaluation", "time": 1e9 + step, "metrics": evaluation})
            right = answers.binomial(16, 1 / (1 + np.exp(-1.35 * np.log(true / (1 - true)) - difficulty)))
            tasks = {f"eval-{place}": [16, int(count)] for place, count in enumerate(right)}
            evaluations.append({"step": step, "kind": "evaluation", "time": 1e9 + step, "tasks": tasks})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evaluations))
    if status != "running":
        error = (
            "Traceback (most recent call last):\n  ...\nValueError: group of size 1 has no baseline\n"
            "raised by plugin 'dars' (rl-orchestrator 0.1.0) in sampler 'dars'\n"
        )
        result = {
            "trial": spec.id,
            "arm": spec.arm,
            "seed": spec.seed,
            "status": status,
            "step": last,
            "metrics": metrics,
            "error": error if status == "failed" else None,
            "summary": {},
        }
        (folder / "result.json").write_text(json.dumps(result))


def build_hostile_run(directory: Path, evil: str) -> tuple[Path, Any]:
    """Write a run whose names and messages are all somebody's ``evil`` text; with it a registry of one section that repeats it."""
    run = build_run(directory, gains={"a": 0.2, "b": 0.3}, steps=20, metrics={f"loss/{evil}": 1.0})
    plan = RunFolder(run).plan
    data = json.loads(plan.read_text())
    data |= {"name": evil, "source": f"/tmp/{evil}", "commit": evil, "fingerprint": {evil: evil}}
    for trial in data["trials"]:
        trial["config"]["sampler"] = {"use": evil, evil: evil}
        trial["arm"] = f"{trial['arm']}{evil}"
    data["arms"] = {f"{arm}{evil}": config for arm, config in data["arms"].items()}
    data["experiment"]["report"]["baseline"] = None
    plan.write_text(json.dumps(data))
    result = next(run.glob("trials/*/result.json"))
    error = {"type": evil, "message": evil, "blamed": evil, "traceback": evil}
    result.write_text(json.dumps(json.loads(result.read_text()) | {"status": "failed", "error": error}))
    section = ReportSection(name="town", title=evil, render=lambda study: f"<p>{evil}</p><table><tr><td>fine")
    info = PluginInfo(name=evil, module="m", distribution="d", version="1")
    return run, SimpleNamespace(report_sections=lambda: [(info, section)])
