"""The contracts on imports hold, each of them fails on a planted violation, and files keep to the rules of the house."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "orchestrator"
PLUGINS = ROOT / "plugins" / "orchestrator_plugins"
SOURCES = [*sorted(CORE.rglob("*.py")), *sorted(PLUGINS.rglob("*.py"))]
LIMITS = {"orchestrator": 400, "plugins": 400, "benchmarks": 400, "tests": 600}  # most lines of a file, by folder

PLANTED = [  # file, a line it must not have, the contract it breaks
    ("orchestrator/plugging/registry.py", "import orchestrator.training.loop", "wings"),
    ("orchestrator/plugging/registry.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import orchestrator.training.loop", "wings"),
    ("orchestrator/report/content.py", "import orchestrator.runners.tune", "wings"),
    ("orchestrator/report/content.py", "def late():\n    import orchestrator.runners.tune", "wings"),
    ("orchestrator/runners/local.py", "import orchestrator.report.html", "wings"),
    ("orchestrator/maths/ratios.py", "import orchestrator.contract.batch", "wings"),
    ("orchestrator/runs/ledger.py", "import orchestrator.rollout.collector", "wings"),
    ("orchestrator/stray.py", "VALUE = 1", "wings"),
    ("orchestrator/contract/types.py", "import orchestrator.contract.roles", "circles"),
    ("plugins/orchestrator_plugins/ospo/city.py", "import orchestrator_plugins.ospo.environment", "circles"),
    ("orchestrator/runs/ledger.py", "import orchestrator.api", "door-of-the-core"),
    ("orchestrator/runs/ledger.py", "import orchestrator_plugins.dars", "door-of-the-core"),
    ("orchestrator/cli/making.py", "import orchestrator.python", "door-of-the-core"),
    ("plugins/orchestrator_plugins/dars/config.py", "import orchestrator.contract.types", "door-of-plugins"),
    ("plugins/orchestrator_plugins/dars/config.py", "import orchestrator.python", "door-of-plugins"),
    ("plugins/orchestrator_plugins/dars/config.py", "import orchestrator_plugins.rover.objective", "plugins-apart"),
    ("orchestrator/training/loop.py", "import ray", "home-of-ray"),
    ("orchestrator/experiment/search.py", "import omegaconf", "home-of-omegaconf"),
    ("orchestrator/report/content.py", "import mlflow", "home-of-mlflow"),
    ("plugins/orchestrator_plugins/causal_lm/policy.py", "import vllm", "home-of-vllm"),
    ("orchestrator/training/trainer.py", "import transformers", "home-of-models"),
    ("plugins/orchestrator_plugins/gsm8k/problems.py", "import datasets", "home-of-datasets"),
]  # fmt: skip


def lint(folder, *contracts):
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    command += [word for contract in contracts for word in ("--contract", contract)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(folder / "plugins")])}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("house")
    for name in ("orchestrator", "plugins"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "data"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_contracts_on_imports_hold():
    done = lint(ROOT)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("file", "line", "contract"), PLANTED)
def test_a_planted_violation_breaks_its_contract(copy, file, line, contract):
    path = copy / file
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        done = lint(copy, contract)
    finally:
        path.unlink() if before is None else path.write_text(before)

    assert done.returncode == 1, done.stdout


def imports(path):
    """Absolute names a file imports when it is imported itself."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        types_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if types_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            skipped |= set(ast.walk(node)) - {node}
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


@pytest.mark.parametrize("path", sorted(PLUGINS.rglob("*.py")), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_plugins_import_themselves_relatively(path):
    tree = ast.parse(path.read_text())
    found = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]

    assert not [module for module in found if module.startswith("orchestrator_plugins")]


@pytest.mark.parametrize("path", sorted(PLUGINS.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_a_plugins_table_of_contents_imports_nothing_heavy(path):
    for name in imports(path):
        fine = name.partition(".")[0] in sys.stdlib_module_names or name == "orchestrator.api"
        assert fine, f"{path.parent.name}/__init__.py imports {name} at the top; import it where it is built"


def test_every_module_has_a_docstring():
    assert [path for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_no_file_is_so_long_that_it_hides_a_second_concept():
    too_long = {
        str(path.relative_to(ROOT)): lines
        for folder, limit in LIMITS.items()
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := len(path.read_text().splitlines())) > limit
    }

    assert too_long == {}
