"""The seeds of an experiment: listed, or added look by look."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from orchestrator.contract.sections import Section

Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


_GROWTH = 1.6  # of the seeds from look to look


class SeedsUntil(Section):
    """Seeds added look by look, to arms that are not decided yet; they count from 0."""

    first: int = Field(3, ge=2, description="seeds of every arm at the first look")
    at_most: int = Field(ge=3, description="seeds of an arm at the last look")
    until: Literal["decided"] = Field("decided", description="an arm gets no more seeds once it is decided")
    looks: tuple[int, ...] | None = Field(
        None,
        description="seeds of an undecided arm at each look, as in [3, 5, 8, 12, 20]; null: each time 1.6 times as many",
    )

    @model_validator(mode="after")
    def _rising(self) -> SeedsUntil:
        if self.at_most <= self.first:
            raise ValueError(f"at_most is {self.at_most}; expected more than first, {self.first}")
        looks = self.looks
        if looks is None:
            return self
        if any(a >= b for a, b in itertools.pairwise(looks)) or looks[:1] != (self.first,) or looks[-1] != self.at_most:
            raise ValueError(
                f"looks are {list(looks)}; expected rising numbers from first, {self.first}, to at_most, {self.at_most}"
            )
        return self

    @property
    def course(self) -> tuple[int, ...]:
        """Seeds of an undecided arm at each look."""
        if self.looks is not None:
            return self.looks
        made = [self.first]
        while (following := max(made[-1] + 1, round(self.first * _GROWTH ** len(made)))) * 1.25 < self.at_most:
            made.append(following)
        return (*made, self.at_most)


def _kind(value: Any) -> str:
    return "looked at" if isinstance(value, Mapping | SeedsUntil) else "listed"


ListedOrLookedAt = Annotated[
    Annotated[Seeds, Tag("listed")] | Annotated[SeedsUntil, Tag("looked at")], Discriminator(_kind)
]
