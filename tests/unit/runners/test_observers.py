"""Errors of plugins that only watch are counted once each, to the last moment of a trial and over its restarts."""

from orchestrator.api import hookimpl
from orchestrator.experiment import planner
from orchestrator.experiment.files import parse_experiment
from orchestrator.plugging.manager import PluginManager
from orchestrator.plugging.registry import Registry
from orchestrator.runners import local
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.ledger import read_rows
from orchestrator.runs.results import clear_result

EXPERIMENT = """
name: watched
environment: {use: countdown, numbers: [2, 2], max_number: 4}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
recipe: grpo
sampler: {count: 2}
schedule: {steps: 2, tasks_per_step: 2}
sampling: {max_tokens: 2, max_turns: 1}
evaluation: {every: 0, first: false, tasks: 1, samples: 1, k: [1]}
checkpoints: {every: 1}
tracking: {enabled: false}
"""


class Clumsy:
    """Raises whatever it is told."""

    @hookimpl
    def on_trial_start(self, trial):
        raise RuntimeError("start")

    @hookimpl
    def on_rollouts(self, trial):
        raise RuntimeError("rollouts")

    @hookimpl
    def on_step_end(self, trial, step):
        raise RuntimeError("step")

    @hookimpl
    def on_evaluation(self, trial):
        raise RuntimeError("evaluation")

    @hookimpl
    def on_checkpoint(self, trial):
        raise RuntimeError("checkpoint")

    @hookimpl
    def on_trial_end(self, trial):
        raise RuntimeError("end")


def _registry(*plugins):
    manager = PluginManager()
    manager.discover(["baselines", "causal_lm", "countdown"])
    for plugin in plugins:
        manager.register(plugin)
    return Registry(manager)


def _play(directory, registry, *overrides):
    [result] = local.run(planner.make(parse_experiment(EXPERIMENT, overrides), registry), directory, registry)
    assert result.status == "done", result.error
    [folder] = RunFolder(directory).trials()
    counts = [row["metrics"].get("observers/errors") for row in read_rows(folder.metrics)]
    return result, [count for count in counts if count is not None], folder


def test_every_error_counts_once_the_last_ones_too(tmp_path):
    result, counts, _ = _play(tmp_path, _registry(Clumsy()))

    # start 1, rollouts 2 | step 3, checkpoint 4, rollouts 5 | step 6, checkpoint 7, evaluation 8, end 9
    assert counts == [2, 5, 9]
    assert result.metrics["observers/errors"] == 9


def test_a_trial_nobody_disturbs_has_no_row_for_it(tmp_path):
    result, counts, folder = _play(tmp_path, _registry())

    assert counts == [0, 0]
    assert result.metrics["observers/errors"] == 0
    assert {row["kind"] for row in read_rows(folder.metrics)} == {"step", "evaluation"}


def test_a_restart_goes_on_counting(tmp_path):
    registry = _registry(Clumsy())
    _, first, folder = _play(tmp_path, registry, "schedule.steps=1")
    clear_result(folder)
    result, counts, _ = _play(tmp_path, registry, "schedule.steps=2")

    assert first == [2, 6]  # start, rollouts | step, evaluation, checkpoint, end
    # the checkpoint knew of 3; start 4, rollouts 5 | step 6, checkpoint 7, evaluation 8, end 9: as in one go
    assert counts == [2, 5, 9]
    assert result.metrics["observers/errors"] == 9
