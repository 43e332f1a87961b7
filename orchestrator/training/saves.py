"""What a checkpoint of a trial holds, and how a trial goes on from one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.contract.batch import Weights
from orchestrator.contract.parts import Part
from orchestrator.contract.roles import Stateful
from orchestrator.errors import blame
from orchestrator.runs.checkpoint import expect_saveable, load_newest, save_checkpoint
from orchestrator.training.progress import Progress
from orchestrator.training.rounds import Rounds
from orchestrator.training.trainer import Trainer
from orchestrator.training.weights import WeightStore

logger = logging.getLogger(__name__)


class Saves:
    """Writes and reads the checkpoints of one trial: progress, weights, optimiser, state of every component."""

    def __init__(
        self,
        folder: Path,
        parts: Mapping[str, Part],
        trainer: Trainer,
        weights: WeightStore,
        rounds: Rounds,
        *,
        keep: int,
    ):
        """:param keep: newest checkpoints kept"""
        self._folder, self._parts, self._keep = folder, parts, keep
        self._trainer, self._weights, self._rounds = trainer, weights, rounds
        self.step = -1  # the last step that was saved after

    def write(self, progress: Progress) -> Path | None:
        """Write a checkpoint; None, said aloud, where the disk does not take it."""
        shown = self._rounds.result(progress.step)
        state = {
            **progress.state_dict(),
            "trainer": self._trainer.state_dict(),
            "weights": self._weights.state_dict(),
            "components": self._states(),
        }
        if shown != Weights.CURRENT:
            state["start"] = self._weights.current()  # the module file holds the result
        try:
            with self._weights.loaded(shown):
                path = save_checkpoint(self._folder, progress.step, self._policy, state, keep=self._keep)
        except OSError as error:
            logger.warning(
                "checkpoint of step %s could not be written (%s); training goes on, a restart would begin at the "
                "checkpoint before it",
                progress.step,
                error,
            )
            return None
        self.step = progress.step
        return path

    def read(self) -> Progress | None:
        """Load the newest readable checkpoint into everything it holds; None where there is none.

        :raises CheckpointError: there are checkpoints, and none can be read
        """
        loaded = load_newest(self._folder, self._policy)
        if loaded is None:
            return None
        self.step, state = loaded
        if "start" in state:
            self._weights.load(state["start"])
        self._weights.load_state_dict(state["weights"])
        self._trainer.load_state_dict(state["trainer"])
        for path, part in self._stateful():
            if path in state["components"]:  # wrapped components stood in the state of those around them once
                with blame(part.whom):
                    part.component.load_state_dict(state["components"][path])
        self._rounds.act_again()
        return Progress.from_state(self.step, state)

    @property
    def _policy(self) -> Any:
        return self._parts["policy"].component

    def rehearse(self) -> None:
        """Find out whether the state of every component could be saved, before a checkpoint is due.

        :raises TypeError: one holds what a checkpoint does not; blamed on its plugin
        """
        self._states()

    def _states(self) -> dict[str, Any]:
        states = {}
        for path, part in self._stateful():
            with blame(part.whom):
                states[path] = part.component.state_dict()
                expect_saveable(states[path])
        return states

    def _stateful(self) -> Iterator[tuple[str, Part]]:
        able = (found for path, part in self._parts.items() for found in part.able(Stateful, path))
        return ((path, part) for path, part in able if not hasattr(part.component, "parameters"))
