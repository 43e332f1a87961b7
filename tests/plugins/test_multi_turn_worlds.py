"""The worlds of several turns: chain search, the mini world, question answering with a search tool."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from orchestrator_plugins.causal_lm.tokenizer import CharacterTokenizer
from orchestrator_plugins.multi_turn.mini_world.environment import PERMUTED, any_command, pays
from orchestrator_plugins.multi_turn.mini_world.generation import Step, World, generate
from orchestrator_plugins.multi_turn.mini_world.play import YOU, Play
from orchestrator_plugins.multi_turn.mini_world.words import DIRECTIONS, VERBS, WORDS
from orchestrator_plugins.multi_turn.ranges import Range, Remembered, range_of
from orchestrator_plugins.multi_turn.search_qa.files import Passage, read_corpus
from orchestrator_plugins.multi_turn.search_qa.index import Index
from orchestrator_plugins.multi_turn.search_qa.scoring import exact_match, f1, normalise
from orchestrator_plugins.multi_turn.search_qa.turns import Act, Said, read_turn, write_passages

from orchestrator.api import Action, ConfigError, Finish, Split, load_registry
from orchestrator.testing import check_component

REGISTRY = load_registry(["multi_turn"])
SWEEPS = Path(__file__).parents[2] / "sweeps"


def build(name, **options):
    return REGISTRY.build("environment", name, options)


def said(text, finish=Finish.STOP):
    return Action(tokens=(), logprobs=(), text=text, finish=finish)


def shown(feedback):
    return feedback.observation[0]["content"]


def play(world, task, texts):
    """Play texts to the end; returns what the environment answered to each."""
    episode = world.start(task, seed=0)
    assert episode.open() == task.prompt
    answers = []
    for text in texts:
        assert not (answers and answers[-1].done), "played on after the end"
        answers.append(episode.step(said(text)))
    episode.close()
    return answers


def demonstrated(world, count, split=Split.TRAIN):
    """Tasks with the answers to their demonstrations."""
    return [(task, play(world, task, task.demonstration)) for task in islice(world.tasks(split), count)]


# --- ranges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chain_search", "mini_world"])
def test_the_four_ranges_share_no_task_whatever_the_seeds(name):
    contents = {}
    for seed in (0, 1):
        for train_on, evaluate_on in (("training", "validation"), ("demonstrations", "test")):
            world = build(name, seed=seed, train_on=train_on, evaluate_on=evaluate_on, eval_tasks=40)
            for split, range_ in ((Split.TRAIN, train_on), (Split.EVAL, evaluate_on)):
                tasks = list(islice(world.tasks(split), 40))
                assert all(range_ in task.id for task in tasks)
                found = {content(world, task) for task in tasks}
                contents.setdefault(range_, set()).update(found)

    assert sum(map(len, contents.values())) == len(set().union(*contents.values()))
    assert set(contents) == {"training", "demonstrations", "validation", "test"}


def content(world, task):
    return repr(world.world(task.metadata["number"])) if "number" in task.metadata else repr(task.metadata)


def test_ranges_have_their_shares_and_can_be_narrowed_to_half():
    names = [f"task {number}" for number in range(10_000)]
    share = {range_: sum(range_of(name) is range_ for name in names) / 10_000 for range_ in Range}

    assert share == pytest.approx({"training": 0.6, "demonstrations": 0.2, "validation": 0.1, "test": 0.1}, abs=0.02)
    assert {range_of(name, evaluation=False) for name in names} == {Range.TRAINING, Range.DEMONSTRATIONS}
    assert {range_of(name, training=False) for name in names} == {Range.VALIDATION, Range.TEST}
    with pytest.raises(ValueError, match="training or evaluation"):
        range_of("x", training=False, evaluation=False)


def test_training_tasks_end_where_asked_and_go_on_otherwise():
    assert len(list(build("chain_search", train_tasks=7).tasks(Split.TRAIN))) == 7
    assert len(list(islice(build("mini_world").tasks(Split.TRAIN), 300))) == 300


def test_a_remembered_stream_is_made_once():
    made = []
    stream = Remembered(made.append(number) or number for number in range(3))

    assert [*islice(stream, 2)] == [0, 1]
    assert made == [0, 1]
    assert [*stream, *stream] == [0, 1, 2, 0, 1, 2]
    assert made == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("chain_search", {"cut_action": "ends", "letters": 5}),
        ("mini_world", {"rooms": 4, "objects": 6, "quest_length": 8, "expert_error": 0.4}),
        ("mini_world", {"commands": "permuted", "train_tasks": 5}),
        ("search_qa", {"train_on": "demonstrations", "reward": "f1"}),
    ],
)
def test_worlds_keep_the_contract_under_other_options_too(name, options):
    check_component(REGISTRY.describe("environment", name), options)


# --- chain search -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chains():
    return build("chain_search", expert_error=0.0)


def chain_of(world, hops):
    return next(task for task in world.tasks(Split.TRAIN) if task.metadata["hops"] == hops)


def test_searching_along_the_chain_and_answering_wins(chains):
    task = chain_of(chains, 2)
    e0, e1, e2, *_ = task.metadata["chain"]

    answers = play(chains, task, [f"{e0}?{e0}", f"{e1}?{e1}", f"{e2}!{e2}"])

    assert task.prompt == ({"role": "user", "content": f"{e0} 2"},)
    assert [shown(answer) for answer in answers[:2]] == [f"{e0}>{e1}", f"{e1}>{e2}"]
    assert [answer.reward for answer in answers] == [0, 0, 1]
    assert [answer.done for answer in answers] == [False, False, True]
    assert answers[-1].metrics["correct"] == 1
    assert {name: answers[-1].metrics[name] for name in ("searches", "links", "malformed")} == {
        "searches": 2,
        "links": 2,
        "malformed": 0,
    }
    assert task.demonstration == (f"{e0}?{e0}", f"{e1}?{e1}", f"{e2}!{e2}")


@pytest.mark.parametrize("text", ["", "ab", "ab?c", "ab?cde", "ab cd", "ab?CD", "ab?cd\n", "a1?cd", "ab!", "?cd", None])
def test_a_malformed_turn_is_a_turn_with_none(chains, text):
    task = chain_of(chains, 1)

    first = play(chains, task, [text])[0]

    assert shown(first) == "none"
    assert not first.done
    assert first.metrics["malformed"] == 1
    assert first.metrics["searches"] == 0


def test_what_is_outside_the_chain_or_its_last_has_no_link(chains):
    task = chain_of(chains, 1)
    chain = task.metadata["chain"]
    stranger = next(a + b for a in "abc" for b in "abcde" if a + b not in chain)

    answers = play(chains, task, [f"{stranger}?{stranger}", f"{chain[0]}?{chain[-1]}"])

    assert [shown(answer) for answer in answers] == ["none", "none"]
    assert answers[-1].metrics["searches"] == 2
    assert answers[-1].metrics["links"] == 0


def test_a_thought_moves_nothing(chains):
    task = chain_of(chains, 1)
    e0, e1, *_ = task.metadata["chain"]

    assert shown(play(chains, task, [f"zz?{e0}"])[0]) == f"{e0}>{e1}"


def test_the_fifth_turn_ends_the_game_as_a_loss_that_nothing_follows(chains):
    task = chain_of(chains, 1)
    e0 = task.metadata["chain"][0]

    answers = play(chains, task, [f"{e0}?{e0}"] * 5)

    last = answers[-1]
    assert [answer.done for answer in answers] == [False] * 4 + [True]
    assert (last.observation, last.truncated, last.reward, last.metrics["correct"]) == (None, False, 0, 0)


def test_an_answer_in_the_last_turn_counts_and_a_wrong_one_ends_with_nothing(chains):
    task = chain_of(chains, 1)
    chain = task.metadata["chain"]

    late = play(chains, task, ["none"] * 4 + [f"aa!{chain[1]}"])[-1]
    wrong = play(chains, task, [f"{chain[0]}!{chain[0]}"])[-1]

    assert (late.done, late.reward) == (True, 1)
    assert (wrong.done, wrong.reward, wrong.metrics["correct"]) == (True, 0, 0)
    assert late.metrics["answer_id"] != wrong.metrics["answer_id"]


@pytest.mark.parametrize(("rule", "done"), [("ends", True), ("goes_on", False)])
def test_an_action_cut_by_the_token_limit_is_malformed_or_ends(rule, done):
    world = build("chain_search", cut_action=rule)
    task = chain_of(world, 1)
    episode = world.start(task, seed=0)
    episode.open()

    feedback = episode.step(said(f"aa!{task.metadata['chain'][1]}", Finish.LENGTH))

    assert (feedback.done, feedback.reward, feedback.metrics["malformed"]) == (done, 0, 1)


def test_turns_and_observations_are_short_in_characters(chains):
    for task, answers in demonstrated(chains, 30):
        assert all(len(text) + 1 <= 8 for text in task.demonstration)  # with the end-of-action token
        assert all(len(shown(answer)) <= 5 for answer in answers[:-1])


@pytest.mark.parametrize("error", [0.0, 0.25, 1.0])
def test_experts_err_as_often_as_asked(error):
    def chance(hops, turns=5):
        """Of so many right searches before the last turn is used up, then of a right answer."""
        if turns == 0 or hops == 0:
            return (1 - error) * (turns > 0)
        return (1 - error) * chance(hops - 1, turns - 1) + error * chance(hops, turns - 1)

    expected = sum(chance(hops) for hops in (1, 2, 3)) / 3
    results = demonstrated(build("chain_search", expert_error=error), 1500 if error == 0.25 else 50)
    won = [answers[-1].metrics["correct"] for _, answers in results]

    assert expected == pytest.approx({0.0: 1.0, 0.25: 0.6709, 1.0: 0.0}[error], abs=1e-4)
    assert sum(won) / len(won) == pytest.approx(expected, abs=0.04)


def test_demonstrations_change_with_the_error_and_tasks_do_not():
    calm, wild = build("chain_search", expert_error=0.0), build("chain_search", expert_error=0.9)
    pairs = list(zip(islice(calm.tasks(Split.TRAIN), 20), islice(wild.tasks(Split.TRAIN), 20), strict=True))

    assert all(one.metadata == other.metadata for one, other in pairs)
    assert any(one.demonstration != other.demonstration for one, other in pairs)


def test_all_hops_are_asked_for_equally(chains):
    hops = [task.metadata["hops"] for task in islice(chains.tasks(Split.TRAIN), 900)]

    assert [hops.count(h) for h in (1, 2, 3)] == pytest.approx([300, 300, 300], abs=60)
    assert {task.metadata["level"] for task in islice(chains.tasks(Split.TRAIN), 50)} == {"hops-1", "hops-2", "hops-3"}


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30)
def test_only_one_walk_leads_to_the_answer(seed):
    world = build("chain_search", seed=seed)
    task = next(iter(world.tasks(Split.TRAIN)))
    chain, hops = task.metadata["chain"], task.metadata["hops"]

    assert len(set(chain)) == len(chain)  # so links are unique and never lead back
    known = {chain[0]}
    for number in range(hops):
        episode = world.start(task, seed=0)
        episode.open()
        texts = [shown(episode.step(said(f"{entity}?{entity}"))) for entity in known & {*chain[number : number + 1]}]
        known |= {text.split(">")[1] for text in texts if ">" in text}
    assert known == set(chain[: hops + 1])
    assert task.reference == chain[hops]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hops": [5]}, "needs a chain of 6"),
        ({"hops": [3], "max_turns": 3}, "takes 4 turns"),
        ({"hops": [1, 1]}, "each once"),
        ({"hops": [0]}, "at least 1"),
        ({"letters": 2}, "letters"),
        ({"expert_error": 1.5}, "expert_error"),
    ],
)
def test_impossible_chains_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build("chain_search", **options)


# --- mini world -------------------------------------------------------------------------------------------

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


# --- question answering -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Long Candle!", "long candle"),
        ("  an  Oak\n", "oak"),
        ("goat's milk", "goats milk"),
        ("a-b", "ab"),
        ("Theatre and banana", "theatre and banana"),  # articles are whole words
        ("the", ""),
        ("61 metres.", "61 metres"),
    ],
)
def test_answers_are_normalised(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("answer", "right", "exact", "overlap"),
    [
        ("Pinfold", ["Pinfold"], True, 1.0),
        ("the Marsh Heron", ["heron", "marsh heron"], True, 1.0),
        ("in Pinfold", ["Pinfold"], False, 2 / 3),  # 1 of 2 words right, 1 of 1 found
        ("61 metres high", ["61 metres", "61"], False, 0.8),  # 2 * 2/3 * 1 / (2/3 + 1)
        ("the the cat", ["cat cat"], False, 2 / 3),  # a word counts as often as it is there
        ("Dunmouth", ["Pinfold"], False, 0.0),
        ("", ["Pinfold"], False, 0.0),
        ("the", ["a"], True, 1.0),  # nothing is left of either
        ("a b c d", ["b c x"], False, 2 * 2 / 6),  # "a" is an article: b c d against b c x
    ],
)
def test_answers_are_scored_as_squad_does(answer, right, exact, overlap):
    assert exact_match(answer, right) is exact
    assert f1(answer, right) == pytest.approx(overlap)


@given(st.text(max_size=30), st.text(max_size=30))
def test_f1_is_symmetric_and_one_for_exact_matches(one, other):
    assert f1(one, [other]) == f1(other, [one])
    assert 0 <= f1(one, [other]) <= 1
    assert f1(one, [one]) == 1
    if exact_match(one, [other]):
        assert f1(one, [other]) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>hm</think><search>long candle</search>", Said(Act.SEARCH, "long candle")),
        ("<think></think> <answer> 61 metres\n</answer>\n", Said(Act.ANSWER, "61 metres")),
        ("<think>is <search> a tag?</think><search>x</search>", Said(Act.SEARCH, "x")),
        ("<think>two\nlines</think>\n<answer>y</answer>", Said(Act.ANSWER, "y")),
        ("<search>x</search>", None),
        ("<think>hm</think>", None),
        ("<think>hm</think><search> </search>", None),
        ("<think>hm</think><search></search>", None),
        ("<think>hm</think><search>x</answer>", None),
        ("<think>hm</think><search>x</search><answer>y</answer>", None),
        ("<think>hm</think><search>x</search> and more", None),
        ("hm <think>hm</think><search>x</search>", None),
        ("<think>hm</think><search>x<search>y</search></search>", None),
        ("<think>hm</think><think>hm</think><answer>y</answer>", None),
        ("<search>x", None),
        ("", None),
    ],
)
def test_turns_are_read_strictly(text, expected):
    assert read_turn(text, think=True) == expected


def test_a_thought_may_be_left_out_where_it_is_optional():
    assert read_turn("<answer>y</answer>", think=False) == Said(Act.ANSWER, "y")
    assert read_turn("<think>hm</think><answer>y</answer>", think=False) == Said(Act.ANSWER, "y")
    assert read_turn("hm<answer>y</answer>", think=False) is None


def passage(id_, text, title=""):
    return Passage(id=id_, title=title, text=text)


def test_the_index_finds_what_shares_rare_words_and_nothing_else():
    index = Index([passage("a", "the river runs"), passage("b", "the cat sat by the river"), passage("c", "the dog")])

    assert [found.id for found in index.search("River!", 3)] == ["a", "b"]  # the shorter passage first
    assert [found.id for found in index.search("cat", 3)] == ["b"]
    assert [found.id for found in index.search("the dog", 1)] == ["c"]
    assert index.search("zebra", 3) == []
    assert index.search("...", 3) == []


def test_ties_are_broken_by_the_files_order_and_titles_count():
    index = Index([passage(name, "same words", title=f"T{name}") for name in "abc"])

    assert [found.id for found in index.search("same", 2)] == ["a", "b"]
    assert [found.id for found in index.search("tc", 3)] == ["c"]


def test_passages_are_shown_numbered_and_cut_at_a_word():
    passages = [passage("a", "one two three", "A"), passage("b", "four five", "B")]

    assert write_passages(passages, 100) == "<information>\n[1] A: one two three\n[2] B: four five\n</information>"
    assert write_passages(passages, 17) == "<information>\n[1] A: one two ...\n</information>"
    assert write_passages(passages, 20) == "<information>\n[1] A: one two three ...\n</information>"
    assert write_passages([], 100) == "<information>\nNothing was found.\n</information>"


@pytest.fixture(scope="module")
def qa():
    return build("search_qa")


def task_asking(world, words):
    return next(task for split in Split for task in world.tasks(split) if words in task.metadata["question"])


def test_a_question_of_two_hops_is_searched_and_answered():
    worlds = [
        build("search_qa", train_on=t, evaluate_on=e)
        for t, e in (("training", "test"), ("demonstrations", "validation"))
    ]
    world, task = next(
        (world, task)
        for world in worlds
        for split in Split
        for task in world.tasks(split)
        if "designer of the Long Candle" in task.metadata["question"]
    )
    texts = [
        "<think>who?</think><search>long candle lighthouse</search>",
        "<think>born?</think><search>Ilse Varrow</search>",
        "<think>there</think><answer>in Pinfold.</answer>",
    ]

    answers = play(world, task, texts)

    assert "designed by Ilse Varrow" in shown(answers[0])
    assert "born in Pinfold" in shown(answers[1])
    assert [answer.reward for answer in answers] == [0, 0, 1]
    assert [answer.metrics["found"] for answer in answers] == [0.5, 1, 1]
    assert answers[-1].metrics["correct"] == answers[-1].metrics["f1"] == 1
    assert task.reference == "Pinfold"
    assert task.metadata["level"] == "hops-2"


def test_f1_can_be_the_pay_while_only_a_match_is_correct():
    world = build("search_qa", reward="f1")
    task = next(task for task in world.tasks(Split.TRAIN) if len(task.reference.split()) == 1)

    answer = play(world, task, [f"<think>.</think><answer>perhaps {task.reference}</answer>"])[0]

    assert answer.done
    assert answer.reward == pytest.approx(2 / 3)
    assert answer.metrics["correct"] == 0


def test_a_turn_of_the_wrong_form_is_corrected_and_costs_a_turn(qa):
    task = next(iter(qa.tasks(Split.TRAIN)))

    answers = play(qa, task, ["Pinfold"] * 6)  # four searches, an answer and one more

    assert shown(answers[0]).startswith("That turn had the wrong form. Write <think>your thoughts</think><search>")
    assert [answer.done for answer in answers] == [False] * 5 + [True]
    assert answers[-1].metrics["malformed"] == 6
    assert answers[-1].reward == 0


def test_searches_run_out(qa):
    task = next(iter(qa.tasks(Split.TRAIN)))
    search = "<think>.</think><search>lake</search>"

    answers = play(qa, task, [search] * 5 + [f"<think>.</think><answer>{task.reference}</answer>"])

    assert all(shown(answer).startswith("<information>") for answer in answers[:4])
    assert shown(answers[4]) == "No search is left. Give your answer between <answer> and </answer>."
    assert (answers[-1].reward, answers[-1].metrics["searches"], answers[-1].metrics["malformed"]) == (1, 4, 1)


@pytest.mark.parametrize(("rule", "done"), [("ends", True), ("goes_on", False)])
def test_a_turn_cut_by_the_token_limit_is_of_the_wrong_form(rule, done):
    world = build("search_qa", cut_action=rule)
    task = next(iter(world.tasks(Split.TRAIN)))
    episode = world.start(task, seed=0)
    episode.open()

    feedback = episode.step(said(f"<think>.</think><answer>{task.reference}</answer>", Finish.LENGTH))

    assert (feedback.done, feedback.reward, feedback.metrics["malformed"]) == (done, 0, 1)


def test_every_built_in_question_can_be_answered_from_its_passages():
    corpus = read_corpus(None, None)
    texts = {passage.id: passage.text.lower() for passage in corpus.passages}
    titles = {passage.id: passage.title.lower() for passage in corpus.passages}

    assert (len(corpus.passages), len(corpus.questions)) == (60, 80)
    assert sum(len(question.passages) == 2 for question in corpus.questions) >= 25
    for question in corpus.questions:
        read = " ".join(f"{titles[name]} {texts[name]}" for name in question.passages)
        assert any(answer.lower() in read for answer in question.answers), question
    questions = [
        build("search_qa", train_on=t, evaluate_on=e)
        for t, e in (("training", "test"), ("demonstrations", "validation"))
    ]
    tasks = [(world, task) for world in questions for split in Split for task in world.tasks(split)]
    assert len({task.metadata["question"] for _, task in tasks}) == 80
    for world, task in tasks:
        answers = play(world, task, task.demonstration)
        assert (answers[-1].metrics["correct"], answers[-1].metrics["found"]) == (1, 1), task


def write(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def own(tmp_path):
    """A user's own files."""
    passages = [{"id": f"p{n}", "title": f"Town {n}", "text": f"Town {n} has {n + 100} wells."} for n in range(20)]
    questions = [
        {"question": f"How many wells has Town {n}?", "answers": [str(n + 100)], "passages": [f"p{n}"]}
        for n in range(20)
    ]
    return write(tmp_path / "p.jsonl", passages), write(tmp_path / "q.jsonl", questions)


def test_own_files_with_evaluation_questions_keep_them_apart(own, tmp_path):
    passages, questions = own
    held = [{"question": f"Town {n}'s wells?", "answers": [str(n + 100)]} for n in range(20)]
    held.append({"question": "How many wells has Town 3?", "answers": ["103"]})
    held_out = write(tmp_path / "e.jsonl", held)
    options = {"passages": str(passages), "questions": str(questions), "eval_questions": str(held_out)}

    asked = {}
    for train_on, evaluate_on in (("training", "validation"), ("demonstrations", "test")):
        world = build("search_qa", train_on=train_on, evaluate_on=evaluate_on, **options)
        asked[train_on] = {task.metadata["question"] for task in world.tasks(Split.TRAIN)}
        asked[evaluate_on] = {task.metadata["question"] for task in world.tasks(Split.EVAL)}

    assert len(asked["training"] | asked["demonstrations"]) == 19
    assert asked["validation"] | asked["test"] == {row["question"] for row in held}
    assert not (asked["training"] | asked["demonstrations"]) & (asked["validation"] | asked["test"])
    assert not asked["training"] & asked["demonstrations"]


def test_questions_without_known_passages_have_no_demonstration(tmp_path, own):
    passages, _ = own
    questions = write(tmp_path / "n.jsonl", [{"question": f"Wells of Town {n}?", "answers": ["1"]} for n in range(60)])
    world = build("search_qa", passages=str(passages), questions=str(questions))

    assert {task.demonstration for task in world.tasks(Split.TRAIN)} == {None}
    with pytest.raises(
        ValueError, match=r"train_on: demonstrations: no question of .*n.jsonl is left .*needs `passages`"
    ):
        build("search_qa", passages=str(passages), questions=str(questions), train_on="demonstrations")


def test_a_split_without_a_question_says_what_the_questions_are_for(tmp_path, own):
    passages, _ = own
    few = write(tmp_path / "few.jsonl", [{"question": "How many wells has Town 3?", "answers": ["103"]}])

    with pytest.raises(ValueError, match=r"is left for it. Each .*: (1|0) training, .* test. Give more questions"):
        build("search_qa", passages=str(passages), questions=str(few))


def test_answers_of_which_nothing_is_compared_are_refused(tmp_path, own):
    passages, _ = own
    questions = write(tmp_path / "choice.jsonl", [{"question": "Which?", "answers": ["B", "A"]}])

    with pytest.raises(ValueError, match=r"choice.jsonl:1: answers holds 'A', and articles .*'option A'"):
        read_corpus(passages, questions)


def test_files_may_begin_with_a_byte_order_mark(tmp_path, own):
    passages, questions = own
    passages.write_text(passages.read_text(), encoding="utf-8-sig")

    assert len(read_corpus(passages, questions).passages) == 20


def test_passages_without_a_word_are_refused():
    with pytest.raises(ValueError, match="none of the 1 passages has a word"):
        Index([Passage(id="a", title="", text="...")])
    assert (
        Index([Passage(id="a", title="", text="..."), Passage(id="b", title="", text="x")]).search("x", 3)[0].id == "b"
    )


def test_everything_wrong_with_the_files_is_said_at_once(tmp_path):
    passages = write(
        tmp_path / "p.jsonl",
        [{"id": "a", "text": "x"}, "", "{broken", ["list"], {"id": "b"}, {"id": "a", "text": "y"}, {"text": "z"}],
    )
    questions = write(
        tmp_path / "q.jsonl",
        [
            {"question": "q?", "answers": ["1"], "passages": ["a"]},
            {"question": "q?", "answers": ["1"]},
            {"question": "r?", "answers": []},
            {"question": "s?", "answers": "1"},
            {"question": " ", "answers": ["1"]},
            {"question": "t?", "answers": ["1"], "passages": ["nowhere"]},
        ],
    )

    with pytest.raises(ValueError) as error:
        read_corpus(passages, questions, tmp_path / "missing.jsonl")

    lines = str(error.value).splitlines()
    assert [Path(line.split(": ")[0]).name for line in lines] == [
        *("p.jsonl:3", "p.jsonl:4", "p.jsonl:5", "p.jsonl:6", "p.jsonl:7"),
        *("q.jsonl:2", "q.jsonl:3", "q.jsonl:4", "q.jsonl:5", "q.jsonl:6", "missing.jsonl"),
    ]
    assert "got a list; expected an object such as" in lines[1]
    assert "text is None; expected text" in lines[2]
    assert "id 'a' is taken by line 1" in lines[3]
    assert "the question of line 1 again" in lines[5]
    assert "answers is empty" in lines[6]
    assert "passages 'nowhere': no such id" in lines[9]
    assert "no such file; expected lines such as" in lines[10]


def test_a_line_separator_within_a_text_is_no_end_of_line(tmp_path):
    passages = write(tmp_path / "p.jsonl", ['{"id": "a", "text": "one\u2028two"}'])
    questions = write(tmp_path / "q.jsonl", ['{"question": "q?", "answers": ["1"], "source": "mine"}'])

    assert read_corpus(passages, questions).passages[0].text == "one\u2028two"


def test_without_bm25s_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'rl-orchestrator\[search\]'") as error:
        build("search_qa")

    assert error.value.name == "bm25s"


def test_bad_files_stop_the_environment_from_being_built(tmp_path):
    bad = str(write(tmp_path / "p.jsonl", ["{"]))

    with pytest.raises(ValueError, match=r"p.jsonl:1: Expecting property name.*\n.*q.jsonl: no such file"):
        build("search_qa", passages=bad, questions=str(tmp_path / "q.jsonl"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"passages": "p.jsonl"}, "belong together"),
        ({"eval_questions": "e.jsonl"}, "needs passages and questions"),
        ({"template": "Answer."}, "must hold {question}"),
        ({"max_searches": 4, "max_turns": 4}, "leaves no turn to answer"),
    ],
)
def test_impossible_options_of_question_answering_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build("search_qa", **options)
