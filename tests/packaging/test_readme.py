"""What the README says is so: its plugin works, its table is complete, its files exist."""

import re
import sys
from pathlib import Path
from types import ModuleType

import torch

from orchestrator.contract.batch import Batch
from orchestrator.plugging.manager import PluginManager
from orchestrator.plugging.registry import Registry, load_registry
from orchestrator.testing import make_batch

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _plugin() -> ModuleType:
    [source] = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "provide_" in block]
    module = ModuleType("rank_advantage")
    sys.modules[module.__name__] = module
    exec(compile(source, "README.md", "exec"), module.__dict__)
    return module


def test_the_plugin_of_the_readme_ranks_siblings():
    manager = PluginManager()
    manager.register(_plugin(), "rank")
    estimator = Registry(manager).build("advantage", "rank", {"scale": 0.5})
    batch: Batch = make_batch(sizes=(3, 1), rewards=[3.0, 1.0, 2.0, 7.0], lengths=[1, 1, 1, 1])

    advantages = estimator.estimate(batch).advantages

    per_row = torch.where(batch.mask, advantages, 0.0).sum(1)
    torch.testing.assert_close(per_row, torch.tensor([0.5, -0.5, 0.0, 0.0]).to(per_row))


def test_the_plugin_fits_in_about_thirty_lines():
    [block] = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "provide_" in block]
    assert len([line for line in block.splitlines() if line.strip()]) <= 30


def test_every_installed_plugin_is_in_the_table():
    names = load_registry().manager.plugins
    ours = {name for name, info in names.items() if info.distribution == "rl-orchestrator"}

    listed = set(re.findall(r"^\| \[`([a-z_0-9]+)`\]", README, re.MULTILINE))

    assert listed == ours


def test_every_file_the_readme_points_to_exists():
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README)

    assert [target for target in targets if not (ROOT / target).exists()] == []
