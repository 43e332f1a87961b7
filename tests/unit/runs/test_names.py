"""Names in a run's files lead nowhere else: whatever a plan or a journal says, nothing is written outside the run."""

import json

import pytest

from orchestrator.contract.settings import Settings
from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.runs import journal, store
from orchestrator.runs.layout import RunFolder
from orchestrator.testing.plans import make_plan, make_settings

BAD = ["../../../x", "/tmp/x", "", ".", "..", "a/b", "x" * 201, "a\0", "a\nb", ".hidden", None, 3, "a\\b"]


@pytest.fixture
def run(tmp_path):
    plan = make_plan(make_settings())
    directory = tmp_path / "deep" / "run"
    store.save_plan(plan, directory)
    return directory


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_a_plan_whose_trial_leads_elsewhere_is_refused(run, name):
    path = RunFolder(run).plan
    data = json.loads(path.read_text())
    data["trials"][0]["id"] = name
    path.write_text(json.dumps(data))

    with pytest.raises(ConfigError, match="names no trial"):
        store.load_plan(run)


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_a_journal_whose_trial_leads_elsewhere_is_refused(run, name):
    spec = store.load_plan(run).trials[0].to_json() | {"id": name}
    RunFolder(run).journal.write_text(json.dumps({"kind": "trials", "specs": [spec]}) + "\n")

    with pytest.raises(OrchestratorError, match="names no trial"):
        journal.read(run)


@pytest.mark.parametrize("name", ["../x", "/x", "", "..", "a/b"])
def test_folders_of_trials_and_start_phases_lie_in_the_run(tmp_path, name):
    folder = RunFolder(tmp_path)

    for place in (folder.trial, folder.start):
        with pytest.raises(ValueError, match="leads out of the run"):
            place(name)


@pytest.mark.parametrize("name", ["../../x", "/x", "", ".x", "a/b", "x" * 201, "x\n"])
def test_an_experiment_is_named_like_a_folder(name):
    with pytest.raises(ValueError, match="name"):
        Settings.model_validate({"name": name, "environment": {"use": "x"}})
