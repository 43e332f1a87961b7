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
                    f"{trial.config['environment']['use']!r}",
                )
            ]
        )
    tournament = Tournament(environment.config, trial.seed, components.registry)
    began = time.process_time()
    metrics: dict[str, float] = {}

    def on_chunk(count: int, records: Sequence[RoundRecord]) -> None:
        metrics.update(running_metrics(tournament.names, records))
        trial.report(count, dict(metrics))

    records = play_tournament(tournament, Chronicle(trial.directory), on_chunk)
    logger.info("%s: %s rounds in %.1f s of CPU", trial.id, len(records), time.process_time() - began)
    return TrialResult(
        trial=trial.id,
        arm=trial.arm,
        seed=trial.seed,
        status="done",
        step=len(records),
        metrics=running_metrics(tournament.names, records),
        summary=summarise(tournament, records),
    )
