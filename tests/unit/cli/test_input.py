"""Whatever stands in a file or on the command line: a clear list and exit code 2, no traceback, nothing begun."""

import json
import os
import sys

import pytest
from typer.testing import CliRunner

from orchestrator.cli import main as cli

FILE = """
name: town
environment: {use: countdown}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
recipe: grpo
schedule: {steps: 1, tasks_per_step: 2}
evaluation: {tasks: 1, samples: 1}
arms: {grpo: {recipe: grpo}, dars: {recipe: dars}}
tracking: {enabled: false}
"""


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "town.yaml").write_text(FILE)

    def ask(*arguments):
        return CliRunner().invoke(cli.app, list(arguments))

    return ask


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("arms.grop.optimizer.lr=1e-3", "arms.grop.optimizer.lr: no arm 'grop'; did you mean 'grpo'?"),
        ("arms.x.y=1", "A new arm is given as a whole: arms.x={recipe: ...}"),
        ("seeds=5", "seeds: expected a list, as in [5]; got 5"),
        ("rewards=exact", "rewards: expected a list, as in [{use: exact}]; got 'exact'"),
        ("rewards.7.weight=1", "there is no item 7 to change"),
        ("environment.numbers=[3]", "environment.numbers: too few items: expected 2; got [3]"),
        ("recipe=[ppo]", "recipe: Input should be a valid string"),
        ("optimizer.lr=yes", "this is text"),
        ("schedule.steps=1:30", "this is text"),
        ("schedule.steps=true", "true and false are none"),
        ("evaluation.k=[0]", "evaluation.k.0"),
        ("rewards=[{use: exact, weight: .nan}]", "rewards.0.weight: Input should be a finite number"),
        (".".join("a" * 2000) + "=1", "2000 parts"),
        ("schedule.steps=" + "9" * 5000, "a whole number of 5000 digits"),
        ("x=" + "[" * 500, "nested deeper"),
        ("tune={samples: 1e9}", None),
        ("environment={use: gsm8k, path: town.yaml, eval_path: ./town.yaml}", "eval_path is path"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_setting_is_said_at_its_path(asked, tmp_path, setting, says):
    done = asked("plan", "town.yaml", setting)

    if says is None:  # a number is judged where it counts
        setting = "search={optimizer.lr: {uniform: [0.1, 1]}}"
        done, says = asked("plan", "town.yaml", "tune.samples=1e9", setting), "tune.samples: 2,000,000,002 trials"
    assert done.exit_code == 2
    assert says in done.stderr
    assert "Traceback" not in done.output
    assert os.listdir(tmp_path) == ["town.yaml"]


def test_a_new_arm_is_given_as_a_whole(asked):
    done = asked("plan", "town.yaml", "arms.new={recipe: grpo}", "arms.new.optimizer.lr=0.5", "--json")

    assert json.loads(done.stdout)["arms"]["new"]["optimizer"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("schema", "-o", "none/schema.json"), "none/schema.json: No such file or directory"),
        (("plan", "."), "Is a directory"),
        (("plan", "/dev/zero"), "characters"),
        (("run", "town.yaml", "--runs", "town.yaml"), "--runs: "),
        (("resume", "town.yaml"), "Not a directory"),
        (("report", "nowhere"), "is no run"),
    ],
    ids=str,
)
def test_files_that_cannot_be_used_are_named(asked, arguments, says):
    done = asked(*arguments)

    assert done.exit_code == 2
    assert says in done.output.replace("\n", "")


PLUGIN = """
import sys
from orchestrator.api import Component, PluginConfig, hookimpl
from pydantic import model_validator

class Options(PluginConfig):
    how: str = "exits"
    @model_validator(mode="after")
    def _judge(self):
        if self.how == "judges":
            raise KeyError("oops")
        return self

def build(options):
    if options.how == "exits":
        sys.exit(3)
    raise KeyError("oops")

@hookimpl
def provide_rewards():
    return [Component(name="bad", config=Options, build=build)]
"""


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("exits", "it ended the program with sys.exit(3)"),
        ("raises", "cannot be built: KeyError: 'oops'; raised by plugin 'mine' (my-dist 1.2) in reward 'bad'"),
        ("judges", "the options cannot be judged: KeyError: 'oops'; raised by plugin 'mine'"),
    ],
)
def test_a_plugin_that_ends_the_program_or_raises_is_named(asked, tmp_path, monkeypatch, how, says):
    folder = tmp_path / "site"
    (folder / "my_dist-1.2.dist-info").mkdir(parents=True)
    (folder / "my_dist-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my-dist\nVersion: 1.2\n")
    (folder / "my_dist-1.2.dist-info" / "entry_points.txt").write_text("[orchestrator.plugins]\nmine = bad_plugin\n")
    (folder / "bad_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(folder))

    done = asked("plan", "town.yaml", f"rewards=[{{use: bad, how: {how}}}]")

    sys.modules.pop("bad_plugin", None)
    assert done.exit_code == 2
    assert says in done.stderr
    assert "rewards.0" in done.stderr


def test_a_defect_of_ours_is_said_without_a_traceback(asked, monkeypatch):
    monkeypatch.setattr(cli, "make_plan", lambda *_, **__: {}["nobody"])

    done = asked("plan", "town.yaml")

    assert done.exit_code == 2
    assert "KeyError: 'nobody' (test_input.py:" in done.stderr
    assert "--debug" in done.stderr


def test_files_are_kept_absolute_so_that_a_run_is_resumed_from_anywhere(asked, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    problem = '{"question": "one and one?", "answer": "#### 2"}\n'
    (tmp_path / "home" / "train.jsonl").write_text(problem)
    (tmp_path / "eval.jsonl").write_text(problem.replace("one and", "two and"))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").touch()

    done = asked(
        "plan",
        "town.yaml",
        "environment={use: gsm8k, path: ~/train.jsonl, eval_path: eval.jsonl}",
        "start={checkpoint: weights}",
        "--json",
    )

    settings = json.loads(done.stdout)["trials"][0]["config"]
    assert settings["environment"]["path"] == str(tmp_path / "home" / "train.jsonl")
    assert settings["environment"]["eval_path"] == str(tmp_path / "eval.jsonl")
    assert settings["start"]["checkpoint"] == str(tmp_path / "weights")
