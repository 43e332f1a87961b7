"""Two workers that share a batch take the step one worker takes alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("two workers")]

SCRIPT = Path(__file__).with_name("two_workers.py")
RECIPES = {name: [f"recipe={name}"] for name in ("grpo", "dr_grpo", "dapo")}
PROBED = [
    "recipe=so_grpo",
    "schedule.epochs=2",
    "objective.correction=one_plus",
    "objective.kl_weight=0.0",
    "optimizer.max_grad_norm=null",
]


def _train(size: int, store: Path) -> dict[str, dict]:
    cases = json.dumps({**RECIPES, "probed": PROBED})
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(size), str(store), cases], stdout=subprocess.PIPE, text=True
        )
        for rank in range(size)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * size
    return json.loads(outputs[0].splitlines()[-1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return _train(1, tmp_path_factory.mktemp("alone") / "store")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return _train(2, tmp_path_factory.mktemp("shared") / "store")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_step_does_not_depend_on_the_number_of_workers(alone, shared, recipe):
    assert shared[recipe]["weights"] == pytest.approx(alone[recipe]["weights"], abs=1e-6)
    assert shared[recipe]["norm"] == pytest.approx(alone[recipe]["norm"], rel=1e-4)
    assert alone[recipe]["norm"] > 1e-3


def test_norms_of_probes_do_not_depend_on_the_number_of_workers(alone, shared):
    """Two passes over rollouts on the same weights: in the first nothing is clipped, so a probe has no gradient."""
    assert shared["probed"]["weights"] == pytest.approx(alone["probed"]["weights"], abs=1e-6)
    assert shared["probed"]["clipped_norm"] == pytest.approx(alone["probed"]["clipped_norm"], rel=1e-4)
    assert alone["probed"]["clipped_norm"] > 1e-3
