"""Optuna's samplers as a searcher: a study is rebuilt from what was tried, so that nothing needs restoring."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from orchestrator.api import Ended, Known, Measured, Problem, Proposed, Search, Space, Tried, derive_seed

from .config import SamplerConfig
from .named import make, optuna
from .space import decoded, distributions, encoded

logger = logging.getLogger(__name__)

_AT_RANDOM = ("sampled independently", "only supports", "not supported")  # in Optuna's warnings
_FROM_THE_STUDY = ("TPESampler", "GPSampler", "RandomSampler")  # functions of the study's trials and of a seed


class OptunaSearcher:
    """Asks a sampler of Optuna.

    Those that are functions of a study's trials get a study made anew for each proposal, and a generator seeded by arm and
    number. The others keep something beside the trials (a population, a covariance, a place in a sequence): their study
    lives on, and in a resumed run it is asked and told all over again, in order.
    """

    adaptive = True

    def __init__(self, config: SamplerConfig):
        self.config = config
        self._told: _Told | None = None
        self._make(Search(space=Space(dimensions=())))  # what is wrong with its options is said while planning

    def propose(self, search: Search, known: Known) -> Mapping[str, Any] | None:
        """Ask the sampler for the next configuration.

        Configurations still running count as poor for TPE, which keeps parallel proposals apart; stopped ones count with
        the score they were stopped at.
        """
        if self.config.sampler in _FROM_THE_STUDY:
            return self._anew(search, known)
        if self._told is None or not self._told.begins(search, known):
            self._told = _Told(search, self._make(search))
        return self._told.ask(known)

    def check_search(self, search: Search) -> Sequence[Problem]:
        """Ask and tell three times: what the sampler cannot handle it refuses, or says that it draws at random instead."""
        study = _study(search, self._make(search))
        try:
            with _overheard() as warned:
                while len(study.trials) < 3 and not study.stopped:
                    trial = study.ask(distributions(search.space))
                    study.tell(trial, [0.0] * len(search.goals))
        except ModuleNotFoundError as error:
            message = f"{self.config.sampler} needs the package {error.name}, which is not installed; pip install {error.name}"
            return [Problem("tune.searcher", message)]
        except Exception as error:
            return [Problem("tune.searcher", f"Optuna's {self.config.sampler} cannot do with this search: {error}")]
        return [
            Problem("tune.searcher", f"Optuna's {self.config.sampler} says: {said}") for said in dict.fromkeys(warned)
        ]

    def _anew(self, search: Search, known: Known) -> dict[str, Any]:
        study = _study(search, self._make(search, len(known.tried)))
        spaces = distributions(search.space)
        for tried in known.tried:
            study.add_trial(_trial(tried, search, spaces))
        return decoded(search.space, study.ask(spaces).params)

    def _make(self, search: Search, *index: int) -> Any:
        own: dict[str, Any] = {} if self.config.sampler != "TPESampler" else {"constant_liar": True}
        if self.config.sampler in _FROM_THE_STUDY:  # a third of the budget at random: ten would often be all of it
            own["n_startup_trials"] = min(10, max(2, math.ceil(search.samples / 3)))
        given = {"seed": derive_seed(search.seed, search.arm, *index) % 2**32, **own}
        given = {name: value for name, value in given.items() if name not in self.config.options}
        return make("sampler", self.config.sampler, self.config.options, "searcher", **given)


class _Told:
    """A study that has been asked and told what happened so far, in order."""

    def __init__(self, search: Search, sampler: Any):
        self.search, self._study = search, _study(search, sampler)
        self._events: list[Proposed | Measured | Ended] = []
        self._trials: dict[int, Any] = {}
        self._reported: set[tuple[int, int]] = set()  # configurations at costs
        self._over: set[int] = set()
        self._asked: Any = None  # proposed, and not known to be played yet

    def begins(self, search: Search, known: Known) -> bool:
        """Whether this is the beginning of what is known."""
        return search == self.search and self._events == list(known.events[: len(self._events)])

    def ask(self, known: Known) -> dict[str, Any] | None:
        """The next configuration, after telling what is new; None where the sampler has tried all there is."""
        for event in known.events[len(self._events) :]:
            self._tell(event)
            self._events.append(event)
        return None if self._study.stopped else decoded(self.search.space, self._pending().params)

    def _pending(self) -> Any:
        if self._asked is None:
            self._asked = self._study.ask(distributions(self.search.space))
        return self._asked

    def _tell(self, event: Proposed | Measured | Ended) -> None:
        from optuna.trial import TrialState

        match event:
            case Proposed(index, values):
                trial, self._asked = self._pending(), None
                if decoded(self.search.space, trial.params) != dict(values):
                    logger.warning(
                        "arm %s, sample %d: the journal holds %s, and Optuna proposes %s today; the journal stands",
                        self.search.arm,
                        index,
                        dict(values),
                        decoded(self.search.space, trial.params),
                    )
                    self._study.tell(trial, state=TrialState.FAIL)
                    self._study.enqueue_trial(encoded(self.search.space, values))
                    trial = self._study.ask(distributions(self.search.space))
                self._trials[index] = trial
            case Measured(index, _, _, cost, scores) if len(scores) == 1 and index not in self._over:
                if (index, int(cost)) not in self._reported:  # by another tuning seed
                    self._reported.add((index, int(cost)))
                    self._trials[index].report(scores[0], int(cost))
            case Ended(index, status, scores, _) if index not in self._over:
                self._over.add(index)
                if status == "failed" or scores is None or any(map(math.isnan, scores)):
                    self._study.tell(self._trials[index], state=TrialState.FAIL)
                elif status == "stopped" and len(scores) == 1:
                    self._study.tell(self._trials[index], state=TrialState.PRUNED)
                else:
                    self._study.tell(self._trials[index], list(scores))


def _study(search: Search, sampler: Any) -> Any:
    """A study that a sampler may stop, having tried everything, though it is asked and not left to run."""
    study = optuna("searcher").create_study(directions=["maximize"] * len(search.goals), sampler=sampler)
    study.stopped = False
    study.stop = lambda: setattr(study, "stopped", True)
    return study


def _trial(tried: Tried, search: Search, spaces: Mapping[str, Any]) -> Any:
    from optuna.trial import TrialState, create_trial

    states = {"done": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
    state, scores = states.get(tried.status, TrialState.RUNNING), tried.scores
    if state in (TrialState.COMPLETE, TrialState.PRUNED) and (scores is None or any(map(math.isnan, scores))):
        state = TrialState.FAIL
    if state is TrialState.PRUNED and len(search.goals) > 1:
        state = TrialState.FAIL
    return create_trial(
        state=state,
        params=encoded(search.space, tried.values),
        distributions=dict(spaces),
        values=list(scores or ()) if state is TrialState.COMPLETE else None,
        intermediate_values={int(tried.cost): scores[0]} if state is TrialState.PRUNED and scores else None,
    )


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """Where Optuna warns meanwhile that it draws at random instead."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if any(words in record.getMessage() for words in _AT_RANDOM):
                said.append(record.getMessage())

    listener, found = Listener(logging.WARNING), logging.getLogger("optuna")
    kept, found.handlers = found.handlers, [listener]
    try:
        yield said
    finally:
        found.handlers = kept
