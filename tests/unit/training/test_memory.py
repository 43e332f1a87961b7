"""How many tokens a pass takes: what fits, a power of two, the same for the whole trial, the old number for small models."""

import logging

import pytest
import torch
from torch import nn

from orchestrator.contract.batch import Column
from orchestrator.contract.settings import Resources, Settings
from orchestrator.plugging.registry import load_registry
from orchestrator.testing import ScriptedPolicy, make_batch
from orchestrator.training import memory
from orchestrator.training.distributed import Workers
from orchestrator.training.memory import MOST, SMALL, Held, Room, fitting_tokens, free_bytes, trials_beside
from orchestrator.training.trainer import Trainer
from orchestrator.training.weights import WeightStore

GIB, MIB = 2**30, 2**20
LOGPROB = frozenset({Column.LOGPROB})
PARAMETERS = [nn.Parameter(torch.zeros(8, 8))]
CPU = torch.device("cpu")


class Heavy(ScriptedPolicy):
    """Says what its tokens hold."""

    def __init__(self, held):
        super().__init__()
        self.held = held

    def bytes_per_token(self, wanted):
        assert wanted == LOGPROB
        return self.held


def _settings(asked="auto", **resources):
    return Settings(
        name="x",
        environment={"use": "echo"},
        update={"micro_batch_tokens": asked},
        resources={"concurrent": 1, **resources},
    )


def _room(held, free, monkeypatch, asked="auto", **resources):
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    return Room(_settings(asked, **resources), Heavy(held), PARAMETERS, Workers())


def test_a_power_of_two_that_fits_between_the_bounds():
    # 4 GiB of 1 MiB tokens: 4096; a little less: 2048; hardly anything: the least
    assert fitting_tokens(MIB, 4 * GIB) == 4096
    assert fitting_tokens(MIB, 4 * GIB - 1) == 2048
    assert fitting_tokens(MIB, 1000) == 256
    assert fitting_tokens(MIB, 100 * GIB) == MOST


def test_small_models_take_what_they_always_took_whatever_is_free():
    assert fitting_tokens(SMALL / MOST, 0) == MOST
    assert fitting_tokens(0.0, 0) == MOST


def test_half_of_what_is_free_is_shared_by_the_trials_beside_each_other(monkeypatch):
    # 8 GiB, half of it: 4096 of 1 MiB; less the gradients and moments of 64 weights, hence 2048. A second trial: 1024.
    assert _room(MIB, 8 * GIB, monkeypatch).tokens(LOGPROB) == 2048
    assert _room(MIB, 8 * GIB, monkeypatch, concurrent=2).tokens(LOGPROB) == 1024
    assert _room(MIB, 16 * GIB + 3 * 256, monkeypatch).tokens(LOGPROB) == 8192
    assert _room(MIB, None, monkeypatch).tokens(LOGPROB) == MOST  # no saying what is free


def test_a_number_of_the_users_stands(monkeypatch):
    assert _room(MIB, GIB, monkeypatch, asked=9999).tokens(LOGPROB) == 9999
    assert _room(MIB, GIB, monkeypatch, asked=None).tokens(LOGPROB) is None


def test_a_trial_keeps_its_number_when_it_goes_on(monkeypatch):
    room = _room(MIB, 8 * GIB, monkeypatch)
    room.tokens(LOGPROB)

    resumed = _room(MIB, 1 * GIB, monkeypatch)
    resumed.load_state_dict(room.state_dict())

    assert resumed.tokens(LOGPROB) == 2048
    resumed.load_state_dict(None)  # a checkpoint of an earlier version
    assert resumed.tokens(LOGPROB) == 2048


def test_a_pass_that_held_more_than_was_thought_lowers_the_number_once(monkeypatch, caplog):
    room = _room(MIB, 8 * GIB, monkeypatch)
    room.tokens(LOGPROB)

    assert not room.worth_checking(511)  # too few to tell
    assert room.worth_checking(512)
    with caplog.at_level(logging.WARNING):
        room.check(held=512 * 3 * MIB, tokens=512)

    assert room.tokens(LOGPROB) == 1024
    assert "at most 1024 padded tokens from here on, not 2048: one held 3.00 MiB a token" in caplog.text
    assert not room.worth_checking(2048)


def test_a_pass_that_held_less_changes_nothing(monkeypatch):
    room = _room(MIB, 8 * GIB, monkeypatch)
    room.tokens(LOGPROB)
    room.check(held=512, tokens=512)

    assert room.tokens(LOGPROB) == 2048


def test_what_is_held_is_counted_without_parameters_and_each_storage_once():
    weight, x = nn.Parameter(torch.randn(4, 4)), torch.randn(10, 4)

    with Held([weight]) as held:
        y = (x @ weight).exp()  # keeps x (160 bytes), and the result of exp (160)
        z = y * y  # keeps y again

    plain = (x @ weight).exp()
    assert held.bytes == 320
    z.sum().backward()
    found, weight.grad = weight.grad.clone(), None
    (plain * plain).sum().backward()
    assert torch.equal(found, weight.grad)


def test_memory_is_that_of_the_machine_within_the_control_groups_limits(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   4096 kB\n")
    assert free_bytes(CPU, tmp_path) == 4096 * 1024

    (tmp_path / "proc/self/cgroup").write_text("0::/pod/trial\n")
    for folder, limit, used in (("pod", "3000000", "1000000"), ("pod/trial", "max", "500000")):
        group = tmp_path / "sys/fs/cgroup" / folder
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
    (tmp_path / "sys/fs/cgroup/pod/memory.stat").write_text("anon 5\ninactive_file 300000\n")
    assert free_bytes(CPU, tmp_path) == 3000000 - 1000000 + 300000

    old = tmp_path / "sys/fs/cgroup/memory/box"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("900000\n")
    (old / "memory.usage_in_bytes").write_text("100000\n")
    (tmp_path / "proc/self/cgroup").write_text("3:cpu:/x\n7:hugetlb,memory:/box\n")
    assert free_bytes(CPU, tmp_path) == 800000
    assert free_bytes(CPU, tmp_path / "nowhere") is None


def test_trials_side_by_side_are_those_of_the_settings(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)

    assert trials_beside(Resources(concurrent=3), CPU) == 3
    assert trials_beside(Resources(cpus=2), CPU) == 4
    assert trials_beside(Resources(cpus=16), CPU) == 1
    assert trials_beside(Resources(gpus=0.25), torch.device("cuda")) == 4
    assert trials_beside(Resources(gpus=2), torch.device("cuda")) == 1


def _trained(asked, held=0.0, free=None, monkeypatch=None):
    if monkeypatch is not None:
        monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    policy, batch = Heavy(held), make_batch(sizes=(40, 40, 40), seed=0)
    objective = load_registry().build("objective", "reinforce", {})
    trainer = Trainer(policy, None, objective, _settings(asked), WeightStore(policy.module), seed=0)
    metrics = trainer.update(batch, 1)
    return torch.cat([p.detach().flatten() for p in policy.module.parameters()]), metrics, trainer


def test_auto_trains_a_small_model_to_the_bit_as_ever_and_says_its_number():
    automatic, metrics, trainer = _trained("auto")
    fixed, plain, _ = _trained(16384)

    assert torch.equal(automatic, fixed)
    assert metrics["train/micro_batch_tokens"] == 16384.0
    assert "train/micro_batch_tokens" not in plain
    assert trainer.state_dict()["room"]["tokens"] == 16384


def test_a_cut_that_auto_makes_changes_the_numbers_by_rounding_alone(monkeypatch):
    cut, metrics, _ = _trained("auto", held=MIB, free=GIB // 2, monkeypatch=monkeypatch)
    whole, _, _ = _trained(16384)

    assert metrics["train/micro_batch_tokens"] == 256.0  # 120 rows of 9: five passes
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [{}, {"dtype": "bfloat16"}, {"lora": {"rank": 2}}])
def test_a_language_model_says_what_its_tokens_hold(model):
    if "lora" in model:
        pytest.importorskip("peft")
    tiny = {"preset": "tiny", "hidden": 32, "layers": 2, "heads": 2, "context": 128}
    policy = load_registry().build("policy", "causal_lm", {"model": {**tiny, **model}, "device": "cpu"})
    told = policy.bytes_per_token(LOGPROB)
    tokens = torch.randint(0, 50, (4, 100))
    asked = (torch.arange(100) >= 99)[None].expand(4, -1)

    with Held(list(policy.module.parameters())) as held:
        policy.columns({"tokens": tokens, "asked": asked, "temperature": torch.ones(4)}, LOGPROB)

    assert told == pytest.approx(held.bytes / 400, rel=0.35)
    assert policy.bytes_per_token(LOGPROB | {Column.LOGITS}) > told
