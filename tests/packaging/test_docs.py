"""The manual of experiment files names every key with its default, and its examples are good."""

import re
from pathlib import Path

import pytest
import yaml
from orchestrator_plugins.optuna.config import PrunerConfig, SamplerConfig
from orchestrator_plugins.ray_tune.config import RayConfig
from orchestrator_plugins.tuning.config import AshaConfig, MedianConfig

from orchestrator.contract.settings import (
    Budget,
    Checkpoints,
    Correction,
    Evaluation,
    Experiment,
    Failures,
    Optimizer,
    ReportSettings,
    Resources,
    SamplingSpec,
    Schedule,
    Start,
    Tracking,
    Tune,
    Update,
)
from orchestrator.experiment.search import Kind

DOCS = Path(__file__).parents[2] / "docs"
KEYS = (DOCS / "experiment-files.md").read_text()
SECTIONS = (
    Budget,
    Checkpoints,
    Correction,
    Evaluation,
    Failures,
    Optimizer,
    ReportSettings,
    Resources,
    SamplingSpec,
    Schedule,
    Start,
    Tracking,
    Tune,
    Update,
    AshaConfig,
    MedianConfig,
    PrunerConfig,
    RayConfig,
    SamplerConfig,
)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_of_a_section_stands_in_the_manual_with_its_default(section):
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \| ", KEYS, re.MULTILINE))
    every = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ", KEYS, re.MULTILINE)

    for name, field in section.model_fields.items():
        assert name in rows, f"{section.__name__}.{name} is not in docs/experiment-files.md"
        default = field.get_default(call_default_factory=True)
        if field.is_required():
            continue
        default = {"kind": default.kind} if isinstance(default, Correction) else default
        default = list(default) if isinstance(default, tuple) else getattr(default, "use", default)
        written = [yaml.safe_load(value) for key, value in every if key == name]
        assert any(_same(value, default) for value in written), f"{section.__name__}.{name}: {default!r} or {written}"


def _same(written, default):
    try:
        return written == default or float(written) == float(default)
    except (TypeError, ValueError):
        return str(written) == str(default)


@pytest.mark.parametrize("name", Experiment.model_fields)
def test_every_key_of_the_top_level_is_explained(name):
    assert f"| `{name}` |" in KEYS or f"## `{name}`" in KEYS


def test_every_distribution_is_explained():
    assert [kind for kind in Kind if f"| `{kind}` |" not in KEYS] == []
