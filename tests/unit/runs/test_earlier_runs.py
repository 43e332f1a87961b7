"""A run that version 0.1 began, with plans and settings as dicts and errors as texts, is read and goes on."""

import shutil
from pathlib import Path

import pytest

from orchestrator.contract.plan import Phase
from orchestrator.contract.settings import Settings
from orchestrator.experiment.planner import start_key
from orchestrator.runners.sweep import Sweep
from orchestrator.runs.store import load_plan, save_plan
from orchestrator.runs.study import Study

RUN = Path(__file__).parents[2] / "data" / "run_of_0.1"


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(RUN, tmp_path / "run")


def test_its_plan_is_read_and_written_as_it_was(run):
    plan = load_plan(run)
    before = (run / "plan.json").read_text()
    save_plan(plan, run)

    assert load_plan(run) == plan
    assert plan.experiment.tune.searcher.use == "grid"
    assert plan.arms["ppo"].advantage.use == "gae"
    assert {trial.phase for trial in plan.trials} == {Phase.TUNE}
    assert before  # a plan written by this version may say more, never less
    assert set(before.split('"')) - set((run / "plan.json").read_text().split('"')) == set()


def test_its_study_tells_tuning_from_confirmation_and_words_its_failure(run):
    study = Study.read(run)

    assert len(study.tuning) == 4
    assert [trial.id for trial in study.confirmations] == ["ppo-s0", "grpo-s0", "ppo-s1", "grpo-s1"]
    (failed,) = [trial for trial in study.trials if trial.status == "failed"]
    assert str(failed.error) == (
        "ValueError: group of size 1 has no baseline; raised by plugin 'dars' (rl-orchestrator 0.1.0) in sampler"
    )
    assert study.warnings == ()


def test_its_sweep_hands_out_what_had_not_finished(run):
    sweep = Sweep(load_plan(run), run)

    waiting = [sweep.next().id for _ in range(5)]

    assert waiting == ["tune-ppo-001-s1000", "ppo-s0", "grpo-s0", "ppo-s1", "grpo-s1"]
    assert sweep.history.trials["ppo-s0"].spec.settings.optimizer.lr in (1e-4, 1e-3)
    sweep.close()


def test_a_start_that_it_ran_is_known_again():
    settings = Settings(
        name="x", environment={"use": "echo"}, policy={"use": "mlp"}, start={"recipe": "sft", "objective": {"use": "o"}}
    )
    corrected = settings.start.model_copy(update={"update": {"correction": {"kind": "masked"}}})

    assert start_key(settings) == "990e6cc490984feb"
    assert start_key(settings.model_copy(update={"start": corrected})) != start_key(settings)
