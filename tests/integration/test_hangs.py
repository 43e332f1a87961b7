"""A call that never returns: its process is ended from outside, and the trial goes on with that rollout failed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import ladder
import pytest

from orchestrator.contract.component import Role
from orchestrator.contract.parts import Part
from orchestrator.contract.plan import TrialSpec
from orchestrator.contract.settings import Failures, Settings
from orchestrator.runners.trial import run_spec
from orchestrator.runners.watchdog import OTHERS, Watchdog, foreign
from orchestrator.runs.hangs import Hang, read_hangs
from orchestrator.runs.layout import RunFolder, TrialFolder
from orchestrator.runs.results import read_result

HANGING = """
import signal, time
from pathlib import Path
import ladder_world
from ladder_world import provide_environments

def _hang(self, action, step=ladder_world.Play.step):
    if self.task.id == "train-5" and self.world.config.quality == 0.5:
        while True:
            time.sleep(1)
    return step(self, action)

ladder_world.Play.step = _hang
"""


def _installed(folder: Path) -> dict[str, str]:
    environment = ladder.install(folder)
    (folder / "hanging_world.py").write_text(HANGING)
    (folder / "ladder_world-1.0.dist-info" / "entry_points.txt").write_text(
        "[orchestrator.plugins]\nladder = hanging_world\n"
    )
    return environment


def _play(tmp_path: Path, *arguments: str, **sections) -> tuple[subprocess.CompletedProcess[str], RunFolder]:
    environment = _installed(tmp_path / "plugins")
    file = tmp_path / "ladder.yaml"
    file.write_text(json.dumps(ladder.experiment({"quality": 0.5}, **sections)))
    command = "from orchestrator.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "run", file, "--runs", tmp_path / "runs", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    (run,) = (tmp_path / "runs").iterdir()
    return done, RunFolder(run)


def test_a_step_that_never_returns_costs_its_rollouts_and_not_the_run(tmp_path):
    done, folder = _play(tmp_path, "--local", failures={"step_seconds": 1.0, "rollout_share": 0.5})

    assert done.returncode == 0, done.stderr
    (trial,) = folder.trials()
    assert [(hang.what, hang.key, hang.seconds) for hang in read_hangs(trial)] == [
        ("environment", f"train/3/train-5/{place}", 1.0) for place in (0, 1)
    ]
    assert "'ladder' (ladder-world 1.0) in environment 'ladder', did not return within 1 s" in done.stderr
    rows = {step: metrics for kind, step, metrics in ladder.steps_of(trial.path) if kind == "step"}
    assert list(rows) == list(range(1, 9))
    assert rows[8]["cost/failed_rollouts"] == 2


def test_a_trial_whose_result_cannot_be_written_has_failed(tmp_path):
    script = (
        "import dataclasses, sys\n"
        "from pathlib import Path\n"
        "from orchestrator.contract.plan import Plan\n"
        "from orchestrator.plugging.registry import load_registry\n"
        "from orchestrator.runners import local\n"
        "from orchestrator.runners.progress import Silent\n"
        "run, plan = Path(sys.argv[1]), Plan.from_json(sys.argv[2])\n"
        "plan = dataclasses.replace(plan, fingerprint=load_registry().manager.fingerprint())\n"
        "[result] = local.run_watched(plan, run, Silent())\n"
        "print(result.status, result.error.message)\n"
    )
    RunFolder(tmp_path).trial("calm").result.mkdir(parents=True)  # in the way of whoever writes one
    plan = ladder.plan({"calm": {"quality": 0.4}})

    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path, plan.to_json()],
        env=_installed(tmp_path / "plugins"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.startswith("failed its result could not be written"), done.stderr


def test_a_step_that_outlasts_the_budget_by_far_is_ended_and_noted(tmp_path):
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from orchestrator.runners import watchdog\n"
        "from orchestrator.runs.layout import TrialFolder\n"
        "watchdog._GRACE = 0.3\n"
        "with watchdog.Watchdog(TrialFolder(Path(sys.argv[1]))).budget(0.2):\n"
        "    time.sleep(60)\n"
    )

    done = subprocess.run([sys.executable, "-c", script, tmp_path], timeout=30, check=False)

    assert done.returncode == -signal.SIGKILL
    assert [hang.what for hang in read_hangs(TrialFolder(tmp_path))] == ["budget"]


def test_a_trial_that_was_ended_for_its_budget_ends_where_it_was_saved(tmp_path):
    data = {
        "name": "x",
        "environment": {"use": "gymnasium", "id": "CartPole-v1"},
        "policy": {"use": "mlp", "hidden": [4]},
        "sampler": {"use": "group", "count": 2},
        "advantage": {"use": "group_mean"},
        "objective": {"use": "reinforce"},
        "schedule": {"steps": 5, "tasks_per_step": 1},
        "evaluation": {"tasks": 1, "samples": 1},
        "budget": {"seconds": 3600},
        "tracking": {"enabled": False, "transcripts": 0},
    }
    folder = RunFolder(tmp_path).trial("a")
    folder.path.mkdir(parents=True)
    folder.hung.write_bytes(Hang("budget", "budget", 3660.0).line())
    spec = TrialSpec(id="a", arm="a", seed=0, settings=Settings.model_validate(data))

    result = run_spec(spec, tmp_path, watch=True)

    assert (result.status, result.step) == ("done", 0)


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.faults
def test_under_ray_the_worker_is_ended_and_the_other_trials_go_on(tmp_path):
    pytest.importorskip("ray")
    arms = {"hanging": {}, "calm": {"environment": {"quality": 0.4}}}
    done, folder = _play(tmp_path, arms=arms, failures={"step_seconds": 1.0, "rollout_share": 0.5})

    assert done.returncode == 0, done.stderr
    assert "did not return within 1 s (failures.step_seconds); restart 1 of 2" in done.stderr
    assert [read_result(trial).status for trial in folder.trials()] == ["done", "done"]


STUCK = """
import json, os, sys, time
from pathlib import Path

import ladder_world
import torch._dynamo  # before the forks, as are all that take long
from orchestrator_plugins import baselines, mlp

from orchestrator.api import Component, hookimpl
from orchestrator.contract.plan import TrialSpec
from orchestrator.contract.settings import Settings
from orchestrator.runners.trial import run_spec
from orchestrator.testing import load_only
from orchestrator.training import loop

OURS = {"sampler": "group", "advantage": "group_mean", "objective": "reinforce"}
METHODS = {"sampler": "sample", "advantage": "estimate", "objective": "terms"}


def stuck(role):
    def build(config):
        component = registry.build(role, OURS[role], {"count": 2} if role == "sampler" else {})
        made, calls = getattr(component, METHODS[role]), []

        def call(*arguments):
            calls.append(1)
            found = made(*arguments)
            while len(calls) > 1:
                time.sleep(1)
            return found

        object.__setattr__(component, METHODS[role], call)
        return component

    return [Component(name="stuck", build=build)]


class Stuck:
    @hookimpl
    def provide_samplers(self):
        return stuck("sampler")

    @hookimpl
    def provide_advantage_estimators(self):
        return stuck("advantage")

    @hookimpl
    def provide_objectives(self):
        return stuck("objective")


registry = load_only(baselines, mlp, ladder_world, Stuck())
data = json.loads(sys.argv[2])
ends = {}
for role in OURS:
    run = Path(sys.argv[1]) / role
    settings = Settings.model_validate({**data, role: {"use": "stuck"}})
    spec = TrialSpec(id="a", arm="a", seed=0, settings=settings)
    codes = []
    for _ in range(2):
        child = os.fork()
        if not child:
            run_spec(spec, run, registry=registry, watch=True)
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    ends[role] = codes
print(json.dumps(ends))
"""


def test_a_method_that_never_returns_fails_its_trial_by_name(tmp_path):
    environment = ladder.install(tmp_path / "plugins")
    data = ladder.experiment({}, failures={"method_seconds": 1.0}, evaluation={"tasks": 1, "samples": 1})

    done = subprocess.run(
        [sys.executable, "-c", STUCK, tmp_path / "runs", json.dumps(data)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    for role, codes in json.loads(done.stdout).items():
        trial = RunFolder(tmp_path / "runs" / role).trial("a")
        assert codes == [-signal.SIGKILL, 0]
        assert [(hang.what, hang.key) for hang in read_hangs(trial)] == [(role, f"{role}/2")]
        result = read_result(trial)
        assert (result.status, "'Stuck'" in result.error.blamed) == ("failed", True)
        assert "did not return within 1 s (failures.method_seconds)" in result.error.message


def test_the_time_of_the_episodes_is_not_the_samplers(tmp_path):
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from orchestrator.contract.component import Role\n"
        "from orchestrator.contract.parts import Part\n"
        "from orchestrator.contract.settings import Failures\n"
        "from orchestrator.runners.watchdog import Watchdog\n"
        "from orchestrator.runs.layout import TrialFolder\n"
        "watchdog = Watchdog(TrialFolder(Path(sys.argv[1])))\n"
        "part = Part(role=Role.SAMPLER, name='x', plugin=None, component=object())\n"
        "watchdog.limit(Failures(method_seconds=0.3), {'sampler': part})\n"
        "for step in (1, 2):\n"
        "    with watchdog.watched('sampler', f'sampler/{step}'):\n"
        "        with watchdog.apart():\n"
        "            time.sleep(0.9)\n"
        "        print(step, flush=True)\n"
        "        time.sleep(60 * (step - 1))\n"
    )

    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, timeout=30, check=False)

    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"1\n2\n")
    assert [hang.key for hang in read_hangs(TrialFolder(tmp_path))] == ["sampler/2"]


def _part(plugin: str | None, *inner: Part) -> Part:
    return Part(role=Role.REWARD, name="x", plugin=plugin, component=object(), inner=inner)


def test_components_of_others_have_a_limit_and_ours_have_none(tmp_path):
    ours, others = _part("'baselines' (rl-orchestrator 0.1.0)"), _part("'mine' (lab 1.0)")
    watchdog = Watchdog(TrialFolder(tmp_path))

    watchdog.limit(Failures(), {"environment": ours, "reward.0": others, "sampler": others, "policy": others})

    assert [foreign(part) for part in (ours, others, _part(ours.plugin, others))] == [False, True, True]
    assert watchdog._seconds == {"environment": 0.0, "reward/x": OTHERS, "sampler": OTHERS}


def test_a_call_that_hung_before_is_not_entered_again(tmp_path):
    folder = TrialFolder(tmp_path)
    folder.hung.write_bytes(Hang("environment", "train/1/a/0", 5.0, "'mine' (lab 1.0)").line() + b'{"what": "torn')
    watchdog = Watchdog(folder)
    watchdog.limit(Failures(step_seconds=5.0), {"environment": _part("'mine' (lab 1.0)")})

    with pytest.raises(TimeoutError, match="did not return within 5 s"):
        watchdog.watched("environment", "train/1/a/0").__enter__()
    with watchdog.watched("environment", "train/1/a/1"):
        pass

    assert not watchdog.spent
