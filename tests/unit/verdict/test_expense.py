"""What a plan's trials will take, from a measurement or an earlier run."""

from dataclasses import replace

import pytest
from synthetic_runs import build_run

from orchestrator.api import Component, PluginConfig, hookimpl
from orchestrator.contract.plan import Phase
from orchestrator.contract.settings import Resources
from orchestrator.experiment.estimate import estimate
from orchestrator.runs.measurements import Measurement
from orchestrator.runs.study import Study
from orchestrator.testing import EchoEnvironment, load_only
from orchestrator.testing.plans import make_plan, make_settings
from orchestrator.verdict.expense import expect, places


class Numbers(PluginConfig):
    numbers: tuple[int, ...] = ()


class World:
    """The environments of made-up plans and of the earlier run, with words enough for every evaluation here."""

    @hookimpl
    def provide_environments(self):
        words = [f"w{place}" for place in range(200)]
        return [
            Component(name=name, config=Numbers, build=lambda _: EchoEnvironment(words))
            for name in ("test", "countdown")
        ]


REGISTRY = load_only(World())
FOUND = Measurement(
    start_seconds=2.0,
    step_seconds=0.5,
    step_tokens=100.0,
    evaluation_seconds=0.01,
    save_seconds=0.1,
    memory=2**30,
    gpu_memory=None,
    machine={},
    date="2025-01-02",
)
SECTIONS = {
    "schedule": {"steps": 20},
    "evaluation": {"every": 10, "tasks": 5, "samples": 4},
    "checkpoints": {"every": 8},
}


def expected(*settings, known=FOUND, like=None, places=1, **experiment):
    plan = make_plan(*settings, **experiment)
    sizes = {arm: estimate(own, REGISTRY) for arm, own in plan.arms.items()}
    return expect(plan, sizes, dict.fromkeys(plan.arms, known), like, places)


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 2 + 20 * 0.5 + 3 * 20 * 0.01 + 3 * 0.1),  # evaluated at 0, 10, 20; saved at 8, 16, 20
        ({"budget": {"generated_tokens": 1150}}, 2 + 12 * 0.5 + 3 * 20 * 0.01 + 2 * 0.1),  # the twelfth step ends it
        ({"budget": {"seconds": 3}}, 2 + 3),
        ({"checkpoints": {"every": 0}}, 2 + 20 * 0.5 + 3 * 20 * 0.01 + 0.1),
    ],
)
def test_a_trial_takes_its_start_its_steps_its_evaluations_and_its_saves(changes, seconds):
    found = expected(make_settings(**{**SECTIONS, **changes}))

    assert found.arms["arm0"].seconds == pytest.approx(seconds)
    assert (found.arms["arm0"].memory, found.arms["arm0"].source) == (2**30, "measured on 2025-01-02")


def test_trials_take_the_first_free_place():
    one = 2 + 20 * 0.5 + 3 * 20 * 0.01 + 3 * 0.1

    alone = expected(*[make_settings(**SECTIONS)] * 3)
    beside = expected(*[make_settings(**SECTIONS)] * 3, places=2)

    assert (alone.seconds, alone.seconds_at_once) == (pytest.approx(3 * one), pytest.approx(3 * one))
    assert (beside.seconds, beside.seconds_at_once) == (pytest.approx(3 * one), pytest.approx(2 * one))
    assert expected(make_settings(**SECTIONS), places=None).seconds_at_once is None


def test_a_search_is_counted_and_may_be_cut_short():
    settings, tune = make_settings(**SECTIONS), {"samples": 4, "searcher": "optuna", "scheduler": "asha"}
    search = {"optimizer.lr": {"loguniform": [1e-5, 1e-3]}}

    proposed = expected(settings, search=search, tune=tune, seeds=[0, 1], places=4)
    plan = make_plan(settings, search=search, seeds=[0, 1])
    listed = replace(plan, trials=tuple(replace(plan.trials[0], phase=Phase.TUNE) for _ in range(4)))
    found = expect(listed, {"arm0": estimate(settings, REGISTRY)}, {"arm0": FOUND})

    one = proposed.arms["arm0"].seconds
    assert proposed.at_most
    assert proposed.seconds == found.seconds == pytest.approx(6 * one)
    assert proposed.seconds_at_once == pytest.approx(2 * one)  # confirmed once the search has ended
    assert not found.at_most


def test_nothing_is_known_without_a_measurement_of_every_arm():
    plan = make_plan(make_settings(**SECTIONS), make_settings(**SECTIONS))
    sizes = {arm: estimate(own, REGISTRY) for arm, own in plan.arms.items()}

    found = expect(plan, sizes, {"arm0": FOUND, "arm1": None})

    assert (found.seconds, found.seconds_at_once) == (None, None)
    assert (found.arms["arm1"].seconds, found.arms["arm1"].memory, found.arms["arm1"].source) == (None, None, None)


def test_an_earlier_run_wins_over_a_measurement_and_knows_no_memory(tmp_path):
    run = build_run(tmp_path / "run", gains={"grpo": 0.2, "dars": 0.3}, seeds=(0, 1, 2, 3))
    study = Study.read(run)
    plan = study.runs[0].plan
    sizes = {arm: replace(estimate(own, REGISTRY), steps=100) for arm, own in plan.arms.items()}

    found = expect(plan, sizes, {"grpo": FOUND}, study)

    assert found.seconds == pytest.approx(8 * 95.0)
    assert (found.arms["grpo"].source, found.arms["grpo"].memory) == ("as in run; memory measured on 2025-01-02", 2**30)
    assert (found.arms["dars"].source, found.arms["dars"].memory) == ("as in run", None)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, 8),
        ({"cpus": 3}, 2),
        ({"cpus": 2, "workers": 2}, 2),
        ({"cpus": 16}, 1),
        ({"gpus": 0.5}, 4),
        ({"gpus": 1, "concurrent": 1}, 1),
        ({"concurrent": 50}, 8),
        ({"address": "auto"}, None),
        ({"address": "auto", "concurrent": 5}, 5),
    ],
)
def test_as_many_trials_run_at_once_as_cores_and_gpus_allow(resources, expected):
    assert places(Resources(**resources), cores=8, gpus=2) == expected
