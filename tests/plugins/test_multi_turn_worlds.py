"""The worlds of several turns: their ranges, and chain search."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multi_turn_worlds import REGISTRY, build, demonstrated, play, said, shown
from orchestrator_plugins.multi_turn.ranges import Range, Remembered, range_of

from orchestrator.api import ConfigError, Finish, Split
from orchestrator.testing import check_component

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
