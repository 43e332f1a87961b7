"""The environment ``gymnasium_text``, on a small world of texts that is registered here."""

from __future__ import annotations

import itertools
import string
import sys
from types import ModuleType

import pytest

pytest.importorskip("gymnasium")
import gymnasium
from orchestrator_plugins.gymnasium.config import GymnasiumTextConfig
from orchestrator_plugins.gymnasium.text import REFUSED, GymnasiumText

from orchestrator.api import (
    Action,
    ConfigError,
    Environment,
    Episode,
    Finish,
    Registry,
    RolloutRequest,
    Split,
    load_registry,
)
from orchestrator.rollout.collector import Collector
from orchestrator.testing import ScriptedPolicy, check_component

COLOURS = ("red", "green", "blue")
WORDS = gymnasium.spaces.Text(20, min_length=1, charset=string.ascii_lowercase + " ")
SENTENCE = gymnasium.spaces.Text(200, min_length=0, charset=string.printable)


class Doors(gymnasium.Env):
    """Three doors one after the other; each opens to its colour, 'leave' gives up, 'faint' is a fault in the world."""

    action_space = WORDS
    made = 0

    def __init__(self, shape="text", doors=3):
        type(self).made += 1
        self.shape, self.doors = shape, doors
        image = gymnasium.spaces.Box(0, 1, (2,))
        self.observation_space = {
            "text": SENTENCE,
            "dict": gymnasium.spaces.Dict(image=image, seen=SENTENCE),
            "tuple": gymnasium.spaces.Tuple([image, SENTENCE]),
            "image": image,
            "lie": SENTENCE,
        }[shape]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        colours = (options or {}).get("colours", COLOURS)
        self.colours = [colours[place % len(colours)] for place in self.np_random.integers(0, 3, self.doors)]
        self.opened = 0
        return self._see(f"Doors: {' '.join(self.colours)}."), {}

    def step(self, action):
        if action == "faint":
            raise RuntimeError("the world is gone")
        right = action != "leave" and action == f"open {self.colours[self.opened]}"
        self.opened += right
        out = self.opened == self.doors
        return (
            self._see("It opens." if right else "Nothing happens."),
            float(right),
            out or action == "leave",
            False,
            {"out": out},
        )

    def _see(self, text):
        if self.shape == "lie":
            return 3
        return {"text": text, "dict": {"image": None, "seen": text}, "tuple": (None, text), "image": None}[self.shape]


class Silent(Doors):
    action_space = gymnasium.spaces.Discrete(3)


@pytest.fixture(autouse=True, scope="module")
def _module():
    """A module that registers the worlds when it is imported, as those of others do."""
    module = ModuleType("doors_of_texts")
    sys.modules[module.__name__] = module
    gymnasium.register("TextDoors-v0", Doors)
    gymnasium.register("SilentDoors-v0", Silent)
    yield
    del sys.modules[module.__name__], gymnasium.registry["TextDoors-v0"], gymnasium.registry["SilentDoors-v0"]


def doors(**options) -> GymnasiumText:
    return GymnasiumText(GymnasiumTextConfig(**{"id": "TextDoors-v0", "module": "doors_of_texts"} | options))


def say(text: str, finish: Finish = Finish.STOP) -> Action:
    return Action(tokens=(1,), logprobs=(0.0,), text=text, finish=finish)


def begin(environment, split=Split.TRAIN):
    """Open the first task; returns the episode, what it shows and the colours of its doors."""
    episode = environment.start(next(environment.tasks(split)), 0)
    [message] = episode.open()
    return episode, message["content"], message["content"].partition(": ")[2].partition(".")[0].split()


def test_it_fills_the_role():
    registry = load_registry(["gymnasium"])
    environment = registry.build("environment", "gymnasium_text", {"id": "TextDoors-v0"})

    assert isinstance(environment, Environment)
    assert isinstance(environment.start(next(environment.tasks(Split.TRAIN)), 0), Episode)


def test_it_keeps_the_contract():
    registry: Registry = load_registry(["gymnasium"])

    check_component(registry.describe("environment", "gymnasium_text"), {"id": "TextDoors-v0", "max_turns": 8})


def test_a_play_is_the_simulators_own():
    episode, first, colours = begin(doors(success_key="out", max_score=3.0, prompt="Escape!\n{observation}\n"))

    answers = [episode.step(say(text)) for text in ("open it", *(f" open {colour}\n" for colour in colours))]

    assert first == f"Escape!\nDoors: {' '.join(colours)}.\n"
    assert [answer.reward for answer in answers] == [0.0, 1.0, 1.0, 1.0]
    assert [answer.done for answer in answers] == [False, False, False, True]
    assert answers[0].observation == ({"role": "user", "content": "Nothing happens."},)
    assert [answer.metrics["correct"] for answer in answers] == [0.0, 0.0, 0.0, 1.0]
    assert answers[-1].metrics == {
        "correct": 1.0,
        "max_score": 3.0,
        "return": 3.0,
        "length": 4.0,
        "invalid_actions": 0.0,
    }


def test_over_is_not_success():
    episode, _, colours = begin(doors(success_at=3.0))
    episode.step(say(f"open {colours[0]}"))

    answer = episode.step(say("leave"))

    assert answer.done
    assert not answer.truncated
    assert answer.metrics["correct"] == 0.0


@pytest.mark.parametrize(("success_at", "correct"), [(1.0, 1.0), (2.0, 0.0)])
def test_success_can_be_a_sum_of_rewards(success_at, correct):
    episode, _, colours = begin(doors(success_at=success_at))

    assert episode.step(say(f"open {colours[0]}")).metrics["correct"] == correct


@pytest.mark.parametrize(("shape", "key"), [("text", None), ("dict", "seen"), ("tuple", 1)])
def test_the_text_can_be_a_part_of_the_observation(shape, key):
    episode, first, colours = begin(doors(kwargs={"shape": shape}, observation_key=key))

    assert first.startswith("Doors: ")
    assert episode.step(say(f"open {colours[0]}")).observation[0]["content"] == "It opens."


@pytest.mark.parametrize("text", ["OPEN RED", "", "x" * 21, "caf\u00e9"])
def test_a_text_outside_the_action_space_loses_a_turn(text):
    episode, _, colours = begin(doors(reply="> {observation}"))

    refused, answer = episode.step(say(text)), episode.step(say(f"open {colours[0]}"))

    assert refused.observation == ({"role": "user", "content": f"> {REFUSED}"},)
    assert (refused.reward, refused.done) == (0.0, False)
    assert (answer.reward, answer.metrics["length"], answer.metrics["invalid_actions"]) == (1.0, 2.0, 1.0)


def test_actions_need_not_be_checked():
    episode, _, _ = begin(doors(check_actions=False))

    assert episode.step(say("OPEN RED")).observation[0]["content"] == "Nothing happens."


@pytest.mark.parametrize(("cut", "over"), [("ends", True), ("goes_on", False)])
def test_an_action_cut_by_the_token_limit_does_not_reach_the_simulator(cut, over):
    episode, _, colours = begin(doors(cut_action=cut))

    answer = episode.step(say(f"open {colours[0]}", Finish.LENGTH))

    assert (answer.reward, answer.done, answer.truncated) == (0.0, over, False)


@pytest.mark.parametrize("texts", [["wait", "wait", "wait"], ["wait", "NO", "NO"], ["NO", "NO", "wait"]])
def test_refused_actions_count_as_turns(texts):
    episode, _, _ = begin(doors(max_turns=3))

    answers = [episode.step(say(text)) for text in texts]

    assert [answer.done for answer in answers] == [False, False, True]
    assert answers[-1].truncated
    assert answers[-1].observation is not None


def test_tasks_are_seeds_drawn_apart():
    def seeds(split, **options):
        return [task.metadata["seed"] for task in itertools.islice(doors(**options).tasks(split), 30)]

    train, validation = seeds(Split.TRAIN), seeds(Split.EVAL)
    test, other = seeds(Split.EVAL, evaluate_on="test"), seeds(Split.TRAIN, seed=1)

    assert len({*train, *validation, *test, *other}) == 120
    assert seeds(Split.TRAIN, train_tasks=4) == train[:4]
    assert begin(doors())[1] == begin(doors())[1]


def test_a_split_can_have_reset_options_of_its_own():
    environment = doors(reset_options={"train": {"colours": ["black"]}, "test": {"colours": ["white"]}})

    assert begin(environment)[2] == ["black"] * 3
    assert set(begin(environment, Split.EVAL)[2]) <= set(COLOURS)
    assert (
        begin(doors(reset_options=environment.config.reset_options, evaluate_on="test"), Split.EVAL)[2] == ["white"] * 3
    )


def test_a_simulator_that_raised_is_marked_and_not_used_again():
    environment = doors(success_key="out")
    tasks = list(itertools.islice(environment.tasks(Split.TRAIN), 3))
    lost = tasks[1].id

    def script(context):
        colours = context.observations[0][0]["content"].partition(": ")[2].rstrip(".").split()
        done = len(context.actions)
        return "faint" if context.episode.startswith(lost) and done == 1 else f"open {colours[done]}"

    before = Doors.made
    collect = Collector(environment, ScriptedPolicy(script))
    groups = collect([RolloutRequest(task=task, count=2) for task in tasks])

    assert [len(group.rollouts) for group in groups] == [2, 0, 2]
    assert all("RuntimeError: the world is gone" in str(rollout.error) for rollout in collect.failures)
    assert {r.metrics["correct"] for group in groups for r in group.rollouts} == {1.0}
    assert Doors.made - before == 5  # one was there already
    assert len(environment._idle) == 4


def test_a_success_key_that_is_not_there_is_named():
    episode, _, _ = begin(doors(success_key="won"))

    with pytest.raises(KeyError, match=r"no 'won' \(environment.success_key\); it has 'out'"):
        episode.step(say("wait"))


def test_an_observation_that_breaks_its_space_is_named():
    with pytest.raises(TypeError, match="TextDoors-v0 showed a int where its observation space has a text"):
        begin(doors(kwargs={"shape": "lie"}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"id": "SilentDoors-v0"},
            r"environment\.id: SilentDoors-v0 has the action space Discrete\(3\); expected Text",
        ),
        ({"id": "CartPole-v1"}, r"(?s)environment\.id: CartPole-v1 .*environment\.observation_key: .*it has no text"),
        ({"kwargs": {"shape": "dict"}}, r"choose its text with observation_key: seen"),
        ({"kwargs": {"shape": "tuple"}}, r"choose its text with observation_key: 1"),
        ({"kwargs": {"shape": "dict"}, "observation_key": "image"}, r"'image': .* have texts at 'seen'"),
        ({"observation_key": "seen"}, r"'seen': .* have no part that is a text"),
        ({"module": "no_such_doors"}, r"environment\.module: no_such_doors cannot be imported"),
        ({"id": "TextDors-v0"}, r"environment\.id: .*TextDors"),
        ({"kwargs": {"windows": 2}}, r"environment\.kwargs: TextDoors-v0 refused them"),
    ],
)
def test_what_is_no_world_of_texts_is_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        doors(**options)


def test_a_module_that_raises_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_doors.py").write_text("import os\nos.environ['DOORS_NOT_SET']\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(
        ConfigError, match=r"environment\.module: broken_doors cannot be imported: KeyError: 'DOORS_NOT"
    ):
        doors(module="broken_doors")


@pytest.mark.parametrize(("template", "message"), [("Go!", "must contain"), ("{seen}", "the only field is")])
def test_templates_must_show_the_observation(template, message):
    with pytest.raises(ValueError, match=message):
        GymnasiumTextConfig(id="x", prompt=template)
