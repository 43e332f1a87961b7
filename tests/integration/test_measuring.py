"""``orchestrator plan --measure``: steps played in a process of their own, remembered, and shown by later plans."""

import json
import subprocess
import sys
import tempfile

import ladder
import pytest
from typer.testing import CliRunner

from orchestrator.cli import main as cli
from orchestrator.runs.measurements import Measurements


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Call ``orchestrator plan`` on an experiment of the ladder, with a cache folder of its own."""
    ladder.install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def call(*options, arms, **sections):
        file = tmp_path / "ladder.yaml"
        file.write_text(json.dumps({**ladder.experiment({}), "arms": arms, **sections}))
        return CliRunner().invoke(cli.app, ["plan", str(file), *options])

    yield call
    sys.modules.pop("ladder_world", None)


@pytest.fixture
def nothing_launched(monkeypatch):
    def launch(self, command, *arguments, **options):
        if command[0] == sys.executable:
            raise AssertionError(f"launched {command}")
        started(self, command, *arguments, **options)

    def forbid():
        monkeypatch.setattr(subprocess.Popen, "__init__", launch)

    started = subprocess.Popen.__init__
    return forbid


def taken(done):
    return [line for line in done.stdout.splitlines() if "measured on" in line]


def test_what_was_measured_is_shown_by_later_plans_which_launch_nothing(plan, nothing_launched, tmp_path):
    arms = {"a": None, "b": {"optimizer": {"lr": 0.5}}, "c": {"policy": {"hidden": [8]}}}

    done = plan("--measure", arms=arms)
    nothing_launched()
    later = plan(arms=arms, schedule={"steps": 800, "tasks_per_step": 2}, seeds=[4, 5])
    other = plan(arms={"a": {"policy": {"hidden": [16]}}})

    assert done.exit_code == later.exit_code == other.exit_code == 0, done.stderr
    # arms that share what costs are measured once
    assert [line for line in done.stderr.splitlines() if line.startswith("measuring")] == [
        "measuring arms a, b: 3 steps and one evaluation",
        "measuring arm c: 3 steps and one evaluation",
    ]
    assert len(taken(done)) == len(taken(later)) == 3
    assert "time, one after another: unknown; --measure runs three steps of each arm" in other.stdout
    assert "measuring" not in later.stderr + other.stderr
    found = json.loads(Measurements().path.read_text()).values()
    for one in found:
        assert one["step_tokens"] == 4.0  # two tasks, two rollouts, an action each
        assert one["step_seconds"] > 0
        assert 10 * 2**20 < one["memory"] < 10 * 2**30
        assert "torch" in one["machine"]["packages"]
    assert not list((tmp_path / "temporary").iterdir())


def test_the_measured_pace_is_that_of_the_steps(plan):
    slow = {"environment": {"seconds": 0.1}}

    done = plan("--measure", "--json", arms={"a": slow})

    [found] = json.loads(Measurements().path.read_text()).values()
    assert 4 * 0.1 <= found["step_seconds"] < 4  # four episodes a step, one after another
    assert found["evaluation_seconds"] < 0.1
    assert json.loads(done.stdout)["name"] == "ladder"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"raise_at": 2}, "raised by plugin 'ladder' (ladder-world 1.0)"),
        ({"die_at": 2}, "the measuring process was killed by SIGKILL, and left no answer"),
    ],
)
def test_a_measurement_that_fails_names_the_culprit_and_leaves_the_plan(plan, broken, said):
    done = plan("--measure", arms={"good": None, "bad": {"environment": broken}}, failures={"rollout_share": 0.0})

    assert done.exit_code == 1
    assert "arm bad could not be measured: " in done.stderr
    assert said in done.stderr
    assert "size of one trial, by arm" in done.stdout
    assert any(line.split()[0] == "good" for line in taken(done))
    assert "unknown; --measure runs three steps of each arm" in done.stdout
    assert len(json.loads(Measurements().path.read_text())) == 1


def test_a_damaged_cache_is_said_and_passed_over(plan):
    path = Measurements().path
    path.parent.mkdir(parents=True)
    path.write_text("{")

    done = plan(arms={"a": None})

    assert done.exit_code == 0
    assert f"{path} cannot be read and is passed over" in done.stderr
    assert "time, one after another: unknown" in done.stdout
