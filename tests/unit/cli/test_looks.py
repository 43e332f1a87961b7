"""Seeds added until arms are decided, from the command line: shown before, said while it runs, extended afterwards."""

import json

import pytest
from typer.testing import CliRunner

from orchestrator.cli import main as cli
from orchestrator.runs.journal import read

EXPERIMENT = """
# Two arms that do the same thing.
name: twins
environment: {use: countdown, numbers: [3, 3]}
policy: {use: causal_lm, model: {preset: tiny}}
recipe: grpo
sampler: {count: 2}
schedule: {steps: 0, tasks_per_step: 2}
sampling: {max_tokens: 4}
evaluation: {tasks: 2, samples: 2, k: [1]}
tracking: {enabled: false}
arms: {one: {}, two: {}}
seeds: {first: 2, at_most: 4, looks: [2, 4]}
report: {margin: 0.2}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "twins.yaml"
    path.write_text(EXPERIMENT)
    return path


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_a_plan_shows_the_looks_and_how_many_trials_there_may_be(file):
    done = call("plan", file)

    assert done.exit_code == 0, done.output
    assert "2 to 4 seeds an arm, until every arm is decided; looks after 2, 4 seeds" in done.stdout
    assert "4 trials at the first look, at most 8" in done.stdout
    assert "trials where all arms are equal, of 8 at most" in done.stdout
    assert "trials where one is 0.10 better, of 8 at most" in done.stdout
    assert "without report.margin no arm is ever equivalent" in call("plan", file, "report.margin=null").stdout
    race = call("plan", file, "report.compare=best")
    assert "until one arm is the best, or those left are tied" in race.stdout
    assert "which of 2 arms is the best, or which are tied with it" in race.stdout


def test_a_run_says_its_looks_and_more_seeds_afterwards_explore(file, tmp_path):
    done = call("run", file, "--local", "--runs", tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()

    assert done.exit_code == 0, done.output
    assert "look 1, 2 seeds: decided nothing; open: two; 3.1 % of 5 % error spent" in done.stderr
    assert "look 2, 4 seeds: decided nothing; open: two; 5 % of 5 % error spent" in done.stderr
    assert [look.seeds for look in read(run).looks] == [2, 4]
    assert "Looked at after 2 and 4 seeds, 5 % of 5 % error spent" in " ".join(done.stdout.replace("│", "").split())

    more = call("resume", run, "--local", "--seeds", "+1", "--json")

    assert more.exit_code == 0, more.output
    assert "adds seeds 4 to one, two; the verdict on all seeds together will be exploratory" in more.stderr
    report = json.loads(more.stdout)
    assert report["headline"].startswith("Exploratory, since 1 seed was added after the design had ended")
    assert "What the design itself said" in report["warnings"][0]
    assert report["trials"] == {"done": 10}
    assert [look.seeds for look in read(run).looks] == [2, 4]


def test_what_is_no_number_of_seeds_is_refused(file, tmp_path):
    call("run", file, "--local", "--runs", tmp_path / "runs", "seeds=[0]")
    (run,) = (tmp_path / "runs").iterdir()

    for typed in ("0", "some", "-3", "+", "1.5"):
        done = call("resume", run, f"--seeds={typed}")
        assert done.exit_code == 2
        assert f"--seeds: '{typed}' given; expected how many seeds to add, as in +3" in done.stderr


def test_a_run_that_has_not_ended_gets_no_further_seeds(file, tmp_path):
    call("run", file, "--local", "--runs", tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    lines = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    (run / "journal.jsonl").write_text("".join(lines[:-1]))  # the last look

    done = call("resume", run, "--local", "--seeds", "2")

    assert done.exit_code == 2
    assert "the run has not ended; resume it without --seeds first" in done.stderr
