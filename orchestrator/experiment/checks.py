"""What an arm must satisfy beyond the types of its keys; every check returns all problems it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.contract.component import Role
from orchestrator.contract.parts import Facts, Part, facts_of
from orchestrator.contract.roles import ChecksTasks
from orchestrator.contract.settings import MODEL_FILE, Settings
from orchestrator.contract.types import Couples, Speaks, Split, Task
from orchestrator.errors import Problem, blame, describe, did_you_mean
from orchestrator.experiment.arms import Arm
from orchestrator.plugging.registry import Choice, Registry

_REQUIRED = ("policy", "sampler", "objective")  # of procedure `train`; without an advantage the score itself is used


@dataclass(slots=True, kw_only=True)
class Judged:
    """An arm after judgement. ``settings`` has defaults in place of ``unsound`` sections, so that the rest can be judged."""

    arm: Arm
    settings: Settings
    unsound: frozenset[str]
    chosen: Mapping[str, Choice] = field(default_factory=dict)  # components with sound options, by their path
    built: Mapping[str, Part] = field(default_factory=dict)  # those that are built when planning, by their path

    def component(self, path: str) -> Any:
        """The component built at a path; None where there is none."""
        part = self.built.get(path)
        return None if part is None else part.component

    def facts(self, path: str) -> Facts:
        """What the component built at a path says of itself; nothing where there is none."""
        part = self.built.get(path)
        return Facts() if part is None else facts_of(part)

    @property
    def is_sound(self) -> bool:
        """Whether the settings are those the user wrote."""
        return not self.unsound


def _roles_filled(judged: Judged, registry: Registry) -> Iterator[Problem]:
    if judged.settings.procedure != "train" or not judged.arm.recipe_found:
        return
    for role in _REQUIRED:
        if getattr(judged.settings, role) is None:
            recipe = "" if role == "policy" else ", or name a recipe that brings one, as in recipe: grpo"
            yield Problem(
                role,
                f"missing; procedure train needs one: write {role}: {{use: ...}}{recipe}. "
                f"Installed: {', '.join(registry.names(role)) or 'none'}",
            )


def _procedure_played(judged: Judged, registry: Registry) -> Iterator[Problem]:
    procedure = judged.settings.procedure
    if procedure != "train" and not registry.manager.implements("run_trial"):
        yield Problem(
            "procedure",
            f"no installed plugin runs {procedure!r}{did_you_mean(procedure, ['train'])} The core runs train",
        )


def _same_language(judged: Judged, registry: Registry) -> Iterator[Problem]:
    policy, spoken = judged.chosen.get("policy"), _spoken(judged)
    if policy is None or spoken is None:
        return
    understood = policy.component.speaks
    if understood and spoken != understood:
        fitting = [name for name in registry.names("policy") if registry.component("policy", name).speaks == spoken]
        yield Problem(
            "policy.use",
            f"{policy.component.name} understands {understood}, but environment {judged.settings.environment.use} speaks "
            f"{spoken}; policies for {spoken}: {', '.join(fitting) or 'none installed'}",
        )


def _parts_same_language(judged: Judged, registry: Registry) -> Iterator[Problem]:
    """Components that work with one language only, nested ones included."""
    spoken = _spoken(judged)
    if spoken is None:
        return
    for path, choice in judged.chosen.items():
        if choice.role in (Role.ENVIRONMENT, Role.POLICY):
            continue
        for where, part in choice.walk(path):
            only = part.component.speaks
            if only not in (None, spoken):
                yield Problem(
                    f"{where}.use",
                    f"{part.component.name} works with {only} only, but environment {judged.settings.environment.use} "
                    f"speaks {spoken}; choose another {part.role} or environment",
                )


def _demonstrations_there(judged: Judged, registry: Registry) -> Iterator[Problem]:
    environment, settings = judged.component("environment"), judged.settings
    if environment is None or settings.procedure != "train" or settings.sampler is None:
        return
    if not judged.facts("sampler").demonstrates:
        return
    try:
        task = next(iter(environment.tasks(Split.TRAIN)), None)
    except Exception:  # another check reports what this raises
        return
    if isinstance(task, Task) and task.demonstration is None:
        yield Problem(
            "sampler.use",
            f"{settings.sampler.use} plays each task's demonstration, and the tasks of environment "
            f"{settings.environment.use} have none; choose another sampler or environment",
        )


def _siblings_enough(judged: Judged, registry: Registry) -> Iterator[Problem]:
    settings = judged.settings
    most = judged.facts("sampler").most_siblings
    shared = hasattr(judged.component("environment"), "agents")  # agents of one world are siblings too
    if most is None or shared or settings.procedure != "train":
        return
    for role in ("advantage", "objective"):
        least = judged.facts(role).least_siblings
        if most < least:
            yield Problem(
                "sampler",
                f"{_name(judged, 'sampler')} gives groups of at most {most}, and {role} {_name(judged, role)} learns "
                f"nothing from fewer than {least} siblings; raise the sampler's count, or choose another sampler",
            )


def _returns_given(judged: Judged, registry: Registry) -> Iterator[Problem]:
    settings = judged.settings
    if settings.procedure != "train" or not judged.facts("objective").needs_returns:
        return
    given = judged.facts("advantage").gives_returns if settings.advantage else False
    if given is False:
        estimator = (
            f"estimator {_name(judged, 'advantage')} sets" if settings.advantage else "without an estimator there are"
        )
        yield Problem(
            "objective",
            f"{_name(judged, 'objective')} trains a critic, and {estimator} no returns for it to learn from; choose an "
            f"advantage estimator that sets them, such as gae, or let the critic's weight be 0 (objective.value_weight=0)",
        )


def _needs_met(judged: Judged, registry: Registry) -> Iterator[Problem]:
    policy = judged.chosen.get("policy")
    if policy is None or policy.component.columns is None:
        return
    offered = policy.component.columns
    for role in ("advantage", "objective"):
        part, spec = judged.component(role), getattr(judged.settings, role)
        lacking = sorted({need.column for need in getattr(part, "needs", ())} - offered)
        if lacking:
            yield Problem(
                role,
                f"{spec.use} needs {', '.join(lacking)} of the policy, and {policy.component.name} computes only "
                f"{', '.join(sorted(offered))}; choose another {role} or policy",
            )


def _tasks_there(judged: Judged, registry: Registry) -> Iterator[Problem]:
    environment = judged.component("environment")
    if environment is None or judged.settings.procedure != "train":
        return
    name = judged.settings.environment.use
    plugin = registry.plugin_of("environment", name)
    for split in Split:
        try:
            with blame(str(plugin), where=f"environment {name!r}"):
                task = next(iter(environment.tasks(split)), None)
        except Exception as error:
            yield Problem("environment", f"its {split} tasks cannot be made: {describe(error)}")
            continue
        if task is None:
            yield Problem("environment", f"{name} has no {split} tasks with these options")
        elif not isinstance(task, Task):
            yield Problem("environment", f"{name} of plugin {plugin} gave a {type(task).__name__} in place of a Task")


def _tasks_scored(judged: Judged, registry: Registry) -> Iterator[Problem]:
    """Rewards that need something of each task, nested ones included."""
    environment = judged.component("environment")
    if environment is None:
        return
    able = [
        (path, part)
        for path, built in judged.built.items()
        if path.startswith("rewards.")
        for _, part in built.walk(path)
        if isinstance(part.component, ChecksTasks)
    ]
    for split in Split if able else ():
        try:
            task = next(iter(environment.tasks(split)), None)
        except Exception:  # another check reports what this raises
            return
        if isinstance(task, Task):
            for path, part in able:
                with blame(part.whom):
                    yield from (Problem(path, said) for said in part.component.check_task(task))


def _evaluation_possible(judged: Judged, registry: Registry) -> Iterator[Problem]:
    evaluation = judged.settings.evaluation
    for index, k in enumerate(evaluation.k):
        if k > evaluation.samples:
            yield Problem(
                f"evaluation.k.{index}",
                f"pass@{k} cannot be estimated from evaluation.samples={evaluation.samples} rollouts per task; "
                f"raise samples or drop {k}",
            )
    if len(set(evaluation.k)) < len(evaluation.k):
        yield Problem("evaluation.k", f"names a value twice: {list(evaluation.k)}")


def _budget_reachable(judged: Judged, registry: Registry) -> Iterator[Problem]:
    settings = judged.settings
    tokens = settings.budget.generated_tokens
    if tokens is not None and settings.procedure == "train" and tokens < settings.schedule.tasks_per_step:
        yield Problem(
            "budget.generated_tokens",
            f"{tokens} is less than one step can spend: schedule.tasks_per_step={settings.schedule.tasks_per_step} "
            f"rollouts generate at least a token each",
        )


def _minibatches_possible(judged: Judged, registry: Registry) -> Iterator[Problem]:
    schedule = judged.settings.schedule
    couples = getattr(judged.component("objective"), "couples", None)
    if couples is Couples.GROUPS and schedule.minibatches > schedule.tasks_per_step:
        yield Problem(
            "schedule.minibatches",
            f"{schedule.minibatches} mini-batches cannot share {schedule.tasks_per_step} groups, and objective "
            f"{_name(judged, 'objective')} keeps groups whole; at most {schedule.tasks_per_step}",
        )


def _correction_possible(judged: Judged, registry: Registry) -> Iterator[Problem]:
    correction, levels = judged.settings.update.correction, judged.facts("objective").corrections
    if correction.kind == "none" or levels is None or correction.level in levels:
        return
    remedy = f"level: {levels[0]}, or kind: none" if levels else "kind: none"
    yield Problem(
        "update.correction",
        f"objective {_name(judged, 'objective')} takes no weights of level {correction.level}: its loss is of whole "
        f"{'rollouts' if levels else 'groups, or holds whoever acted'}. Give {remedy}, or another objective",
    )


def _sampling_trainable(judged: Judged, registry: Registry) -> Iterator[Problem]:
    settings = judged.settings
    if settings.procedure == "train" and settings.sampling.temperature == 0 and settings.schedule.steps > 0:
        yield Problem(
            "sampling.temperature",
            "0 is greedy: rollouts have no probability to train on. Give a temperature above 0; "
            "evaluation.temperature may be 0",
        )


def _start_possible(judged: Judged, registry: Registry) -> Iterator[Problem]:
    start = judged.settings.start
    if start is None:
        return
    if (start.recipe is None) == (start.checkpoint is None):
        given = "neither" if start.recipe is None else "both"
        yield Problem("start", f"has {given} of recipe (a phase to run) and checkpoint (weights to load); give one")
    elif start.checkpoint is not None:
        path = Path(start.checkpoint).expanduser()
        if judged.settings.resources.address is None and not (path / MODEL_FILE).is_file():
            yield Problem("start.checkpoint", f"no {MODEL_FILE} in {str(path)!r}; give the folder of a checkpoint")


def _one_worker(judged: Judged, registry: Registry) -> Iterator[Problem]:
    workers = judged.settings.resources.workers
    if workers > 1:
        yield Problem(
            "resources.workers",
            f"{workers} processes in one trial are not run yet; give 1. Trials run side by side: see "
            "resources.concurrent",
        )


CHECKS: tuple[tuple[tuple[str, ...], Callable[[Judged, Registry], Iterator[Problem]]], ...] = (
    # the sections a check reads, and the check; one whose sections have problems of their own is left out
    (("procedure", "policy", "sampler", "objective"), _roles_filled),
    (("procedure",), _procedure_played),
    (("environment", "policy"), _same_language),
    (("environment", "sampler", "advantage", "objective", "rewards"), _parts_same_language),
    (("environment", "sampler", "procedure"), _demonstrations_there),
    (("environment", "sampler", "advantage", "objective", "procedure"), _siblings_enough),
    (("advantage", "objective", "procedure"), _returns_given),
    (("policy",), _needs_met),
    (("environment", "procedure"), _tasks_there),
    (("environment", "rewards"), _tasks_scored),
    (("evaluation",), _evaluation_possible),
    (("budget", "schedule"), _budget_reachable),
    (("schedule", "objective"), _minibatches_possible),
    (("update", "objective"), _correction_possible),
    (("sampling", "schedule"), _sampling_trainable),
    (("start", "resources"), _start_possible),
    (("resources",), _one_worker),
)


def _spoken(judged: Judged) -> Speaks | None:
    """What the arm's environment speaks, as declared or as built; None where it is unsound."""
    environment = judged.chosen.get("environment")
    declared = None if environment is None else environment.component.speaks
    return declared or getattr(judged.component("environment"), "speaks", None)


def _name(judged: Judged, role: str) -> str:
    return judged.chosen[role].component.name
