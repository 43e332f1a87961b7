"""The training loop: sample, score, update; evaluate and save now and then. The page to read first."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from orchestrator.contract.markers import hookimpl
from orchestrator.contract.metrics import OBSERVERS, from_plugin
from orchestrator.contract.parts import labels_of
from orchestrator.contract.plan import Components, Trial
from orchestrator.contract.roles import Evaluates, Reports
from orchestrator.contract.types import RolloutGroup, TrialResult
from orchestrator.errors import ConfigError, Problem, TrialInterrupted, blame
from orchestrator.evaluation.evaluate import evaluate
from orchestrator.maths.seeding import derive_seed
from orchestrator.rollout.assembly import assemble
from orchestrator.rollout.collector import failed_groups
from orchestrator.rollout.handed import expect_groups
from orchestrator.rollout.metrics import rollout_metrics
from orchestrator.runs.atomic import sync
from orchestrator.runs.layout import TrialFolder
from orchestrator.runs.ledger import Ledger, finite, last_metrics
from orchestrator.training.collecting import collectors
from orchestrator.training.distributed import Workers
from orchestrator.training.duties import needs_of
from orchestrator.training.events import Events
from orchestrator.training.progress import Progress
from orchestrator.training.rounds import Rounds
from orchestrator.training.saves import Saves
from orchestrator.training.tasks import Tasks
from orchestrator.training.trainer import Trainer
from orchestrator.training.weights import BEHAVIOUR, WeightStore

logger = logging.getLogger(__name__)


@hookimpl(trylast=True)
def run_trial(trial: Trial, components: Components) -> TrialResult:
    """Run the procedure ``train``.

    :raises ConfigError: no plugin runs the procedure the experiment asks for
    """
    procedure = trial.settings.procedure
    if procedure != "train":
        raise ConfigError([Problem("procedure", f"no installed plugin runs {procedure!r}; the core runs 'train'")])
    return Training(trial, components).run()


class Training:
    """One trial from its first step, or its newest checkpoint, to its result."""

    def __init__(self, trial: Trial, components: Components):
        self.trial, self.components, self.settings = trial, components, trial.settings
        self.parts, self.workers, self.progress = components.tree, Workers(), Progress()
        self.folder = TrialFolder(trial.directory)
        self.ledger, self.evaluations = trial.rows, Ledger(self.folder.evaluations)
        self.events = Events(components.registry, trial)
        labels = labels_of(self.parts)
        self.weights = WeightStore(components.policy.module)
        self.trainer = Trainer(
            components.policy,
            components.advantage,
            components.objective,
            self.settings,
            self.weights,
            seed=trial.seed,
            labels=labels,
            keep_bad_batch=self.folder.bad_batch,
            workers=self.workers,
            limits=trial.limits,
        )
        self.rounds = Rounds(
            self.settings.schedule,
            self.weights,
            self.parts["policy"],
            self.parts["objective"],
            frozenset(need.weights for need in needs_of(components)),
            self.trainer.fresh_optimizer,
        )
        self.collector, self.evaluator = collectors(trial, components, labels)
        self.tasks = Tasks(components.environment, labels.get("environment"))
        self._count_into(self.progress)
        self.saves = Saves(
            self.folder.checkpoints,
            self.parts,
            self.trainer,
            self.weights,
            self.rounds,
            keep=self.settings.checkpoints.keep,
        )

    def run(self) -> TrialResult:
        """Train to the schedule's end or the budget's, whichever comes first."""
        progress, evaluation = self.begin(), self.settings.evaluation
        metrics, began = last_metrics(self.ledger), progress.step
        self.saves.rehearse()
        if progress.step == 0 and evaluation.first and progress.evaluated < 0:
            metrics |= self._evaluate()
        while progress.step < self.settings.schedule.steps and not self._spent():
            with self._within_budget():
                metrics |= self.one_step()
            if progress.step == began + 1:  # state that only grows in a step
                self.saves.rehearse()
            if evaluation.every and progress.step % evaluation.every == 0:
                metrics |= self._evaluate()
            if self.settings.checkpoints.every and progress.step % self.settings.checkpoints.every == 0:
                self._save()
            if self.trial.leaving():
                self._leave()
        self.trainer.refuse_to_have_learnt_nothing()
        if progress.evaluated != progress.step:
            metrics |= self._evaluate()
        if self.saves.step != progress.step:
            self._save()
        return TrialResult(
            trial=self.trial.id,
            arm=self.trial.arm,
            seed=self.trial.seed,
            status="done",
            step=progress.step,
            metrics=finite(metrics),
        )

    def begin(self) -> Progress:
        """Go on from the newest readable checkpoint, or begin the first round."""
        progress = self.saves.read()
        if progress is None:
            self.ledger.rewind(-1)
            self.evaluations.rewind(-1)
            self.rounds.begin(first=True)
            return self.progress
        self._count_into(progress)
        self.trial.passed_over.update(progress.observer_errors)
        self.tasks.skip(progress.tasks)
        self.ledger.rewind(progress.step, evaluation=progress.evaluated, observers=-1)
        self.evaluations.rewind(progress.evaluated)
        logger.info("trial %s continues after step %s", self.trial.id, progress.step)
        return progress

    # --- a step -------------------------------------------------------------------------------------------

    def one_step(self) -> dict[str, float]:
        """Sample, score and update once; returns the metrics of the step, also in the ledger."""
        self.progress.step += 1
        step = self.progress.step
        torch.manual_seed(derive_seed(self.trial.seed, "step", step))
        began = time.perf_counter()
        groups = self._sample()
        sampled = time.perf_counter()
        metrics = rollout_metrics(groups, self.collector)
        metrics |= self._reported("sampler")
        self.collector.refuse_failures(self.settings.failures.rollout_share)
        self.events.emit("on_rollouts", step=step, groups=[*groups, *failed_groups(groups, self.collector.failures)])
        metrics |= self._update(self._kept(groups))
        metrics["train/skipped_updates"] = float(self.trainer.skipped)
        metrics[OBSERVERS] = float(self.events.failures)
        metrics["time/sample_seconds"] = sampled - began
        metrics["time/update_seconds"] = time.perf_counter() - sampled
        metrics = finite(metrics | self._costs())
        self.ledger.append(step, "step", metrics=metrics)
        self.events.emit("on_step_end", step=step, metrics=metrics)
        if self.rounds.ends_with(step):
            self.rounds.begin(first=False, last=step >= self.settings.schedule.steps)
        return metrics

    def _sample(self) -> list[RolloutGroup]:
        tasks = self.tasks.take(self.settings.schedule.tasks_per_step)[self.workers.rank :: self.workers.size]
        self.progress.tasks = self.tasks.taken
        self.collector.begin(self.progress.step, version=self.trainer.updates)
        with self.weights.loaded(self.rounds.acting), blame(self.parts["sampler"].whom):
            with self.trial.limits.watched("sampler", f"sampler/{self.progress.step}"):
                groups = expect_groups(self.components.sampler.sample(tasks, self.collector))
            return self.collector.settle(groups)

    def _update(self, groups: Sequence[RolloutGroup]) -> dict[str, float]:
        """Train on the groups of a step; its metrics."""
        metrics = {"rollout/groups_trained": float(len(groups))}
        if not groups:
            return metrics
        with blame(self.parts["policy"].whom):
            batch = assemble(self.components.policy, groups)
        self.progress.trained_tokens += int(batch.mask.sum()) * self.settings.schedule.epochs
        metrics |= {"train/rows": float(batch.mask.shape[0]), "train/tokens": float(batch.mask.sum())}
        fresh = BEHAVIOUR not in self.weights or self.rounds.begins_with(self.progress.step)
        metrics |= self.trainer.update(batch, self.progress.step, fresh=fresh)
        metrics |= self._reported("objective")
        if self.settings.schedule.steps_per_round == 1:
            self.rounds.refresh()
        return metrics

    def _reported(self, role: str) -> Mapping[str, float]:
        """What a component and those inside it report on themselves; nothing where none does."""
        metrics: dict[str, float] = {}
        for _, part in self.parts[role].able(Reports, role):
            with blame(part.whom):
                found = from_plugin(part.component.report(), "report()")
                metrics = {**found, **metrics}  # where names meet, the outer one speaks
        return metrics

    def _kept(self, groups: Sequence[RolloutGroup]) -> list[RolloutGroup]:
        if not self.settings.update.drop_constant_groups:
            return list(groups)
        return [group for group in groups if len({score.value for score in group.scores}) > 1]

    # --- evaluation, checkpoints --------------------------------------------------------------------------

    def _evaluate(self) -> dict[str, float]:
        settings, step = self.settings.evaluation, self.progress.step
        tasks = self.tasks.held_out(settings.tasks)
        able = (part for path, root in self.parts.items() for _, part in root.able(Evaluates, path))
        with self.rounds.showing(step):
            result = evaluate(
                self.evaluator,
                tasks,
                settings,
                self.settings.sampling.max_tokens,
                measures=[(part.whom, part.component) for part in able],
            )
        self.progress.evaluated = step
        measured = result.metrics | self._costs()
        if result.tasks:
            self.evaluations.append(step, "evaluation", tasks=result.tasks)
        self.trial.report(step, measured)
        metrics = finite(measured)
        self.events.emit("on_evaluation", step=step, metrics=metrics)
        return metrics

    def _save(self) -> None:
        self.progress.observer_errors = dict(self.trial.passed_over)
        sync(self.folder.metrics, self.folder.evaluations)  # a checkpoint counts on the rows before it
        path = None if self.workers.rank else self.saves.write(self.progress)
        if path is not None:
            self.events.emit("on_checkpoint", step=self.progress.step, directory=path)

    def _spent(self) -> bool:
        return self.trial.limits.spent or self.progress.spent(self.settings.budget, self.workers)

    def _within_budget(self) -> AbstractContextManager[None]:
        seconds = self.settings.budget.seconds
        return nullcontext() if seconds is None else self.trial.limits.budget(seconds - self.progress.elapsed())

    def _leave(self) -> None:
        """Save what is not saved, and leave: the run is asked to end, and goes on from here when it is resumed."""
        if self.saves.step != self.progress.step:
            self._save()
        raise TrialInterrupted

    def _count_into(self, progress: Progress) -> None:
        progress.began = self.progress.began
        self.progress = progress
        self.collector.cost, self.evaluator.cost = progress.cost, progress.evaluation_cost

    def _costs(self) -> dict[str, float]:
        return self.progress.metrics(self.settings.resources, self.workers)
