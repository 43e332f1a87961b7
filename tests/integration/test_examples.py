"""The examples run as their pages say, in a shrunken form, and pages and files say the same."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import main as cli
from orchestrator.runs.study import Study

ROOT = Path(__file__).parents[2]
QUESTIONS = ROOT / "examples" / "questions"
PAGE = (ROOT / "docs" / "my-questions.md").read_text()
SMALL = [
    "policy.model={preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}",
    "start.schedule={steps: 2, tasks_per_step: 2}",
    "schedule={steps: 1, tasks_per_step: 2}",
    "evaluation={tasks: 2, samples: 1, k: [1], first: false}",
    "seeds=[0]",
    "tracking.enabled=false",
]


@pytest.fixture
def asked(tmp_path, monkeypatch):
    shutil.copytree(QUESTIONS, tmp_path / "questions", ignore=shutil.ignore_patterns("runs", "__pycache__"))
    monkeypatch.chdir(tmp_path / "questions")
    return lambda *arguments: CliRunner().invoke(cli.app, list(map(str, arguments)))


def test_the_page_shows_the_files_of_the_example():
    yaml, function = (re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[1] for kind in ("yaml", "python"))

    assert yaml == (QUESTIONS / "questions.yaml").read_text()
    shown = [line for line in function.splitlines() if line.strip() and not line.startswith("#")]
    kept = [
        line for line in (QUESTIONS / "my_reward.py").read_text().splitlines() if line.strip() and '"""' not in line
    ]
    assert shown == kept
    rows = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    assert set(rows) <= set((QUESTIONS / "sums.jsonl").read_text().splitlines())


def test_the_plan_of_the_example_stands(asked):
    done = asked("plan", "questions.yaml")

    assert done.exit_code == 0, done.output
    assert "6 trials known now" in done.stdout
    assert not (Path("my_reward.py").parent / "__pycache__").exists()


def test_the_model_of_ones_own_on_the_page_is_a_plan(asked):
    command = re.search(r"```bash\norchestrator run questions.yaml (.*?)```", PAGE, re.DOTALL)[1]
    settings = re.findall(r"'([^']*)'|(\S+=\S+)", command)

    done = asked("plan", "questions.yaml", *(quoted or bare for quoted, bare in settings))

    wrong = [line for line in done.stderr.splitlines() if line.startswith("✗") and "policy.model" not in line]
    assert wrong == [], done.output  # without a network the model cannot be looked up; all else stands


def test_the_example_runs_to_a_verdict(asked):
    text = Path("questions.yaml").read_text()  # without the search, which takes Ray
    Path("questions.yaml").write_text(re.sub(r"^(search|tune):.*\n", "", text, flags=re.MULTILINE))
    done = asked("run", "questions.yaml", *SMALL, "--local")

    assert done.exit_code == 0, done.output
    [run] = Path("runs").iterdir()
    study = Study.read(run)
    assert study.status == {"done": 2}
    assert "Not enough evidence" in done.stdout
    assert len(study.starts) == 1
