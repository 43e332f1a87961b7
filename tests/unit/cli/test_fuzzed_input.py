"""Any file and any settings: a plan, or a list of problems with their places; never a traceback, never for long.

``FUZZED_INPUTS=5000 pytest -n 0 tests/unit/cli/test_fuzzed_input.py`` looks longer; ``--hypothesis-seed=N`` repeats.
"""

from __future__ import annotations

import io
import json
import os
import resource
import time

from fuzzed_inputs import Drawn, damaged, flow, overrides, shipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.cli.preview import show_plan
from orchestrator.errors import ConfigError
from orchestrator.experiment import planner
from orchestrator.experiment.files import load_experiment
from orchestrator.experiment.schema import experiment_schema
from orchestrator.plugging.registry import load_registry

REGISTRY = load_registry()
SCHEMA = experiment_schema(REGISTRY)
DRAWN = Drawn(SCHEMA)
MOST_SECONDS = 10.0  # of one input's CPU
INPUTS = int(os.environ.get("FUZZED_INPUTS", "60"))
LONGEST_MEMORY = 2 << 30


@st.composite
def inputs(draw):
    """Text of a file, and settings over it."""
    if draw(st.booleans()):
        data = shipped(draw)
    else:
        base = {
            "name": "x",
            "environment": {"use": "countdown"},
            "policy": {"use": "causal_lm", "model": {"preset": "tiny"}},
        }
        drawn = DRAWN.value(draw, SCHEMA)
        data = base | drawn if isinstance(drawn, dict) else drawn
    return damaged(draw, flow(data)), overrides(draw, data)


@settings(
    max_examples=INPUTS,
    deadline=None,
    suppress_health_check=[*HealthCheck],
    derandomize="FUZZED_INPUTS" not in os.environ,
    database=None,
)
@given(one=inputs())
def test_any_input_becomes_a_plan_or_a_list_of_problems(tmp_path_factory, one):
    text, typed = one
    folder = tmp_path_factory.mktemp("fuzzed")
    file = folder / "x.yaml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    before = _listing(folder)
    began = time.process_time()

    problems = _problems(file, typed)

    assert problems is None or problems
    assert all(len(str(problem)) < 4000 for problem in problems or ())

    assert time.process_time() - began < MOST_SECONDS, (text, typed)
    assert _listing(folder) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < LONGEST_MEMORY


def _problems(file, typed):
    """What is wrong with an experiment; None where it makes a plan that can be written and shown."""
    try:
        plan = planner.make(load_experiment(file, typed), REGISTRY)
    except ConfigError as error:
        return error.problems
    json.loads(plan.to_json())
    show_plan(plan, REGISTRY, Console(file=io.StringIO()))
    return None


def _listing(folder):
    return sorted((path.name, path.stat().st_size) for path in folder.rglob("*"))
