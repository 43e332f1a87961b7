"""Preferences: win matrices from every kind of scorer; DPO and IPO by hand, their relations, their edges."""

import math
import sys
from dataclasses import replace
from functools import cache
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.preferences.matrix import bradley_terry, from_logits, from_probabilities, win_rates
from orchestrator_plugins.preferences.pairs import best_and_worst, ordered_pairs

from orchestrator.api import (
    Action,
    Batch,
    Column,
    ConfigError,
    Couples,
    Need,
    Rollout,
    RolloutGroup,
    Task,
    Turn,
    Weights,
    load_registry,
    reduce_terms,
)
from orchestrator.testing import check_component

REFERENCE_LOGPROB = Need(Weights.REFERENCE, Column.LOGPROB)
OBJECTIVES = ("dpo", "ipo")


@cache
def registry():
    return load_registry(["preferences", "baselines", "p3o"])


# --- win matrices -----------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_bradley_terry_by_hand():
    matrix = bradley_terry([1.0, 0.0, 0.5], scale=2.0)

    assert matrix.tolist() == [
        [0.5, pytest.approx(sigmoid(2)), pytest.approx(sigmoid(1))],
        [pytest.approx(sigmoid(-2)), 0.5, pytest.approx(sigmoid(-1))],
        [pytest.approx(sigmoid(-1)), pytest.approx(sigmoid(1)), 0.5],
    ]


def test_the_two_orders_of_a_pair_are_averaged():
    matrix = from_logits([[9.0, 1.0], [0.5, 9.0]])

    first = 0.5 * (sigmoid(1.0) + 1 - sigmoid(0.5))
    assert matrix.tolist() == [[0.5, pytest.approx(first)], [pytest.approx(1 - first), 0.5]]


def test_a_cycle_survives_and_every_win_rate_is_a_half():
    matrix = from_probabilities([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]])

    assert matrix.tolist() == [[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]]
    assert win_rates(matrix).tolist() == [0.5, 0.5, 0.5]


def test_missing_comparisons_are_left_out_of_the_mean():
    nan = math.nan
    matrix = from_probabilities([[nan, 0.9, nan], [nan, nan, 0.8], [nan, 0.1, nan]])

    np.testing.assert_allclose(matrix, [[0.5, 0.9, nan], [0.1, 0.5, 0.85], [nan, 0.15, 0.5]])  # one order known, none
    np.testing.assert_allclose(win_rates(matrix), [0.7, (0.1 + 0.5 + 0.85) / 3, 0.325])


def test_scores_that_are_missing_miss_all_their_comparisons():
    np.testing.assert_allclose(win_rates(bradley_terry([1.0, math.nan, 1.0])), [0.5, 0.5, 0.5])


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6), st.floats(0.01, 100))
def test_win_matrices_are_zero_sum(scores, scale):
    matrix = bradley_terry(scores, scale)

    np.testing.assert_allclose(matrix + matrix.T, 1.0, atol=1e-15)
    assert win_rates(matrix).mean() == pytest.approx(0.5, abs=1e-12)


@given(st.integers(1, 5), st.integers(0, 10**6))
def test_any_pairwise_scorer_becomes_zero_sum(size, seed):
    matrix = from_probabilities(np.random.default_rng(seed).random((size, size)))

    np.testing.assert_allclose(matrix + matrix.T, 1.0, atol=1e-15)
    assert (np.diag(matrix) == 0.5).all()
    assert win_rates(matrix).mean() == pytest.approx(0.5, abs=1e-12)


def test_probabilities_outside_0_and_1_are_refused():
    with pytest.raises(ValueError, match=r"hold 1.5; expected numbers in \[0, 1\]"):
        from_probabilities([[0.5, 1.5], [0.2, 0.5]])


# --- the reward -------------------------------------------------------------------------------------------


def make_group(*texts, correct=None):
    prompt = ({"role": "user", "content": "say it"},)
    rollouts = tuple(
        Rollout(
            task_id="t",
            index=place,
            seed=place,
            turns=(Turn(observation=prompt, action=Action(tokens=(1,), logprobs=(0.0,), text=text)),),
            metrics={} if correct is None else {"correct": float(correct[place])},
        )
        for place, text in enumerate(texts)
    )
    return RolloutGroup(task=Task(id="t", prompt=prompt, reference="ab"), rollouts=rollouts)


@pytest.fixture
def judge(monkeypatch):
    """A module with preference functions, by name."""
    module = ModuleType("judge_of_the_test")
    module.length = lambda task, answers: [len(answer) for answer in answers]
    module.cycle = lambda task, answers: [
        [float("rps".index(a) == ("rps".index(b) + 1) % 3) for b in answers] for a in answers
    ]
    module.logits = lambda task, answers: [[len(a) - len(b) for b in answers] for a in answers]
    module.short = lambda task, answers: [0.0]
    module.biased = lambda task, answers: [[0.9] * len(answers)] * len(answers)
    for name in ("short",):
        getattr(module, name).__module__, getattr(module, name).__qualname__ = module.__name__, name
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def score(group, **options):
    return registry().build("reward", "preference", options).score(group)


def test_by_default_right_answers_beat_wrong_ones():
    scores = score(make_group("ab", "x", "ab", "y"), scale=4.0)

    p = sigmoid(4.0)
    assert [s.against for s in scores[:2]] == [
        (0.5, pytest.approx(p), 0.5, pytest.approx(p)),
        (pytest.approx(1 - p), 0.5, pytest.approx(1 - p), 0.5),
    ]
    assert scores[0].value == pytest.approx((1 + 2 * p) / 4)
    assert [s.parts for s in scores] == [{"score": 1.0}, {"score": 0.0}, {"score": 1.0}, {"score": 0.0}]


@pytest.mark.parametrize("correct", [(0, 0, 0), (1, 1, 1)])
def test_all_right_or_all_wrong_is_a_tie(correct):
    assert [s.value for s in score(make_group("a", "b", "c", correct=correct))] == [0.5] * 3


def test_one_sibling_ties_with_itself():
    [alone] = score(make_group("a", correct=[1]))

    assert alone.value == 0.5
    assert alone.against == (0.5,)


def test_functions_give_scores_logits_or_probabilities(judge):
    by_score = score(make_group("a", "bbb"), function=f"{judge}:length")
    by_logit = score(make_group("a", "bbb"), function=f"{judge}:logits", gives="logits")
    by_chance = score(make_group("r", "p", "s"), function=f"{judge}:cycle", gives="probabilities")

    assert by_score[1].against == (pytest.approx(sigmoid(2)), 0.5)
    assert by_score[1].parts == {"score": 3.0}
    assert by_logit[1].against == (pytest.approx(sigmoid(2)), 0.5)
    assert [s.against for s in by_chance] == [(0.5, 0.0, 1.0), (1.0, 0.5, 0.0), (0.0, 1.0, 0.5)]
    assert [s.value for s in by_chance] == [0.5] * 3


def test_a_judge_that_likes_what_it_reads_first_is_evened_out_and_equal_answers_tie(judge):
    scores = score(make_group("a", "b", "a"), function=f"{judge}:biased", gives="probabilities")

    assert scores[0].against == (0.5, pytest.approx(0.5), 0.5)


def test_what_is_wrong_with_a_function_is_said(judge):
    with pytest.raises(
        ValueError, match=r"judge_of_the_test:short returned the shape \[1\] for 2 answers; expected \[2\]"
    ):
        score(make_group("a", "b"), function=f"{judge}:short")
    with pytest.raises(ValueError, match="has no function 'lenght'"):
        score(make_group("a"), function=f"{judge}:lenght")
    with pytest.raises(ModuleNotFoundError):
        score(make_group("a"), function="no_such_module:f")
    silent = make_group("a")
    turn = replace(silent.rollouts[0].turns[0], action=Action(tokens=(1,), logprobs=(0.0,)))
    silent = replace(silent, rollouts=(replace(silent.rollouts[0], turns=(turn,)),))
    with pytest.raises(ValueError, match="without text cannot be read"):
        score(silent, function=f"{judge}:length")


@pytest.mark.parametrize(
    "options",
    [
        {"function": "no colon"},
        {"function": "a:b", "reward": {"use": "exact"}},
        {"gives": "logits"},
        {"scale": 0},
        {"model": {"reads": "pair"}},
        {"reward": {"use": "no_such_reward"}},
    ],
)
def test_bad_options_of_the_reward_are_refused(options):
    with pytest.raises(ConfigError):
        registry().build("reward", "preference", options)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A folder with a tiny random sequence classifier and a tokenizer of characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("classifier")
    words = {word: place for place, word in enumerate(["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyzAB:"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(words), num_labels=1, pad_token_id=0, initializer_range=1.0, **shape)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_a_sequence_classifier_scores_answers(classifier):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    scores = score(make_group("abc", "x", "abc"), model={"path": str(classifier), "batch_rows": 2, "device": "cpu"})

    tokenizer = AutoTokenizer.from_pretrained(classifier)
    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    with torch.no_grad():
        expected = [model(**tokenizer(f"say it\n{t}", return_tensors="pt")).logits.item() for t in ("abc", "x")]
    assert [s.parts["score"] for s in scores[:2]] == pytest.approx(expected, abs=1e-5)
    assert scores[0].against[1] == pytest.approx(sigmoid(expected[0] - expected[1]), abs=1e-5)
    assert scores[0].against[2] == 0.5


def test_a_pair_ranker_reads_both_orders(classifier):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    options = {"path": str(classifier), "reads": "pair", "template": "{first}:{second}", "device": "cpu"}
    scores = score(make_group("abc", "x", "abc"), model=options)

    tokenizer = AutoTokenizer.from_pretrained(classifier)
    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    with torch.no_grad():
        one, other = (model(**tokenizer(t, return_tensors="pt")).logits.item() for t in ("abc:x", "x:abc"))
    assert scores[0].against == (0.5, pytest.approx((sigmoid(one) + 1 - sigmoid(other)) / 2, abs=1e-5), 0.5)
    assert scores[0].parts == {}


# --- DPO and IPO by hand ----------------------------------------------------------------------------------


def make_batch(reference, rewards, group=None, mask=None):
    """Responses of one token each, from their log-probabilities [B]."""
    reference, rewards = (torch.as_tensor(v, dtype=torch.float64) for v in (reference, rewards))
    rows = len(rewards)
    mask = torch.ones(rows, 1, dtype=torch.bool) if mask is None else mask
    return Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=torch.zeros(rows, 1, dtype=torch.float64),
        rewards=rewards,
        turn_rewards=rewards[:, None],
        group=torch.zeros(rows, dtype=torch.int64) if group is None else torch.as_tensor(group),
        turn=torch.where(mask, 0, -1),
        demonstration=torch.zeros(rows, dtype=torch.bool),
        columns={REFERENCE_LOGPROB: reference[:, None], Need(Weights.OLD, Column.LOGPROB): reference[:, None]},
    )


def evaluate(name, batch, logprobs, **options):
    """Loss, gradient in the responses' log-probabilities [B], and metrics."""
    leaf = torch.as_tensor(logprobs, dtype=torch.float64).detach().clone().requires_grad_()
    terms = registry().build("objective", name, options).terms(batch, {Column.LOGPROB: leaf[:, None]})
    loss = reduce_terms(terms, batch)
    loss.backward()
    metrics = {key: float(mean.total) / max(float(mean.count), 1) for key, mean in terms.metrics.items()}
    return loss.item(), leaf.grad, metrics


@pytest.mark.parametrize(
    ("name", "reference", "options", "expected"),
    [
        ("dpo", (-0.88, -2.09), {}, 0.6886573055),
        ("dpo", (-1.0, -2.0), {}, 0.6782596763),
        ("ipo", (-0.88, -2.09), {"margin": 1.0}, 0.982081),
    ],
)
def test_losses_by_hand(name, reference, options, expected):
    assert evaluate(name, make_batch(reference, (1, 0)), (-0.9, -2.2), kl_weight=0.1, **options)[0] == pytest.approx(
        expected, abs=1e-10
    )


def test_the_better_answer_is_the_one_with_the_higher_score():
    loss, gradient, metrics = evaluate("dpo", make_batch((-2.0, -0.88), (0, 1)), (-2.2, -0.9))

    margin = 0.1 * ((-0.9 + 0.88) - (-2.2 + 2.0))
    assert loss == pytest.approx(-math.log(sigmoid(margin)))
    assert gradient.tolist() == pytest.approx([0.1 * sigmoid(-margin), -0.1 * sigmoid(-margin)])
    assert metrics == pytest.approx(
        {
            "preferences/accuracy": 1,
            "preferences/chosen": -0.002,
            "preferences/rejected": -0.02,
            "preferences/chosen_raised": 0,
            "preferences/pairs": 1,
        }
    )


@pytest.mark.parametrize("pairs", ["best_worst", "all"])
def test_groups_are_averaged_over_their_pairs_and_ties_stay_out(pairs):
    rewards, group = [3.0, 1.0, 2.0, 1.0, 5.0, 5.0, 7.0], [0, 0, 0, 1, 2, 2, 2]
    batch = make_batch([-1.0] * 7, rewards, group)
    now = torch.tensor([-1.0, -2.0, -1.5, -9.0, -1.0, -3.0, -1.0], dtype=torch.float64)

    loss, gradient, metrics = evaluate("ipo", batch, now, kl_weight=1.0, margin=1.0, pairs=pairs)

    first = {"best_worst": [(1 - 1) ** 2], "all": [(1 - 1) ** 2, (0.5 - 1) ** 2, (0.5 - 1) ** 2]}[pairs]
    last = {"best_worst": [(0 - 1) ** 2], "all": [(0 - 1) ** 2, (2 - 1) ** 2]}[pairs]
    assert loss == pytest.approx((np.mean(first) + np.mean(last)) / 2)  # of two groups: the single one has no pair
    assert gradient[3] == 0
    assert metrics["preferences/pairs"] == pytest.approx((len(first) + len(last)) / 3)


def test_pairs_by_hand():
    scores = torch.tensor([1.0, 3.0, 3.0, 1.0, 2.0, 2.0, 0.0])
    group = torch.tensor([4, 4, 4, 4, 1, 1, 9])

    assert [rows.tolist() for rows in best_and_worst(scores, group)] == [[1], [0]]
    assert torch.stack(ordered_pairs(scores, group), 1).tolist() == [[1, 0], [1, 3], [2, 0], [2, 3]]


# --- relations --------------------------------------------------------------------------------------------


def test_at_the_reference_dpo_is_the_pairwise_policy_gradient_to_the_bit():
    reference = torch.linspace(-5, -1, 8, dtype=torch.float64)
    batch = make_batch(reference, [1, 0, 0, 1, 1, 0, 0, 1], [0, 0, 1, 1, 2, 2, 3, 3])

    dpo = evaluate("dpo", batch, reference, kl_weight=1.0)[1]
    ipo = evaluate("ipo", batch, reference, kl_weight=1.0, margin=0.5)[1]
    p3o = evaluate("p3o", batch, reference, kl_weight=0.0)[1]

    assert torch.equal(dpo, p3o)
    assert torch.equal(ipo, 2 * p3o)


@pytest.mark.parametrize("name", OBJECTIVES)
@given(seed=st.integers(0, 10**6), weight=st.floats(0.05, 2))
def test_only_differences_of_the_references_log_ratios_count(name, seed, weight):
    generator = torch.Generator().manual_seed(seed)
    reference, now, rewards = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    group, shift = [0, 0, 0, 1, 1, 1], torch.tensor([3.0, 3, 3, -7, -7, -7], dtype=torch.float64)

    one = evaluate(name, make_batch(reference, rewards, group), now, kl_weight=weight)
    other = evaluate(name, make_batch(reference + shift, rewards, group), now, kl_weight=weight)

    assert one[0] == pytest.approx(other[0], rel=1e-9)
    torch.testing.assert_close(one[1], other[1], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("pairs", ["best_worst", "all"])
@given(seed=st.integers(0, 10**6), order=st.permutations(range(5)))
def test_the_order_of_siblings_changes_nothing(name, pairs, seed, order):
    generator = torch.Generator().manual_seed(seed)
    reference, now, rewards = torch.randn(3, 5, generator=generator, dtype=torch.float64)

    one = evaluate(name, make_batch(reference, rewards), now, pairs=pairs)
    other = evaluate(name, make_batch(reference[order], rewards[order]), now[order], pairs=pairs)

    assert one[0] == pytest.approx(other[0], rel=1e-12)
    torch.testing.assert_close(one[1][order], other[1], atol=1e-12, rtol=1e-9)


@given(seed=st.integers(0, 10**6), weight=st.floats(0.2, 2))
def test_expected_dpo_is_stationary_at_the_tilted_reference(seed, weight):
    generator = torch.Generator().manual_seed(seed)
    rewards, reference = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    reference = reference.log_softmax(0)
    first, second = (1 - torch.eye(4)).nonzero(as_tuple=True)
    rows = torch.stack([first, second], 1).flatten()
    batch = make_batch(reference[rows], [1, 0] * len(first), torch.arange(len(first)).repeat_interleave(2))
    leaf = (reference + rewards / weight).requires_grad_()

    objective = registry().build("objective", "dpo", {"kl_weight": weight})
    [term] = objective.terms(batch, {Column.LOGPROB: leaf.log_softmax(0)[rows][:, None]}).loss
    chances = (reference[first] + reference[second]).exp() * (rewards[first] - rewards[second]).sigmoid()
    (chances * term.values).sum().backward()

    torch.testing.assert_close(leaf.grad, torch.zeros_like(leaf), atol=1e-12, rtol=0)


# --- edges ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_a_batch_of_ties_has_no_loss_and_no_gradient(name, reward):
    loss, gradient, _ = evaluate(name, make_batch((-1.0,) * 3, [reward] * 3, [0, 0, 1]), (-1.5, -1.0, -2.0))

    assert loss == 0
    assert gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_empty_completions_compare_with_a_log_ratio_of_0(name):
    mask = torch.tensor([[True], [False]])

    loss, gradient, _ = evaluate(name, make_batch((-1.0, math.nan), (0, 1), mask=mask), (-1.0, math.nan), kl_weight=1.0)

    assert loss == pytest.approx(math.log(2) if name == "dpo" else 0.25)
    assert gradient.tolist() == [pytest.approx(0.5 if name == "dpo" else 1.0), 0]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("size", [1e3, -1e3])
def test_extreme_log_ratios_stay_finite_and_are_pulled_back(name, size):
    loss, gradient, _ = evaluate(name, make_batch((0.0, 0.0), (1, 0)), (size, -size), kl_weight=1.0)

    assert math.isfinite(loss)
    assert torch.isfinite(gradient).all()
    if size < 0:
        assert gradient[0] < 0 < gradient[1]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("pairs", ["best_worst", "all"])
def test_the_objectives_keep_their_contract(name, pairs):
    check_component(registry().describe("objective", name), {"pairs": pairs})

    assert registry().build("objective", name).couples is Couples.GROUPS


def test_the_reward_keeps_its_contract():
    check_component(registry().build("reward", "preference"))


@pytest.mark.parametrize("options", [{"kl_weight": 0}, {"pairs": "some"}, {"beta": 1}, {"margin": 1}])
def test_bad_options_of_dpo_are_refused(options):
    with pytest.raises(ConfigError):
        registry().build("objective", "dpo", options)


def test_the_recipe_refreshes_everything_at_a_round():
    recipe = registry().describe("recipe", "iterative_dpo").overlay

    assert recipe["schedule"]["refresh_reference"] == recipe["schedule"]["refresh_optimizer"] == "round"
    assert recipe["schedule"]["steps_per_round"] == 10
    registry().build("objective", "dpo", {k: v for k, v in recipe["objective"].items() if k != "use"})
