"""Imports point one way, heavy packages have one home each, and plugins know the core by one door."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "orchestrator"
PLUGINS = ROOT / "plugins" / "orchestrator_plugins"

# What each layer of the core may import of the core, from the bottom up.
BASE = {"types", "maths", "errors", "markers", "overlay", "seeding"}
CONTRACT = BASE | {"batch", "component", "roles", "hookspecs"}
REGISTRY = CONTRACT | {"registry", "plugin_manager", "experiment", "training.reduction", "training.regulariser"}
PLAN = REGISTRY | {"config", "search", "arms", "checks", "plan", "api"}
PLAYING = PLAN | {"training", "rollout", "evaluation", "api"}
RUNNING = PLAYING | {"runners", "report"}

ALLOWED = {
    "types": BASE,
    "maths": BASE,
    "errors": BASE,
    "markers": BASE,
    "overlay": BASE,
    "seeding": BASE,
    "batch": CONTRACT,
    "component": CONTRACT,
    "roles": CONTRACT,
    "hookspecs": CONTRACT,
    "experiment": REGISTRY,
    "registry": REGISTRY,
    "plugin_manager": REGISTRY,
    "api": REGISTRY,
    "config": PLAN,
    "search": PLAN,
    "arms": PLAN,
    "checks": PLAN,
    "plan": PLAN,
    "training": PLAYING,
    "rollout": PLAYING,
    "evaluation": PLAYING,
    "testing": PLAYING,
    "runners": RUNNING,
    "report": RUNNING - {"runners"} | {"runners.results"},
    "estimate": RUNNING,
    "schema": PLAN,
    "doctor": PLAN,
    "scaffold": PLAN,
    "plugin_check": PLAYING | {"testing"},
}  # the command line and what it shows may import everything

HOMES = {
    "ray": ("orchestrator/runners/", "orchestrator/training/distributed.py"),
    "omegaconf": ("orchestrator/config.py",),
    "optuna": ("orchestrator/runners/",),
    "mlflow": ("plugins/orchestrator_plugins/mlflow/",),
    "vllm": ("plugins/orchestrator_plugins/causal_lm/vllm_engine.py",),
    "transformers": ("plugins/orchestrator_plugins/",),
    "peft": ("plugins/orchestrator_plugins/",),
    "gymnasium": ("plugins/orchestrator_plugins/",),
    "bm25s": ("plugins/orchestrator_plugins/multi_turn/search_qa/",),
    "textworld": ("plugins/orchestrator_plugins/textworld/",),
    "typer": ("orchestrator/cli.py", "orchestrator/plugins_cli.py", "orchestrator/guard.py"),
}


def python_files(folder):
    return sorted(path for path in folder.rglob("*.py"))


def imports(path, *, for_types=False, inside_functions=True):
    """Absolute names a file imports, type-only ones left out unless asked for."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        types_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (types_only and not for_types) or (function and not inside_functions):
            skipped |= set(ast.walk(node)) - {node}
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = path.relative_to(ROOT if CORE in path.parents else ROOT / "plugins").parent.parts
                prefix = ".".join(package[: len(package) - node.level + 1])
                module = f"{prefix}.{node.module}" if node.module else prefix
            else:
                module = node.module
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", python_files(CORE), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_downwards_only(path):
    part = path.relative_to(CORE).parts[0].removesuffix(".py")
    if part not in ALLOWED:
        assert part in ("__init__", "cli", "plugins_cli", "guard", "console", "preview"), f"give {part} a layer"
        return

    for name in imports(path):
        if not name.startswith("orchestrator."):
            continue
        target = name.removeprefix("orchestrator.")
        allowed = ALLOWED[part] | {part}
        if target.split(".")[0] not in {one.split(".")[0] for one in allowed | {"__version__"}}:
            pytest.fail(f"{path.relative_to(ROOT)} imports {name}; {part} may import {', '.join(sorted(allowed))}")


@pytest.mark.parametrize("path", python_files(CORE), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_no_plugin(path):
    assert not [name for name in imports(path, for_types=True) if name.startswith("orchestrator_plugins")]


@pytest.mark.parametrize("path", python_files(PLUGINS), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_plugins_know_the_core_by_one_door_and_each_other_not_at_all(path):
    relative = path.relative_to(PLUGINS)
    own = f"orchestrator_plugins.{relative.parts[0]}"
    for name in imports(path, for_types=True):
        if name.startswith("orchestrator."):
            assert name == "orchestrator.api" or name.startswith("orchestrator.api."), f"{relative} imports {name}"
        if name.startswith("orchestrator_plugins") and len(relative.parts) > 1:
            assert name == own or name.startswith(f"{own}."), f"{relative} imports {name}"


@pytest.mark.parametrize("path", python_files(PLUGINS), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_plugins_import_themselves_relatively(path):
    tree = ast.parse(path.read_text())
    absolute = [
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and not node.level
        and (node.module or "").startswith("orchestrator_plugins")
    ]

    assert not absolute


@pytest.mark.parametrize(
    "path", sorted(PLUGINS.glob("*/__init__.py")), ids=lambda path: str(path.parent.relative_to(PLUGINS))
)
def test_a_plugins_table_of_contents_imports_nothing_heavy(path):
    own = f"orchestrator_plugins.{path.parent.name}"
    for name in imports(path, inside_functions=False):
        top = name.partition(".")[0]
        fine = top in sys.stdlib_module_names or name.startswith(("orchestrator.api", own))
        assert fine, f"{path.parent.name}/__init__.py imports {name} at the top; import it where it is built"


@pytest.mark.parametrize("package", HOMES)
def test_heavy_packages_have_one_home(package):
    strays = [
        str(path.relative_to(ROOT))
        for path in [*python_files(CORE), *python_files(PLUGINS)]
        if any(name.partition(".")[0] == package for name in imports(path))
        and not str(path.relative_to(ROOT)).startswith(HOMES[package])
    ]

    assert strays == []


def test_every_module_has_a_docstring():
    bare = [
        path
        for path in [*python_files(CORE), *python_files(PLUGINS)]
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]

    assert bare == []
