"""Which calls of a trial hung, on disk, so that no attempt hangs in the same one again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from orchestrator.runs.layout import TrialFolder


@dataclass(frozen=True, slots=True)
class Hang:
    """A call that did not return.

    :ivar what: was called: ``environment``, ``reward/NAME``, ``sampler``, ``advantage``, ``objective`` or ``budget``
    :ivar key: tells the call from all others of the trial
    :ivar seconds: it was given
    :ivar whom: plugin and component, as errors name them; empty: none in particular
    """

    what: str
    key: str
    seconds: float
    whom: str = ""

    def line(self) -> bytes:
        """The call as a line of the file; whoever ends the process writes it."""
        return json.dumps(asdict(self)).encode() + b"\n"

    def __str__(self) -> str:
        if self.what == "budget":
            return "a step of training was still going on long after budget.seconds"
        role = self.what.partition("/")[0]
        setting = {"environment": "failures.step_seconds", "reward": "failures.reward_seconds"}.get(
            role, "failures.method_seconds"
        )
        by = f", {self.whom}," if self.whom else ""
        return f"the {self.what.replace('/', ' ')}{by} did not return within {self.seconds:g} s ({setting})"


def read_hangs(folder: TrialFolder) -> list[Hang]:
    """Calls of a trial that hung, oldest first; a line that a crash cut off is left out."""
    try:
        lines = folder.hung.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [Hang(**json.loads(line)) for line in lines]
