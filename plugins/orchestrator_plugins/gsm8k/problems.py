"""Problems: read from JSONL files in the released format, ``{"question": ..., "answer": "... #### 18"}``."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from orchestrator.api import marked_number

BUILT_IN = Path(__file__).with_name("problems.jsonl")

_NOTE = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question, its worked solution and the number at its end."""

    question: str
    solution: str
    answer: Fraction

    def held_out(self, share: float) -> bool:
        """Whether the problem belongs to evaluation; the same whatever else is in the file."""
        return zlib.crc32(self.question.encode()) % 10_000 < round(share * 10_000)

    def demonstration(self, *, keep_calculations: bool) -> str:
        """The worked solution, without its calculator notes unless asked for."""
        return self.solution if keep_calculations else _NOTE.sub("", self.solution)


def read(path: Path) -> list[Problem]:
    """Read problems from a JSONL file; blank lines are skipped.

    :raises ValueError: naming file and line of the first malformed line, or an empty file
    :raises FileNotFoundError: when there is no such file
    """
    problems = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    problems.append(_problem(json.loads(line)))
                except ValueError as error:  # JSONDecodeError is a ValueError
                    raise ValueError(f"{path}:{number}: {error}") from error
    if not problems:
        raise ValueError(f'{path}: no problem; expected lines such as {{"question": "...", "answer": "... #### 18"}}')
    return problems


def _problem(row: Any) -> Problem:
    if not isinstance(row, dict):
        raise ValueError(f'got a {type(row).__name__}; expected an object with "question" and "answer"')
    for key in ("question", "answer"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise ValueError(f"{key} is {row.get(key)!r}; expected text")
    if "####" not in row["answer"]:
        raise ValueError("answer has no '#### n' at its end")
    answer = marked_number("####" + row["answer"].rpartition("####")[2])
    if answer is None:
        raise ValueError(f"no number after ####: {row['answer'].rpartition('####')[2].strip()!r}")
    return Problem(question=row["question"].strip(), solution=row["answer"].strip(), answer=answer)
