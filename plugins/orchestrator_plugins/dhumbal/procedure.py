"""The procedure ``dhumbal_tournament``: plays a tournament as a trial."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from orchestrator.api import Components, ConfigError, Problem, Trial, TrialResult

from .results import running_metrics, summarise
from .tournament import Chronicle, RoundRecord, Tournament, TournamentEnvironment, play_tournament

logger = logging.getLogger(__name__)


def run(trial: Trial, components: Components) -> TrialResult:
    """Play the tournament of the trial's environment, from its saved state if there is one.

    :raises ConfigError: the environment is no tournament
    """
    environment = components.environment
    if not isinstance(environment, TournamentEnvironment):
        raise ConfigError(
            [
                Problem(
                    "environment.use",
                    f"procedure 'dhumbal_tournament' plays the environment 'dhumbal_tournament', not "
                    f"{trial.settings.environment.use!r}",
                )
            ]
        )
    tournament = Tournament(environment.config, trial.seed, components.registry)
    began = time.process_time()
    reported = 0

    def on_chunk(count: int, records: Sequence[RoundRecord]) -> None:
        # A step is one per cent of the tournament, so that tournaments of different lengths compare at equal steps.
        nonlocal reported
        percent = 100 if tournament.over else 100 * count // tournament.total
        if percent > reported:
            reported = percent
            trial.report(percent, running_metrics(tournament.names, records))

    records = play_tournament(tournament, Chronicle(trial.directory), on_chunk)
    logger.info("%s: %s rounds in %.1f s of CPU", trial.id, len(records), time.process_time() - began)
    return TrialResult(
        trial=trial.id,
        arm=trial.arm,
        seed=trial.seed,
        status="done",
        step=100,
        metrics=running_metrics(tournament.names, records),
        summary=summarise(tournament, records),
    )
