"""The countdown environment: puzzles, splits, the strict verifier, canonical forms, files."""

import json
from collections import Counter
from fractions import Fraction
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.countdown.expressions import (
    ExpressionError,
    Operation,
    canonical,
    numbers_of,
    parse,
    value,
    write,
)
from orchestrator_plugins.countdown.puzzles import Puzzle, judge

from orchestrator.api import Action, ConfigError, Speaks, Split, load_registry


@pytest.fixture(scope="module")
def registry():
    return load_registry(["countdown"])


def play(environment, task, text):
    episode = environment.start(task, seed=0)
    assert episode.open() == task.prompt
    feedback = episode.step(Action(tokens=(), logprobs=(), text=text))
    episode.close()
    return feedback


def expressions(most=5):
    """Random trees over + - * / with numbers 1..20."""
    return st.recursive(
        st.integers(1, 20),
        lambda inner: st.builds(Operation, st.sampled_from("+-*/"), inner, inner),
        max_leaves=most,
    )


# --- expressions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("8-3-2", 3),
        ("8-(3-2)", 7),
        ("24/4/2", 3),
        ("24/(4/2)", 12),
        ("8/3*3", 8),
        ("1/3+1/6", Fraction(1, 2)),
        (" ( 3 + 5 )\t* 7\n", 56),
        ("((((2))))", 2),
    ],
)
def test_expressions_are_computed_exactly(text, expected):
    assert value(parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1+",
        "+1",
        "-1",
        "1++2",
        "1 2",
        "(1+2",
        "1+2)",
        "()",
        "1+2=3",
        "1+2 done",
        "2**3",
        "2//3",
        "1.5",
        "1e3",
        "0x10",
        "1_000",
        "007",
        "²",
        "1\u00d72",
        "__import__('os')",
        "1,2",
        "1;2",
        "9" * 10,
        "1+" * 60 + "1",
        "(" * 60 + "1" + ")" * 60,
        "(" * 100_000,
    ],
)
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ExpressionError):
        parse(text)


def test_a_refusal_says_what_stood_where():
    with pytest.raises(ExpressionError, match=r"expected a number or '\(' at 3, found '\*'"):
        parse("1+*2")
    with pytest.raises(ExpressionError, match=r"division by zero in 1/\(2-2\)"):
        value(parse("1/(2-2)"))


@given(expressions())
def test_writing_and_parsing_keep_the_tree_and_its_meaning(expression):
    for blank in ("", " "):
        again = parse(write(expression, blank))
        assert write(again, blank) == write(expression, blank)
        assert canonical(again) == canonical(expression)
        assert numbers_of(again) == numbers_of(expression)
        try:
            expected = value(expression)
        except ExpressionError:
            continue
        assert value(again) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(3+5)*7", "7*(5+3)"),
        ("1+2+3", "3+(2+1)"),
        ("9-(5-2)", "9+2-5"),
        ("8/(4/2)", "8*2/4"),
        ("2*(3+4)/5", "(4+3)/5*2"),
    ],
)
def test_order_and_brackets_alone_do_not_make_another_answer(one, other):
    assert canonical(parse(one)) == canonical(parse(other))


@pytest.mark.parametrize(
    ("one", "other"), [("6*1", "6/1"), ("3+4", "3*4"), ("8-2", "2-8"), ("2+3*4", "(2+3)*4"), ("4/2", "2/4")]
)
def test_other_operations_make_another_answer(one, other):
    assert canonical(parse(one)) != canonical(parse(other))


@given(expressions(), st.randoms())
def test_swapping_operands_of_sums_and_products_keeps_the_canonical_form(expression, random):
    def shuffled(node):
        if isinstance(node, int):
            return node
        left, right = shuffled(node.left), shuffled(node.right)
        if node.operator in "+*" and random.random() < 0.5:
            left, right = right, left
        return Operation(node.operator, left, right)

    assert canonical(shuffled(expression)) == canonical(expression)


@given(expressions(most=4), expressions(most=4))
def test_equal_canonical_forms_have_equal_numbers_and_values(one, other):
    if canonical(one) == canonical(other):
        assert Counter(numbers_of(one)) == Counter(numbers_of(other))
        assert value(one) == value(other)


# --- the verifier -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "correct", "reason"),
    [
        ("(3+5)*7", True, ""),
        ("7*(5+3)", True, ""),
        ("3*5+7", False, "is 22, not 56"),
        ("8*7", False, "uses other numbers than 3, 5, 7, each once"),
        ("3+5+7+41", False, "uses other numbers than 3, 5, 7, each once"),
        ("(3+5)*7+3-3", False, "uses other numbers than 3, 5, 7, each once"),
        ("35+7", False, "uses other numbers than 3, 5, 7, each once"),
        ("(3+5)*7 = 56", False, "expected an operator or the end at 9, found '='"),
        ("3/(5-7)", False, "uses /"),
    ],
)
def test_the_verifier_is_strict(text, correct, reason):
    verdict = judge(text, Puzzle(numbers=(3, 5, 7), target=56), "+-*")

    assert (verdict.correct, verdict.reason) == (correct, reason)


def test_a_number_given_twice_must_be_used_twice():
    assert judge("3*3+2", Puzzle(numbers=(2, 3, 3), target=11), "+*").correct
    assert not judge("3*3+2", Puzzle(numbers=(2, 2, 3), target=11), "+*").correct


def test_fractions_on_the_way_are_fine():
    assert judge("8/(3-8/3)", Puzzle(numbers=(3, 3, 8, 8), target=24), "+-*/").correct


# --- the environment --------------------------------------------------------------------------------------


def test_tasks_are_reproducible_and_every_demonstration_is_right(registry):
    options = {"numbers": [2, 6], "max_number": 12, "seed": 3}
    environment = registry.build("environment", "countdown", options)

    tasks = list(islice(environment.tasks(Split.TRAIN), 300))

    assert environment.speaks is Speaks.MESSAGES
    assert tasks == list(islice(registry.build("environment", "countdown", options).tasks(Split.TRAIN), 300))
    assert tasks != list(islice(registry.build("environment", "countdown", options | {"seed": 4}).tasks("train"), 300))
    assert {len(task.metadata["numbers"]) for task in tasks} == {2, 3, 4, 5, 6}
    assert len({task.id for task in tasks}) == 300
    for task in tasks:
        assert 1 <= task.metadata["target"] <= 99
        feedback = play(environment, task, task.demonstration[0])
        assert (feedback.reward, feedback.done, feedback.metrics["correct"]) == (1.0, True, 1.0)


def test_an_expert_who_errs_shows_wrong_expressions_of_the_right_numbers(registry):
    options = {"numbers": [3, 3], "operations": ["+", "-", "*"]}
    right, half, wrong = (
        registry.build("environment", "countdown", options | {"wrong_demonstrations": share}) for share in (0, 0.5, 1)
    )

    def played(environment):
        shown = list(islice(environment.tasks(Split.TRAIN), 400))
        return shown, [play(environment, task, task.demonstration[0]) for task in shown]

    (tasks, correct), (mixed, some), (_, none) = played(right), played(half), played(wrong)
    assert sum(feedback.reward for feedback in correct) == 400
    assert sum(feedback.reward for feedback in none) == 0
    assert 160 < sum(feedback.reward for feedback in some) < 240
    assert all(feedback.metrics["format_ok"] for feedback in some + none)
    assert all(Counter(numbers_of(parse(task.demonstration[0]))) == Counter(task.metadata["numbers"]) for task in mixed)
    assert [task.prompt for task in mixed] == [task.prompt for task in tasks]
    assert mixed == list(islice(half.tasks(Split.TRAIN), 400))


def test_where_nothing_is_wrong_the_expert_is_right(registry):
    options = {"numbers": [2, 2], "max_number": 1, "operations": ["*"], "eval_share": 0.5, "wrong_demonstrations": 1}
    environment = registry.build("environment", "countdown", options)

    task = next(next(environment.tasks(split)) for split in Split if _has_tasks(environment, split))

    assert play(environment, task, task.demonstration[0]).reward == 1.0


def _has_tasks(environment, split):
    try:
        next(environment.tasks(split))
    except ValueError:  # the only puzzle, 1 1 = 1, is on the other side
        return False
    return True


def test_splits_share_no_puzzle_whatever_the_seed(registry):
    keys = {}
    for seed in (0, 1):
        environment = registry.build("environment", "countdown", {"seed": seed})
        keys["train", seed] = {t.metadata["key"] for t in islice(environment.tasks(Split.TRAIN), 2000)}
        keys["eval", seed] = {t.metadata["key"] for t in islice(environment.tasks(Split.EVAL), 150)}

    for train_seed in (0, 1):
        for eval_seed in (0, 1):
            assert not keys["train", train_seed] & keys["eval", eval_seed]
    assert len(keys["eval", 0]) == 150  # evaluation puzzles are distinct


def test_sizes_bound_the_splits(registry):
    environment = registry.build("environment", "countdown", {"train_tasks": 40, "eval_tasks": 20})

    train, held = list(environment.tasks(Split.TRAIN)), list(environment.tasks(Split.EVAL))

    assert len({task.metadata["key"] for task in train}) == len(train) == 40
    assert len(held) == 20


def test_few_puzzles_end_the_split_early(registry):
    options = {"numbers": [2, 2], "max_number": 4, "operations": ["+"], "eval_share": 0.5}
    environment = registry.build("environment", "countdown", options)

    keys = [task.metadata["key"] for task in environment.tasks(Split.EVAL)]

    assert 1 <= len(set(keys)) == len(keys) <= 10  # ten pairs of 1..4


def test_impossible_options_say_which_to_widen(registry):
    environment = registry.build("environment", "countdown", {"target": [5000, 6000]})

    with pytest.raises(ValueError, match=r"gave no target in 5000\.\.6000; widen environment\.target"):
        next(iter(environment.tasks(Split.TRAIN)))


def test_the_plain_recipe_is_short_enough_for_a_character_model(registry):
    environment = registry.build("environment", "countdown", {"operations": ["+", "-", "*"]})

    tasks = list(islice(environment.tasks(Split.TRAIN), 500))

    assert max(len(task.prompt[0]["content"]) for task in tasks) <= 18
    assert max(len(task.demonstration[0]) for task in tasks) <= 24
    first = tasks[0]
    numbers = " ".join(map(str, sorted(first.metadata["numbers"])))
    assert first.prompt == ({"role": "user", "content": f"{numbers} = {first.metadata['target']}\n"},)


def test_metrics_name_the_answer_up_to_order(registry):
    environment = registry.build("environment", "countdown", {"format_reward": 0.1})
    task = next(iter(environment.tasks(Split.TRAIN)))
    tree = parse(task.demonstration[0])

    right = play(environment, task, task.demonstration[0])
    wrong, junk = play(environment, task, "1+1"), play(environment, task, "hello")

    assert right.metrics["answer_id"] == play(environment, task, f" ({write(tree, ' ')}) ").metrics["answer_id"]
    assert right.metrics["answer_id"] != wrong.metrics["answer_id"]
    assert (right.reward, wrong.reward, junk.reward) == (1.0, 0.1, 0.0)
    assert wrong.metrics | {"answer_id": 0} == {"correct": 0.0, "format_ok": 1.0, "answer_id": 0}
    assert junk.metrics == {"correct": 0.0, "format_ok": 0.0}


def test_the_instruct_prompt_judges_the_last_marked_answer(registry):
    options = {"prompt": "instruct", "expression_style": "spaced", "numbers": [4, 4]}
    environment = registry.build("environment", "countdown", options)
    task = next(iter(environment.tasks(Split.TRAIN)))
    solution = task.demonstration[0]

    assert str(task.metadata["target"]) in task.prompt[0]["content"]
    assert " " in solution.removeprefix("<answer>")
    assert play(environment, task, f"Let me see. <answer>1+1</answer> no:\n{solution} done").reward == 1.0
    assert play(environment, task, f"{solution} <answer>1+1</answer>").reward == 0.0
    assert play(environment, task, solution.removeprefix("<answer>").removesuffix("</answer>")).reward == 0.0


def test_a_template_replaces_the_instruction(registry):
    options = {"prompt": "instruct", "template": "{target} aus {numbers}!"}
    task = next(iter(registry.build("environment", "countdown", options).tasks(Split.TRAIN)))

    numbers = ", ".join(map(str, task.metadata["numbers"]))
    assert task.prompt[0]["content"] == f"{task.metadata['target']} aus {numbers}!"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"numbers": [1, 3]}, "2 <= fewest <= most <= 6"),
        ({"numbers": [4, 3]}, "2 <= fewest <= most <= 6"),
        ({"numbers": [3, 7]}, "2 <= fewest <= most <= 6"),
        ({"target": [9, 1]}, "lowest <= highest"),
        ({"operations": []}, "at least 1 item"),
        ({"operations": ["+", "+"]}, "each operation once"),
        ({"operations": ["%"]}, "Input should be"),
        ({"eval_path": "x.jsonl"}, "eval_path needs path"),
        ({"template": "{numbers} {target}"}, "template needs prompt: instruct"),
        ({"prompt": "instruct", "template": "{nums}"}, "known fields are"),
        ({"prompt": "instruct", "template": "hello"}, "must mention"),
        ({"numbrs": [3, 3]}, "did you mean 'numbers'"),
    ],
)
def test_bad_options_are_refused(registry, options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        registry.build("environment", "countdown", options)


# --- files ------------------------------------------------------------------------------------------------


def puzzle_file(path, count=60):
    random = Random(0)
    rows = []
    while len(rows) < count:
        a, b, c = (random.randint(1, 30) for _ in range(3))
        rows.append({"nums": [a, b, c], "target": a * b + c, "solution": f"{a}*{b}+{c}", "source": "test"})
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    return rows


def test_puzzles_of_a_file_are_split_and_keep_their_order(registry, tmp_path):
    rows = puzzle_file(tmp_path / "puzzles.jsonl")
    options = {"path": str(tmp_path / "puzzles.jsonl"), "eval_share": 0.3}
    environment = registry.build("environment", "countdown", options)

    train, held = list(environment.tasks(Split.TRAIN)), list(environment.tasks(Split.EVAL))

    assert len(train) + len(held) == len(rows)
    assert {t.metadata["key"] for t in train}.isdisjoint(t.metadata["key"] for t in held)
    expected = [row["nums"] for row in rows if row["nums"] in [t.metadata["numbers"] for t in train]]
    assert [task.metadata["numbers"] for task in train] == expected
    assert all(play(environment, t, t.demonstration[0]).reward == 1.0 for t in train + held)


def test_an_evaluation_file_takes_its_puzzles_out_of_training(registry, tmp_path):
    puzzle_file(tmp_path / "train.jsonl", 10)
    rows = puzzle_file(tmp_path / "eval.jsonl", 4)
    options = {"path": str(tmp_path / "train.jsonl"), "eval_path": str(tmp_path / "eval.jsonl")}
    environment = registry.build("environment", "countdown", options)

    assert [t.metadata["numbers"] for t in environment.tasks(Split.EVAL)] == [row["nums"] for row in rows]
    assert len(list(environment.tasks(Split.TRAIN))) == 6


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "Expecting property name"),
        ("[3, 5]", "got a list; expected an object"),
        ('{"numbers": [3], "target": 3}', r"numbers is \[3\]"),
        ('{"numbers": [3, "5"], "target": 3}', r"numbers is \[3, '5'\]"),
        ('{"numbers": [3, 5], "target": 1.5}', "target is 1.5"),
        ('{"numbers": [3, 5], "target": 8, "solution": "3*5"}', r"solution '3\*5' is 15, not 8"),
    ],
)
def test_a_malformed_line_is_named(registry, tmp_path, line, complaint):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"numbers": [3, 5], "target": 8}\n' + line + "\n", encoding="utf-8")

    with pytest.raises(ValueError, match=rf"bad\.jsonl:2: .*{complaint}"):
        registry.build("environment", "countdown", {"path": str(path)})


def test_a_file_without_puzzles_for_a_split_is_refused(registry, tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"one\.jsonl: no puzzle"):
        registry.build("environment", "countdown", {"path": str(path)})

    path.write_text('{"numbers": [3, 5], "target": 8}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"no (training|evaluation) puzzle is left of 1"):
        registry.build("environment", "countdown", {"path": str(path)})
