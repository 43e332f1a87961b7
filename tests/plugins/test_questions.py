"""Questions of one's own: files read, rows judged, splits kept apart, answers matched."""

import csv
import json
import logging

import pytest

from orchestrator.api import Action, ConfigError, Finish, Split, load_registry
from orchestrator.testing import check_component

ROWS = [{"prompt": f"How much is {n} + 1?", "answer": str(n + 1), "level": n % 3} for n in range(20)]


@pytest.fixture(scope="module")
def registry():
    return load_registry(["questions"])


@pytest.fixture
def made(registry, tmp_path):
    """Build the environment over rows written as JSONL, or over a file given as ``path``."""

    def make(rows=None, **options):
        if rows is not None:
            options["path"] = str(write_jsonl(tmp_path / "rows.jsonl", rows))
        return registry.build("environment", "questions", options)

    return make


def write_jsonl(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def said(environment, text, task=None, finish=Finish.STOP):
    task = task or next(iter(environment.tasks(Split.TRAIN)))
    episode = environment.start(task, seed=0)
    assert episode.open() == task.prompt
    return episode.step(Action(tokens=(), logprobs=(), text=text, finish=finish))


def problems(make, *arguments, **options):
    with pytest.raises(ConfigError) as caught:
        make(*arguments, **options)
    return [(problem.path, problem.message) for problem in caught.value.problems]


def tasks(environment, split=Split.TRAIN):
    return list(environment.tasks(split))


def test_the_environment_keeps_its_contract(made):
    check_component(made(ROWS, demonstration="answer"))


def test_a_row_becomes_a_task_with_its_other_columns(made):
    [task] = [task for split in Split for task in made(ROWS, system="Be brief.", template="Q: {prompt}").tasks(split) if task.id.endswith("-5")]  # fmt: skip

    assert task.prompt == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q: How much is 4 + 1?"},
    )
    assert (task.reference, task.demonstration, task.metadata) == ("5", None, {"answer": "5", "level": 1})


def test_only_the_named_columns_reach_rewards(made):
    rows = [row | {"note": "n"} for row in ROWS]

    assert set(tasks(made(rows, metadata=["note"]))[0].metadata) == {"note", "answer"}


def test_a_conversation_is_taken_as_it_is(made):
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    rows = [{"prompt": [*talk, {"role": "user", "content": f"{n}?"}], "answer": "a"} for n in range(3)]

    task = tasks(made(rows, template="{prompt} Answer!", shuffle=False))[0]

    assert task.prompt[:2] == tuple(talk)
    assert task.prompt[2]["content"] in ("0? Answer!", "1? Answer!")


def test_csv_parquet_and_dataset_give_what_jsonl_gives(made, tmp_path):
    pyarrow, datasets = pytest.importorskip("pyarrow"), pytest.importorskip("datasets")
    from pyarrow import parquet

    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "answer", "level"])
        writer.writeheader()
        writer.writerows(ROWS)
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    wanted = [(task.prompt, task.reference) for task in tasks(made(ROWS))]

    for name in ("rows.csv", "rows.parquet", "saved"):
        found = tasks(made(path=str(tmp_path / name)))
        assert [(task.prompt, task.reference) for task in found] == wanted, name
        assert found[0].metadata["level"] in (["0", "1", "2"] if name == "rows.csv" else [0, 1, 2])


def test_a_datasets_splits_are_named(made, tmp_path):
    datasets = pytest.importorskip("datasets")
    parts = {"train": datasets.Dataset.from_list(ROWS[:6]), "dev": datasets.Dataset.from_list(ROWS[4:8])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")

    world = made(path=str(tmp_path / "saved"), split={"eval": "dev"})

    assert (len(tasks(world)), len(tasks(world, Split.EVAL))) == (4, 4)  # two of the six are held out
    [(where, message)] = problems(made, path=str(tmp_path / "saved"), split={"eval": "test"})
    assert where == "environment.path"
    assert "no split 'test'; it has: train, dev" in message


def test_what_is_held_out_depends_on_the_seed_alone(made):
    first, again, other = (made(ROWS, eval_share=0.25, seed=seed) for seed in (1, 1, 2))
    held = [{task.id for task in tasks(world, Split.EVAL)} for world in (first, again, other)]

    assert len(held[0]) == 5
    assert held[0] == held[1] != held[2]
    assert [task.id for task in tasks(first)] == [task.id for task in tasks(again)]
    prompts = [{task.prompt[0]["content"] for task in tasks(first, split)} for split in Split]
    assert not prompts[0] & prompts[1]
    assert len(prompts[0] | prompts[1]) == 20
    backwards = made(ROWS[::-1], eval_share=0.25, seed=1)
    assert {task.prompt[0]["content"] for task in tasks(backwards, Split.EVAL)} == prompts[
        list(Split).index(Split.EVAL)
    ]


def test_a_column_splits_and_other_rows_are_left_out(made):
    rows = [row | {"part": ["train", "test", "draft"][n % 3]} for n, row in enumerate(ROWS)]

    world = made(rows, split={"column": "part"})

    assert (len(tasks(world)), len(tasks(world, Split.EVAL))) == (7, 7)


def test_questions_held_out_are_not_trained_on_and_it_is_said(made, tmp_path, caplog):
    held = write_jsonl(tmp_path / "held.jsonl", ROWS[:2])

    with caplog.at_level(logging.WARNING):
        world = made(ROWS, eval_path=str(held))

    assert (len(tasks(world)), len(tasks(world, Split.EVAL))) == (18, 2)
    assert "2 training questions are held out too" in caplog.text
    assert f"{tmp_path}/rows.jsonl:1 is {held}:1" in caplog.text


def test_repeated_questions_count_once_and_it_is_said(made, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        world = made([*ROWS, ROWS[3], ROWS[4]])

    assert sum(len(tasks(world, split)) for split in Split) == 20
    assert f"2 rows ask again what an earlier row asks, and count once: {tmp_path}/rows.jsonl:21 is" in caplog.text


def test_a_question_with_two_answers_is_refused(made, tmp_path):
    assert problems(made, [*ROWS, ROWS[3] | {"answer": "9"}]) == [
        (
            "environment.answer",
            f"{tmp_path}/rows.jsonl:21: asks what {tmp_path}/rows.jsonl:4 asks, with another answer; where both are "
            "right, give a list of answers",
        )
    ]


def test_every_bad_row_is_told_with_its_line(made, tmp_path):
    file = f"{tmp_path}/rows.jsonl"
    rows = [ROWS[0], "{broken", "", '["list"]', {"prompt": "", "answer": "1"}, {"prompt": "q", "answer": None}, {"promt": "q", "answer": "1"}]  # fmt: skip

    found = dict(problems(made, rows, match="number"))

    assert len(found) == 3  # environment.path, prompt, answer; later ones of a path overwrite in this dict
    texts = [message for _, message in problems(made, rows, match="number")]
    assert [text.partition(": ")[0] for text in texts] == [f"{file}:{line}" for line in (2, 4, 5, 6, 7)]
    assert "is no JSON" in texts[0]
    assert "holds a list" in texts[1]
    assert "prompt is empty" in texts[2]
    assert "None is no answer" in texts[3]
    assert "no column 'prompt'; did you mean 'promt'? Columns: promt, answer" in texts[4]


def test_of_many_bad_rows_ten_are_told_and_all_are_counted(made):
    found = problems(made, [*ROWS, *({"prompt": f"p{n}", "answer": "none"} for n in range(25))], match="number")

    assert len(found) == 11
    assert found[-1][1] == "... and 15 more; 25 in all"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "prompt,answer\nq,1\nq2\n", "a.csv:3: has 1 cells, and the header 2"),
        ("a.csv", "prompt,answer,answer\nq,1,2\n", "a.csv:1: the columns answer stand there twice"),
        ("a.csv", 'prompt,answer\nq,1\n"q2"x,1\n', "a.csv:3: is no CSV"),
        ("a.csv", 'question,answer\n"two\nlines",1\n', "a.csv:2: no column 'prompt'; did you mean"),
        ("a.csv", 'prompt,answer\n"two\nlines",1\nq,\n', "a.csv:4: answer: the answer is empty"),
        ("a.jsonl", '{"prompt": "q", "answer": NaN}\n', "a.jsonl:1: is no JSON: NaN is not a number of JSON"),
        ("a.jsonl", "", "a.jsonl: nothing in it"),
        ("a.txt", "q\n", "a file of kind .txt; expected one of .jsonl, .ndjson, .csv, .tsv, .parquet"),
        ("a.parquet", "no", "is no readable Parquet"),
        ("a.jsonl", b"\xff\xfe".decode("latin1"), "expected text in UTF-8"),
    ],
)
def test_files_that_cannot_be_read_say_where_and_why(made, tmp_path, name, text, says):
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(text.encode("latin1"))

    assert says.split("; did")[0] in problems(made, path=str(tmp_path / name))[0][1]


def test_a_missing_file_says_where_paths_begin(made, tmp_path):
    [(where, message)] = problems(made, path=str(tmp_path / "none.jsonl"))

    assert where == "environment.path"
    assert "no such file; a path begins where the command runs" in message


@pytest.mark.parametrize(
    ("match", "right", "answer", "correct"),
    [
        ("exact", "Paris", "  Paris \n", 1),
        ("exact", "Paris", "paris", 0),
        ("exact", ["Paris", "Paname"], "Paname", 1),
        ("exact", 5, "5", 1),
        ("number", "12", "So 3 + 9 = 12. The answer is 12.", 1),
        ("number", "#### 1,080", "1080.0", 1),
        ("number", 0.5, "1/2", 1),
        ("number", "12", "12 or 13", 0),
        ("regex", r"\b(cat|dog)s?\b", "two dogs", 1),
        ("regex", r"^\d+$", "12a", 0),
        ("choice", "B", "The answer is (B).", 1),
        ("choice", "B", "b", 1),
        ("choice", "B", "B) because", 1),
        ("choice", "A", "A dog", 0),
        ("choice", "B", "A) no\nB) yes", 0),
        ("choice", "B", "\\boxed{B}", 1),
    ],
)
def test_answers_are_matched(made, match, right, answer, correct):
    world = made([{"prompt": f"{n}?", "answer": right} for n in range(2)], match=match)

    assert said(world, answer).metrics["correct"] == correct
    assert said(world, answer).reward == correct


def test_choices_are_lettered_and_may_be_named_by_their_texts(made):
    rows = [{"q": f"{n}?", "options": ["a dog", "a cat", "2"], "key": 1} for n in range(2)]
    world = made(rows, prompt="q", answer="key", match="choice", choices="options")
    [task] = tasks(world)

    assert task.prompt[0]["content"].endswith("?\nA) a dog\nB) a cat\nC) 2")
    assert task.reference == "B"
    assert [said(world, text).reward for text in ("B", "It is a cat.", "a dog or a cat", "C")] == [1, 1, 0, 0]


def test_choices_may_have_columns_of_their_own(made):
    rows = [{"prompt": f"{n}?", "x": "yes", "y": "no", "answer": "no"} for n in range(2)]

    assert tasks(made(rows, match="choice", choices=["x", "y"]))[0].reference == "B"


def test_what_is_extracted_is_the_answer(made):
    world = made([{"prompt": f"{n}?", "answer": "x"} for n in range(2)], extract="<a>(.*?)</a>")

    assert said(world, "<a>y</a> no: <a>x</a>").metrics["correct"] == 1
    assert said(world, "x").metrics == {"correct": 0.0, "format_ok": 0.0}


def test_half_an_answer_is_none(made):
    world = made([{"prompt": f"{n}?", "answer": "12"} for n in range(2)], match="number")

    assert said(world, "3 and 12", finish=Finish.LENGTH).metrics == {"correct": 0.0, "format_ok": 0.0}
    assert said(world, "3 and 12").metrics["correct"] == 1


def test_without_a_right_answer_nothing_is_called_right(made):
    world = made([{"prompt": f"{n}?"} for n in range(2)], answer=None)

    assert said(world, "x").metrics == {}
    assert tasks(world)[0].reference is None


def test_a_demonstration_that_would_earn_nothing_is_refused(made):
    rows = [{"prompt": f"{n}?", "answer": "5", "good": "It is 5." if n else "It is 6."} for n in range(3)]

    [(where, message)] = problems(made, rows, match="number", demonstration="good")

    assert where == "environment.demonstration"
    assert "rows.jsonl:1: good has the answer '6' by match: number, and right is '5'" in message
    assert len(tasks(made(rows, match="number", demonstration="good", check_demonstrations=False))) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"template": "no question"}, "must contain {prompt}"),
        ({"template": "{prompt} {a!r}"}, "is no field"),
        ({"split": "test"}, "write {column: COLUMN, train: train, eval: test}"),
        ({"split": {"train": "a", "eval": "a"}}, "train and eval are both 'a'"),
        ({"split": {"column": "x"}, "eval_path": "y.jsonl"}, "give one"),
        ({"choices": "x"}, "choices are for match: choice"),
        ({"match": "number", "answer": None}, "answer is null; name its column"),
        ({"extract": "("}, "is no regular expression"),
        ({"prompt": [1]}, "valid string"),
    ],
)
def test_options_that_do_not_fit_are_refused(made, options, says):
    found = problems(made, ROWS, **options)

    assert any(says in message for _, message in found), found


def test_a_template_may_show_columns_and_a_misspelt_one_is_named(made):
    assert "level 0" in tasks(made(ROWS[:1] * 2 + ROWS[3:4], template="{prompt} level {level}"))[0].prompt[0]["content"]
    [*_, (where, _)] = problems(made, ROWS, template="{prompt} {levle}")

    assert where in ("environment.template", "environment.path")
    found = problems(made, ROWS, template="{prompt} {levle}")[0]
    assert found[0] == "environment.template"
    assert "no column 'levle'; did you mean 'level'?" in found[1]
