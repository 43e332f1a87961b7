"""A stranger's component that raises: every account of the run names plugin, type and reason once, and no help address."""

import json
import re
import sys

import pytest
from typer.testing import CliRunner

from orchestrator.cli import main as cli

EXPERIMENT = """
# What does a failure look like?
name: strangers
environment: {use: ENVIRONMENT}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
rewards: [{use: REWARD}]
sampler: {use: SAMPLER}
advantage: {use: group_mean}
objective: {use: OBJECTIVE}
schedule: {steps: 1, tasks_per_step: 2}
sampling: {max_tokens: 4, max_turns: 1}
evaluation: {every: 0, first: false, tasks: 1, samples: 2, k: [1]}
tracking: {enabled: false}
failures: {step_seconds: 0, reward_seconds: 0}  # played in the process of the test
"""
SOUND = {"ENVIRONMENT": "countdown", "REWARD": "exact", "SAMPLER": "group", "OBJECTIVE": "clipped"}

PLUGIN = '''
from pydantic import BaseModel, Field
from orchestrator.api import Component, Couples, Speaks, hookimpl
from orchestrator.testing import EchoEnvironment

class Answer(BaseModel):
    points: int = Field(gt=0)
    share: float

def fail(*arguments):
    Answer(points=-1, share="much")

class Town(EchoEnvironment):
    def start(self, task, seed):
        episode = super().start(task, seed)
        episode.step = fail
        return episode

class Judge:
    score = fail

class Sampler:
    sample = fail

class Objective:
    needs, couples, terms = frozenset(), Couples.ROWS, fail

class Lazy(Objective):
    """Raises where the core asks for a property, which no boundary guards."""
    asked = 0
    @property
    def needs(self):
        self.asked += 1
        return frozenset() if self.asked < 6 else fail()

def part(build):
    return lambda: [Component(name=build.__name__.lower(), build=lambda _: build())]

@hookimpl
def provide_environments(): return part(Town)()
@hookimpl
def provide_rewards(): return part(Judge)()
@hookimpl
def provide_samplers(): return part(Sampler)()
@hookimpl
def provide_objectives(): return part(Objective)() + part(Lazy)()
'''
MESSAGE = """2 validation errors for Answer
points
  Input should be greater than 0 [type=greater_than, input_value=-1, input_type=int]
share
  Input should be a valid number, unable to parse string as a number [type=float_parsing, input_value='much', input_type=str]"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The plugin, as pip would have installed it."""
    folder = tmp_path / "site"
    (folder / "my_dist-1.2.dist-info").mkdir(parents=True)
    (folder / "my_dist-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my-dist\nVersion: 1.2\n")
    (folder / "my_dist-1.2.dist-info" / "entry_points.txt").write_text("[orchestrator.plugins]\nmine = my_plugin\n")
    (folder / "my_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(folder))
    yield
    sys.modules.pop("my_plugin", None)


@pytest.mark.parametrize(
    ("role", "name", "where"),
    [
        ("environment", "town", "environment 'town'"),
        ("reward", "judge", "reward 'judge'"),
        ("sampler", "sampler", "sampler 'sampler'"),
        ("objective", "objective", "objective 'objective'"),
        ("objective", "lazy", "my_plugin.fail"),
    ],
)
def test_every_account_names_plugin_type_and_reason_once(mine, tmp_path, caplog, role, name, where):
    text = EXPERIMENT
    for place, sound in {**SOUND, role.upper(): name}.items():
        text = text.replace(place, sound)
    (tmp_path / "run.yaml").write_text(text)

    done = CliRunner().invoke(
        cli.app, ["run", "--no-check", str(tmp_path / "run.yaml"), "--runs", str(tmp_path / "runs")]
    )

    assert done.exit_code == 1, done.stderr
    [run] = (tmp_path / "runs").iterdir()
    [result] = run.glob("trials/*/result.json")
    [failure] = json.loads((run / "report.json").read_text())["failures"]
    error = json.loads(result.read_text())["error"]
    whom = f"'mine' (my-dist 1.2) in {where}"
    assert failure["error"] == error
    assert error["blamed"] == whom
    assert error["message"].endswith(MESSAGE)
    assert "ValidationError" in (error["type"], *re.findall(r"First error: (\w+)", error["message"]))
    assert "my_plugin.py" in error["traceback"]

    logged = [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    terminal = "\n".join([done.stdout, done.stderr, *logged])
    page = (run / "report.html").read_text().replace("&#39;", "'")
    shown = re.sub(r"<pre>.*?</pre>", "", page, flags=re.S)
    for account in (terminal, shown, (run / "report.md").read_text()):
        assert account.count("ValidationError") == 1
        assert account.count(f"raised by plugin {whom}") == account.count("raised by plugin") == 1
        assert account.count("Input should be greater than 0") == 1
    everything = [
        terminal,
        *(path.read_text() for path in run.rglob("*.*") if path.suffix in (".json", ".html", ".md")),
    ]
    assert "errors.pydantic.dev" not in "".join(everything)
    assert "hook 'run_trial'" not in "".join(everything)
