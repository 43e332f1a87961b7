"""From a row to a question: what the policy sees, what is right, and what is wrong with the row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.api import Message, Messages, Task

from .config import CHOICES, PROMPT, QuestionsConfig
from .matching import LETTERS, Judge, judge_of
from .rows import Row

_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row, ready to be asked.

    :ivar place: where the row stands
    :ivar number: its line or row, 1-based
    :ivar prompt: what the policy sees
    :ivar reference: the first right answer as text; None: nothing says what is right
    :ivar demonstration: a good answer
    :ivar metadata: the row's other columns, and the right answers as they stand in it
    """

    place: str
    number: int
    prompt: Messages
    reference: str | None
    demonstration: str | None
    metadata: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Equal for questions that a policy cannot tell apart."""
        return json.dumps(self.prompt, ensure_ascii=False, sort_keys=True)


def wrong(config: QuestionsConfig, row: Row) -> Iterator[tuple[str, str]]:
    """What is wrong with a row that has every column, by option."""
    checks: list[tuple[str, Callable[[], object]]] = [
        ("prompt", lambda: _prompt(config, row)),
        ("metadata", lambda: _metadata(config, row)),
    ]
    if config.demonstration is not None:
        checks.append(("demonstration", lambda: _demonstration(config, row)))
    if config.choices is not None:
        checks.append(("choices", lambda: choices_of(config, row.values)))
    broken = False
    for option, check in checks:
        try:
            check()
        except ValueError as error:
            broken = True
            yield option, str(error)
    if config.answer is None:
        return
    try:
        judge = judge_of(config, row.values[config.answer], choices_of(config, row.values))
    except ValueError as error:
        if not broken:
            yield "answer", f"{config.answer}: {error}"
        return
    if config.demonstration is not None and config.check_demonstrations and not broken:
        found = judge.judge(_demonstration(config, row), ended=True)
        if not found.right:
            taken = "no answer" if found.said is None else f"the answer {found.said[:60]!r}"
            yield (
                "demonstration",
                f"{config.demonstration} has {taken} by match: {config.match}, and right is {judge.reference[:60]!r}; "
                "correct the row, change match or extract, or set check_demonstrations: false",
            )


def question_of(config: QuestionsConfig, row: Row) -> Question:
    """The question of a row with which nothing is wrong."""
    reference = None
    if config.answer is not None:
        reference = judge_of(config, row.values[config.answer], choices_of(config, row.values)).reference
    return Question(
        place=row.place,
        number=row.number,
        prompt=_prompt(config, row),
        reference=reference,
        demonstration=None if config.demonstration is None else _demonstration(config, row),
        metadata=_metadata(config, row),
    )


def judge_of_task(config: QuestionsConfig, task: Task) -> Judge | None:
    """What tells right from wrong for a task; None where nothing does."""
    if config.answer is None:
        return None
    return judge_of(config, task.metadata[config.answer], choices_of(config, task.metadata))


def choices_of(config: QuestionsConfig, values: Mapping[str, Any]) -> list[str] | None:
    """The texts of a row's choices; None where there are none.

    :raises ValueError: they are no two or more different texts
    """
    if config.choices is None:
        return None
    named = config.choices if isinstance(config.choices, str) else ", ".join(config.choices)
    found = values[config.choices] if isinstance(config.choices, str) else [values[column] for column in config.choices]
    if isinstance(found, Mapping) and isinstance(found.get("text"), list):  # as ARC has them
        found = found["text"]
    if not isinstance(found, list) or not 2 <= len(found) <= len(LETTERS):
        raise ValueError(f"{named} is {_short(found)}; expected a list of 2 to {len(LETTERS)} choices")
    texts = [str(text).strip() if isinstance(text, str | int | float) else "" for text in found]
    if not all(texts):
        raise ValueError(f"{named} holds {_short(found)}; expected texts, none of them empty")
    if len(set(texts)) < len(texts):
        raise ValueError(f"{named} holds a choice twice: {_short(found)}")
    return texts


def _prompt(config: QuestionsConfig, row: Row) -> Messages:
    given = row.values[config.prompt]
    if isinstance(given, str):
        if not given.strip():
            raise ValueError(f"{config.prompt} is empty; expected a question")
        messages: list[Message] = [{"role": "user", "content": given}]
    else:
        messages = _conversation(config, given)
    if config.system is not None:
        if messages[0]["role"] == "system":
            raise ValueError(f"{config.prompt} has a system message of its own, and system is given; leave one out")
        messages.insert(0, {"role": "system", "content": config.system})
    messages[-1] = {**messages[-1], "content": _put(config, row, messages[-1]["content"])}
    return tuple(messages)


def _conversation(config: QuestionsConfig, given: Any) -> list[Message]:
    expected = "expected a text, or a list of {role, content}"
    if not isinstance(given, list) or not given:
        raise ValueError(f"{config.prompt} is {_short(given)}; {expected}")
    messages: list[Message] = []
    for place, one in enumerate(given):
        if not isinstance(one, Mapping) or not isinstance(one.get("content"), str) or one.get("role") not in _ROLES:
            known = ", ".join(_ROLES)
            raise ValueError(f"{config.prompt}.{place} is {_short(one)}; {expected}, role one of {known}")
        messages.append({"role": str(one["role"]), "content": one["content"]})
    if messages[-1]["role"] not in ("user", "tool"):
        raise ValueError(
            f"{config.prompt} ends with a message of the {messages[-1]['role']}, and the policy speaks next; end it with "
            "a user's, and put the good answer into the column that demonstration names"
        )
    return messages


def _put(config: QuestionsConfig, row: Row, question: str) -> str:
    """The question as its template puts it."""
    choices = choices_of(config, row.values)
    lettered = "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, choices or (), strict=False))
    template = config.template or ("{prompt}\n{choices}" if choices else "{prompt}")
    shown = {name: value if isinstance(value, str) else _written(value) for name, value in row.values.items()}
    return template.format_map(shown | {PROMPT: question} | ({CHOICES: lettered} if choices else {}))


def _demonstration(config: QuestionsConfig, row: Row) -> str:
    given = row.values[str(config.demonstration)]
    if isinstance(given, bool) or not isinstance(given, str | int | float) or not str(given).strip():
        raise ValueError(f"{config.demonstration} is {_short(given)}; expected the text of a good answer")
    return str(given)


def _metadata(config: QuestionsConfig, row: Row) -> dict[str, Any]:
    """The columns that rewards see, the right answer's always."""
    taken = (config.prompt, config.demonstration)
    names = [name for name in row.values if name not in taken] if config.metadata is None else list(config.metadata)
    if config.answer is not None and config.answer not in names:
        names.append(config.answer)
    if isinstance(config.choices, str) and config.choices not in names:
        names.append(config.choices)
    names += [name for name in config.choices or () if isinstance(config.choices, list) and name not in names]
    for name in names:
        try:
            json.dumps(row.values[name], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} cannot be kept as JSON: {error}; list the columns you need in metadata") from None
    return {name: row.values[name] for name in names}


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
