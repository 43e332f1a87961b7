"""The names of a run's files stand in one file."""

import ast
import re
from pathlib import Path

from orchestrator.runs import checkpoint, checksums
from orchestrator.runs.layout import ReportFolder, RunFolder, TrialFolder

ROOT = Path(__file__).parents[3]
HOME = ROOT / "orchestrator" / "runs"
SOURCES = [*(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]


def names():
    """File names of runs, trials, checkpoints and reports, asked of the layout itself."""
    folders = (RunFolder(Path("run")), TrialFolder(Path("run")), ReportFolder(Path("run")))
    found = {checksums.NAME, checkpoint.TENSORS, checkpoint.STATE}
    for folder in folders:
        for name, member in vars(type(folder)).items():
            if isinstance(member, property):
                value = getattr(folder, name)
                found |= {value.name} if isinstance(value, Path) else set()
    return found


def strings(path):
    """String constants of a source file that are no docstrings."""
    tree = ast.parse(path.read_text())
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def test_the_layout_names_every_file():
    assert {"plan.json", "journal.jsonl", "metrics.jsonl", "result.json", "report.html", ".lock"} <= names()


def test_no_file_outside_the_wing_spells_a_file_name_of_a_run():
    # what plugins keep in a folder of their own (mlflow/state.json) is theirs to name
    spelt = names() - {"state.json", ".lock", "checkpoints"}
    pattern = re.compile("|".join(rf"(?<![\\w.-]){re.escape(name)}(?![\\w-])" for name in spelt))

    found = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for path in SOURCES
        if HOME not in path.parents
        for line, text in strings(path)
        if pattern.search(text)
    ]

    assert found == []
