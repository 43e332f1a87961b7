"""A sweep without the machinery that runs it: which trial is next, what a report means, when all is done.

Every change goes through the journal first. A runner (this process, Ray Tune) asks for trials, runs them and hands
back what they report; a second driver that opens the same directory continues where the first one was killed.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from orchestrator.contract.metrics import COMPARED, COST
from orchestrator.contract.plan import Phase, Plan, TrialSpec
from orchestrator.contract.search import Decision
from orchestrator.contract.types import TrialResult
from orchestrator.errors import Failure
from orchestrator.experiment.tuning import goals
from orchestrator.plugging.registry import Registry, load_registry
from orchestrator.runners.judges import Judges
from orchestrator.runners.looks import Looks
from orchestrator.runners.progress import Progress, Silent
from orchestrator.runners.proposals import Proposals
from orchestrator.runners.unmeasured import Unmeasured
from orchestrator.runs import journal as journals
from orchestrator.runs.journal import Evaluated, Journal, TrialHistory
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.ledger import finite
from orchestrator.runs.results import FINISHED, gather, read_finished, read_result, write_result
from orchestrator.runs.searched import best, tried

logger = logging.getLogger(__name__)


class Sweep:
    """The state of a sweep, on disk at every moment."""

    def __init__(self, plan: Plan, directory: Path, progress: Progress | None = None, registry: Registry | None = None):
        """Open a sweep in its run directory: a new one, or one to be continued.

        What searcher and scheduler know is rebuilt from the journal; trials that ended stay ended; those that were running or
        failed are handed out again.

        The caller holds the run; see :func:`orchestrator.runs.fence.driving`.

        :param registry: of the searcher and the scheduler; None: of all installed plugins
        :raises OrchestratorError: the journal is damaged
        """
        self.plan, self.directory, self._folder = plan, directory, RunFolder(directory)
        self.progress = progress or Silent()
        self._goals = goals(plan.experiment.tune, plan.experiment.report)
        self._searches = bool(plan.experiment.search)
        self._registry = registry
        self._live: set[str] = set()
        self._confirmed = not self._searches
        self._journal = Journal(directory)
        self.history = self._journal.history
        self._unmeasured = Unmeasured(plan, self._goals, self.history)
        self._judges = Judges(plan, self._goals[0], self._plugins)
        self._proposals = Proposals(plan, self._goals, self.history, self._plugins)
        self._looks = Looks(plan, directory, self.history)
        self._restore()
        self._look()  # due where the driver was killed after the last trial had ended

    def next(self) -> TrialSpec | None:
        """The next trial to start; None while nothing can start, and for good once ``exhausted``."""
        if not self._waiting:
            self._propose()
            self._confirm()
            self._look()
        return self._waiting.popleft() if self._waiting else None

    @property
    def exhausted(self) -> bool:
        """Whether no trial will ever be handed out again."""
        return not self._waiting and self._confirmed and self._looks.over

    @property
    def finished(self) -> bool:
        """Whether every trial has ended."""
        return self.exhausted and not self._live

    @property
    def proposes(self) -> bool:
        """Whether trials depend on the results of others, so that none should be taken before it can run."""
        return self._proposals.adaptive

    @property
    def live(self) -> frozenset[str]:
        """Trials that were started and have not ended."""
        return frozenset(self._live)

    @property
    def rungs(self) -> dict[str, dict[float, dict[str, float]]]:
        """What entered each early-stopping rung: by population, by the rung's cost, by trial. More is better."""
        found: dict[str, dict[float, dict[str, float]]] = {}
        for report in self.history.reports:
            if report.rung is not None and report.value is not None:
                population = self._judges.population(self.history.trials[report.trial].spec) or ""
                rungs = found.setdefault(population, {})
                rungs.setdefault(report.rung, {})[report.trial] = self._goals[0].sign * report.value
        return found

    def started(self, trial: str) -> None:
        """Note that the trial was handed out; its worker may still wait for a place."""
        entry = self.history.trials[trial]
        self._journal.append([{"kind": "start", "trial": trial}], sync=False)
        entry.starts += 1
        entry.status, entry.error = "running", None
        self._live.add(trial)
        self.progress.trial_update(trial, "pending", max(0, entry.last_step), {})

    def report(self, trial: str, step: int, metrics: Mapping[str, float]) -> bool:
        """Judge one evaluation of a trial.

        A report already in the journal (the trial was restarted from a checkpoint before it) changes nothing. One that
        lacks what the search compares ends the tuning of the trial's arm.

        :param metrics: those measured; a value may be nan
        :returns: whether the trial must stop here; see :meth:`stop`
        """
        entry = self.history.trials[trial]
        named, metrics = metrics.keys(), finite(metrics)
        if step > entry.last_step:
            values = self._values(metrics)
            cost = float(metrics.get(COST, step))
            lost = values is None and entry.measured
            decision = Decision(stop=False)
            if values is not None or lost:
                decision = self._judges.judge(entry.spec, step, cost, values[0] if values else math.nan)
            report = Evaluated(
                trial=trial,
                step=step,
                cost=cost,
                value=values[0] if values else None,
                decision="stop" if decision.stop else "continue",
                rung=decision.rung,
                lost=lost,
                values=values if values and len(values) > 1 else None,
            )
            self._journal.append([journals.evaluated_record(report)])
            self.history.note(report)
            self._judges.take(self.history, report)
            self.progress.trial_update(trial, "running", step, metrics)
        if self._tunes(entry):
            self._unmeasured.look(entry, named)
            self._give_up()
        return entry.stopped or self._unmeasured.failure(entry) is not None

    def stop(self, trial: str) -> TrialResult:
        """Note that a trial ended because a report said so: stopped, or failed where its arm measures nothing to compare."""
        failure = self._unmeasured.failure(self.history.trials[trial])
        return self.ended(trial, "stopped") if failure is None else self.ended(trial, "failed", error=failure)

    def ended(self, trial: str, status: str, *, error: Failure | None = None) -> TrialResult:
        """Note that a trial ended. Where it did not write its result itself, one is made of the metrics it left."""
        entry, folder = self.history.trials[trial], self._folder.trial(trial)
        result = read_result(folder)
        if status == "done" and self._tunes(entry):
            self._unmeasured.look_at_end(entry, result.metrics if result else ())
            error = self._unmeasured.failure(entry)
            status = "done" if error is None else "failed"
            self._give_up()
        if result is None or result.status != status or (error is not None and result.error != error):
            spec = entry.spec
            result = gather(folder, trial=trial, arm=spec.arm, seed=spec.seed, status=status, error=error)
            write_result(folder, result)
        self._end(entry, result)
        return result

    def results(self) -> list[TrialResult]:
        """How every trial that ended did, in the order the trials were added."""
        found = (read_result(self._folder.trial(trial)) for trial in self.history.trials)
        return [result for result in found if result is not None]

    def close(self) -> None:
        """Let another process take the sweep up."""
        self._journal.close()

    def _restore(self) -> None:
        known = bool(self.history.sweeps)
        self._journal.append([journals.sweep_record(resumed=known)])
        self.history.sweeps += 1
        for event in self.history.log:
            self._judges.take(self.history, event)
        expected = [*self.plan.trials, *self._looks.following()]
        self._add([spec for spec in expected if spec.id not in self.history.trials])
        self._waiting: deque[TrialSpec] = deque()
        for entry in self.history.trials.values():
            result = read_finished(self._folder.trial(entry.spec.id))
            if result is not None:
                if entry.status != result.status:
                    self.ended(entry.spec.id, result.status)
            elif entry.stopped:
                self.ended(entry.spec.id, "stopped")
            elif entry.status != "failed" or self._looks.counts(entry.spec):
                entry.status = "pending"
                self._waiting.append(entry.spec)
            self.progress.trial_update(entry.spec.id, entry.status, max(0, entry.last_step), {})
        self._give_up()
        if any(entry.spec.phase is Phase.CONFIRM for entry in self.history.trials.values()):
            self._confirmed = True
        if self.history.looks:
            self.progress.looked(self._looks.said())
        if known:
            done = sum(entry.status in FINISHED for entry in self.history.trials.values())
            logger.info("resumed: %d trials are finished, %d go on", done, len(self._waiting))

    def _add(self, specs: list[TrialSpec]) -> None:
        if specs:
            self._journal.append([journals.trials_record(specs)])
        for spec in specs:
            self.history.add(spec)

    def _enqueue(self, specs: list[TrialSpec]) -> None:
        self._add(specs)
        self._waiting.extend(specs)
        for spec in specs:
            self.progress.trial_update(spec.id, "pending", 0, {})

    def _end(self, entry: TrialHistory, result: TrialResult) -> None:
        record = {"kind": "end", "trial": entry.spec.id, "status": result.status, "step": result.step}
        self._journal.append(
            [{**record, "error": result.error and result.error.to_json()}], sync=False
        )  # result.json says it too
        self.history.end(entry.spec.id, result.status, result.error)
        self._judges.take(self.history, self.history.log[-1])
        self._live.discard(entry.spec.id)
        self.progress.trial_update(entry.spec.id, result.status, result.step, result.metrics)

    def _values(self, metrics: Mapping[str, float]) -> tuple[float, ...] | None:
        """What a report measured of what is compared; None where something of it is missing."""
        wanted = [(goal.metric,) if goal.metric else COMPARED for goal in self._goals]
        found = [next((metrics[name] for name in names if name in metrics), None) for names in wanted]
        values = tuple(value for value in found if value is not None)
        return values if len(values) == len(wanted) else None

    def _tunes(self, entry: TrialHistory) -> bool:
        return self._searches and entry.spec.phase is Phase.TUNE

    def _give_up(self) -> None:
        """Hand out no more trials of arms whose tuning is over."""
        if self._unmeasured.arms:
            trials = self.history.trials
            kept = [spec for spec in self._waiting if self._unmeasured.failure(trials[spec.id]) is None]
            self._waiting = deque(kept)

    def _plugins(self) -> Registry:
        if self._registry is None:
            self._registry = load_registry()
        return self._registry

    def _propose(self) -> None:
        """Ask the searcher for one more configuration; of one that looks at no result all are in the plan."""
        if not self._searches or self._confirmed or not self._proposals.adaptive:
            return
        suggestion = self._proposals.next(self._unmeasured.arms)
        if suggestion is None:
            return
        from orchestrator.experiment import planner as plans

        arm, index, values = suggestion.arm, suggestion.index, dict(suggestion.values)
        if (arm, index) not in self.history.suggestions:
            self._journal.append([{"kind": "suggestion", "arm": arm, "index": index, "values": values}])
            self.history.suggest(suggestion)
        seeds = plans.tuning_seeds(self.plan)
        self._enqueue([plans.tuning_trial(self.plan, arm, index, values, seed) for seed in seeds])

    def _look(self) -> None:
        """Once every trial that the next look waits for has ended, look, and add the trials that follow."""
        if self._waiting or self._live or not self._confirmed or self._looks.over:
            return
        look = self._looks.make()
        if look is not None:
            self._journal.append([journals.look_record(look)])
            self.history.looks.append(look)
            self.progress.looked(self._looks.said())
            self._enqueue(self._looks.following())

    def _confirm(self) -> None:
        """Once every tuning trial has ended, add the trials that enter the verdict."""
        if self._confirmed or self._waiting or self._live:
            return
        from orchestrator.experiment import planner as plans

        chosen = {}
        for entry in self.history.trials.values():
            if entry.spec.phase is Phase.TUNE and entry.measured and entry.value is None:
                logger.warning(
                    "trial %s measured %s earlier and not at its end, so it counts as one that measured nothing",
                    entry.spec.id,
                    " and ".join(goal.metric or " or ".join(COMPARED) for goal in self._goals),
                )
        for arm in self.plan.arms:
            if arm in self._unmeasured.arms:  # said already
                continue
            found = best(tried(self.history, arm, self._goals))
            if found is None:
                logger.error("arm %s: no tuning trial measured anything, so none can be confirmed", arm)
                continue
            logger.info("arm %s: confirming sample %d: %s", arm, found.index, dict(found.values))
            chosen[arm] = found.values
        self._confirmed = True
        self._enqueue(list(plans.confirmations(self.plan, chosen)))
