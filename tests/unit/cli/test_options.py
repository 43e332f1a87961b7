"""Options in words: nested models, lists of models, nested components, bounds and defaults."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.cli.options import flow, options_of
from orchestrator.contract.component import PluginConfig, UseReward


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(PluginConfig):
    rank: int = Field(8, ge=1, le=64, description="of the adapters")
    share: float = Field(0.5, gt=0, lt=1)


class Outer(PluginConfig):
    size: int = Field(gt=0, description="must be said")
    inner: Inner = Inner(rank=16)
    maybe: Inner | None = None
    stages: list[Inner] = Field(default=[], max_length=3)
    by_name: dict[str, Inner] = Field(default_factory=dict)
    base: UseReward = UseReward(use="exact")
    which: Literal["a", "b"] | None = "a"
    colour: Colour = Colour.RED
    weights: tuple[Annotated[float, Field(ge=0)], ...] = Field((1.0,), min_length=1)


OPTIONS = {option.path: option for option in options_of(Outer)}


def test_nested_options_have_dotted_names():
    nested = ["inner.rank", "maybe.rank", "stages.N.rank", "by_name.NAME.share"]

    assert [path for path in nested if path not in OPTIONS] == []
    assert list(OPTIONS).index("inner.rank") == list(OPTIONS).index("inner") + 1


def test_types_are_words():
    said = {path: OPTIONS[path].type for path in ("size", "maybe", "stages", "by_name", "which", "colour", "weights")}

    assert said == {
        "size": "whole number",
        "maybe": "{...} or null",
        "stages": "list of {...}",
        "by_name": "mapping of text to {...}",
        "which": "a | b or null",
        "colour": "red | blue",
        "weights": "list of number",
    }
    assert OPTIONS["base"].type == "{use: reward, ...}"


def test_bounds_are_those_of_the_value_and_of_its_items():
    assert OPTIONS["inner.rank"].bounds == ">= 1, <= 64"
    assert OPTIONS["inner.share"].bounds == "> 0, < 1"
    assert OPTIONS["stages"].bounds == "at most 3 long"
    assert OPTIONS["weights"].bounds == "at least 1 long, each >= 0"


def test_defaults_are_what_stands_where_nothing_is_written():
    assert OPTIONS["size"].shown == "required"
    assert OPTIONS["inner.rank"].shown == "16"  # what the outer model puts there
    assert OPTIONS["maybe.rank"].shown == "8"
    assert OPTIONS["base"].shown == "{use: exact}"
    assert flow({"a": [True, None, ""], "b": 1.5}) == "{a: [true, null, ''], b: 1.5}"
