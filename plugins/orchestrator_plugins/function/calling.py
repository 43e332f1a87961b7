"""What a function of the user's is called with: what it declares, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.api import Message, RolloutGroup, Task

ONE = ("text", "completion", "response")
MANY = ("texts", "completions", "responses")
SHARED = ("prompt", "messages", "reference", "metadata", "task_id")
_UNCLEAR = {"answer": "text", "answers": "texts"}
_LISTS = ("list", "sequence", "iterable", "tuple", "collection")


class Call:
    """How a function is called.

    :ivar batch: with all answers to a task at once
    """

    def __init__(self, function: Callable[..., Any], batch: bool | None):
        """:raises ValueError: its parameters cannot be read"""
        try:
            self.parameters = dict(inspect.signature(function).parameters)
        except (TypeError, ValueError) as error:
            raise ValueError(f"its parameters cannot be read: {error}") from None
        self.batch = self._takes_many() if batch is None else batch

    def problems(self, task: Task) -> list[str]:
        """Parameters that a task has nothing for."""
        known = {*self._own([]), *SHARED, *task.metadata}
        found = []
        required = [name for name, one in self.parameters.items() if _is_named(one)]
        for name in required:
            if name in _UNCLEAR:
                found.append(
                    f"parameter {name!r} could be what the policy said or the right answer: call it {_UNCLEAR[name]}, or "
                    f"reference; a column of that name is in metadata[{name!r}]"
                )
            elif name not in known and self.parameters[name].default is inspect.Parameter.empty:
                other = MANY if name in ONE else ONE if name in MANY else ()
                hint = f"; batch is {str(self.batch).lower()}" if other else ""
                found.append(
                    f"parameter {name!r} is nothing that is known of a task{hint}. Expected some of: "
                    f"{', '.join(sorted(known - set(_UNCLEAR)))}"
                )
        if not any(name in (*ONE, *MANY) for name in required) and not self._takes_all():
            found.append(f"it takes no answer: declare a parameter {'texts' if self.batch else 'text'}")
        return found

    def arguments(self, group: RolloutGroup, texts: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
        """What to pass.

        :param texts: of the answers: one, or all where the function takes many
        """
        task = group.task
        known = {**task.metadata, **self._shared(group), **self._own(texts)}
        ordered = [known[n] for n, one in self.parameters.items() if one.kind is one.POSITIONAL_ONLY and n in known]
        named = {n: known[n] for n, one in self.parameters.items() if _is_named(one) and n in known}
        named = {
            n: value for n, value in named.items() if self.parameters[n].kind is not inspect.Parameter.POSITIONAL_ONLY
        }
        return ordered, {**known, **named} if self._takes_all() else named

    def _own(self, texts: Sequence[str]) -> dict[str, Any]:
        if self.batch:
            return {name: list(texts) for name in (*MANY, *ONE)}
        return dict.fromkeys(ONE, texts[0] if texts else "")

    def _shared(self, group: RolloutGroup) -> Mapping[str, Any]:
        task = group.task
        messages: list[Message] = [dict(one) for one in _prompt(group)]  # type: ignore[misc]
        return {
            "prompt": messages[-1]["content"] if messages else "",
            "messages": messages,
            "reference": task.reference,
            "metadata": dict(task.metadata),
            "task_id": task.id,
        }

    def _takes_all(self) -> bool:
        return any(one.kind is one.VAR_KEYWORD for one in self.parameters.values())

    def _takes_many(self) -> bool:
        return any(
            name in MANY or (name in ONE and _written(one.annotation).startswith(_LISTS))
            for name, one in self.parameters.items()
        )


def _written(annotation: Any) -> str:
    """An annotation as it is written, in lower case and without its module: ``list[str]``, ``sequence[str]``."""
    text = (
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    )
    head, bracket, rest = text.partition("[")
    return f"{head.rpartition('.')[2]}{bracket}{rest}".lower()


def _is_named(one: inspect.Parameter) -> bool:
    return one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)


def _prompt(group: RolloutGroup) -> Sequence[Message]:
    """What the policy saw first."""
    shown = group.task.prompt
    if shown is None and group.rollouts and group.rollouts[0].turns:
        shown = group.rollouts[0].turns[0].observation
    return shown if isinstance(shown, tuple) else ()
