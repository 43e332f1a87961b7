"""The GSM8K environment: numbers found and compared, files, splits, episodes."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.gsm8k.problems import BUILT_IN, read

from orchestrator.api import (
    Action,
    ConfigError,
    Finish,
    Speaks,
    Split,
    last_number,
    load_registry,
    marked_number,
    same_number,
    write_number,
)


@pytest.fixture(scope="module")
def registry():
    return load_registry(["gsm8k"])


def play(environment, task, text, finish=Finish.STOP):
    episode = environment.start(task, seed=0)
    assert episode.open() == task.prompt
    feedback = episode.step(Action(tokens=(), logprobs=(), text=text, finish=finish))
    episode.close()
    return feedback


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So it is 18.\n#### 18", 18),
        ("####18", 18),
        ("#### 1,234,567.", 1_234_567),
        ("#### $1,234.50", Fraction("1234.5")),
        ("#### -8 degrees", -8),
        ("#### $-5", -5),
        ("#### -$5", -5),
        ("#### \N{MINUS SIGN}7", -7),
        ("#### 25%", 25),
        ("#### 3/4", Fraction(3, 4)),
        ("#### 2 1/2", Fraction(5, 2)),
        ("#### .5", Fraction(1, 2)),
        ("#### 12\n\nThat is 13 less than 25.", 12),
        ("#### 1\nno, #### 2", 2),
        ("We get $\\boxed{42}$.", 42),
        ("\\boxed{\\$18}", 18),
        ("\\boxed{50\\%}", 50),
        ("\\boxed{\\frac{3}{4}}", Fraction(3, 4)),
        ("\\boxed{\\text{about } 7} of 9", 7),
        ("\\boxed{1} then \\boxed {2}", 2),
        ("The answer is 12 apples.", 12),
        ("Answer: 5", 5),
        ("final answer = $9.50.", Fraction("9.5")),
        ("#### none, so \\boxed{4}", 4),
        ("the answer is 3 #### 4", 4),
    ],
)
def test_marked_numbers_are_found(text, expected):
    assert marked_number(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#### 1e3", 1000),
        ("#### 1.5E-2.", Fraction(15, 1000)),
        (r"#### 1.5 \times 10^{3}", 1500),
        ("#### 2\N{MULTIPLICATION SIGN}10^-1", Fraction(1, 5)),
        ("#### 1e3 litres", 1000),
        ("#### 3 eggs", 3),
        ("#### 7e", 7),
        (r"\boxed{1{,}080}", 1080),
        (r"\boxed{10,\!080}", 10080),
        (r"\boxed{1\,080}", 1080),
        ("#### 1 080", 1080),
        ("#### 1 080 000.5", Fraction("1080000.5")),
        ("#### 1\N{NO-BREAK SPACE}080", 1080),
        ("#### 1\N{NARROW NO-BREAK SPACE}080\N{THIN SPACE}200", 1080200),
        ("#### 2 1/2", Fraction(5, 2)),
        ("#### 10 80", 10),  # no thousands
        ("#### \N{EN DASH}7", -7),
        ("#### $\N{EN DASH}7", -7),
        ("#### 5 + 13 = 18", 18),
        ("#### 5+13 = 9 + 9 = 18 apples", 18),
        (r"\boxed{3 \times (4 + 2) = 18}", 18),
        ("#### $5 - $8 = -$3", -3),
        ("#### 2^10 = 1024", 1024),
        ("The answer is 2 x 9 = 18.", 18),
        ("#### x = 18", 18),
        ("The answer is 18. Check: 9 + 9 = 20", 18),  # what follows the answer is not the answer
    ],
)
def test_numbers_as_people_and_models_write_them(text, expected):
    assert marked_number(text) == expected


@pytest.mark.parametrize("text", ["#### 5 + 13", "#### 5\N{EN DASH}10", "#### 1e99999999", "#### 5 + 13 = ?"])
def test_what_is_no_one_number_is_no_mark(text):
    assert marked_number(text) is None


def test_half_an_answer_is_not_graded_by_its_last_number(registry):
    environment = registry.build("environment", "gsm8k", {})
    task = next(iter(environment.tasks(Split.TRAIN)))

    def graded(text, finish):
        return play(environment, task, text, finish).metrics

    assert graded(f"so far {task.reference}", Finish.STOP)["correct"] == 1.0
    assert graded(f"so far {task.reference}", Finish.LENGTH) == {"correct": 0.0, "format_ok": 0.0}
    assert graded(f"#### {task.reference}", Finish.LENGTH)["correct"] == 1.0


@pytest.mark.parametrize("text", ["", "####", "#### none", "\\boxed{}", "there are 5 of them", "#### 3/0"])
def test_an_answer_without_a_mark_has_no_marked_number(text):
    assert marked_number(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 + 4 = 7 apples.", 7),
        ("10-4", 4),  # a minus after a number subtracts
        ("10 - 4", 4),
        ("it fell to -4.", -4),
        ("x=-3", -3),
        ("12 of 1,500", 1500),
        ("no number", None),
        ("9" * 100_000, None),
        ("7 and then " + "9" * 5000, 7),
    ],
)
def test_the_last_number_is_found(text, expected):
    assert last_number(text) == expected


@given(st.integers(-(10**9), 10**9), st.sampled_from(["#### {}", "\\boxed{{{}}}", "The answer is {}.", "{}"]))
def test_whole_numbers_survive_every_way_of_writing_them(number, shape):
    for text in (str(number), f"{number:,}"):
        written = shape.format(text)
        found = last_number(written) if shape == "{}" else marked_number(written)
        assert found == number


@given(st.fractions(-1000, 1000, max_denominator=1000))
def test_written_numbers_agree_with_what_they_were(number):
    again = Fraction(write_number(number))

    assert same_number(again, number)
    assert write_number(again) == write_number(number)


def test_numbers_agree_within_a_millionth():
    assert same_number(Fraction("0.333333"), Fraction(1, 3))
    assert not same_number(Fraction("0.33"), Fraction(1, 3))
    assert same_number(Fraction("18.00"), Fraction(18))
    assert not same_number(Fraction(18), Fraction(19))
    assert [write_number(Fraction(n)) for n in ("18", "-0.5", "9.50", "-1/3")] == ["18", "-0.5", "9.5", "-0.333333"]


def test_every_built_in_problem_verifies_against_itself(registry):
    environment = registry.build("environment", "gsm8k", {})
    tasks = [*environment.tasks(Split.TRAIN), *environment.tasks(Split.EVAL)]

    assert environment.speaks is Speaks.MESSAGES
    assert len(tasks) == len(read(BUILT_IN)) >= 20
    assert len({task.prompt[0]["content"] for task in tasks}) == len(tasks)
    for task in tasks:
        assert "<<" not in task.demonstration[0]
        feedback = play(environment, task, task.demonstration[0])
        assert (feedback.reward, feedback.done) == (1.0, True)
        assert feedback.metrics["correct"] == feedback.metrics["format_ok"] == 1.0
        assert play(environment, task, f"#### {Fraction(task.reference) + 1}").reward == 0.0


def test_answers_that_agree_share_an_id(registry):
    environment = registry.build("environment", "gsm8k", {})
    task = next(iter(environment.tasks(Split.TRAIN)))

    one, other = play(environment, task, "#### 1,200"), play(environment, task, "\\boxed{1200.0}")

    assert one.metrics["answer_id"] == other.metrics["answer_id"]
    assert one.metrics["answer_id"] != play(environment, task, "#### 1201").metrics["answer_id"]
    assert play(environment, task, "I do not know").metrics == {"correct": 0.0, "format_ok": 0.0}


def test_the_last_number_counts_only_where_the_option_says_so(registry):
    for last, expected in ((True, 1.0), (False, 0.0)):
        environment = registry.build("environment", "gsm8k", {"last_number": last})
        task = next(iter(environment.tasks(Split.TRAIN)))
        feedback = play(environment, task, f"it must be {task.reference}")
        assert (feedback.metrics["correct"], feedback.metrics["format_ok"]) == (expected, 0.0)


def test_the_prompt_follows_template_and_system(registry):
    options = {"template": "Q: {question} {braces}", "system": "Be brief."}
    task = next(iter(registry.build("environment", "gsm8k", options).tasks(Split.EVAL)))

    assert task.prompt[0] == {"role": "system", "content": "Be brief."}
    assert task.prompt[1]["content"].startswith("Q: ")
    assert task.prompt[1]["content"].endswith(" {braces}")


def test_the_shuffle_follows_the_seed_and_limits_cut(registry):
    def questions(**options):
        return [t.prompt[0]["content"] for t in registry.build("environment", "gsm8k", options).tasks(Split.TRAIN)]

    assert questions(seed=1) == questions(seed=1) != questions(seed=2)
    assert sorted(questions(seed=1)) == sorted(questions(shuffle=False))
    assert questions(seed=1, train_tasks=3) == questions(seed=1)[:3]


def problem_file(path, count):
    rows = [{"question": f"What is {i} + 1?", "answer": f"<<{i}+1={i + 1}>>\n#### {i + 1}"} for i in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


def test_one_file_is_split_by_question(registry, tmp_path):
    problem_file(tmp_path / "all.jsonl", 200)
    environment = registry.build("environment", "gsm8k", {"path": str(tmp_path / "all.jsonl"), "eval_share": 0.2})

    train, held = ({t.prompt[0]["content"] for t in environment.tasks(split)} for split in Split)

    assert len(train) + len(held) == 200
    assert not train & held
    assert 20 <= len(held) <= 60


def test_an_evaluation_file_takes_its_problems_out_of_training(registry, tmp_path):
    problem_file(tmp_path / "train.jsonl", 30)
    problem_file(tmp_path / "eval.jsonl", 10)
    options = {"path": str(tmp_path / "train.jsonl"), "eval_path": str(tmp_path / "eval.jsonl")}
    environment = registry.build("environment", "gsm8k", options)

    assert (len(list(environment.tasks(Split.TRAIN))), len(list(environment.tasks(Split.EVAL)))) == (20, 10)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "Expecting property name"),
        ("3", "got a int"),
        ('{"question": "?"}', "answer is None; expected text"),
        ('{"question": " ", "answer": "#### 3"}', "question is ' '; expected text"),
        ('{"question": "?", "answer": "3"}', "no '#### n'"),
        ('{"question": "?", "answer": "#### many"}', "no number after ####: 'many'"),
    ],
)
def test_a_malformed_line_is_named(registry, tmp_path, line, complaint):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"question": "?", "answer": "#### 3"}\n\n' + line + "\n", encoding="utf-8")

    with pytest.raises(ValueError, match=rf"bad\.jsonl:3: .*{complaint}"):
        registry.build("environment", "gsm8k", {"path": str(path)})


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"template": "hello"}, r"must hold \{question\}"),
        ({"eval_path": "x.jsonl"}, "eval_path needs path"),
        ({"eval_share": 1}, "less than 1"),
    ],
)
def test_bad_options_are_refused(registry, options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        registry.build("environment", "gsm8k", options)
