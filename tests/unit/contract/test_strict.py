"""Options models take what is meant: true is no number, 1 no bool, "3" no number, and no number is endless."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import TypeAdapter, ValidationError, field_validator
from typing_extensions import NamedTuple, TypedDict

from orchestrator.api import PluginConfig, UseReward
from orchestrator.contract.sections import RewardSpec
from orchestrator.contract.settings import Experiment


class _Inner(PluginConfig):
    share: float = 0.5


class _Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class _Range:
    low: float = 0.0
    inner: "tuple[_Range, ...]" = ()


class _Typed(TypedDict, total=False):
    share: float


class _Pair(NamedTuple):
    first: int
    second: float = 0.0


class _Options(PluginConfig):
    count: int = 1
    share: float = 1.0
    flag: bool = False
    word: str = ""
    either: int | str | None = None
    numbers: tuple[float, ...] = ()
    named: dict[str, int] | None = None
    kind: Literal[1, 2] = 1
    inner: _Inner = _Inner()
    several: tuple[_Inner, ...] = ()
    path: Path | None = None
    anything: Any = None
    level: _Level = _Level.LOW
    range: _Range = _Range()
    ranges: dict[str, list[_Range]] | None = None
    typed: _Typed | None = None
    pair: _Pair | None = None
    amount: Decimal = Decimal(1)
    wait: timedelta = timedelta(0)
    seconds: float = 1.0

    @field_validator("seconds", mode="before")
    @classmethod
    def _with_unit(cls, value):
        return 60.0 if value == "1m" else value


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": True},
        {"count": "3"},
        {"count": 3.5},
        {"count": 2**63},
        {"share": True},
        {"share": "0.5"},
        {"share": float("nan")},
        {"share": float("inf")},
        {"flag": 1},
        {"flag": 0.0},
        {"flag": "yes"},
        {"either": True},
        {"numbers": [1, False]},
        {"numbers": ["1"]},
        {"numbers": [float("inf")]},
        {"named": {"a": True}},
        {"kind": True},
        {"inner": {"share": True}},
        {"several": [{"share": "1"}]},
        {"word": True},
        {"level": True},
        {"level": "1"},
        {"range": {"low": True}},
        {"range": {"low": "0.5"}},
        {"range": {"low": float("inf")}},
        {"range": {"inner": [{"inner": [{"low": True}]}]}},
        {"ranges": {"a": [{"low": True}]}},
        {"typed": {"share": True}},
        {"pair": [True, 1]},
        {"pair": {"first": 1, "second": "2"}},
        {"amount": True},
        {"wait": True},
    ],
    ids=str,
)
def test_a_value_of_another_kind_is_refused(wrong):
    with pytest.raises(ValidationError):
        _Options.model_validate(wrong)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"count": 3.0}, 3),
        ({"share": 1}, 1.0),
        ({"word": 123}, "123"),
        ({"either": 5}, 5),
        ({"either": "5"}, "5"),
        ({"numbers": [1, 2.5]}, (1.0, 2.5)),
        ({"kind": 2}, 2),
        ({"anything": True}, True),
        ({"path": "x"}, Path("x")),
        ({"seconds": "1m"}, 60.0),
        ({"level": 2}, _Level.HIGH),
        ({"range": {"low": 1, "inner": [{"low": 2}]}}, _Range(1.0, (_Range(2.0),))),
        ({"typed": {"share": 1}}, {"share": 1.0}),
        ({"pair": [1, 2]}, _Pair(1, 2.0)),
        ({"amount": "0.1"}, Decimal("0.1")),
        ({"wait": 60}, timedelta(minutes=1)),
    ],
    ids=str,
)
def test_a_value_that_means_the_same_is_taken(given, value):
    [name] = given

    found = getattr(_Options.model_validate(given), name)

    assert found == value
    assert type(found) is type(value)


def test_what_options_hold_stays_as_its_maker_made_it_elsewhere():
    assert TypeAdapter(_Range).validate_python({"low": "0.5"}) == _Range(0.5)


def test_guards_hold_where_options_stand_in_options():
    class Outer(PluginConfig):
        options: dict[str, _Options]
        level: _Level = _Level.LOW

    assert Outer.model_validate({"options": {"a": {"range": {"low": 1}}}}).options["a"].range == _Range(1.0)
    for wrong in ({"range": {"inner": [{"low": True}]}}, {"level": True}):
        with pytest.raises(ValidationError, match=r"options\.a\."):
            Outer.model_validate({"options": {"a": wrong}})


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), True, "1"])
@pytest.mark.parametrize("model", [RewardSpec, UseReward])
def test_weights_of_rewards_are_finite_numbers(model, weight):
    with pytest.raises(ValidationError):
        model.model_validate({"use": "exact", "weight": weight})


@pytest.mark.parametrize(
    "section",
    [
        {"evaluation": {"k": [0]}},
        {"evaluation": {"k": [-1]}},
        {"optimizer": {"betas": [0.9, 1.5]}},
        {"optimizer": {"betas": [0.9, 1.0]}},
        {"optimizer": {"betas": [-0.1, 0.9]}},
        {"optimizer": {"lr": float("inf")}},
        {"schedule": {"steps": 2**63}},
        {"schedule": {"steps": True}},
        {"seeds": [True]},
        {"seeds": [-1]},
        {"rewards": [{"use": "exact", "weight": float("nan")}]},
        {"update": {"drop_constant_groups": 1}},
    ],
    ids=str,
)
def test_sections_refuse_numbers_that_make_no_sense(section):
    with pytest.raises(ValidationError):
        Experiment.model_validate({"name": "x", "environment": {"use": "y"}, **section})
