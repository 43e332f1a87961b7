"""What a user types by habit is understood, or answered in words that lead on; what MLflow's variables say is honoured."""

import json

import pytest
from typer.testing import CliRunner

from orchestrator import __version__
from orchestrator.cli import main as cli
from orchestrator.errors import did_you_mean

FILE = """
name: pole
environment: {use: countdown}
policy: {use: causal_lm, model: {preset: tiny}}
recipe: grpo
"""


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pole.yaml").write_text(FILE)
    return lambda *arguments: CliRunner().invoke(cli.app, list(map(str, arguments)))


def test_the_version_is_printed(asked):
    done = asked("--version")

    assert (done.exit_code, done.stdout) == (0, f"orchestrator {__version__}\n")


def test_help_says_the_exit_codes(asked):
    said = " ".join(asked("--help").stdout.split())

    assert "Exit codes: 0 done; 1 a trial failed, or Ray was lost; 2 the request was wrong" in said


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("recipe=GRPO", "did you mean 'grpo'?"),
        ("recipe=Dr_Grpo", "did you mean 'dr_grpo'?"),
        ("policy.use=Causal_LM", "did you mean 'causal_lm'?"),
        ("lr=1e-4", "lr: unknown key; did you mean optimizer.lr?"),
        ("steps=5", "steps: unknown key; did you mean schedule.steps?"),
        ("generated_tokens=5", "did you mean budget.generated_tokens?"),
        ("schedul={}", "did you mean 'schedule'?"),
        ("arms={a: {lr: 1.0e-4}}", "arms.a.lr: unknown key; did you mean optimizer.lr?"),
        ("seeds=5", "for 5 seeds write [0, 1, 2, 3, 4], for the one seed 5 write [5]"),
        ("seeds=20", "for 20 seeds write [0, 1, ..., 19], for the one seed 20 write [20]"),
        ("arms={a: {seeds: 3}}", "for 3 seeds write [0, 1, 2], for the one seed 3 write [3]"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(asked, setting, says):
    done = asked("plan", "pole.yaml", setting)

    assert done.exit_code == 2
    assert says in done.stderr


def test_the_nearest_name_is_found_whatever_the_case():
    assert did_you_mean("ADAM", ["adam", "sgd"]) == "; did you mean 'adam'?"
    assert did_you_mean("exakt", ["Exact"]) == "; did you mean 'Exact'?"
    assert did_you_mean("zzz", ["adam"]) == "."


def test_mlflows_variables_stand_beneath_the_file(asked, monkeypatch):
    def tracking(*settings):
        return json.loads(asked("plan", "pole.yaml", "--json", *settings).stdout)["experiment"].get("tracking", {})

    assert tracking().get("uri") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the team")

    found = tracking()
    assert (found["uri"], found["experiment"]) == ("http://tracking:5000", "of the team")
    found = tracking("tracking.uri=http://mine:5000")
    assert (found["uri"], found["experiment"]) == ("http://mine:5000", "of the team")
    found = tracking("tracking.uri=null", "tracking.experiment=mine")
    assert (found["uri"], found["experiment"]) == (None, "mine")


def test_a_password_in_mlflows_variable_is_not_written_down(asked, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:open-sesame@tracking:5000")

    planned = asked("plan", "pole.yaml", "--json").stdout

    assert "open-sesame" not in planned
    assert "${oc.env:MLFLOW_TRACKING_URI}" in planned


def test_an_address_in_mlflows_variable_that_is_none_is_refused(asked, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///somewhere/mlruns")

    done = asked("plan", "pole.yaml")

    assert done.exit_code == 2
    assert "tracking.uri" in done.stderr
