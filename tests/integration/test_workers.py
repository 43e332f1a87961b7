"""Two workers that share a batch take the step one worker takes alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("two_workers.py")


def _train(size: int, store: Path, *asked: str) -> dict:
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(size), str(store), *asked], stdout=subprocess.PIPE, text=True
        )
        for rank in range(size)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * size
    return json.loads(outputs[0].splitlines()[-1])


@pytest.mark.parametrize("recipe", ["grpo", "dr_grpo", "dapo"])
def test_the_step_does_not_depend_on_the_number_of_workers(tmp_path, recipe):
    alone = _train(1, tmp_path / "alone", recipe)

    shared = _train(2, tmp_path / "shared", recipe)

    assert shared["weights"] == pytest.approx(alone["weights"], abs=1e-6)
    assert shared["norm"] == pytest.approx(alone["norm"], rel=1e-4)
    assert alone["norm"] > 1e-3


def test_norms_of_probes_do_not_depend_on_the_number_of_workers(tmp_path):
    """Two passes over rollouts on the same weights: in the first nothing is clipped, so a probe has no gradient."""
    asked = (
        "so_grpo",
        "schedule.epochs=2",
        "objective.correction=one_plus",
        "objective.kl_weight=0.0",
        "optimizer.max_grad_norm=null",
    )

    alone = _train(1, tmp_path / "alone", *asked)
    shared = _train(2, tmp_path / "shared", *asked)

    assert shared["weights"] == pytest.approx(alone["weights"], abs=1e-6)
    assert shared["clipped_norm"] == pytest.approx(alone["clipped_norm"], rel=1e-4)
    assert alone["clipped_norm"] > 1e-3
