"""Plugins written outside the tree: made, edited, installed with pip, found, checked, planned and swept with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.contract.component import Role
from orchestrator.plugging.scaffold import make_project

# An estimator: rank of the reward among the siblings, from -1 to 1.
RANKS = '''"""Advantages from ranks: what matters is who is better, not by how much."""

import torch

from orchestrator.api import Batch, Credit

from .config import RankCreditConfig


class RankCredit:
    """Share of siblings beaten minus share lost to, times ``scale``."""

    needs = frozenset()

    def __init__(self, config: RankCreditConfig):
        self.config = config

    def estimate(self, batch: Batch) -> Credit:
        """Credit every trained token of a row alike."""
        siblings = batch.group[:, None] == batch.group
        beaten = (batch.rewards[:, None] > batch.rewards) & siblings
        lost = (batch.rewards[:, None] < batch.rewards) & siblings
        others = (siblings.sum(1) - 1).clamp(min=1)
        ranks = self.config.scale * (beaten.sum(1) - lost.sum(1)) / others
        return Credit(
            advantages=torch.where(batch.mask, ranks[:, None].to(batch.rewards.dtype), 0.0),
            metrics={"rank_credit/ties": float((ranks == 0).float().mean())},
        )
'''

# A reward of its own beside the environment, in the same distribution.
REWARD = '''"""Pays for answers made of digits only."""

from collections.abc import Sequence

from orchestrator.api import RolloutGroup, Score


class Digits:
    """1 for an answer of digits, else 0."""

    def score(self, group: RolloutGroup) -> Sequence[Score]:
        """One score per rollout, in order."""
        return [Score(value=float((r.turns[-1].action.text or "").strip().isdigit())) for r in group.rollouts]
'''

EXPERIMENT = """
name: strangers
environment: {use: next_number, largest: 5}
rewards: [{use: digits, weight: 0.5}]
policy: {use: causal_lm, model: {preset: tiny}}
recipe: grpo
arms: {ours: , theirs: {advantage: {use: rank_credit, scale: 2.0}}}
seeds: [0, 1]
schedule: {steps: 1, tasks_per_step: 2}
sampler: {count: 4}
sampling: {max_tokens: 4}
evaluation: {every: 1, tasks: 2, samples: 2}
tracking: {enabled: false}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder with the projects, and the folder pip installed them into."""
    root = tmp_path_factory.mktemp("strangers")
    for role in Role:
        make_project(f"fresh_{role}", role, root)
    ranks = make_project("rank_credit", "advantage", root)
    (ranks / "rank_credit" / "advantage.py").write_text(RANKS)
    world = make_project("next_number", "environment", root)
    (world / "next_number" / "digits.py").write_text(REWARD)
    contents = world / "next_number" / "__init__.py"
    contents.write_text(
        contents.read_text()
        + "\n\n@hookimpl\ndef provide_rewards() -> list[Component]:\n"
        + '    return [Component(name="digits", build=_digits, summary="answers of digits")]\n'
        + "\n\ndef _digits(_):\n    from .digits import Digits\n\n    return Digits()\n"
    )
    target = root / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    projects = sorted(str(path.parent) for path in root.glob("*/pyproject.toml"))
    subprocess.run([*command, "--target", str(target), *projects], check=True, capture_output=True, text=True)
    return root, target


def run(target, *command, cwd, check=True):
    environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        pytest.fail(f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def orchestrator(target, *arguments, cwd, check=True):
    code = "import sys; from orchestrator.cli.main import main; sys.argv[0] = 'orchestrator'; main()"
    return run(target, "-c", code, *arguments, cwd=cwd, check=check)


@pytest.mark.slow
def test_generated_projects_pass_their_own_tests(installed, tmp_path):
    root, target = installed
    folders = sorted(str(path) for path in root.glob("fresh_*/tests"))

    done = run(
        target, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", *folders, cwd=tmp_path
    )

    assert " passed" in done.stdout


@pytest.mark.slow
def test_plugins_are_found_and_checked(installed, tmp_path):
    _, target = installed

    listed = json.loads(orchestrator(target, "plugins", "list", "--json", cwd=tmp_path).stdout)
    checked = orchestrator(target, "plugins", "check", "rank_credit", "next_number", cwd=tmp_path)

    provided = {row["plugin"]: row for row in listed["plugins"]}
    assert provided["rank_credit"]["distribution"] == "rank-credit"
    assert provided["next_number"]["provides"] == {"environment": ["next_number"], "reward": ["digits"]}
    assert [line for line in checked.stdout.splitlines() if line.startswith("✗")] == []
    assert "✓ advantage rank_credit" in checked.stdout
    assert "✓ reward digits" in checked.stdout


@pytest.mark.slow
def test_a_sweep_uses_them_in_worker_processes(installed, tmp_path):
    _, target = installed
    (tmp_path / "strangers.yaml").write_text(EXPERIMENT)

    orchestrator(target, "run", "strangers.yaml", "resources.concurrent=1", cwd=tmp_path)

    (directory,) = (tmp_path / "runs").glob("strangers-*")
    results = [json.loads(path.read_text()) for path in directory.glob("trials/*/result.json")]
    assert sorted((result["arm"], result["seed"], result["status"]) for result in results) == [
        (arm, seed, "done") for arm in ("ours", "theirs") for seed in (0, 1)
    ]
    rows = [
        json.loads(line) for line in (directory / "trials" / "theirs-s0" / "metrics.jsonl").read_text().splitlines()
    ]
    (step,) = [row["metrics"] for row in rows if row["kind"] == "step"]
    assert any(name.startswith("rank_credit/ties") for name in step)


@pytest.mark.slow
def test_a_sweep_that_uses_a_broken_plugin_stops_before_it_starts(installed, tmp_path):
    _, target = installed
    broken = tmp_path / "broken"
    info = broken / "lost_estimator-3.4.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lost-estimator\nVersion: 3.4\n")
    (info / "entry_points.txt").write_text("[orchestrator.plugins]\nlost_estimator = lost_estimator\n")
    (broken / "lost_estimator.py").write_text("import a_package_nobody_has\n")
    (tmp_path / "strangers.yaml").write_text(EXPERIMENT)
    path = os.pathsep.join((str(target), str(broken)))

    fine = orchestrator(path, "plan", "strangers.yaml", cwd=tmp_path)
    stopped = orchestrator(
        path, "run", "strangers.yaml", "arms.theirs.advantage.use=lost_estimator", cwd=tmp_path, check=False
    )

    assert "theirs-s1" in fine.stdout  # a broken plugin that is not used is in nobody's way
    assert stopped.returncode == 2
    message = " ".join(stopped.stderr.split())
    assert "arms.theirs.advantage.use: no advantage 'lost_estimator'" in message
    assert "'lost_estimator' (lost-estimator 3.4)" in message
    assert "a_package_nobody_has" in message
    assert not (tmp_path / "runs").exists()


def test_the_projects_are_plain_files(installed):
    root, _ = installed

    assert not list(Path(root).glob("*/*/*.tmpl"))
