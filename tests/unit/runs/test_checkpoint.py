"""Checkpoints come back whole, or the one before them does."""

import json

import pytest
import torch
from safetensors import SafetensorError

from orchestrator.errors import CheckpointError
from orchestrator.runs import checkpoint
from orchestrator.runs.checkpoint import checkpoints, load_module, load_newest, module_tensors, save_checkpoint


class Policy:
    def __init__(self, seed: int = 0):
        torch.manual_seed(seed)
        self.module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 3, bias=False))


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(4, 3)
        self.head = torch.nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight


STATE = {"step": 3, "moments": {"a": [torch.arange(3.0), None]}, "text": "x", "nan": float("nan"), "flag": True}


def _same(a: Policy, b: Policy) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.module.parameters(), b.module.parameters(), strict=True))


def test_what_was_saved_is_loaded(tmp_path):
    saved, loaded = Policy(0), Policy(1)
    save_checkpoint(tmp_path, 3, saved, STATE, keep=2)

    step, state = load_newest(tmp_path, loaded)

    assert step == 3
    assert _same(saved, loaded)
    assert torch.equal(state["moments"]["a"][0], torch.arange(3.0))
    assert state["text"] == "x"
    assert state["nan"] != state["nan"]
    assert state["flag"] is True


def test_only_the_newest_are_kept(tmp_path):
    for step in range(1, 6):
        save_checkpoint(tmp_path, step, Policy(), {}, keep=2)

    assert [path.name for path in checkpoints(tmp_path)] == ["step-000004", "step-000005"]


@pytest.mark.parametrize("name", ["model.safetensors", "tensors.safetensors", "state.json"])
def test_a_cut_off_file_sends_back_to_the_checkpoint_before(tmp_path, caplog, name):
    first = Policy(1)
    save_checkpoint(tmp_path, 1, first, STATE, keep=2)
    save_checkpoint(tmp_path, 2, Policy(2), STATE, keep=2)
    file = tmp_path / "step-000002" / name
    file.write_bytes(file.read_bytes()[:-20])
    loaded = Policy(3)

    step, _ = load_newest(tmp_path, loaded)

    assert step == 1
    assert _same(first, loaded)
    assert "step-000002" in caplog.text
    assert "going back" in caplog.text


def test_when_none_can_be_read_the_error_names_the_folder(tmp_path):
    save_checkpoint(tmp_path, 1, Policy(), STATE, keep=2)
    (tmp_path / "step-000001" / "state.json").write_text("{")

    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        load_newest(tmp_path, Policy())


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    save_checkpoint(tmp_path, 1, Policy(), {}, keep=1)
    (tmp_path / ".step-000002.4711").mkdir()
    (tmp_path / ".step-000002.4711" / "model.safetensors").write_bytes(b"half")

    assert load_newest(tmp_path, Policy())[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_no_checkpoint_at_all_is_no_error(tmp_path):
    assert load_newest(tmp_path / "none", Policy()) is None


def test_a_full_disk_leaves_the_earlier_checkpoint_alone(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, Policy(), STATE, keep=1)

    class Full(Policy):
        def export(self, directory):
            (directory / "config.json").write_text("{}")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 2, Full(), STATE, keep=1)

    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_tied_tensors_are_written_once_and_loaded_into_both(tmp_path):
    torch.manual_seed(0)
    source, target = Tied(), Tied()

    tensors = module_tensors(source)
    load_module(target, tensors, tmp_path)

    assert list(tensors) == ["embed.weight"]
    assert torch.equal(target.head.weight, source.embed.weight)


def test_a_new_head_keeps_its_values_only_when_allowed(tmp_path):
    small, large = (
        torch.nn.Sequential(torch.nn.Linear(2, 2)),
        torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()),
    )
    large.add_module("critic", torch.nn.Linear(2, 1))
    tensors = module_tensors(small)

    with pytest.raises(CheckpointError, match=r"missing \['critic"):
        load_module(large, tensors, tmp_path)
    load_module(large, tensors, tmp_path, partial=True)

    assert torch.equal(large[0].weight, small[0].weight)


def test_a_model_of_another_shape_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="of another shape"):
        load_module(torch.nn.Linear(2, 3), module_tensors(torch.nn.Linear(3, 3)), tmp_path)


def test_state_that_is_neither_json_nor_tensor_is_refused(tmp_path):
    with pytest.raises(TypeError, match="state at /a is a set"):
        save_checkpoint(tmp_path, 1, Policy(), {"a": {1}}, keep=1)
    assert not list(tmp_path.iterdir())


def test_nothing_is_executed_when_a_strangers_checkpoint_is_read(tmp_path):
    save_checkpoint(tmp_path, 1, Policy(), {}, keep=1)
    files = {path.name for path in (tmp_path / "step-000001").iterdir()}

    assert files == {"model.safetensors", "tensors.safetensors", "state.json", "SHA256SUMS"}
    assert json.loads((tmp_path / "step-000001" / "state.json").read_text())["step"] == 1


def test_a_step_of_seven_digits_is_newer_than_one_of_six(tmp_path):
    for step in (999_999, 1_000_000):
        save_checkpoint(tmp_path, step, Policy(), {}, keep=1)

    assert [path.name for path in checkpoints(tmp_path)] == ["step-1000000"]


def test_an_unreadable_checkpoint_of_a_later_step_does_not_push_out_the_one_just_written(tmp_path):
    save_checkpoint(tmp_path, 2, Policy(), {}, keep=1)
    save_checkpoint(tmp_path, 9, Policy(), {}, keep=1)
    (tmp_path / "step-000009" / "state.json").write_text("{")

    save_checkpoint(tmp_path, 4, Policy(), {}, keep=1)

    assert load_newest(tmp_path, Policy())[0] == 4


def test_a_disk_that_is_full_for_safetensors_is_an_operating_system_error(tmp_path, monkeypatch):
    def full(tensors, path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)

    with pytest.raises(OSError, match=r"model\.safetensors: .* No space left"):
        save_checkpoint(tmp_path, 1, Policy(), {}, keep=1)
