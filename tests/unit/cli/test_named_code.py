"""Code that an experiment names is imported by run and resume, which say so first; plan reads it, and imports nothing."""

import json
import sys

import pytest
from typer.testing import CliRunner

from orchestrator.cli import main as cli
from orchestrator.errors import PluginContractError
from orchestrator.runners.trial import run_spec
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.store import load_plan

FILE = """
name: town
environment: {use: countdown}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
recipe: grpo
rewards: [{use: preference, function: "judge_pkg.inner:judge"}]
schedule: {steps: 1, tasks_per_step: 1}
sampling: {max_tokens: 2, max_turns: 1}
evaluation: {tasks: 1, samples: 1, first: false}
tracking: {enabled: false}
"""
MODULE = """
from pathlib import Path
with Path("%s").open("a") as file:
    file.write(__name__ + chr(10))

def judge(task, texts):
    return [float(len(text)) for text in texts]
"""


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "town.yaml").write_text(FILE)
    package = tmp_path / "site" / "judge_pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(MODULE % (tmp_path / "imported"))
    (package / "inner.py").write_text(MODULE % (tmp_path / "imported"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield lambda *arguments: CliRunner().invoke(cli.app, list(map(str, arguments)))
    for name in ("judge_pkg.inner", "judge_pkg"):
        sys.modules.pop(name, None)


def test_planning_reads_the_code_and_imports_nothing(asked, tmp_path):
    shown = asked("plan", "town.yaml")
    done = asked("plan", "town.yaml", "--json")

    assert shown.exit_code == done.exit_code == 0, shown.output
    assert len(json.loads(done.stdout)["code"]["judge_pkg.inner"]) == 16
    assert not (tmp_path / "imported").exists()


def test_run_says_what_it_imports_and_resume_refuses_what_changed(asked, tmp_path):
    done = asked("run", "town.yaml", "--local")
    [run] = (tmp_path / "runs").iterdir()
    module = tmp_path / "site" / "judge_pkg" / "inner.py"

    assert done.exit_code == 0, done.output
    assert f"imports judge_pkg.inner from {module}, which the experiment names" in done.stderr
    assert (tmp_path / "imported").read_text().split() == ["judge_pkg", "judge_pkg.inner"]

    module.write_text(module.read_text() + "# changed\n")
    refused = asked("resume", run, "--local")
    assert refused.exit_code == 2
    assert "judge_pkg.inner: was" in refused.stderr
    assert "--accept-changes" in refused.stderr

    accepted = asked("resume", run, "--local", "--accept-changes")
    assert accepted.exit_code == 0, accepted.output
    assert "imports judge_pkg.inner from" in accepted.stderr
    assert asked("resume", run, "--local").exit_code == 0


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("judge_pkg.inner:jugde", "defines no 'jugde'"),
        ("judge_pkg.none:judge", "no Python module 'judge_pkg.none'"),
        ("nobody_has_this:judge", "no Python module 'nobody_has_this'"),
    ],
)
def test_code_that_is_not_there_is_said_when_planning(asked, tmp_path, function, says):
    done = asked("plan", "town.yaml", f"rewards.0.function={function}")

    assert done.exit_code == 2
    assert "rewards.0.function: " in done.stderr
    assert says in done.stderr.replace("\n", " ")
    assert not (tmp_path / "imported").exists()


def test_a_simulators_module_is_not_imported_when_planning(asked, tmp_path):
    pytest.importorskip("gymnasium")
    world = "environment={use: gymnasium, id: 'judge_pkg.inner:Town-v0'}"

    done = asked("plan", "town.yaml", world, "policy={use: mlp}", "rewards=[]")

    assert done.exit_code == 0, done.output
    assert not (tmp_path / "imported").exists()


def test_a_worker_with_other_code_than_the_driver_plays_nothing(asked, tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.runners.named_code._compared", set())
    module = tmp_path / "site" / "judge_pkg" / "inner.py"
    module.write_text(f"{module.read_text()}# of this machine\n")
    planned = asked("plan", "town.yaml", "--json").stdout
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.plan.write_text(planned)
    module.write_text(f"{module.read_text()}# of another\n")

    with pytest.raises(PluginContractError, match=rf"judge_pkg.inner: driver \w{{16}}, here \w{{16}} in {module}"):
        run_spec(load_plan(run.path).trials[0], run.path)
    module.unlink()
    with pytest.raises(PluginContractError, match=r"judge_pkg.inner: driver \w{16}, here absent"):
        run_spec(load_plan(run.path).trials[0], run.path)

    assert not (tmp_path / "imported").exists()
