"""The world of several turns that answers questions with a search tool."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multi_turn_worlds import build, play, said, shown
from orchestrator_plugins.multi_turn.search_qa.files import Passage, read_corpus
from orchestrator_plugins.multi_turn.search_qa.index import Index
from orchestrator_plugins.multi_turn.search_qa.scoring import exact_match, f1, normalise
from orchestrator_plugins.multi_turn.search_qa.turns import Act, Said, read_turn, write_passages

from orchestrator.api import ConfigError, Finish, Split


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
