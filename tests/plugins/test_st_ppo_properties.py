"""ST-PPO's invariances in float64: on-policy, one-token turns, the split of the gradient, masks, micro-batches, edges."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchestrator.api import Column, Need, Reduction, Weights, load_registry, reduce_terms
from orchestrator.testing import Outputs, make_batch, objective_gradients

OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)
SIZES = (3, 1, 4)
ROWS = sum(SIZES)
METHODS = {
    "token": {"ratio": "token", "correction": "none", "measure_clipped": True},
    "s": {"ratio": "token", "correction": "raw"},
    "turn": {"ratio": "turn", "correction": "none", "measure_clipped": True},
    "st": {"ratio": "turn", "correction": "raw"},
}
BY_LEVEL = pytest.mark.parametrize("ratio", ["token", "turn"])
CLOSE = {"atol": 1e-10, "rtol": 1e-10}
seeds = st.integers(0, 10**6)


@cache
def registry():
    return load_registry(["st_ppo", "baselines"])


def objective(**options):
    return registry().build("objective", "st_ppo", {"correction": "raw", **options})


def free(**options):
    """Without bounds: nothing is ever clipped."""
    return objective(clip_low=1e30, clip_high=1e30, **options)


class Net:
    """A policy of one hidden layer: what it says of a batch, and gradients in its weights."""

    def __init__(self, batch, seed, *, spread=1.0):
        generator = torch.Generator().manual_seed(seed)
        self.features = torch.randn(*batch.mask.shape, 5, generator=generator, dtype=torch.float64)
        self.weights = [
            (spread * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_()
            for shape in ((5, 6), (6, 11))
        ]
        logits = (self.features @ self.weights[0]).tanh() @ self.weights[1]
        self.outputs = Outputs(logits=logits, values=torch.zeros(batch.mask.shape, dtype=torch.float64))

    def gradients(self, built, batch, parts=None):
        """Gradient of the loss, of what clipping removed, and both of their norms, by all weights in one vector."""
        found = objective_gradients(built, batch, self._leaves(), parts)
        kept, gone = (self._pull(found[f"{name}/logits"]) for name in ("loss", "probe/clipped"))
        return kept, gone, {"loss": float(kept.norm()), "clipped": float(gone.norm())}

    def logprobs(self, batch):
        with torch.no_grad():
            return self.outputs.columns(batch, [Column.LOGPROB])[Column.LOGPROB]

    def _leaves(self):
        return Outputs(
            logits=self.outputs.logits.detach().requires_grad_(), values=self.outputs.values.requires_grad_()
        )

    def _pull(self, gradient):
        pulled = torch.autograd.grad(self.outputs.logits, self.weights, gradient, retain_graph=True)
        return torch.cat([part.flatten() for part in pulled])


def case(seed, *, turns=2, spread=1.0, moved=0.4, lengths=None):
    """A batch, and a policy that moved away from the one that sampled it."""
    batch = make_batch(sizes=SIZES, turns=turns, lengths=lengths, dtype=torch.float64, seed=seed)
    net = Net(batch, seed, spread=spread)
    generator = torch.Generator().manual_seed(seed + 1)
    away = moved * torch.randn(batch.mask.shape, generator=generator, dtype=torch.float64)
    return replace(batch, columns={OLD_LOGPROB: net.logprobs(batch) - away}), net


@settings(max_examples=25)
@given(seeds)
def test_on_policy_nothing_is_removed_and_the_correction_does_nothing(seed):
    batch, net = case(seed, moved=0.0)

    found = {
        name: (objective(**options), *net.gradients(objective(**options), batch)) for name, options in METHODS.items()
    }

    for built, _, gone, norms in found.values():
        assert not gone.any()
        assert built.factor(norms) == 1.0
    assert torch.equal(found["s"][1], found["token"][1])
    assert torch.equal(found["st"][1], found["turn"][1])


@settings(max_examples=15)
@given(seeds)
def test_on_policy_turns_average_their_tokens_advantages(seed):
    batch, net = case(seed, moved=0.0)
    averaged = batch.advantages.clone()
    for row in range(ROWS):
        for turn in range(2):
            here = batch.turn[row] == turn
            averaged[row, here] = averaged[row, here].mean()

    kept, _, _ = net.gradients(objective(ratio="turn"), batch)

    by_token, _, _ = net.gradients(objective(ratio="token"), replace(batch, advantages=averaged))
    torch.testing.assert_close(kept, by_token, **CLOSE)


@settings(max_examples=25)
@given(seeds, st.sampled_from(["full", "token"]), st.sampled_from(["per_token", "aggregate"]))
def test_turns_of_one_token_are_tokens(seed, turn_gradient, turn_advantage):
    batch, net = case(seed, turns=99)

    by_turn = objective(ratio="turn", turn_gradient=turn_gradient, turn_advantage=turn_advantage)
    turn = net.gradients(by_turn, batch)

    token = net.gradients(objective(ratio="token"), batch)
    for one, other in zip(turn[:2], token[:2], strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    current = {Column.LOGPROB: net.logprobs(batch)}
    losses = [built.terms(batch, current).loss[0].values for built in (by_turn, objective(ratio="token"))]
    torch.testing.assert_close(*losses, **CLOSE)


@BY_LEVEL
@settings(max_examples=25)
@given(seeds)
def test_one_turn_is_a_whole_sequence(ratio, seed):
    """The turn ratio of a single turn is GSPO's; with full gradient all its tokens are pushed alike."""
    batch, _ = case(seed, turns=1)
    now = (batch.columns[OLD_LOGPROB] + 0.05 * batch.advantages).requires_grad_()

    [policy] = objective(ratio=ratio).terms(batch, {Column.LOGPROB: now}).loss
    [gradient] = torch.autograd.grad(policy.values.sum(), now)

    alike = [len(set(torch.round(gradient[row][batch.mask[row]], decimals=9).tolist())) == 1 for row in range(ROWS)]
    assert all(alike) == (ratio == "turn")


@settings(max_examples=25)
@given(seeds)
def test_the_ratio_of_one_turn_is_that_of_the_sequence(seed):
    """Unclipped, a row whose advantages are 1 loses minus its ratio: exp of the mean log-ratio, as in GSPO."""
    batch, net = case(seed, turns=1)
    batch = replace(batch, advantages=torch.where(batch.mask, 1.0, 0.0).double())
    now = net.logprobs(batch)

    [policy] = free(ratio="turn").terms(batch, {Column.LOGPROB: now}).loss

    away = torch.where(batch.mask, now - batch.columns[OLD_LOGPROB], 0.0)
    sequence = (away.sum(1) / batch.mask.sum(1)).exp()
    torch.testing.assert_close(policy.values, torch.where(batch.mask, -sequence[:, None], 0.0), **CLOSE)


@settings(max_examples=25)
@given(seeds, st.integers(1, 4), st.sampled_from(["per_token", "aggregate"]))
def test_unclipped_every_token_of_a_turn_is_pushed_by_the_turns_mean_advantage(seed, turns, turn_advantage):
    """Lemma 4.1, off policy: the gradient of J in log pi_t is rho_k A^k / (n_k N_b B'), A^k the sum over turn k."""
    batch, net = case(seed, turns=turns)
    now = net.logprobs(batch).requires_grad_()

    terms = free(ratio="turn", turn_advantage=turn_advantage).terms(batch, {Column.LOGPROB: now})

    [gradient] = torch.autograd.grad(-reduce_terms(terms, batch), now)
    expected = torch.zeros_like(gradient)
    for row in range(ROWS):
        for turn in range(turns):
            here = batch.turn[row] == turn
            if here.any():
                rho = (now[row] - batch.columns[OLD_LOGPROB][row])[here].mean().exp().detach()
                pushed = rho * batch.advantages[row][here].sum() / here.sum()
                expected[row, here] = pushed / (batch.mask[row].sum() * ROWS)
    torch.testing.assert_close(gradient, expected, **CLOSE)


@settings(max_examples=25)
@given(seeds, st.booleans())
def test_the_tokens_own_gradient_is_the_turns_where_a_turn_has_one_advantage(seed, alike):
    batch, net = case(seed)
    if alike:
        first = torch.where(batch.turn == 0, 1.5, -0.5)
        batch = replace(batch, advantages=torch.where(batch.mask, first, 0.0).double())
    leaf = net.logprobs(batch).requires_grad_()
    built = [free(ratio="turn", turn_gradient=path).terms(batch, {Column.LOGPROB: leaf}) for path in ("full", "token")]

    losses = [reduce_terms(terms, batch) for terms in built]

    full, token = (torch.autograd.grad(loss, leaf)[0] for loss in losses)
    torch.testing.assert_close(losses[0], losses[1], **CLOSE)
    assert torch.allclose(full, token, atol=1e-10) == alike


@BY_LEVEL
@pytest.mark.parametrize("reduction", list(Reduction))
@settings(max_examples=8)
@given(seeds, st.sampled_from(["full", "token"]), st.sampled_from(["per_token", "aggregate"]))
def test_kept_and_removed_add_up_to_the_unclipped_gradient(ratio, reduction, seed, turn_gradient, turn_advantage):
    turns = {"turn_gradient": turn_gradient, "turn_advantage": turn_advantage} if ratio == "turn" else {}
    batch, net = case(seed)

    kept, gone, norms = net.gradients(objective(ratio=ratio, reduction=reduction, **turns), batch)

    unclipped, nothing, _ = net.gradients(free(ratio=ratio, reduction=reduction, **turns), batch)
    torch.testing.assert_close(kept, unclipped - gone, **CLOSE)
    assert not nothing.any()
    assert (norms["clipped"] > 0) == bool(gone.any())


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": "token"},
        {"ratio": "turn"},
        {"ratio": "turn", "turn_gradient": "token"},
        {"ratio": "turn", "turn_advantage": "aggregate"},
    ],
    ids=lambda options: "-".join(options.values()),
)
@settings(max_examples=15)
@given(seeds, st.sampled_from([float("nan"), float("inf"), -1e30, 3.0]))
def test_what_stands_at_masked_positions_does_not_matter(options, seed, junk):
    batch, net = case(seed)
    now = net.logprobs(batch).requires_grad_()
    dirty = torch.where(batch.mask, now.detach(), junk).requires_grad_()
    spoilt = replace(
        batch,
        advantages=torch.where(batch.mask, batch.advantages, junk),
        columns={OLD_LOGPROB: torch.where(batch.mask, batch.columns[OLD_LOGPROB], -junk)},
    )

    clean, other = (
        objective(**options).terms(data, {Column.LOGPROB: leaf}) for data, leaf in ((batch, now), (spoilt, dirty))
    )

    for one, two in ((clean.loss[0], other.loss[0]), (clean.probes[0], other.probes[0])):
        assert torch.equal(one.values[batch.mask], two.values[batch.mask])
        if one.values.requires_grad:
            [expected] = torch.autograd.grad(one.values[batch.mask].sum(), now, retain_graph=True)
            [found] = torch.autograd.grad(torch.where(batch.mask, two.values, 0.0).sum(), dirty, retain_graph=True)
            assert torch.equal(found, expected)
            assert not found[~batch.mask].any()
    assert {k: float(v.total) for k, v in clean.metrics.items()} == {
        k: float(v.total) for k, v in other.metrics.items()
    }


@BY_LEVEL
@settings(max_examples=20)
@given(seeds, st.permutations(range(ROWS)), st.sets(st.integers(1, ROWS - 1)))
def test_micro_batches_change_neither_norm(ratio, seed, order, cuts):
    batch, net = case(seed)
    edges = [0, *sorted(cuts), ROWS]
    parts = [torch.tensor(order[a:b]) for a, b in pairwise(edges)]

    kept, gone, norms = net.gradients(objective(ratio=ratio), batch, parts)

    whole = net.gradients(objective(ratio=ratio), batch)
    torch.testing.assert_close(kept, whole[0], **CLOSE)
    torch.testing.assert_close(gone, whole[1], **CLOSE)
    assert norms == pytest.approx(whole[2], rel=1e-10)


@BY_LEVEL
@pytest.mark.parametrize("correction", ["raw", "ratio", "max1", "one_plus"])
@settings(max_examples=15)
@given(seeds, st.floats(0.01, 100))
def test_the_corrected_gradient_times_the_divisor_is_the_uncorrected_one(ratio, correction, seed, scale):
    batch, net = case(seed)
    built = objective(ratio=ratio, correction=correction, correction_scale=scale)
    kept, _, norms = net.gradients(built, batch)

    factor = built.factor(norms)

    plain, _, _ = net.gradients(objective(ratio=ratio, correction="none", measure_clipped=True), batch)
    torch.testing.assert_close(kept * factor / factor, plain, **CLOSE)
    c = scale * norms["clipped"]
    expected = {"raw": c, "ratio": max(1, c / norms["loss"]), "max1": max(1, c), "one_plus": 1 + c}[correction]
    assert 1 / factor == pytest.approx(expected, rel=1e-12)


@settings(max_examples=25)
@given(seeds, st.floats(1e-3, 1e3))
def test_raw_followed_by_clipping_and_ratio_shorten_alike(seed, scale):
    """Divided by ‖C‖ and clipped to 1 the step has norm min(1, ‖∇J‖/‖C‖), whatever the advantages are multiplied by."""
    batch, net = case(seed)
    batch = replace(batch, advantages=scale * batch.advantages)
    kept, _, norms = net.gradients(objective(), batch)
    assume(norms["clipped"] > 0)

    raw = kept * objective(correction="raw").factor(norms)
    ratio = kept * objective(correction="ratio").factor(norms)

    length = min(1.0, norms["loss"] / norms["clipped"])
    clipped = raw / max(1.0, float(raw.norm()))
    assert float(clipped.norm()) == pytest.approx(length, rel=1e-9)
    assert float(ratio.norm()) == pytest.approx(norms["loss"] * length, rel=1e-9)


# --- edges ------------------------------------------------------------------------------------------------


@BY_LEVEL
@pytest.mark.parametrize("shift", [1000.0, -1000.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_extreme_log_ratios_stay_finite(ratio, shift, sign):
    batch, net = case(3)
    batch = replace(
        batch,
        advantages=torch.where(batch.mask, sign, 0.0),
        columns={OLD_LOGPROB: net.logprobs(batch) - shift},
    )

    kept, gone, norms = net.gradients(objective(ratio=ratio), batch)

    assert kept.isfinite().all()
    assert gone.isfinite().all()
    if shift * sign > 0:  # all clipped: nothing is kept
        assert not kept.any()
    assert 0 <= objective(ratio=ratio).factor(norms) < float("inf")


@BY_LEVEL
def test_all_clipped_keeps_nothing(ratio):
    batch, net = case(5)
    ones = torch.where(batch.mask, 1.0, 0.0).double()
    batch = replace(batch, advantages=ones, columns={OLD_LOGPROB: net.logprobs(batch) - 0.3})

    kept, gone, norms = net.gradients(objective(ratio=ratio, correction="ratio"), batch)

    assert not kept.any()
    assert gone.any()
    assert objective(ratio=ratio, correction="ratio").factor(norms) == 1.0


@BY_LEVEL
def test_where_nothing_is_clipped_there_is_no_second_pass(ratio):
    batch, net = case(7, moved=1e-3)

    terms = objective(ratio=ratio).terms(batch, {Column.LOGPROB: net.logprobs(batch).requires_grad_()})

    [probe] = terms.probes
    assert not probe.values.requires_grad
    assert not probe.values.any()
    assert float(terms.metrics["train/clip_fraction"].total) == 0


def test_tokens_with_their_own_ratio_are_the_parents():
    """Without correction and with ratios of tokens the policy term is that of ``clipped``, to the bit."""
    batch, net = case(11)
    now = net.logprobs(batch)
    parent = registry().build("objective", "clipped", {"reduction": "sequence_mean"})

    terms, expected = (
        built.terms(batch, {Column.LOGPROB: now}) for built in (objective(ratio="token", correction="none"), parent)
    )

    assert torch.equal(terms.loss[0].values, expected.loss[0].values)
    assert float(terms.metrics["train/clip_fraction"].total) == float(expected.metrics["train/clip_fraction"].total)
