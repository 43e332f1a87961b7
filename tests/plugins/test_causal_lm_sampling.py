"""Drawing tokens: noise, temperature, truncation, and the numbers recorded about it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.causal_lm.sampling import Knobs, draw, measured_temperature, uniforms
from scipy.stats import chi2, kstest

from orchestrator.api import Sampling

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


def knobs(rows: int, **settings) -> Knobs:
    return Knobs.of([Sampling(**settings)] * rows, len(LOGITS), torch.device("cpu"))


def many(rows: int, **settings):
    noise = torch.from_numpy(uniforms(range(rows), 1))[:, 0]
    return draw(LOGITS.expand(rows, -1), knobs(rows, **settings), noise)


def assert_distributed(tokens: torch.Tensor, chances: torch.Tensor) -> None:
    counts = torch.bincount(tokens, minlength=len(chances)).double()
    assert (counts[chances == 0] == 0).all()
    expected = chances[chances > 0].double() * len(tokens)
    statistic = ((counts[chances > 0] - expected) ** 2 / expected).sum().item()
    assert statistic < chi2.ppf(0.999, len(expected) - 1)


def test_uniform_noise_is_uniform_over_seeds_and_over_positions():
    noise = uniforms(range(300), 300)

    assert kstest(noise.ravel(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.02  # neighbouring seeds
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.02  # neighbouring positions
    assert noise.min() >= 0
    assert noise.max() < 1


def test_noise_of_a_seed_depends_on_nothing_else():
    together, alone = uniforms([5, 2**63 + 1, -7], 40), uniforms([-7], 9)

    assert (together[2, :9] == alone[0]).all()


def test_plain_draws_follow_the_softmax_at_the_temperature():
    for temperature in (0.5, 1.0, 2.0):
        drawn = many(20000, temperature=temperature)

        chances = torch.softmax(LOGITS / temperature, 0)
        assert_distributed(drawn.tokens, chances)
        torch.testing.assert_close(drawn.logprobs, chances.log()[drawn.tokens])
        torch.testing.assert_close(drawn.sampled, drawn.logprobs)


def test_top_k_keeps_the_k_likeliest_and_renormalises():
    drawn = many(20000, top_k=3)

    chances = torch.softmax(LOGITS, 0)
    kept = torch.where(torch.arange(6) < 3, chances, 0)
    assert_distributed(drawn.tokens, kept / kept.sum())
    torch.testing.assert_close(drawn.logprobs, chances.log()[drawn.tokens])
    torch.testing.assert_close(drawn.sampled, (chances / kept.sum()).log()[drawn.tokens])


def test_top_p_keeps_the_smallest_nucleus_of_that_mass():
    # softmax of LOGITS: .559 .206 .125 .076 .028 .004; the nucleus of 0.8 is the first three (.559 + .206 < 0.8)
    drawn = many(20000, top_p=0.8)

    chances = torch.softmax(LOGITS, 0)
    kept = torch.where(torch.arange(6) < 3, chances, 0)
    assert_distributed(drawn.tokens, kept / kept.sum())
    torch.testing.assert_close(drawn.sampled, (chances / kept.sum()).log()[drawn.tokens])


def test_a_tiny_nucleus_and_a_temperature_of_zero_are_greedy():
    for settings in ({"top_p": 1e-6}, {"temperature": 0.0}, {"top_k": 1}):
        drawn = many(50, **settings)

        assert (drawn.tokens == 0).all()
        torch.testing.assert_close(drawn.sampled, torch.zeros(50))
        torch.testing.assert_close(drawn.logprobs, torch.log_softmax(LOGITS, 0)[0].expand(50))
    assert measured_temperature(Sampling(temperature=0)) == 1.0


def test_truncated_and_plain_rows_do_not_influence_each_other():
    settings = [Sampling(), Sampling(top_k=2), Sampling(top_p=0.7, temperature=1.5), Sampling(temperature=0)]
    noise = torch.from_numpy(uniforms([1, 2, 3, 4], 1))[:, 0]
    logits = LOGITS.expand(4, -1)

    together = draw(logits, Knobs.of(settings, 6, torch.device("cpu")), noise)

    for row, one in enumerate(settings):
        alone = draw(logits[row : row + 1], Knobs.of([one], 6, torch.device("cpu")), noise[row : row + 1])
        assert together.tokens[row] == alone.tokens[0]
        assert together.logprobs[row] == alone.logprobs[0]
        assert together.sampled[row] == alone.sampled[0]


@pytest.mark.parametrize("noise", [0.0, 1 - 2**-53])
def test_extreme_noise_never_draws_what_cannot_be_drawn(noise):
    logits = torch.tensor([[-math.inf, 1.0, 0.0, -math.inf]])

    for settings in (Sampling(), Sampling(top_p=0.9)):
        drawn = draw(logits, Knobs.of([settings], 4, torch.device("cpu")), torch.tensor([noise], dtype=torch.float64))
        assert drawn.tokens[0] in (1, 2)
        assert drawn.logprobs.isfinite().all()


def sorted_draw(logits: torch.Tensor, knobs: Knobs, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The same by its definition: the whole vocabulary sorted, equals in the order of their ids."""
    ranked, ids = torch.log_softmax(logits / knobs.temperature, -1).sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(ranked.shape[1])
    chances = torch.where(rank < knobs.top_k, ranked.exp(), 0)
    before = chances.cumsum(-1) - chances
    nucleus = (before < knobs.top_p * chances.sum(-1, keepdim=True)) | (knobs.top_p >= 1) | (rank == 0)
    cumulative = torch.where(nucleus, chances, 0).double().cumsum(-1)
    places = (cumulative > noise[:, None] * cumulative[:, -1:]).to(torch.uint8).argmax(-1, keepdim=True)
    chosen = ranked.gather(1, places)[:, 0]
    return ids.gather(1, places)[:, 0], chosen, chosen - cumulative[:, -1].log().float()


@given(
    seed=st.integers(0, 2**20),
    size=st.sampled_from([2, 7, 300, 3000]),
    spread=st.sampled_from([0.0, 0.3, 3.0, 30.0]),
    tied=st.sampled_from([None, 1.0, 4.0]),
    settings=st.lists(
        st.builds(
            Sampling,
            temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
            top_p=st.sampled_from([1.0, 0.999, 0.9, 0.5, 1e-3]),
            top_k=st.sampled_from([None, 1, 3, 50, 2000]),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_few_ranked_tokens_give_what_sorting_all_of_them_gives(seed, size, spread, tied, settings):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(len(settings), size, generator=generator)
    if tied is not None:
        logits = (logits * tied).round() / tied
        logits[:, size // 2] = -math.inf
    noise = torch.rand(len(settings), generator=generator, dtype=torch.float64)
    knobs = Knobs.of(settings, size, torch.device("cpu"))

    drawn = draw(logits, knobs, noise)

    tokens, logprobs, sampled = sorted_draw(logits, knobs, noise)
    cut = knobs.truncated
    assert torch.equal(drawn.tokens[cut], tokens[cut])
    assert torch.equal(drawn.logprobs[cut], logprobs[cut])
    torch.testing.assert_close(drawn.sampled[cut], sampled[cut], atol=1e-4, rtol=0)
