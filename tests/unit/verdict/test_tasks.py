"""A verdict task by task, read from run folders whose answers are known."""

import json

import numpy as np
import pytest
from synthetic_runs import build_run

from orchestrator.runs.study import Study
from orchestrator.verdict.study import judge_study
from orchestrator.verdict.tasks import compare_by_task, noise, read_evaluations


def answer(run, rates, *, samples=4, steps=(0, 10, 20), metric=True):
    """Overwrite what every trial answered: by arm and seed, the right answers of each task, the same at every step."""
    for (arm, seed), right in rates.items():
        folder = run / "trials" / f"{arm}-s{seed}"
        tasks = {f"t{place}": [samples, count] for place, count in enumerate(right)}
        rows = [{"step": step, "kind": "evaluation", "time": 0.0, "tasks": tasks} for step in steps]
        (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if metric:
            lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            for line in lines:
                if line["kind"] == "evaluation":
                    line["metrics"]["eval/pass_at_1"] = float(np.mean(right)) / samples
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def run(tmp_path):
    return build_run(tmp_path / "run", gains={"grpo": 0.2, "dars": 0.3}, seeds=(0, 1), steps=20, budget=None)


def judged(run, **options):
    study = Study.read(run)
    verdict = judge_study(study, **options)[0]
    return read_evaluations(study, verdict), verdict


def test_tasks_are_compared_where_both_answered_them(run):
    answer(run, {("grpo", 0): [4, 0, 1], ("grpo", 1): [4, 0, 1], ("dars", 0): [4, 0, 4], ("dars", 1): [4, 1, 3]})

    (found,) = compare_by_task(*judged(run))

    assert (found.arm, found.baseline, found.tasks) == ("dars", "grpo", 3)
    assert found.by_task == pytest.approx((0.625, 0.125, 0.0))
    assert found.difference == pytest.approx(0.25)
    assert (found.arm_only, found.baseline_only, found.both, found.neither) == (("t2",), (), 1, 1)


def test_the_difference_by_task_is_the_difference_of_the_verdict(run):
    answer(run, {("grpo", 0): [4, 0, 1], ("grpo", 1): [3, 0, 1], ("dars", 0): [4, 0, 4], ("dars", 1): [4, 1, 3]})
    read, verdict = judged(run)

    (found,) = compare_by_task(read, verdict)

    assert found.difference == pytest.approx(verdict.comparisons[0].difference)


def test_evaluation_of_seeds_that_train_alike_makes_all_the_scatter(run):
    # every task at 1/2: an answer has variance 1/4 * 4/3 * (1 - ...) by hand: right 2 of 4 gives 1/4 * 4/3 = 1/3
    answer(run, {("grpo", 0): [2] * 30, ("grpo", 1): [2] * 29 + [3], ("dars", 0): [2] * 30, ("dars", 1): [2] * 30})
    read, verdict = judged(run)

    found = noise(read, verdict)

    spread = np.var([0.5, 0.5 + 1 / 120], ddof=1) / 2  # two arms, one degree of freedom each, one without scatter
    assert (found.tasks, found.samples) == (30, 4)
    assert found.total == pytest.approx(spread)
    assert found.share == pytest.approx(1.0)
    assert found.training == 0.0


def test_what_evaluation_does_not_make_is_trainings(run):
    answer(run, {("grpo", 0): [0] * 30, ("grpo", 1): [4] * 30, ("dars", 0): [0] * 30, ("dars", 1): [4] * 30})

    found = noise(*judged(run))

    assert found.share == 0.0
    assert found.training == pytest.approx(0.5)


def test_nothing_is_said_of_tasks_that_were_not_counted(run):
    answer(run, {("grpo", 0): [], ("grpo", 1): [], ("dars", 0): [], ("dars", 1): []}, metric=False)

    assert compare_by_task(*judged(run)) == ()
    assert noise(*judged(run)) is None


def test_the_share_of_evaluation_is_that_of_the_rate_of_right_answers_alone(run):
    assert noise(*judged(run)) is not None
    assert noise(*judged(run, metric="eval/reward/mean")) is None


def test_a_damaged_file_leaves_the_verdict(run):
    (run / "trials" / "dars-s0" / "evaluations.jsonl").write_text("{\n{}\n")

    read, verdict = judged(run)

    assert verdict is not None
    assert [found.tasks for found in compare_by_task(read, verdict)] == [128]
