"""Every hook, typed, by life stage: the manual for plugin authors.

The verb tells the convention: ``provide_*`` is collected once at load, ``check_*`` collected before launch,
``configure`` is historic, ``run_*`` stops at the first result, ``on_*`` only watches. Hooks declare and watch;
the hot path calls built objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.contract.markers import hookspec

if TYPE_CHECKING:
    from orchestrator.contract.component import Command, Component, Recipe, ReportSection
    from orchestrator.contract.plan import Components, Plan, Trial
    from orchestrator.contract.types import RolloutGroup, TrialResult
    from orchestrator.errors import Problem

# --- load -------------------------------------------------------------------------------------------------


@hookspec(historic=True)
def configure(settings: Mapping[str, Any]) -> None:
    """Receive the settings of this process; called once, also for plugins registered late.

    :param settings: ``{"version": the orchestrator's version, "run_directory": path or None}``

    Called in: driver and worker processes. Added in 0.1.
    """


@hookspec
def provide_environments() -> Sequence[Component]:
    """Offer environments.

    Called in: driver and worker processes, at load. Added in 0.1.
    """


@hookspec
def provide_policies() -> Sequence[Component]:
    """Offer policies.

    Called in: driver and worker processes, at load. Added in 0.1.
    """


@hookspec
def provide_samplers() -> Sequence[Component]:
    """Offer samplers.

    Called in: driver and worker processes, at load. Added in 0.1.
    """


@hookspec
def provide_rewards() -> Sequence[Component]:
    """Offer rewards.

    Called in: driver and worker processes, at load. Added in 0.1.
    """


@hookspec
def provide_advantage_estimators() -> Sequence[Component]:
    """Offer advantage estimators.

    Called in: driver and worker processes, at load. Added in 0.1.
    """


@hookspec
def provide_objectives() -> Sequence[Component]:
    """Offer objectives.

    Called in: driver and worker processes, at load. Added in 0.1.
    """


@hookspec
def provide_searchers() -> Sequence[Component]:
    """Offer searchers: who proposes the configurations of a search.

    Called in: driver and worker processes, at load. Added in 0.1.
    """


@hookspec
def provide_schedulers() -> Sequence[Component]:
    """Offer schedulers: who stops trials of a search early.

    Called in: driver and worker processes, at load. Added in 0.1.
    """


@hookspec
def provide_recipes() -> Sequence[Recipe]:
    """Offer recipes: named overlays over an experiment file.

    Called in: driver and worker processes, at load. Added in 0.1.
    """


@hookspec
def provide_commands() -> Sequence[Command]:
    """Offer sub-commands of ``orchestrator``.

    Called in: the driver process, at load. Added in 0.1.
    """


@hookspec
def provide_report_sections() -> Sequence[ReportSection]:
    """Offer sections of the report.

    Called in: the driver process, when a report is written. Added in 0.1.
    """


# --- before launch ----------------------------------------------------------------------------------------


@hookspec
def check_plan(plan: Plan) -> Sequence[Problem]:
    """Look the whole plan over and return every problem found, before anything starts.

    :param plan: the validated plan with all its trials; where a search proposes them as results come in, with one for
        each arm as it stands

    Called in: the driver process. Added in 0.1.
    """


# --- a sweep ----------------------------------------------------------------------------------------------


@hookspec
def on_sweep_start(plan: Plan, directory: Path) -> None:
    """Observe the start, or the resumption, of a sweep.

    :param plan: the plan about to run
    :param directory: the run's directory

    Called in: the driver process. Added in 0.1.
    """


@hookspec
def on_sweep_end(plan: Plan, directory: Path, results: Sequence[TrialResult]) -> None:
    """Observe the end of a sweep, after its report was written.

    :param plan: the plan that ran
    :param directory: the run's directory, with the report in it
    :param results: one result per trial, failed ones included

    Called in: the driver process. Added in 0.1.
    """


# --- a trial ----------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def run_trial(trial: Trial, components: Components) -> TrialResult | None:
    """Run one trial to its end; return None to leave it to the next implementation.

    :param trial: the trial; ``trial.settings.procedure`` names the procedure it asks for
    :param components: the built components; those the experiment does not name are None

    The core's own implementation runs the procedure ``train`` and comes last.
    Called in: the worker process. Added in 0.1.
    """


@hookspec
def on_trial_start(trial: Trial) -> None:
    """Observe the start, or the resumption, of a trial.

    :param trial: the running trial; do not mutate it

    Called in: the worker process. Added in 0.1.
    """


@hookspec
def on_rollouts(trial: Trial, step: int, groups: Sequence[RolloutGroup]) -> None:
    """Observe the scored rollouts of one step.

    :param trial: the running trial
    :param step: 1-based step
    :param groups: the groups the sampler returned, failed rollouts included

    Called in: the worker process. Added in 0.1.
    """


@hookspec
def on_step_end(trial: Trial, step: int, metrics: Mapping[str, float]) -> None:
    """Observe one finished step.

    :param trial: the running trial
    :param step: 1-based step
    :param metrics: scalars of this step by metric name, cost counters included

    Called in: the worker process. Added in 0.1.
    """


@hookspec
def on_evaluation(trial: Trial, step: int, metrics: Mapping[str, float]) -> None:
    """Observe one evaluation on held-out tasks.

    :param trial: the running trial
    :param step: the step after which it was taken; 0 before training
    :param metrics: scalars by metric name, cost counters included

    Called in: the worker process. Added in 0.1.
    """


@hookspec
def on_checkpoint(trial: Trial, step: int, directory: Path) -> None:
    """Observe a finished checkpoint.

    :param trial: the running trial
    :param step: the step it holds
    :param directory: the checkpoint's directory, complete and renamed into place

    Called in: the worker process. Added in 0.1.
    """


@hookspec
def on_trial_end(trial: Trial, result: TrialResult) -> None:
    """Observe the end of a trial that did not fail.

    :param trial: the trial
    :param result: how it ended

    Called in: the worker process. Added in 0.1.
    """


@hookspec
def on_trial_error(trial: Trial, error: BaseException) -> None:
    """Observe the failure of a trial.

    :param trial: the trial
    :param error: what it raised, with a note that names the plugin at fault

    Called in: the worker process. Added in 0.1.
    """
