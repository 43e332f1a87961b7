"""The world of several turns that is told in words: rooms, keys, quests."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from multi_turn_worlds import SWEEPS, build, demonstrated, play, said
from orchestrator_plugins.causal_lm.tokenizer import CharacterTokenizer
from orchestrator_plugins.multi_turn.mini_world.environment import PERMUTED, any_command, pays
from orchestrator_plugins.multi_turn.mini_world.generation import Step, World, generate
from orchestrator_plugins.multi_turn.mini_world.play import YOU, Play
from orchestrator_plugins.multi_turn.mini_world.words import DIRECTIONS, VERBS, WORDS

from orchestrator.api import ConfigError, Finish, Split

SIZES = [(1, 3, 4), (2, 3, 4), (8, 3, 4), (2, 12, 4), (4, 6, 8)]
LIGHT = World(
    start="hall",
    exits={"hall": {"east": "study"}, "study": {"west": "hall"}},
    containers={"chest": "hall"},
    supporters={"table": "study"},
    door=("hall", "study"),
    locks={"chest": "iron-lock", "door": "shut"},
    objects={"coin": "chest", "iron-key": "study", "map": "table"},
    quest=(
        Step("open", "door"),
        Step("go", "east", "study"),
        Step("take", "iron-key"),
        Step("go", "west", "hall"),
        Step("unlock", "chest", "iron-key"),
        Step("open", "chest"),
        Step("take", "coin"),
        Step("go", "east", "study"),
        Step("put", "coin", "table"),
    ),
)


def worlds(most_rooms=5, most_steps=8):
    """Random worlds of sizes that are always possible."""
    sizes = st.tuples(st.integers(2, most_rooms), st.integers(4, 8), st.integers(1, most_steps))
    return st.builds(
        lambda size, seed: generate(Random(seed), rooms=size[0], objects=size[1], quest_length=size[2]),
        sizes,
        st.integers(0, 100_000),
    )


def test_a_game_by_hand_from_the_first_word_to_the_win():
    game = Play(LIGHT)
    script = [
        ("open door", "ok hall see chest iron-lock to east door"),
        ("go east", "ok study see table iron-key map to west door"),
        ("take iron-key", "ok study see table map to west door have iron-key"),
        ("go west", "ok hall see chest iron-lock to east door have iron-key"),
        ("unlock chest with iron-key", "ok hall see chest shut to east door have iron-key"),
        ("open chest", "ok hall see chest coin to east door have iron-key"),
        ("take coin", "ok hall see chest to east door have coin iron-key"),
        ("go east", "ok study see table map to west door have coin iron-key"),
        ("put coin on table", "ok study see table coin map to west door have iron-key"),
    ]

    assert game.tell() == "goal put coin on table now hall see chest iron-lock to east door shut"
    for reached, (command, told) in enumerate(script):
        assert (game.reached, game.won) == (reached, False)
        assert game.advice() == command
        assert game.tell(game.do(command.split())) == told
    assert game.won


@pytest.mark.parametrize(
    "command",
    [
        "go east",  # the door is shut
        "go north",  # nothing there
        "open chest",  # locked
        "unlock chest with iron-key",  # not carried
        "unlock door with iron-key",
        "take coin",  # out of sight
        "take iron-key",  # in another room
        "take chest",
        "put map on table",
        "put coin in chest",
        "open table",
        "open window",
    ],
)
def test_what_cannot_be_done_changes_nothing(command):
    game = Play(LIGHT)

    assert game.do(command.split()) == "cannot"
    assert (game.room, game.places, game.locks, game.reached) == ("hall", LIGHT.objects, LIGHT.locks, 0)


@pytest.mark.parametrize("command", ["", "go", "east", "look", "take", "unlock chest", "put coin table", "go east now"])
def test_what_is_no_command_is_unknown(command):
    assert Play(LIGHT).do(command.split()) == "unknown"


def test_things_are_put_into_what_is_open_and_taken_out_again():
    game = Play(LIGHT)
    for step in LIGHT.quest[:7]:
        game.do(step.command().split())

    assert game.do(["put", "coin", "in", "chest"]) == "ok"
    assert game.places["coin"] == "chest"
    assert game.tell("ok") == "ok hall see chest coin to east door have iron-key"
    assert game.advice() == "take coin"  # it was reached before, and is needed again
    assert game.do(["take", "coin"]) == "ok"
    assert game.do(["take", "coin"]) == "cannot"


def test_a_key_fits_its_own_lock_only():
    game = Play(LIGHT)
    game.places |= {"iron-key": YOU, "brass-key": YOU}

    assert game.do(["unlock", "chest", "with", "brass-key"]) == "cannot"
    assert game.do(["unlock", "chest", "with", "iron-key"]) == "ok"
    assert game.do(["unlock", "chest", "with", "iron-key"]) == "cannot"


@given(world=worlds())
def test_every_world_is_won_by_its_quest_and_not_before(world):
    game = Play(world)
    for reached, step in enumerate(world.quest):
        assert (game.reached, game.won) == (reached, False)
        assert game.advice() == step.command()
        assert game.do(step.command().split()) == "ok"
    assert game.won


@given(world=worlds(), seed=st.integers(0, 1000))
def test_whatever_is_done_the_quest_can_still_be_finished(world, seed):
    game, random = Play(world), Random(seed)
    for _ in range(60):
        if not game.won:
            game.do(any_command(random, world).split())
            assert game.won == holds_at_the_end(game)  # the last sub-goal cannot be had without the others
    for _ in range(60):
        if not game.won:
            assert game.do(game.advice().split()) == "ok"

    assert game.won


def holds_at_the_end(game):
    last, places, locks = game.world.quest[-1], game.places, game.locks
    return {
        "go": lambda: game.room == last.other,
        "open": lambda: locks[last.thing] == "open",
        "unlock": lambda: locks[last.thing] in ("open", "shut"),
        "take": lambda: places[last.thing] == YOU,
        "put": lambda: places[last.thing] == last.other,
    }[last.verb]()


@given(world=worlds(most_rooms=3, most_steps=5))
@settings(max_examples=25)
def test_no_shorter_way_wins(world):
    assert shortest(world, len(world.quest)) == len(world.quest)


def shortest(world, limit):
    """Length of the shortest solution by breadth-first search over every useful command."""
    locked = [name for name, lock in world.locks.items() if lock not in ("open", "shut")]
    commands = [
        *(f"go {direction}" for direction in DIRECTIONS),
        *(f"open {name}" for name in world.locks),
        *(f"take {name}" for name in world.objects),
        *(f"unlock {name} with {key}" for name in locked for key in world.objects if key.endswith("-key")),
        *(step.command() for step in world.quest if step.verb == "put"),
    ]
    frontier, seen = [Play(world)], set()
    for length in range(1, limit + 1):
        reached = []
        for before in frontier:
            for command in commands:
                game = Play(world)
                game.room, game.places, game.locks = before.room, dict(before.places), dict(before.locks)
                game.reached = before.reached
                if game.do(command.split()) != "ok":
                    continue
                if holds_at_the_end(game):
                    return length
                state = (game.room, tuple(game.places.items()), tuple(game.locks.items()))
                if state not in seen:
                    seen.add(state)
                    reached.append(game)
        frontier = reached
    return None


@given(world=worlds(most_rooms=8), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_all_is_told_in_the_closed_vocabulary_within_25_words(world, seed):
    game, random = Play(world), Random(seed)
    *goal, _ = game.tell().split("now")

    assert set(game.tell().split()) <= set(WORDS)
    assert len(goal[0].split()) <= 5
    for _ in range(40):
        command = any_command(random, world) if random.random() < 0.5 or game.won else game.advice()
        assert set(command.split()) <= set(WORDS)
        assert len(command.split()) <= 5
        told = game.tell(game.do(command.split())).split()
        assert set(told) <= set(WORDS)
        assert len(told) <= 25


def test_twelve_objects_in_one_room_are_still_told_in_25_words():
    longest = 0
    for seed in range(60):
        world = generate(Random(seed), rooms=5, objects=12, quest_length=4)
        game = Play(world)
        for room in world.exits:  # everything that is not shut in is carried from room to room
            game.room = room
            game.places = {
                name: YOU if game.locks.get(at, "open") == "open" else at for name, at in game.places.items()
            }
            longest = max(longest, len(game.tell("unknown").split()))

    assert longest <= 25


def test_the_vocabulary_is_small_and_a_word_is_one_token():
    tokenizer = CharacterTokenizer(WORDS)
    game = Play(LIGHT)

    assert len(WORDS) == len(set(WORDS)) < 120
    for text in [game.tell(), game.tell("cannot"), *(step.command() for step in LIGHT.quest)]:
        assert len(tokenizer.encode(text)) == len(text.split())
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(SWEEPS.rglob("*.yaml")) if "mini_world" in path.read_text()],
    ids=lambda path: path.name,
)
def test_sweeps_through_the_mini_world_list_its_words(path):
    words = yaml.safe_load(path.read_text())["policy"]["model"].get("words")
    if isinstance(words, str):
        words = (SWEEPS.parent / words).read_text().split()

    assert words is None or tuple(words) == WORDS


@pytest.mark.parametrize(("rooms", "objects", "length"), SIZES)
def test_worlds_have_the_size_asked_for(rooms, objects, length):
    world = generate(Random(5), rooms=rooms, objects=objects, quest_length=length)

    assert (len(world.exits), len(world.objects), len(world.quest)) == (rooms, objects, length)
    assert sum(map(len, world.exits.values())) == 2 * (rooms - 1)  # a tree, each way there and back
    opposite = {"north": "south", "south": "north", "east": "west", "west": "east"}
    for room, ways in world.exits.items():
        assert all(world.exits[other][opposite[direction]] == room for direction, other in ways.items())


def test_the_same_options_give_the_same_worlds_and_another_seed_others():
    ids = [[t.prompt for t in islice(build("mini_world", seed=seed).tasks(Split.TRAIN), 10)] for seed in (3, 3, 4)]

    assert ids[0] == ids[1] != ids[2]


def test_all_kinds_of_goals_come_up():
    world = build("mini_world")
    verbs = [world.world(number).quest[-1].verb for number in range(300)]

    assert set(verbs) == set(VERBS)
    assert max(map(verbs.count, VERBS)) < 150


@pytest.mark.parametrize(
    ("every", "points"), [(1, [1, 1, 1, 1, 1, 1, 1, 1]), (3, [0, 0, 1, 0, 0, 1, 0, 1]), (0, [0] * 7 + [1])]
)
def test_points_are_paid_at_the_density_asked_for(every, points):
    world = build("mini_world", rooms=4, objects=6, quest_length=8, score_every=every)
    for _, answers in demonstrated(world, 5):
        assert [answer.reward for answer in answers] == points
        assert {answer.metrics["max_score"] for answer in answers} == {sum(points)}
        assert [answer.metrics["correct"] for answer in answers] == [0] * 7 + [1]
        assert [answer.metrics["sub_goals"] for answer in answers] == [*range(1, 9)]
    assert [pays(place, 8, every) for place in range(1, 9)] == [bool(point) for point in points]


@given(number=st.integers(0, 500), seed=st.integers(0, 500), every=st.sampled_from([0, 1, 3]))
@settings(max_examples=40)
def test_a_loss_never_has_the_points_of_a_win(number, seed, every):
    world = build("mini_world", rooms=3, objects=4, quest_length=5, score_every=every)
    task = next(islice(world.tasks(Split.EVAL), number % 20, None))
    episode, random = world.start(task, seed=0), Random(seed)
    game = Play(world.world(task.metadata["number"]))
    episode.open()
    score, feedback = 0.0, None
    while feedback is None or not feedback.done:
        command = game.advice() if random.random() < 0.7 and not game.won else any_command(random, game.world)
        game.do(command.split())
        feedback = episode.step(said(command))
        score += feedback.reward

    most = feedback.metrics["max_score"]
    assert (score == most) == bool(feedback.metrics["correct"])
    assert score <= most - (0 if feedback.metrics["correct"] else 1)


def test_points_are_paid_once():
    world = build("mini_world", quest_length=3, max_turns=9)
    task = next(t for t in world.tasks(Split.TRAIN) if t.demonstration[0].startswith("take"))
    taken = task.demonstration[0].split()[1]
    game = world.world(task.metadata["number"])
    home = next((name for name, room in game.supporters.items() if room == game.start), None)
    if home is None:
        pytest.skip("nothing to put it on")

    answers = play(world, task, [f"take {taken}", f"put {taken} on {home}", f"take {taken}"])

    assert [answer.reward for answer in answers] == [1, 0, 0]


def test_a_play_is_lost_when_its_turns_are_used_up():
    world = build("mini_world")
    task = next(iter(world.tasks(Split.TRAIN)))

    answers = play(world, task, ["look"] * 8)  # twice the quest of four

    last = answers[-1]
    assert [answer.done for answer in answers] == [False] * 7 + [True]
    assert (last.observation, last.truncated, last.metrics["malformed"], last.metrics["correct"]) == (None, False, 8, 0)


@pytest.mark.parametrize(("rule", "done"), [("ends", True), ("goes_on", False)])
def test_a_command_cut_by_the_token_limit_does_nothing(rule, done):
    world = build("mini_world", cut_action=rule)
    task = next(iter(world.tasks(Split.TRAIN)))
    episode = world.start(task, seed=0)
    episode.open()

    feedback = episode.step(said(task.demonstration[0], Finish.LENGTH))

    assert (feedback.done, feedback.reward, feedback.metrics["malformed"]) == (done, 0, 1)


def test_gold_wins_in_exactly_the_quests_length_and_noise_costs():
    gold = demonstrated(build("mini_world"), 60)
    noisy = demonstrated(build("mini_world", expert_error=0.4), 60)

    assert {(len(task.demonstration), answers[-1].metrics["correct"]) for task, answers in gold} == {(4, 1)}
    assert sum(len(task.demonstration) for task, _ in noisy) > 5 * 60
    assert 0.2 < sum(answers[-1].metrics["correct"] for _, answers in noisy) / 60 < 0.9
    assert all(answers[-1].done for _, answers in noisy)


def test_permuted_commands_are_the_same_world_in_other_verbs():
    plain, permuted = build("mini_world"), build("mini_world", commands="permuted")
    pairs = zip(islice(plain.tasks(Split.TRAIN), 20), islice(permuted.tasks(Split.TRAIN), 20), strict=True)

    assert sorted(PERMUTED.values()) == sorted(VERBS)
    assert all(verb != other for verb, other in PERMUTED.items())
    for one, other in pairs:
        assert one.prompt == other.prompt
        assert [text.split()[1:] for text in one.demonstration] == [text.split()[1:] for text in other.demonstration]
        assert [PERMUTED[text.split()[0]] for text in one.demonstration] == [
            text.split()[0] for text in other.demonstration
        ]
        assert play(permuted, other, other.demonstration)[-1].metrics["correct"] == 1
        wrong = play(permuted, other, one.demonstration[:1])[0]
        assert wrong.reward == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quest_length": 4, "max_turns": 3}, "too few for a quest of 4"),
        ({"rooms": 1, "objects": 1, "quest_length": 8}, "no quest of 8 steps fits into rooms 1 with objects 1"),
        ({"rooms": 13}, "rooms"),
        ({"expert_error": 1.0}, "expert_error"),
        ({"score_every": -1}, "score_every"),
    ],
)
def test_impossible_worlds_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build("mini_world", **options)
