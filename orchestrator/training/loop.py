"""The training loop: sample, score, update; evaluate and save now and then. The page to read first."""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import torch

from orchestrator.contract.batch import Batch, Need, Weights
from orchestrator.contract.markers import hookimpl
from orchestrator.contract.parts import labels_of
from orchestrator.contract.plan import Components, Rows, Trial
from orchestrator.contract.roles import BetweenRounds, Evaluates, Prepares, Reports, Stateful
from orchestrator.contract.settings import Settings
from orchestrator.contract.types import RolloutGroup, Sampling, Split, Task, TrialResult
from orchestrator.errors import ConfigError, Problem, blame
from orchestrator.evaluation.evaluate import evaluate
from orchestrator.maths.seeding import derive_seed
from orchestrator.rollout.assembly import assemble
from orchestrator.rollout.collector import Collector, Cost, rollout_error
from orchestrator.rollout.metrics import rollout_metrics
from orchestrator.runs.checkpoint import load_newest, save_checkpoint
from orchestrator.runs.layout import TrialFolder
from orchestrator.runs.ledger import Ledger, finite
from orchestrator.training.distributed import Workers
from orchestrator.training.events import Events
from orchestrator.training.tasks import Tasks
from orchestrator.training.trainer import Trainer
from orchestrator.training.weights import BEHAVIOUR, WeightStore

logger = logging.getLogger(__name__)


@hookimpl(trylast=True)
def run_trial(trial: Trial, components: Components) -> TrialResult:
    """Play the procedure ``train``.

    :raises ConfigError: no plugin plays the procedure the experiment asks for
    """
    procedure = trial.settings.procedure
    if procedure != "train":
        raise ConfigError([Problem("procedure", f"no installed plugin plays {procedure!r}; the core plays 'train'")])
    return Training(trial, components).run()


class Training:
    """One trial from its first step, or its newest checkpoint, to its result."""

    def __init__(self, trial: Trial, components: Components):
        self.trial, self.components = trial, components
        self.settings = settings = trial.settings
        self.workers = Workers()
        self.folder = TrialFolder(trial.directory)
        self.ledger = trial.rows
        self.evaluations = Ledger(self.folder.evaluations)
        self.events = Events(components.registry, trial)
        self.parts = components.tree
        self._labels = labels = labels_of(self.parts)
        self.weights = WeightStore(components.policy.module)
        self.trainer = Trainer(
            components.policy,
            components.advantage,
            components.objective,
            settings,
            self.weights,
            seed=trial.seed,
            labels=labels,
            keep_bad_batch=self.folder.bad_batch,
            workers=self.workers,
        )
        collecting = functools.partial(
            Collector,
            components.environment,
            components.policy,
            components.rewards,
            sampling=Sampling(**{field.name: getattr(settings.sampling, field.name) for field in fields(Sampling)}),
            max_turns=settings.sampling.max_turns,
            concurrent=settings.sampling.concurrent,
            seed=trial.seed,
            labels=labels,
        )
        self.collector, self.evaluator = collecting(phase="train"), collecting(phase="evaluation")
        self.tasks = Tasks(components.environment, labels.get("environment"))
        self.step = 0
        self._evaluated = self._saved = -1  # the last step this was done after
        self.trained_tokens = 0
        self.seconds = 0.0  # of earlier processes of this trial
        self._started = time.perf_counter()

    def run(self) -> TrialResult:
        """Train to the schedule's end or the budget's, whichever comes first."""
        schedule, evaluation = self.settings.schedule, self.settings.evaluation
        if not self._resume():
            self._begin_round(first=True)
        metrics = _last_metrics(self.ledger)
        if self.step == 0 and evaluation.first and self._evaluated < 0:
            metrics |= self._evaluate()
        while self.step < schedule.steps and not self._spent():
            self.step += 1
            metrics |= self.one_step()
            if self.step % schedule.steps_per_round == 0:
                self._begin_round(first=False)
            if evaluation.every and self.step % evaluation.every == 0:
                metrics |= self._evaluate()
            if self.settings.checkpoints.every and self.step % self.settings.checkpoints.every == 0:
                self._save()
        if self._evaluated != self.step:
            metrics |= self._evaluate()
        if self._saved != self.step:
            self._save()
        return TrialResult(
            trial=self.trial.id,
            arm=self.trial.arm,
            seed=self.trial.seed,
            status="done",
            step=self.step,
            metrics=finite(metrics),
        )

    # --- a step -------------------------------------------------------------------------------------------

    def one_step(self) -> dict[str, float]:
        """Sample, score and update once; returns the metrics of the step, also in the ledger."""
        torch.manual_seed(derive_seed(self.trial.seed, "step", self.step))
        began = time.perf_counter()
        groups = self._sample()
        sampled = time.perf_counter()
        metrics = rollout_metrics(groups, self.collector)
        metrics |= self._reported("sampler")
        self._refuse_too_many_failures()
        self.events.emit("on_rollouts", step=self.step, groups=[*groups, *_failed_groups(groups, self.collector)])
        groups = self._kept(groups)
        metrics["rollout/groups_trained"] = float(len(groups))
        if groups:
            with blame(self._labels.get("policy")):
                batch = assemble(self.components.policy, groups)
            self.trained_tokens += int(batch.mask.sum()) * self.settings.schedule.epochs
            metrics |= _batch_metrics(batch)
            metrics |= self.trainer.update(
                batch, self.step, fresh=BEHAVIOUR not in self.weights or self._round_begins()
            )
            metrics |= self._reported("objective")
            if self.settings.schedule.steps_per_round == 1:
                self._refresh()
        metrics["train/skipped_updates"] = float(self.trainer.skipped)
        metrics["observers/errors"] = float(self.events.failures)
        metrics["time/sample_seconds"] = sampled - began
        metrics["time/update_seconds"] = time.perf_counter() - sampled
        metrics = finite(metrics | self._costs())
        self.ledger.append(self.step, "step", metrics=metrics)
        self.events.emit("on_step_end", step=self.step, metrics=metrics)
        return metrics

    def _sample(self) -> list[RolloutGroup]:
        count = self.settings.schedule.tasks_per_step
        tasks = self.tasks.take(count)[self.workers.rank :: self.workers.size]
        self.collector.begin(self.step, version=self.trainer.updates)
        with self.weights.loaded(self._acting_version()), blame(self._labels.get("sampler")):
            return self.collector.settle(self.components.sampler.sample(tasks, self.collector))

    def _reported(self, role: str) -> Mapping[str, float]:
        """What a component and those inside it report on themselves; nothing where none does."""
        metrics: dict[str, float] = {}
        for _, part in self.parts[role].able(Reports, role):
            with blame(part.whom):
                metrics = {**part.component.report(), **metrics}  # where names meet, the outer one speaks
        return metrics

    def _kept(self, groups: Sequence[RolloutGroup]) -> list[RolloutGroup]:
        if not self.settings.update.drop_constant_groups:
            return list(groups)
        return [group for group in groups if len({score.value for score in group.scores}) > 1]

    def _refuse_too_many_failures(self) -> None:
        failures, played = self.collector.failures, self.collector.played
        limit = self.settings.failures.rollout_share
        if failures and len(failures) > limit * played:
            said = f"step {self.step}: {len(failures)} of {played} rollouts failed, more than failures.rollout_share="
            raise rollout_error(f"{said}{limit} allows", failures)

    # --- rounds -------------------------------------------------------------------------------------------

    def _round_begins(self) -> bool:
        return (self.step - 1) % self.settings.schedule.steps_per_round == 0

    def _begin_round(self, *, first: bool) -> None:
        """Freeze what the coming round samples from and refers to; keep only what somebody needs."""
        schedule, objective = self.settings.schedule, self.components.objective
        needed = {need.weights for need in _needs(self.components)}
        extrapolates = isinstance(objective, BetweenRounds)
        if not first:
            if extrapolates:
                self._extrapolate()
            elif Weights.PREVIOUS in needed:
                self.weights.keep(Weights.PREVIOUS)
            if schedule.refresh_optimizer == "round":
                self.trainer.fresh_optimizer()
        elif extrapolates or Weights.PREVIOUS in needed:
            self.weights.keep(Weights.PREVIOUS)
        if Weights.REFERENCE in needed and (first or schedule.refresh_reference == "round"):
            self.weights.keep(Weights.REFERENCE)
        if schedule.steps_per_round > 1:
            self.weights.keep(BEHAVIOUR)
        if schedule.steps_per_round > 1 or first or extrapolates:
            self._refresh()

    def _refresh(self) -> None:
        with blame(self._labels.get("policy")):
            self.components.policy.refresh()

    def _extrapolate(self) -> None:
        """Let the objective place the next round's start; the trained weights stay the result until it trains on."""
        trained = self.weights.current()
        self.weights.keep("result", trained)
        if self.step < self.settings.schedule.steps:
            with blame(self._labels.get("objective")):
                start = self.components.objective.between_rounds(trained, dict(self.weights.get(Weights.PREVIOUS)))
            self.weights.load(start)
        self.weights.keep(Weights.PREVIOUS, trained)

    def _acting_version(self) -> str:
        """What samples, and what the policy was last refreshed with: the round's weights while a round lasts."""
        return BEHAVIOUR if BEHAVIOUR in self.weights else Weights.CURRENT

    def _result_version(self) -> str:
        """What is evaluated and saved as the result: between rounds of an extrapolating objective, the trained weights."""
        at_border = self.step > 0 and self.step % self.settings.schedule.steps_per_round == 0
        return "result" if at_border and "result" in self.weights else Weights.CURRENT

    # --- evaluation, checkpoints, cost --------------------------------------------------------------------

    def _evaluate(self) -> dict[str, float]:
        settings = self.settings.evaluation
        with blame(self._labels.get("environment")):
            tasks = list(itertools.islice(self.components.environment.tasks(Split.EVAL), settings.tasks))
        acting, shown = self._acting_version(), self._result_version()
        with self.weights.loaded(shown):
            if shown != acting:
                self._refresh()
            result = evaluate(
                self.evaluator, tasks, settings, self.settings.sampling.max_tokens, measures=self._measures()
            )
        if shown != acting:
            with self.weights.loaded(acting):
                self._refresh()
        self._evaluated = self.step
        metrics = finite(result.metrics | self._costs())
        if result.tasks:
            self.evaluations.append(self.step, "evaluation", tasks=result.tasks)
        self.trial.report(self.step, metrics)
        self.events.emit("on_evaluation", step=self.step, metrics=metrics)
        return metrics

    def _measures(self) -> list[tuple[str | None, Evaluates]]:
        able = (found for path, part in self.parts.items() for found in part.able(Evaluates, path))
        return [(part.whom, part.component) for _, part in able]

    def _save(self) -> None:
        if self.workers.rank:
            return
        state = {
            "evaluated": self._evaluated,
            "cost": asdict(self.collector.cost),
            "evaluation_cost": asdict(self.evaluator.cost),
            "trained_tokens": self.trained_tokens,
            "seconds": self._seconds(),
            "tasks": self.tasks.taken,
            "trainer": self.trainer.state_dict(),
            "weights": self.weights.state_dict(),
            "components": {name: part.state_dict() for name, part in self._stateful()},
        }
        if self._result_version() != Weights.CURRENT:
            state["start"] = self.weights.current()  # the module file holds the result
        try:
            with self.weights.loaded(self._result_version()):
                path = save_checkpoint(
                    self.folder.checkpoints,
                    self.step,
                    self.components.policy,
                    state,
                    keep=self.settings.checkpoints.keep,
                )
        except OSError as error:
            logger.warning(
                "checkpoint of step %s could not be written (%s); training goes on, a restart would begin at the "
                "checkpoint before it",
                self.step,
                error,
            )
            return
        self._saved = self.step
        self.events.emit("on_checkpoint", step=self.step, directory=path)

    def _resume(self) -> bool:
        loaded = load_newest(self.folder.checkpoints, self.components.policy)
        if loaded is None:
            self.ledger.rewind(-1)
            self.evaluations.rewind(-1)
            return False
        self.step, state = loaded
        self._saved, self._evaluated = self.step, state["evaluated"]
        if "start" in state:
            self.weights.load(state["start"])
        self.weights.load_state_dict(state["weights"])
        self.collector.cost, self.evaluator.cost = Cost(**state["cost"]), Cost(**state["evaluation_cost"])
        self.trained_tokens, self.seconds = state["trained_tokens"], state["seconds"]
        self.trainer.load_state_dict(state["trainer"])
        self.tasks.skip(state["tasks"])
        for name, part in self._stateful():
            if name in state["components"]:  # wrapped components stood in the state of those around them once
                part.load_state_dict(state["components"][name])
        self.ledger.rewind(self.step, evaluation=self._evaluated)
        self.evaluations.rewind(self._evaluated)
        with self.weights.loaded(self._acting_version()):
            self._refresh()
        logger.info("trial %s continues after step %s", self.trial.id, self.step)
        return True

    def _stateful(self) -> Iterator[tuple[str, Any]]:
        able = (found for path, part in self.parts.items() for found in part.able(Stateful, path))
        return ((path, part.component) for path, part in able if not hasattr(part.component, "parameters"))

    def _spent(self) -> bool:
        budget = self.settings.budget
        tokens = self._summed(self.collector.cost.generated_tokens)
        if budget.generated_tokens is not None and tokens >= budget.generated_tokens:
            return True
        return budget.seconds is not None and self._seconds() >= budget.seconds

    def _seconds(self) -> float:
        return self.seconds + time.perf_counter() - self._started

    def _summed(self, count: float) -> float:
        return float(self.workers.total(torch.tensor(count, dtype=torch.float64)))

    def _costs(self) -> dict[str, float]:
        seconds, cost = self._seconds(), self.collector.cost
        devices = max(
            self.settings.resources.gpus, self.settings.resources.cpus if not self.settings.resources.gpus else 0
        )
        return {
            "cost/generated_tokens": self._summed(cost.generated_tokens),
            "cost/prompt_tokens": self._summed(cost.prompt_tokens),
            "cost/trained_tokens": self._summed(self.trained_tokens),
            "cost/rollouts": self._summed(cost.rollouts),
            "cost/failed_rollouts": self._summed(cost.failed_rollouts),
            "cost/evaluation_tokens": self._summed(self.evaluator.cost.generated_tokens),
            "cost/seconds": seconds,
            "cost/device_seconds": seconds * devices * self.workers.size,
        }


def prepare(components: Components, settings: Settings, seed: int) -> None:
    """Tell the policy its world and its duties, before weights are loaded or trained."""
    if isinstance(components.policy, Prepares):
        wanted = frozenset(need.column for need in _needs(components))
        torch.manual_seed(derive_seed(seed, "prepare"))
        with blame(components.tree["policy"].whom):
            components.policy.prepare(components.environment, wanted)


def _needs(components: Components) -> frozenset[Need]:
    """Statistics the objective and the estimator ask for."""
    credit = components.advantage
    return components.objective.needs | (frozenset() if credit is None else credit.needs)


def _batch_metrics(batch: Batch) -> dict[str, float]:
    return {"train/rows": float(batch.mask.shape[0]), "train/tokens": float(batch.mask.sum())}


def _failed_groups(groups: Sequence[RolloutGroup], collector: Collector) -> list[RolloutGroup]:
    """Failed rollouts as groups without scores, for those who watch."""
    tasks = {group.task.id: group.task for group in groups}
    return [
        RolloutGroup(task=tasks.get(rollout.task_id, Task(id=rollout.task_id)), rollouts=(rollout,))
        for rollout in collector.failures
    ]


def _last_metrics(ledger: Rows) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for row in ledger.rows():
        metrics |= row["metrics"]
    return metrics
