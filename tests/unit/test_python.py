"""The orchestrator from Python: the same plans and refusals as the command line, functions as rewards, studies that show themselves."""

import asyncio
import dataclasses
import json
import signal
import subprocess
import sys
import time

import numpy
import pytest
from typer.testing import CliRunner

import orchestrator
from orchestrator.cli import main as cli
from orchestrator.errors import ConfigError
from orchestrator.plugging import live
from orchestrator.runs.layout import RunFolder

SUMS = {
    "name": "sums",
    "environment": {"use": "countdown", "numbers": [3, 3]},
    "policy": {"use": "causal_lm", "model": {"preset": "tiny", "hidden": 16, "layers": 1, "heads": 2, "mlp": 32}},
    "recipe": "grpo",
    "schedule": {"steps": 1, "tasks_per_step": 1},
    "sampling": {"max_tokens": 2, "max_turns": 1},
    "evaluation": {"tasks": 1, "samples": 1, "first": False, "k": [1]},
    "tracking": {"enabled": False},
}


def brief(text):
    return -float(len(text))


def long(text):
    return float(len(text))


def problems(call, *arguments, **options):
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **options)
    return [(problem.path, problem.message) for problem in caught.value.problems]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two arms, played where an event loop runs, as in a notebook."""

    async def notebook():
        return orchestrator.run(
            SUMS,
            runs=tmp_path_factory.mktemp("runs"),
            local=True,
            arms={"a": {}, "b": {"optimizer": {"lr": 0.01}}},
            rewards=[{"use": brief, "weight": 2}],
        )

    return asyncio.run(notebook())


def test_importing_the_package_is_light_and_finds_its_functions_late():
    script = """
import sys, orchestrator
heavy = ("torch", "ray", "mlflow", "pandas", "transformers", "optuna", "rich", "typer", "pydantic", "omegaconf")
assert not [name for name in heavy if name in sys.modules], "import"
orchestrator.run, orchestrator.plan, orchestrator.load, orchestrator.Study
assert not [name for name in heavy[:6] if name in sys.modules], "use"
assert set(dir(orchestrator)) >= {"run", "plan", "resume", "load", "Study", "ConfigError"}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_a_file_and_its_contents_give_the_plan_that_the_command_gives(tmp_path):
    (tmp_path / "sums.yaml").write_text(json.dumps(SUMS))
    shown = CliRunner().invoke(cli.app, ["plan", f"{tmp_path}/sums.yaml", "schedule.steps=3", "seeds=[4,5]", "--json"])
    wanted = json.loads(shown.stdout)

    over = ({"schedule": {"steps": 3}, "seeds": (4, 5)}, {"schedule.steps": numpy.int64(3), "seeds": [4, 5]})
    for source in (str(tmp_path / "sums.yaml"), tmp_path / "sums.yaml", SUMS):
        for overrides in over:
            found = json.loads(orchestrator.plan(source, **overrides).to_json())
            assert found["trials"] == wanted["trials"]
            assert found["arms"] == wanted["arms"]


def test_problems_are_those_of_the_command_line_all_at_once(tmp_path):
    (tmp_path / "sums.yaml").write_text(json.dumps(SUMS))
    settings = ["schedule.stepz=3", "policy.use=causal_ml", "seeds=[1,1]"]
    shown = CliRunner().invoke(cli.app, ["plan", f"{tmp_path}/sums.yaml", *settings])

    found = problems(orchestrator.plan, SUMS, schedule={"stepz": 3}, **{"policy.use": "causal_ml", "seeds": [1, 1]})

    said = shown.stderr.splitlines()
    assert [f"✗ {path}: {message}" for path, message in found] == said[:-1]
    assert len(found) == 3


@pytest.mark.parametrize(
    ("overrides", "path", "says"),
    [
        ({"policy": brief}, "policy", "a function is no value of an experiment; expected plain data; functions stand among"),
        ({"seeds": {1, 2}}, "seeds", "a set is no value of an experiment"),
        ({"arms": {1: {}}}, "arms", "the key 1 is a int; keys are texts"),
        ({"rewards": [int]}, "rewards.0", "int is a class; expected a function"),
        ({"schedule..steps": 1}, "schedule..steps", "expected a key"),
        ({"lr": 0.1}, "lr", "unknown key"),
    ],
)  # fmt: skip
def test_what_is_no_experiment_is_refused(overrides, path, says):
    found = problems(orchestrator.plan, SUMS, **overrides)

    assert found[0][0] == path
    assert says in found[0][1]


def test_what_is_neither_file_nor_mapping_is_refused(tmp_path):
    assert "got int" in problems(orchestrator.plan, 3)[0][1]
    assert "no such file" in problems(orchestrator.plan, tmp_path / "none.yaml")[0][1]
    loop = {"name": "x"}
    loop["environment"] = loop
    assert "nested deeper" in problems(orchestrator.plan, loop)[0][1]


def test_a_function_is_a_reward_of_a_local_run(study):
    assert study.status == {"done": 2}
    rows = study.rollouts()

    assert (rows["score"] == -2.0 * rows["answer"].str.len()).all()
    assert (rows["reward/function/brief"] == -rows["answer"].str.len()).all()
    assert set(rows["arm"]) == {"a", "b"}
    assert rows["prompt"].str.len().min() > 0


def test_a_study_gives_frame_curves_and_verdict(study):
    verdict = study.verdict()

    assert verdict.metric == "eval/pass_at_1"
    assert study.headline == verdict.headline
    assert {(curve.arm, curve.seed) for curve in study.curves()} == {("a", 0), ("b", 0)}
    assert [list(curve.values) for curve in study.curves()] == [list(c.values) for c in study.curves("eval/pass_at_1")]
    assert set(study.frame()["arm"]) == {"a", "b"}
    assert orchestrator.load(study.directory).headline == verdict.headline
    assert RunFolder(study.directory).report.html.is_file()
    assert repr(study).startswith(f"Study({study.directory.name}: 2 arms, trials: 2 done. ")


def test_a_study_shows_itself_as_escaped_tables(study):
    shown = study._repr_html_()

    assert shown.count("<table>") == 2
    assert '<th scope="col">arm</th>' in shown
    hostile = dataclasses.replace(study, warnings=("<script>alert(1)</script>",))
    assert "&lt;script&gt;" in hostile._repr_html_()
    assert "<script" not in hostile._repr_html_()


def test_a_run_with_a_function_is_resumed_with_the_function(study, monkeypatch):
    monkeypatch.setattr(live, "_functions", {})  # as in another process

    [(_, message)] = problems(orchestrator.resume, study.directory, local=True)
    shown = CliRunner().invoke(cli.app, ["resume", str(study.directory), "--local"])

    assert "the function brief was given from Python, and is not in this process" in message
    assert "give it again: orchestrator.resume(run, rewards=[brief])" in message
    assert (shown.exit_code, message in shown.stderr) == (2, True)
    assert orchestrator.resume(study.directory, local=True, rewards=[brief]).status == {"done": 2}


def test_a_function_with_another_text_is_not_taken_for_the_one_of_the_run(study, monkeypatch):
    monkeypatch.setattr(live, "_functions", {})
    other = {}
    exec("def brief(text):\n    return 1.0\n", other)

    [(_, message)] = problems(orchestrator.resume, study.directory, local=True, rewards=[other["brief"]])

    assert "was given from Python with another text" in message


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"arms": {"a": {}, "b": {"optimizer": {"lr": 0.01}}}}, "Ray plays trials in others; put it into a file, {use: function, path: FILE.py:brief}, or run with local=True"),
        ({"local": True, "failures": {"reward_seconds": 5}}, "limits on seconds are kept from outside the process that plays"),
    ],
)  # fmt: skip
def test_a_function_is_refused_where_trials_are_played_elsewhere(tmp_path, options, says):
    [(path, message)] = problems(orchestrator.run, SUMS, runs=tmp_path / "runs", rewards=[brief], **options)

    assert path == "rewards.0"
    assert says in message
    assert not (tmp_path / "runs").exists()


def test_functions_of_one_name_and_different_texts_are_told_apart():
    one, two = (orchestrator.plan(SUMS, rewards=[function]).arms for function in (brief, long))

    assert next(iter(one.values())).rewards[0].options["live"].startswith("brief@")
    assert next(iter(two.values())).rewards[0].options["live"].startswith("long@")


def test_nothing_to_load_is_said(tmp_path):
    assert "no run given" in problems(orchestrator.load)[0][1]
    assert "is no run" in problems(orchestrator.load, tmp_path)[0][1]


def test_ctrl_c_says_how_to_resume(tmp_path):
    script = f"""
import orchestrator
def brief(text):
    return float(len(text))
orchestrator.run({SUMS!r}, local=True, rewards=[brief], **{{"schedule.steps": 100000}})
"""
    (tmp_path / "script.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = iter(process.stdout.readline, "")
    for line in lines:
        if "running" in line:
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    [directory] = (tmp_path / "runs").iterdir()

    assert f"interrupted; continue with: orchestrator.resume('runs/{directory.name}')" in said, errors
    assert errors.rstrip().endswith("the run was asked to end"), errors
