"""Measured costs: what tells one from another, and the file they are remembered in."""

import json
from dataclasses import replace

import pytest

from orchestrator.experiment import planner
from orchestrator.experiment.files import parse_experiment
from orchestrator.plugging.registry import load_registry
from orchestrator.runs import measurements
from orchestrator.runs.measurements import Measurement, Measurements, cost_key

FOUND = Measurement(
    start_seconds=2.0,
    step_seconds=0.5,
    step_tokens=100.0,
    evaluation_seconds=0.01,
    save_seconds=0.1,
    memory=2**30,
    gpu_memory=None,
    machine={"processor": "1 core"},
    date="2025-01-02",
)
EXPERIMENT = {
    "name": "tiny",
    "environment": {"use": "countdown", "numbers": [3, 3]},
    "policy": {"use": "causal_lm", "model": {"preset": "tiny"}},
    "recipe": "grpo",
}


def arms(registry, **sections):
    return planner.make(parse_experiment(json.dumps({**EXPERIMENT, **sections})), registry).arms


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture
def key(registry):
    def key(**sections):
        [settings] = arms(registry, **sections).values()
        return cost_key(settings, registry)

    return key


@pytest.mark.parametrize(
    "sections",
    [
        {"seeds": [3, 4], "name": "another"},
        {"schedule": {"steps": 7}},
        {"optimizer": {"lr": 0.5, "warmup": 3}},
        {"start": {"recipe": "sft"}},
        {"checkpoints": {"every": 3}, "budget": {"generated_tokens": 10_000}, "tracking": {"enabled": False}},
        {"sampling": {"temperature": 1.0}, "sampler": {"count": 8}},  # defaults, written out
    ],
)
def test_what_costs_nothing_changes_no_key(key, sections):
    assert key(**sections) == key()


@pytest.mark.parametrize(
    "sections",
    [
        {"policy": {"use": "causal_lm", "model": {"preset": "tiny", "hidden": 32}}},
        {"schedule": {"tasks_per_step": 5}},
        {"sampling": {"max_tokens": 5}},
        {"update": {"micro_batch_rows": 5}},
        {"evaluation": {"tasks": 5}},
        {"resources": {"cpus": 2}},
        {"optimizer": {"use": "sgd"}},
        {"schedule": {"steps": 0}},
    ],
)
def test_what_decides_the_cost_changes_the_key(key, sections):
    assert key(**sections) != key()


def test_arms_have_the_key_of_their_options_and_not_of_their_names(registry):
    overlays = {"a": None, "b": {"optimizer": {"lr": 0.1}}, "c": {"sampler": {"count": 3}}}

    a, b, c = (cost_key(settings, registry) for settings in arms(registry, arms=overlays).values())

    assert a == b != c


def test_another_machine_and_other_plugins_are_another_key(key, registry, monkeypatch):
    here = key()

    monkeypatch.setattr(measurements.machine, "describe", lambda: {"processor": "another"})
    elsewhere = key()
    monkeypatch.undo()
    monkeypatch.setattr(registry.manager, "fingerprint", lambda: {"countdown": "changed"})

    assert len({here, elsewhere, key()}) == 3


def test_what_is_kept_is_found_by_the_next_process(tmp_path):
    path = tmp_path / "cache" / "measurements.json"
    Measurements(path).keep("a", FOUND)
    Measurements(path).keep("b", replace(FOUND, gpu_memory=5))

    read = Measurements(path)

    assert (read.find("a"), read.find("b").gpu_memory, read.find("c"), read.problem) == (FOUND, 5, None, None)


def test_the_oldest_are_dropped_and_what_is_measured_again_is_young(tmp_path, monkeypatch):
    monkeypatch.setattr(measurements, "_KEPT", 2)
    kept = Measurements(tmp_path / "measurements.json")

    for key in ("a", "b", "a", "c"):
        kept.keep(key, FOUND)

    assert [key for key in "abc" if Measurements(kept.path).find(key)] == ["a", "c"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"a": 1}', '{"a": {"step_seconds": 1}}', json.dumps({"a": FOUND.to_json() | {"memory": -1}})]
)
def test_a_damaged_file_is_passed_over_and_written_anew(tmp_path, text):
    path = tmp_path / "measurements.json"
    path.write_text(text)

    damaged = Measurements(path)
    damaged.keep("b", FOUND)

    assert damaged.find("a") is None
    assert str(path) in damaged.problem
    assert Measurements(path).problem is None
    assert Measurements(path).find("b") == FOUND


@pytest.mark.parametrize(("given", "below"), [("/somewhere", "/somewhere"), ("relative", "/home/me/.cache")])
def test_the_file_lies_in_the_users_cache_folder(monkeypatch, given, below):
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", "/home/me")

    assert str(Measurements().path) == f"{below}/rl-orchestrator/measurements.json"
