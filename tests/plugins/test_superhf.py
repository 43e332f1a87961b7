"""SuperHF: the filter, the loss with its KL, METEOR, against hand cases; their invariances and edges."""

from dataclasses import replace
from functools import cache
from math import inf, log, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.superhf.objective import forward_kl
from orchestrator_plugins.superhf.sampler import best, penalised

from orchestrator.api import (
    Action,
    Batch,
    Column,
    ConfigError,
    Couples,
    Evaluates,
    Need,
    Rollout,
    RolloutGroup,
    Score,
    Task,
    Turn,
    Weights,
    load_registry,
    reduce_terms,
)
from orchestrator.contract.settings import Optimizer
from orchestrator.training.optimisation import learning_rate_factor

REFERENCE = Need(Weights.REFERENCE, Column.LOGITS)


@cache
def registry():
    return load_registry(["superhf", "baselines"])


# --- the filter -------------------------------------------------------------------------------------------


def test_the_best_answers_are_kept_and_empty_ones_never():
    scores, lengths = [0.1, 0.9, 0.9, 2.0], [5, 3, 4, 0]

    assert best(scores, lengths, keep=1) == [1]  # 2.0 is empty; of two equal ones the earlier
    assert best(scores, lengths, keep=2) == [1, 2]
    assert best([0, 1, 2, 3], [1, 1, 1, 1], keep=2) == [3, 2]
    assert best(scores, lengths, keep=4) == [1, 2, 0]
    assert best(scores, [0, 0, 0, 0], keep=1) == []


def test_the_length_penalty_is_logarithmic():
    assert penalised([1, 1], [10, 100], 0.1) == pytest.approx([0.769741, 0.539483], abs=1e-6)
    assert best([1, 1], [100, 10], keep=1, length_penalty=0.1) == [1]


def test_of_equal_scores_the_first_is_kept():
    assert best([1.0] * 5, [2] * 5, keep=2) == [0, 1]
    assert best([0.0] * 3, [0, 2, 2], keep=1) == [1]


def test_scores_that_are_not_numbers_come_last():
    assert best([nan, -5.0, nan], [1, 1, 1], keep=2) == [1, 0]
    assert penalised([nan], [1], 0.0) == [-inf]


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=8), st.integers(1, 8))
def test_what_is_kept_beats_what_is_not(answers, keep):
    scores, lengths = zip(*answers, strict=True)

    kept = best(scores, lengths, keep=keep)

    left = [p for p in range(len(scores)) if p not in kept and lengths[p] > 0]
    assert len(kept) == min(keep, sum(length > 0 for length in lengths))
    assert [scores[p] for p in kept] == sorted((scores[p] for p in kept), reverse=True)
    assert all(scores[k] > scores[p] or (scores[k] == scores[p] and k < p) for k in kept for p in left)


class Table:
    """A collect that deals given answers and scores."""

    def __init__(self, answers):
        self.answers = answers

    def __call__(self, requests):
        return [self.group(request) for request in requests]

    def group(self, request):
        dealt = self.answers[request.task.id]
        assert len(dealt) == request.count
        rollouts = tuple(
            Rollout(
                task_id=request.task.id,
                index=place,
                seed=place,
                turns=(Turn(observation=(), action=Action(tokens=(1,), logprobs=(0.0,), text=text)),),
            )
            for place, (text, _) in enumerate(dealt)
        )
        scores = tuple(Score(value=value) for _, value in dealt)
        return RolloutGroup(task=request.task, rollouts=rollouts, scores=scores)


def test_the_sampler_returns_the_best_of_each_task():
    sampler = registry().build("sampler", "best_of", {"count": 3, "keep": 1})
    table = Table({"a": [("x", 0), ("yes", 1), (" \n", 5)], "b": [("", 1), (" ", 2), ("\n", 3)]})

    groups = sampler.sample([Task(id="a"), Task(id="b")], table)

    assert [(g.task.id, g.rollouts[0].index, g.scores[0].value) for g in groups] == [("a", 1, 1)]
    assert sampler.report() == {
        "superhf/score/sampled": 2.0,
        "superhf/empty_tasks": 0.5,
        "superhf/score/kept": 1.0,
        "superhf/characters/kept": 3.0,
    }


def test_keeping_all_of_one_is_the_group_sampler():
    table = Table({"a": [("x", 1)]})

    kept = registry().build("sampler", "best_of", {"count": 1}).sample([Task(id="a")], table)

    assert kept == registry().build("sampler", "group", {"count": 1}).sample([Task(id="a")], table)


# --- the loss ---------------------------------------------------------------------------------------------


def make_batch(logits, reference, tokens, mask):
    rows, width = tokens.shape
    zeros = torch.zeros(rows, width, dtype=logits.dtype)
    return Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=zeros,
        rewards=torch.zeros(rows),
        turn_rewards=zeros,
        group=torch.arange(rows),
        turn=torch.where(mask, 0, -1),
        demonstration=torch.zeros(rows, dtype=torch.bool),
        columns={REFERENCE: reference},
    )


def loss_of(batch, logits, tokens, **options):
    objective = registry().build("objective", "superhf", options)
    chosen = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    current = {Column.LOGPROB: chosen, Column.LOGITS: logits}
    terms = objective.terms(batch, {need.column: current[need.column] for need in objective.needs})
    return reduce_terms(terms, batch), terms


def shifted(rows):
    """Distributions that *follow* tokens 0, 1, ...; ours stand at the token chosen from them, one to the right."""
    table = torch.tensor(rows, dtype=torch.float64).log()
    return torch.cat([torch.zeros_like(table[:, :1]), table[:, :-1]], dim=1)


def one_sequence():
    tokens, mask = torch.tensor([[0, 1, 0]]), torch.tensor([[False, True, True]])
    logits = torch.zeros(1, 3, 2, dtype=torch.float64)
    return make_batch(logits, shifted([[[0.8, 0.2], [0.5, 0.5], [0.9, 0.1]]]), tokens, mask), logits, tokens


def two_sequences():
    tokens = torch.tensor([[0, 1, 1], [0, 0, 1]])
    mask = torch.tensor([[False, True, True], [False, True, False]])
    logits = shifted([[[0.5, 0.5], [0.25, 0.75], [0.5, 0.5]], [[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]]])
    reference = shifted([[[0.8, 0.2], [0.25, 0.75], [0.5, 0.5]], [[0.5, 0.5]] * 3])
    return make_batch(logits, reference, tokens, mask), logits, tokens


def test_the_loss_of_one_sequence():
    batch, logits, tokens = one_sequence()

    loss, terms = loss_of(batch, logits, tokens)

    assert loss.item() == pytest.approx(0.726878, abs=1e-6)
    assert terms.loss[1].values.sum().item() / 2 == pytest.approx(0.096372, abs=1e-6)
    assert loss_of(batch, logits, tokens, kl_weight=0)[0].item() == pytest.approx(log(2))


def test_the_loss_of_two_sequences():
    batch, logits, tokens = two_sequences()

    loss, terms = loss_of(batch, logits, tokens)

    assert loss.item() == pytest.approx(0.468323, abs=1e-6)
    assert loss_of(batch, logits, tokens, kl_weight=0)[0].item() == pytest.approx(0.362063, abs=1e-6)
    rows = terms.loss[1].values.sum(1) / batch.mask.sum(1)
    assert rows.tolist() == pytest.approx([0.096372, 0.510826], abs=1e-6)


def test_what_the_released_code_would_say():
    """It reads the KL one position late, adds it up over the rows of a mini-batch, and can penalise a small loss."""
    batch, logits, tokens = one_sequence()
    late = torch.cat([batch.columns[REFERENCE][:, 1:], torch.tensor([[[0.9, 0.1]]], dtype=torch.float64).log()], dim=1)

    values = forward_kl(torch.zeros_like(logits), late, batch.mask)
    assert values.sum().item() / 2 == pytest.approx(0.184032, abs=1e-6)
    assert log(2) + 0.35 * values.sum().item() / 2 == pytest.approx(0.757558, abs=1e-6)

    at_start = make_batch(logits, logits.log_softmax(-1), tokens, batch.mask)
    loss = loss_of(at_start, logits, tokens)[0].item()
    assert loss + 0.01 / loss == pytest.approx(0.707574, abs=1e-6)  # the penalty of 0.01, which this plugin leaves out

    batch, logits, tokens = two_sequences()
    last = torch.full((2, 1, 2), 0.5, dtype=torch.float64).log()
    one_late = [torch.cat([table[:, 1:], last], dim=1) for table in (logits, batch.columns[REFERENCE])]
    assert forward_kl(*one_late, batch.mask).abs().max().item() < 1e-12  # no KL at all: 0.362063 remains
    summed = loss_of(batch, logits, tokens, kl_weight=2 * 0.35)[0].item()
    assert summed == pytest.approx(0.362063 + 0.35 * (0.096372 + 0.510826), abs=1e-6)


def test_at_the_reference_the_loss_is_cross_entropy():
    batch, logits, tokens = one_sequence()
    same = replace(batch, columns={REFERENCE: logits})

    assert loss_of(same, logits, tokens)[0].item() == pytest.approx(0.693147, abs=1e-6)


def random_case(seed):
    generator = torch.Generator().manual_seed(seed)
    logits, reference = torch.randn(2, 4, 5, 7, generator=generator, dtype=torch.float64).unbind()
    tokens = torch.randint(7, (4, 5), generator=generator)
    lengths = torch.randint(1, 6, (4,), generator=generator)
    mask = torch.arange(5)[None] < lengths[:, None]
    return make_batch(logits, reference, tokens, mask), logits, tokens


@given(st.integers(0, 10**6), st.sampled_from([0.35, 2.0]))
def test_the_gradient_of_the_logits_has_its_closed_form(seed, weight):
    batch, logits, tokens = random_case(seed)
    leaf = logits.clone().requires_grad_()

    loss_of(batch, leaf, tokens, kl_weight=weight)[0].backward()

    mask = batch.mask
    policy, reference = logits.softmax(-1), batch.columns[REFERENCE].softmax(-1)
    onehot = torch.nn.functional.one_hot(tokens, 7)
    per_row = mask.sum(1)[:, None, None]
    expected = (policy - onehot) / mask.sum() + weight * (policy - reference) / (per_row * len(mask))
    torch.testing.assert_close(leaf.grad, torch.where(mask[..., None], expected, 0.0), atol=1e-12, rtol=0)
    assert batch.columns[REFERENCE].grad is None


@given(st.integers(0, 10**6))
def test_the_divergence_is_never_negative_and_ignores_a_shift_of_the_logits(seed):
    batch, logits, _ = random_case(seed)

    values = forward_kl(logits, batch.columns[REFERENCE], batch.mask)

    assert values.min() >= 0
    torch.testing.assert_close(values, forward_kl(logits + 7.0, batch.columns[REFERENCE] - 3.0, batch.mask))
    assert forward_kl(logits, logits, batch.mask).abs().max() < 1e-15


def test_without_a_weight_it_is_cross_entropy_to_the_bit():
    batch, logits, tokens = random_case(0)

    ours = loss_of(batch, logits, tokens, kl_weight=0)[0]

    chosen = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    parent = registry().build("objective", "cross_entropy", {}).terms(batch, {Column.LOGPROB: chosen})
    assert torch.equal(ours, reduce_terms(parent, batch))


def test_a_weight_of_zero_still_measures_unless_told_not_to():
    batch, logits, tokens = one_sequence()
    _, terms = loss_of(batch, logits, tokens, kl_weight=0)

    assert [term.name for term in terms.loss] == ["policy"]
    assert float(terms.metrics["superhf/kl"].total) / 2 == pytest.approx(0.096372, abs=1e-6)
    blind = registry().build("objective", "superhf", {"kl_weight": 0, "measure_kl": False})
    assert blind.needs == {Need(Weights.CURRENT, Column.LOGPROB)}
    assert blind.couples is Couples.ROWS


def test_empty_rows_and_what_stands_behind_the_mask_change_nothing():
    batch, logits, tokens = two_sequences()
    expected = loss_of(batch, logits, tokens)[0]

    dirty = torch.where(batch.mask[..., None], logits, nan).clone().requires_grad_()
    frozen = {REFERENCE: torch.where(batch.mask[..., None], batch.columns[REFERENCE], nan)}
    loss, _ = loss_of(replace(batch, columns=frozen), dirty, tokens)
    loss.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(dirty.grad[~batch.mask].nan_to_num(), torch.zeros(3, 2, dtype=torch.float64))

    row = torch.zeros(1, 3, dtype=torch.bool)
    wide = make_batch(
        logits,
        torch.cat([batch.columns[REFERENCE], logits[:1]]),
        torch.cat([tokens, tokens[:1]]),
        torch.cat([batch.mask, row]),
    )
    more = torch.cat([logits, logits[:1]])
    assert loss_of(wide, more, torch.cat([tokens, tokens[:1]]))[0].item() == pytest.approx(expected.item())


def test_logits_a_thousand_apart_stay_finite():
    logits = torch.tensor([[[1000.0, 0.0]]], requires_grad=True)
    reference = torch.tensor([[[0.0, 1000.0]]])

    values = forward_kl(logits, reference, torch.tensor([[True]]))
    values.sum().backward()

    assert values.item() == 1000.0
    assert logits.grad.tolist() == [[[1.0, -1.0]]]


# --- METEOR -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def meteor():
    pytest.importorskip("nltk", reason="METEOR needs nltk: pip install 'rl-orchestrator[superhf]'")
    from orchestrator_plugins.superhf.similarity import meteor

    return meteor


MAT, OTHER_MAT, DOG = "the cat sat on the mat", "the cat sat on a mat", "a dog ran"


def test_meteor_of_hand_cases(meteor):
    assert meteor(MAT, OTHER_MAT) == pytest.approx(0.743333, abs=1e-6)
    assert meteor(OTHER_MAT, MAT) == pytest.approx(0.743333, abs=1e-6)
    assert meteor(MAT, MAT) == pytest.approx(0.997685, abs=1e-6)
    assert meteor(MAT, DOG) == 0.0
    assert meteor("x y z", "z y x") == pytest.approx(0.5)
    assert meteor("The Cat", "the cat") > 0.9
    assert meteor("", "the cat") == 0.0
    assert meteor("cats run", "cat runs") == 0.0
    assert meteor("cats run", "cat runs", stem=True) > 0.9


def test_similarity_is_the_mean_over_ordered_pairs(meteor):
    from orchestrator_plugins.superhf.similarity import similarity

    assert similarity([MAT, OTHER_MAT, DOG]) == pytest.approx(0.287650, abs=1e-6)
    with pytest.raises(ValueError, match="1 texts"):
        similarity([MAT])


def test_evaluation_measures_answers_to_different_tasks(meteor):
    measure = registry().build("reward", "meteor_similarity", {"pairs": 20})
    alike = Table({"a": [(MAT, 0)] * 2, "b": [(MAT, 0)] * 2})
    unlike = Table({"a": [(MAT, 0)] * 2, "b": [("dogs ran", 0)] * 2})

    class Request:
        def __init__(self, name):
            self.task, self.count = Task(id=name), 2

    def found(table):
        return measure.evaluate(table([Request("a"), Request("b")]))

    assert isinstance(measure, Evaluates)
    assert found(alike) == {"meteor_similarity": pytest.approx(meteor(MAT, MAT))}
    assert found(unlike) == {"meteor_similarity": 0.0}
    assert measure.evaluate(alike([Request("a")])) == {}
    assert [score.value for score in measure.score(alike([Request("a")])[0])] == [0.0, 0.0]


# --- a proxy to be gamed ----------------------------------------------------------------------------------


def test_a_phrase_scores_its_share_of_the_words():
    reward = registry().build("reward", "phrase_share", {"phrase": "*"})
    texts = ["3 * 5 * 2", "* * *", "3 + 5", "", "3*5", " * "]
    table = Table({"a": [(text, 0) for text in texts]})

    class Request:
        task, count = Task(id="a"), len(texts)

    [group] = table([Request])

    assert [score.value for score in reward.score(group)] == [0.4, 1.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("options", [{}, {"phrase": ""}, {"phrase": "two words"}])
def test_a_phrase_is_one_word(options):
    with pytest.raises(ConfigError):
        registry().build("reward", "phrase_share", options)


# --- the schedule -----------------------------------------------------------------------------------------


def test_the_recipes_learning_rate():
    """Warmed up over 32 updates, then a cosine over the rest of 5,000; the rate reached, not the one before."""
    settings = Optimizer(lr=2e-5, **registry().describe("recipe", "superhf").overlay["optimizer"])

    def after(updates):
        return settings.lr * learning_rate_factor(settings, updates, updates / 5000)

    # The code's first update has rate 0 and its 2nd, 17th and 33rd these; here each comes one update earlier.
    assert [after(updates) for updates in (0, 15, 31)] == pytest.approx([6.25e-7, 1e-5, 2e-5])
    assert [after(updates) for updates in (32, 2516)] == pytest.approx([2e-5, 1e-5])
    assert after(5000) == pytest.approx(0, abs=1e-20)


# --- the rest ---------------------------------------------------------------------------------------------


def test_the_recipe_builds():
    recipe = registry().describe("recipe", "superhf").overlay

    for role in ("sampler", "objective"):
        options = {key: value for key, value in recipe[role].items() if key != "use"}
        registry().build(role, recipe[role]["use"], options)


@pytest.mark.parametrize(
    ("role", "name", "options", "complaint"),
    [
        ("sampler", "best_of", {"count": 2, "keep": 3}, "keep is 3 but count only 2"),
        ("sampler", "best_of", {"keep": 0}, "greater than or equal to 1"),
        ("objective", "superhf", {"kl_weight": -1}, "greater than or equal to 0"),
    ],
)
def test_bad_options_are_refused(role, name, options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        registry().build(role, name, options)
