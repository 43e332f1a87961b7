"""Which names are the core's own, and what a plugin's metrics may hold."""

import pytest

from orchestrator.contract.metrics import from_plugin, is_core


@pytest.mark.parametrize(
    "name",
    ["cost/generated_tokens", "rollout/reward/mean", "rollout/mine", "eval/pass_at_1", "loss/policy", "time/mine", "observers/errors", "train/tokens", "train/lr", "train/gradient_norm/mine", "train/idle_updates"],
)  # fmt: skip
def test_a_name_of_the_core_is_refused(name):
    with pytest.raises(ValueError, match=f"Credit.metrics holds '{name}', which is one of the core's metrics"):
        from_plugin({name: 1.0}, "Credit.metrics")


@pytest.mark.parametrize(
    "name", ["mine/score", "train/kl_reference", "train/clip_fraction", "costly", "losses/x", "score"]
)
def test_names_of_a_method_pass(name):
    assert from_plugin({name: 1}, "Credit.metrics") == {name: 1.0}
    assert not is_core(name)


@pytest.mark.parametrize("name", ["pass_at_4", "reward/mean", "tokens", "episode/correct", "rollouts"])
def test_an_evaluation_measures_beside_the_core(name):
    with pytest.raises(ValueError, match=f"'eval/{name}', which is one of the core's"):
        from_plugin({name: 1.0}, "evaluate()", area="eval/")

    assert from_plugin({"meteor": 0.5}, "evaluate()", area="eval/") == {"eval/meteor": 0.5}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"mine/x": "1"}, "metric 'mine/x' is '1'; expected a number"),
        ({"mine/x": [1, 2]}, "metric 'mine/x' is a list that is no single number"),
        ({"mine/x": None}, "metric 'mine/x' is None"),
        ({"mine/x": 1e308}, r"metric 'mine/x' is 1e\+308; expected a magnitude of at most 1e\+100"),
        ({"mine/x": 10**400}, "metric 'mine/x' is a int that is no single number"),
        ({1: 1.0}, "names a metric 1; expected a text"),
        ({"": 1.0}, "names a metric ''"),
        (["mine/x"], "Credit.metrics is a list; expected a mapping"),
    ],
)
def test_what_is_no_metric_is_refused(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        from_plugin(given, "Credit.metrics")


def test_numbers_that_are_not_finite_pass_to_be_left_out_of_rows():
    assert from_plugin({"mine/x": float("inf")}, "Credit.metrics") == {"mine/x": float("inf")}
