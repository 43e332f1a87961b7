"""State that checkpoints hold."""

from __future__ import annotations

from typing import Any

from orchestrator.runs.checkpoint import expect_saveable


def state_problems(component: Any) -> list[str]:
    """What keeps a component's state out of a checkpoint, or from coming back from one."""
    try:
        state = component.state_dict()
        expect_saveable(state)
        component.load_state_dict(state)
    except TypeError as error:
        return [str(error)]
    again = component.state_dict()
    if repr(again) != repr(state):
        return ["state_dict() differs after load_state_dict() of what it returned"]
    return []
