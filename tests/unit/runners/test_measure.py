"""What is left of a trial that is only measured."""

import pytest

from orchestrator.errors import TrialError
from orchestrator.runners.measure import measure, shortened
from orchestrator.testing.plans import make_settings


def test_three_steps_and_one_small_evaluation_are_left():
    settings = make_settings(
        start={"recipe": "sft"},
        schedule={"steps": 100, "tasks_per_step": 7},
        evaluation={"every": 5, "tasks": 500, "samples": 16, "k": [1, 16]},
        budget={"generated_tokens": 5},
        checkpoints={"every": 1},
    )

    short = shortened(settings)

    assert (short.start, short.budget.generated_tokens, short.checkpoints.every) == (None, None, 0)
    assert (short.schedule.steps, short.schedule.tasks_per_step) == (3, 7)
    assert (short.evaluation.every, short.evaluation.first) == (0, False)
    assert (short.evaluation.tasks, short.evaluation.samples, short.evaluation.k) == (16, 16, (1, 16))
    assert not short.tracking.enabled


def test_many_samples_are_cut_and_k_with_them():
    short = shortened(make_settings(evaluation={"tasks": 9, "samples": 1000, "k": [512, 1000]}))

    assert (short.evaluation.tasks, short.evaluation.samples, short.evaluation.k) == (1, 256, (1,))


def test_a_trial_without_steps_is_evaluated_alone():
    assert shortened(make_settings(schedule={"steps": 0})).schedule.steps == 0


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"resources": {"workers": 2}}, "measure with resources.workers=1"),
        ({"procedure": "tournament"}, "only the procedure 'train'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(sections, said):
    with pytest.raises(TrialError, match=said):
        measure(make_settings(**sections), {})
