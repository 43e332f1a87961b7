"""What a plan can find, before a token is spent."""

import math
from dataclasses import replace

import numpy as np
import pytest
from synthetic_runs import build_run

from orchestrator.experiment.estimate import Estimate
from orchestrator.maths.power import power, smallest_difference
from orchestrator.runs.study import Study
from orchestrator.verdict import foresight
from orchestrator.verdict.foresight import foresee
from orchestrator.verdict.study import judge_study

SIZE = Estimate(
    steps=100,
    rollouts_per_step=256,
    evaluations=11,
    evaluation_tasks=128,
    evaluation_rollouts=11 * 128 * 16,
    tokens_per_action=64,
    budget=1_500_000,
)


@pytest.fixture
def run(tmp_path):
    return build_run(tmp_path / "run", gains={"grpo": 0.2, "dars": 0.3}, seeds=(0, 1, 2, 3))


def planned(run, **changes):
    plan = Study.read(run).runs[0].plan
    return replace(plan, **changes)


def sizes(plan, size=SIZE):
    return dict.fromkeys(plan.arms, size)


def test_without_an_earlier_run_the_defaults_are_stated(run):
    plan = planned(run)

    found = foresee(plan, sizes(plan))

    assert "assumed: training 0.025" in found.source
    assert found.counts == (4, 4)
    # evaluations at 80, 90 and 100 weigh 1/4, 1/2, 1/4: 3/8 of an evaluation's variance is left
    assert found.noise.total == pytest.approx(0.025**2 + 0.15 * 0.375 / (128 * 16))
    assert found.smallest == pytest.approx(
        smallest_difference(found.noise.total**0.5, (4, 4), spread=foresight.SPREAD), rel=1e-6
    )


def test_an_earlier_run_lends_its_scatter_and_the_plan_its_evaluation(run):
    plan, study = planned(run), Study.read(run)
    values = [np.var(arm.values, ddof=1) for arm in judge_study(study)[0].arms]

    found = foresee(plan, sizes(plan), study)

    assert found.noise.total == pytest.approx(np.mean(values), rel=0.03)  # evaluated as planned
    assert found.source == "as in run, 8 trials of 2 arms"
    assert power(found.smallest, found.noise.total**0.5, (4, 4), spread=foresight.SPREAD) == pytest.approx(
        0.8, abs=1e-4
    )


def test_few_trials_are_a_hint_and_none_are_nothing(tmp_path):
    few = build_run(tmp_path / "few", gains={"grpo": 0.2, "dars": 0.3}, seeds=(0, 1), steps=20)
    waiting = {f"{arm}-s0": "pending" for arm in ("grpo", "dars")}
    none = build_run(tmp_path / "none", gains={"grpo": 0.2, "dars": 0.3}, seeds=(0,), steps=20, statuses=waiting)
    plan = planned(few)

    assert foresee(plan, sizes(plan), Study.read(few)).source.endswith("too few to be more than a hint")
    unknown = foresee(plan, sizes(plan), Study.read(none))
    assert (unknown.noise, unknown.smallest, unknown.alternatives) == (None, None, ())
    assert "no finished trial" in unknown.source


def test_a_metric_that_is_no_pass_rate_needs_an_earlier_run(tmp_path):
    run = build_run(
        tmp_path / "run", gains={"a": 0.2, "b": 0.3}, seeds=(0, 1, 2), steps=20, report={"metric": "eval/reward/mean"}
    )
    plan = planned(run)

    assert "--like RUN" in foresee(plan, sizes(plan)).source
    found = foresee(plan, sizes(plan), Study.read(run))
    assert found.noise.share == 0.0
    assert "evaluation's part is not known" in found.source


def test_alternatives_cost_the_same_tokens_and_find_less(run):
    plan = planned(run)

    found = foresee(plan, sizes(plan))

    first, seed, *same = found.alternatives
    assert (first.change, first.tokens) == ("as planned", 1.0)
    assert seed.tokens == pytest.approx(1.25)  # a fifth seed beside four
    assert seed.smallest < first.smallest
    assert [row.tokens for row in same] == [seed.tokens] * 3
    assert all(row.smallest <= first.smallest for row in same)
    # 8 trials of 1.5 M and 1.44 M of evaluation: a quarter more for all is half of evaluation's
    factor = 1 + 0.25 * (1.5e6 + SIZE.evaluation_rollouts * 64) / (SIZE.evaluation_rollouts * 64)
    assert same[0].change == f"for the same tokens: {round(128 * factor)} tasks"


def test_with_many_arms_a_larger_baseline_is_proposed(tmp_path):
    gains = {f"m{index}": 0.2 for index in range(6)}
    run = build_run(tmp_path / "run", gains=gains, seeds=(0, 1, 2), steps=10)
    plan = planned(run)

    found = foresee(plan, sizes(plan))

    changes = {row.change: row for row in found.alternatives}
    doubled, seed = changes["6 seeds for the baseline"], changes["a seed more for every arm"]
    assert doubled.tokens == pytest.approx(1 + 3 / 18)
    assert doubled.tokens < seed.tokens
    assert doubled.smallest < found.smallest


def test_an_arm_with_seeds_of_its_own_is_counted_by_them(tmp_path):
    run = build_run(tmp_path / "run", gains={"a": 0.2, "b": 0.2}, seeds=(0, 1), steps=10, own_seeds={"a": (0, 1, 2, 3)})
    plan = planned(run)

    found = foresee(plan, sizes(plan))

    assert (found.baseline, found.counts) == ("a", (4, 2))
    assert found.cost.training_tokens == 6 * 1_500_000


def test_costs_are_limits_or_those_of_an_earlier_run(run):
    plan = planned(run)
    free = replace(SIZE, budget=None)

    limits, measured = foresee(plan, sizes(plan, free)).cost, foresee(plan, sizes(plan, free), Study.read(run)).cost

    assert limits.at_most
    assert limits.training_tokens == 8 * 25_600 * 64
    assert not measured.at_most
    assert measured.training_tokens == pytest.approx(4 * (1_600_000 + 1_840_000), rel=0.01)
    asked = foresee(plan, sizes(plan, replace(free, rollouts_per_step=None)))
    assert asked.cost.tokens is None
    assert len(asked.alternatives) == 2


def test_the_chance_of_equivalence_is_told_where_a_margin_is_declared(tmp_path):
    run = build_run(tmp_path / "run", gains={"a": 0.2, "b": 0.2}, seeds=range(8), steps=100, report={"margin": 0.1})
    plan = planned(run)

    found = foresee(plan, sizes(plan))

    assert found.margin == 0.1
    assert 0.9 < found.equivalence <= 1.0


def test_one_arm_has_nothing_to_find_and_one_seed_finds_nothing(tmp_path):
    alone = planned(build_run(tmp_path / "alone", gains={"a": 0.2}, seeds=(0, 1), steps=10))
    single = planned(build_run(tmp_path / "single", gains={"a": 0.2, "b": 0.2}, seeds=(0,), steps=10))

    assert foresee(alone, sizes(alone)) is None
    assert foresee(single, sizes(single)).smallest is None
    assert math.isfinite(foresee(single, sizes(single)).noise.total)


def test_the_tasks_that_are_there_decide_what_can_be_found(run):
    plan = planned(run)

    asked, fewer = (foresee(plan, sizes(plan, replace(SIZE, evaluation_tasks=tasks))) for tasks in (128, 20))

    assert (asked.noise.tasks, fewer.noise.tasks) == (128, 20)
    assert fewer.smallest > 1.1 * asked.smallest  # tasks make a part of the scatter, seeds the rest
