"""The contract of a scheduler: what it decides follows from what happened before, and from nothing it remembers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

from orchestrator.contract.search import Decision, Judged, TrialEnd, TrialReport

_TRIALS, _REPORTS = 6, 4


def check_scheduler(build: Callable[[], Any], *, seed: int = 0, **_: Any) -> list[str]:
    """Broken rules of a scheduler.

    It judges made-up trials that report in turn, at costs of their own, one of them once not a number; and on every report
    a new one, given all that happened before, must decide the same.

    :param seed: of what happens
    """
    scheduler, problems = build(), []
    before: list[Judged | TrialEnd] = []
    for report in _told(before, seed):
        kept = list(before)
        decision = scheduler.judge(report, before)
        where = f"the decision on step {report.step} of trial {report.trial}"
        if not isinstance(decision, Decision) or not isinstance(decision.stop, bool):
            return [f"{where} is {decision!r}; expected Decision(stop=True or False, rung=cost or None)"]
        if decision.rung is not None and not math.isfinite(decision.rung):
            problems.append(f"{where} has the rung {decision.rung!r}; expected a cost, or None")
        if scheduler.judge(report, before) != decision:
            problems.append(f"{where} is another when judged again: it follows from what happened before alone")
        if build().judge(report, before) != decision:
            problems.append(
                f"{where} is another from a new object that is told the same: after a killed driver the search would go on "
                "differently. Read what was decided from `before`"
            )
        if before != kept:
            return [*problems, f"{where} changed what it was told; copy what you keep"]
        before.append(Judged(report, decision))
    return list(dict.fromkeys(problems))


def _told(before: list[Judged | TrialEnd], seed: int) -> Iterator[TrialReport]:
    """Reports of trials that go on until they are stopped or done, three side by side."""
    luck = random.Random(seed)
    waiting = [f"trial {number}" for number in range(_TRIALS)]
    running = {waiting.pop(0): 0 for _ in range(3)}
    while running:
        trial = luck.choice(sorted(running))
        running[trial] += 1
        step = running[trial]
        score = math.nan if len(before) == 7 else luck.random() + 0.1 * step
        yield TrialReport(trial, step, 100.0 * step + luck.uniform(-5, 5), score)
        last = before[-1] if before else None
        stopped = isinstance(last, Judged) and last.report.trial == trial and last.decision.stop
        if stopped or step == _REPORTS:
            before.append(TrialEnd(trial, "stopped" if stopped else luck.choice(("done", "done", "done", "failed"))))
            del running[trial]
            if waiting:
                running[waiting.pop(0)] = 0
