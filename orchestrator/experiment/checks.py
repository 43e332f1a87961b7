"""What an experiment must satisfy beyond the types of its keys; every function returns all problems it finds."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.contract.component import Component
from orchestrator.contract.settings import Settings, Variation
from orchestrator.contract.types import Couples, Split, Task
from orchestrator.errors import ConfigError, Problem, did_you_mean
from orchestrator.experiment.arms import Arm
from orchestrator.plugging.registry import Registry, leaves, option_problems

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}")
_SINGLE = ("environment", "policy", "sampler", "advantage", "objective")
_BUILT = ("environment", "sampler", "advantage", "objective", "reward")  # policies are dear, the rest is cheap
_REQUIRED = ("policy", "sampler", "objective")  # of procedure `train`; without an advantage the score itself is used
_NOT_SEARCHED = (
    "name",
    "recipe",
    "procedure",
    "environment",
    "evaluation",
    "budget",
    "resources",
    "tracking",
    "report",
)


@dataclass(slots=True, kw_only=True)
class Judged:
    """An arm after judgement. ``settings`` has defaults in place of ``unsound`` sections, so that the rest can be judged."""

    arm: Arm
    settings: Settings
    unsound: frozenset[str]
    built: Mapping[str, Any] = field(default_factory=dict)  # by the path of the component

    @property
    def is_sound(self) -> bool:
        """Whether the settings are those the user wrote."""
        return not self.unsound


class Builder:
    """Builds components at plan time, each distinct one once, so that constructors' errors come out early."""

    def __init__(self, registry: Registry):
        self._registry = registry
        self._made: dict[str, tuple[Any, list[Problem]]] = {}

    def build(self, role: str, spec: Mapping[str, Any], path: str) -> tuple[Any, list[Problem]]:
        """Build one component; what it raises becomes a problem that names the plugin."""
        options = _options(role, spec)
        key = json.dumps([role, spec["use"], options], sort_keys=True, default=repr)
        if key not in self._made:
            try:
                self._made[key] = self._registry.build(role, spec["use"], options), []
            except ConfigError as error:
                self._made[key] = None, list(error.problems)
            except Exception as error:
                notes = "; ".join(getattr(error, "__notes__", ()))
                words = f"{type(error).__name__}: {error}" + (f" ({notes})" if notes else "")
                self._made[key] = None, [Problem("", f"cannot be built: {words}")]
        built, problems = self._made[key]
        return built, [Problem(_placed(problem.path, role, path), problem.message) for problem in problems]


def _placed(own: str, role: str, path: str) -> str:
    """Where in the experiment the trouble is that a component calls ``environment.id``, say, wherever it stands itself."""
    head, _, option = own.partition(".")
    return f"{path}.{option}" if head == role and option else path


def judge(arm: Arm, registry: Registry, builder: Builder) -> tuple[Judged, list[Problem]]:
    """Judge one arm: types, options, what its components need of each other."""
    problems: list[Problem] = []
    settings, unsound = _settings(arm.data, problems)
    built: dict[str, Any] = {}
    for path, role, spec in _component_specs(arm.data):
        options = _options(role, spec)
        found = list(_not_finite(options, path)) or registry.problems(role, spec["use"], options, path)
        if not found and role in _BUILT:
            built[path], found = builder.build(role, spec, path)
        if found:
            unsound = unsound | {path.partition(".")[0]}
        problems += found
    judged = Judged(arm=arm, settings=settings, unsound=unsound, built=built)
    for reads, check in _CHECKS:
        if not unsound.intersection(reads):
            problems += check(judged, registry)
    return judged, [Problem(arm.typed(problem.path), problem.message) for problem in problems]


def variation_problems(judged: Iterable[Judged], variation: Variation) -> Iterator[Problem]:
    """Judge what the experiment varies against itself and against the arms."""
    names = [one.arm.name for one in judged]
    for name in names if variation.arms else ():
        if not _SAFE_NAME.fullmatch(name):
            yield Problem(
                f"arms.{name}",
                f"{name!r} names files: use at most 80 letters, digits and `_ . + -`, a letter or digit first",
            )
    folded: dict[str, str] = {}
    for name in names:
        if name.lower() in folded:
            yield Problem(
                f"arms.{name}",
                f"differs from arm {folded[name.lower()]!r} only in case, which some file systems ignore",
            )
        folded.setdefault(name.lower(), name)
    twice = sorted({seed for seed in variation.seeds if variation.seeds.count(seed) > 1})
    if twice:
        yield Problem("seeds", f"{', '.join(map(str, twice))} more than once; the same trial would count twice")
    if variation.tune.scheduler != "none" and not variation.search:
        yield Problem("tune.scheduler", "stops trials of a search early, and there is no `search`; add one, or drop it")
    if variation.search and variation.tune.searcher == "optuna" and importlib.util.find_spec("optuna") is None:
        yield Problem("tune.searcher", "optuna is not installed; pip install optuna, or use random")
    for one in judged:
        baseline = one.settings.report.baseline
        if baseline is not None and baseline not in names:
            yield Problem(
                "report.baseline", f"no arm {baseline!r}{did_you_mean(baseline, names)} Arms: {', '.join(names)}"
            )


def searched_problems(
    judged: Judged, path: str, values: Iterable[Any], apply: Callable[[Any], Any], registry: Registry
) -> Iterator[Problem]:
    """Judge a searched option in one arm: that it exists, and that every value is within its bounds.

    :param apply: lays a value of the option over the arm's data
    """
    top = path.partition(".")[0]
    if top in _NOT_SEARCHED or top not in Settings.model_fields:
        near = did_you_mean(top, Settings.model_fields)
        reason = "decides what is compared and cannot be searched" if top in _NOT_SEARCHED else f"is no option{near}"
        yield Problem(f"search.{path}", f"{top} {reason}")
        return
    if top in judged.unsound:
        return
    for value in values:
        data = apply(value)
        problems: list[Problem] = []
        _settings(data, problems)
        for where, role, spec in _component_specs(data):
            if where.partition(".")[0] == top:
                problems += registry.problems(role, spec["use"], _options(role, spec), where)
        for problem in problems:
            if problem.path.partition(".")[0] == top:
                detail = "" if problem.path == path else f"{problem.path}: "
                yield Problem(f"search.{path}", f"{detail}{problem.message}")


def _settings(data: Mapping[str, Any], problems: list[Problem]) -> tuple[Settings, frozenset[str]]:
    """Judge an arm's data; sections with problems are replaced by their defaults."""
    try:
        return Settings.model_validate(data), frozenset()
    except ValidationError as error:
        found = option_problems(error, Settings, "", data)
    problems += [_helped(problem) for problem in found]
    unsound = frozenset(problem.path.partition(".")[0] for problem in found)
    rest = {key: value for key, value in data.items() if key not in unsound}
    rest.setdefault("name", "unnamed")
    rest.setdefault("environment", {"use": "unknown"})
    return Settings.model_validate(rest), unsound


def _helped(problem: Problem) -> Problem:
    if problem.message.startswith("missing") and problem.path == "environment":
        return Problem(problem.path, "missing; name the world to act in, as in environment: {use: countdown}")
    if problem.message.startswith("missing") and problem.path == "name":
        return Problem(problem.path, "missing; it names the run's directory")
    if problem.message.startswith("missing") and problem.path.endswith(".use"):
        return Problem(problem.path, "missing; name the component these options are for, or a recipe that does")
    return problem


def _component_specs(data: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Path, role and specification of every component whose ``use`` can be looked up."""
    for key in _SINGLE:
        spec = data.get(key)
        if isinstance(spec, Mapping) and isinstance(spec.get("use"), str):
            yield key, key, spec
    rewards = data.get("rewards")
    for index, spec in enumerate(rewards if isinstance(rewards, list | tuple) else ()):
        if isinstance(spec, Mapping) and isinstance(spec.get("use"), str):
            yield f"rewards.{index}", "reward", spec


def _options(role: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "use" and (role, key) != ("reward", "weight")}


def _not_finite(options: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Numbers among a component's options that no plan can hold: JSON has only finite ones."""
    for place, value in leaves(options, path):
        if isinstance(value, float) and not math.isfinite(value):
            yield Problem(place, f"Input should be a finite number; got {value}")


# --- one arm ----------------------------------------------------------------------------------------------


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
            f"no installed plugin plays {procedure!r}{did_you_mean(procedure, ['train'])} The core plays train",
        )


def _same_language(judged: Judged, registry: Registry) -> Iterator[Problem]:
    settings = judged.settings
    if settings.policy is None:
        return
    environment, policy = settings.environment.use, settings.policy.use
    spoken = _declared(registry, "environment", environment).speaks or getattr(
        judged.built.get("environment"), "speaks", None
    )
    understood = _declared(registry, "policy", policy).speaks
    if spoken and understood and spoken != understood:
        fitting = [name for name in registry.names("policy") if _declared(registry, "policy", name).speaks == spoken]
        yield Problem(
            "policy.use",
            f"{policy} understands {understood}, but environment {environment} speaks {spoken}; "
            f"policies for {spoken}: {', '.join(fitting) or 'none installed'}",
        )


def _parts_same_language(judged: Judged, registry: Registry) -> Iterator[Problem]:
    """Components that work with one language only, nested ones included."""
    settings = judged.settings
    spoken = _declared(registry, "environment", settings.environment.use).speaks or getattr(
        judged.built.get("environment"), "speaks", None
    )
    if spoken is None:
        return
    parts = [(role, role, getattr(settings, role)) for role in ("sampler", "advantage", "objective")]
    parts += [(f"rewards.{index}", "reward", spec) for index, spec in enumerate(settings.rewards)]
    for path, role, spec in parts:
        if spec is None:
            continue
        for where, inner_role, name in registry.named(role, spec.use, spec.options, path):
            only = _declared(registry, inner_role, name).speaks
            if only not in (None, spoken):
                yield Problem(
                    f"{where}.use",
                    f"{name} works with {only} only, but environment {settings.environment.use} speaks {spoken}; "
                    f"choose another {inner_role} or environment",
                )


def _demonstrations_there(judged: Judged, registry: Registry) -> Iterator[Problem]:
    environment, settings = judged.built.get("environment"), judged.settings
    if environment is None or settings.procedure != "train" or settings.sampler is None:
        return
    if not getattr(judged.built.get("sampler"), "demonstrates", False):
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
    most = getattr(judged.built.get("sampler"), "most_siblings", None)
    shared = hasattr(judged.built.get("environment"), "agents")  # agents of one world are siblings too
    if most is None or shared or settings.procedure != "train":
        return
    for role in ("advantage", "objective"):
        least = getattr(judged.built.get(role), "least_siblings", 1)
        if most < least:
            yield Problem(
                "sampler",
                f"{settings.sampler.use} gives groups of at most {most}, and {role} {getattr(settings, role).use} learns "
                f"nothing from fewer than {least} siblings; raise the sampler's count, or choose another sampler",
            )


def _needs_met(judged: Judged, registry: Registry) -> Iterator[Problem]:
    policy = judged.settings.policy
    offered = None if policy is None else _declared(registry, "policy", policy.use).columns
    if offered is None:
        return
    for role in ("advantage", "objective"):
        part, spec = judged.built.get(role), getattr(judged.settings, role)
        lacking = sorted({need.column for need in getattr(part, "needs", ())} - offered)
        if lacking:
            yield Problem(
                role,
                f"{spec.use} needs {', '.join(lacking)} of the policy, and {policy.use} computes only "
                f"{', '.join(sorted(offered))}; choose another {role} or policy",
            )


def _tasks_there(judged: Judged, registry: Registry) -> Iterator[Problem]:
    environment = judged.built.get("environment")
    if environment is None or judged.settings.procedure != "train":
        return
    name = judged.settings.environment.use
    plugin = registry.plugin_of("environment", name)
    for split in Split:
        try:
            task = next(iter(environment.tasks(split)), None)
        except Exception as error:
            yield Problem(
                "environment",
                f"its {split} tasks cannot be made: {type(error).__name__}: {error} (raised by plugin {plugin} in "
                f"environment {name!r})",
            )
            continue
        if task is None:
            yield Problem("environment", f"{name} has no {split} tasks with these options")
        elif not isinstance(task, Task):
            yield Problem("environment", f"{name} of plugin {plugin} gave a {type(task).__name__} in place of a Task")


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
    couples = getattr(judged.built.get("objective"), "couples", None)
    if couples is Couples.GROUPS and schedule.minibatches > schedule.tasks_per_step:
        yield Problem(
            "schedule.minibatches",
            f"{schedule.minibatches} mini-batches cannot share {schedule.tasks_per_step} groups, and objective "
            f"{judged.settings.objective.use} keeps groups whole; at most {schedule.tasks_per_step}",
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
        if judged.settings.resources.address is None and not (path / "model.safetensors").is_file():
            yield Problem("start.checkpoint", f"no model.safetensors in {str(path)!r}; give the folder of a checkpoint")


def _one_worker(judged: Judged, registry: Registry) -> Iterator[Problem]:
    workers = judged.settings.resources.workers
    if workers > 1:
        yield Problem(
            "resources.workers",
            f"{workers} processes in one trial are not played yet; give 1. Trials run side by side: see "
            "resources.concurrent",
        )


_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Judged, Registry], Iterator[Problem]]], ...] = (
    # the sections a check reads, and the check; one whose sections have problems of their own is left out
    (("procedure", "policy", "sampler", "objective"), _roles_filled),
    (("procedure",), _procedure_played),
    (("environment", "policy"), _same_language),
    (("environment", "sampler", "advantage", "objective", "rewards"), _parts_same_language),
    (("environment", "sampler", "procedure"), _demonstrations_there),
    (("environment", "sampler", "advantage", "objective", "procedure"), _siblings_enough),
    (("policy",), _needs_met),
    (("environment", "procedure"), _tasks_there),
    (("evaluation",), _evaluation_possible),
    (("budget", "schedule"), _budget_reachable),
    (("schedule", "objective"), _minibatches_possible),
    (("sampling", "schedule"), _sampling_trainable),
    (("start", "resources"), _start_possible),
    (("resources",), _one_worker),
)


def _declared(registry: Registry, role: str, name: str) -> Component:
    if name in registry.names(role):
        described = registry.describe(role, name)
        assert isinstance(described, Component)
        return described
    return Component(name=name, build=lambda _: None)
