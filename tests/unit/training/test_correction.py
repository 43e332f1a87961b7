"""The policy's loss is weighed by the gap between acting and training, once an update, however it is cut."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from orchestrator.contract.batch import Column, LossTerm, Need, Reduction, Terms, Weights
from orchestrator.contract.settings import Correction, Settings
from orchestrator.contract.types import Couples
from orchestrator.errors import ConfigError
from orchestrator.experiment import planner
from orchestrator.experiment.files import parse_experiment
from orchestrator.plugging.registry import load_registry
from orchestrator.testing import ScriptedPolicy, make_batch
from orchestrator.training.correction import OLD_LOGPROB, Gap, GapCorrection
from orchestrator.training.distributed import Workers
from orchestrator.training.reduction import reduce_terms
from orchestrator.training.trainer import Trainer
from orchestrator.training.weights import WeightStore

REGISTRY = load_registry()
KINDS = ({"kind": "truncated"}, {"kind": "masked", "floor": 0.5, "cap": 5.0}, {"kind": "masked", "level": "sequence"})


class Likelihood:
    """Minus each token's log-probability; a probe of the same, and a term that no correction concerns."""

    needs = frozenset({Need(Weights.CURRENT, Column.LOGPROB)})
    couples = Couples.ROWS

    def __init__(self, shape=lambda values: values, name="policy"):
        self.shape, self.name = shape, name

    def terms(self, batch, current):
        values = -current[Column.LOGPROB]
        return Terms(
            loss=(
                LossTerm(name=self.name, values=self.shape(values), reduction=Reduction.SEQUENCE_SUM),
                LossTerm(name="kl", values=values, reduction=Reduction.TOKEN_MEAN),
            ),
            probes=(LossTerm(name="seen", values=values, reduction=Reduction.TOKEN_MEAN),),
        )


def _policy_and_batch(seed=0, demonstrations=False):
    policy = ScriptedPolicy(seed=seed)
    batch = make_batch(sizes=(2, 3), seed=seed, demonstrations=demonstrations)
    with torch.no_grad():
        own = policy.columns(batch.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]
    apart = torch.linspace(-1.5, 1.5, batch.mask.numel()).reshape(batch.mask.shape)  # ratios from 0.22 to 4.5
    sampled = batch.mask & ~batch.demonstration[:, None]
    return policy, replace(batch, behaviour_logprobs=torch.where(sampled, own - apart, 0.0)), apart


def _trainer(policy, objective, correction, schedule=None, **update):
    settings = Settings(
        name="x",
        environment={"use": "echo"},
        schedule=schedule or {},
        optimizer={"lr": 0.1, "use": "sgd", "max_grad_norm": None},
        update={"correction": correction, **update},
    )
    return Trainer(policy, None, objective, settings, WeightStore(policy.module), seed=0)


def _parameters(policy):
    return torch.cat([p.detach().flatten() for p in policy.module.parameters()])


def _trained(correction, *, objective="reinforce", schedule=None, seed=0, **update):
    policy, batch, _ = _policy_and_batch(seed)
    trainer = _trainer(policy, REGISTRY.build("objective", objective), correction, schedule, **update)
    metrics = trainer.update(batch, 1, fresh=False)
    return _parameters(policy), metrics


def test_token_weights_multiply_the_policys_tokens_and_the_probes_alone():
    _, batch, apart = _policy_and_batch()
    correction = GapCorrection(Correction(kind="truncated", cap=2.0))
    ones = {Column.LOGPROB: -torch.ones(batch.mask.shape)}

    terms = correction.weigh(Likelihood().terms(batch, ones), batch, batch.behaviour_logprobs + apart)

    wanted = apart.exp().clamp(max=2.0)[batch.mask]
    assert_close(terms.loss[0].values[batch.mask], wanted)
    assert_close(terms.probes[0].values[batch.mask], wanted)
    assert torch.equal(terms.loss[1].values, torch.ones(batch.mask.shape))


def test_a_sequences_weight_is_the_product_of_its_ratios_on_each_of_its_tokens():
    _, batch, apart = _policy_and_batch()
    correction = GapCorrection(Correction(kind="masked", level="sequence", cap=3.0))
    ones = {Column.LOGPROB: -torch.ones(batch.mask.shape)}

    rows = correction.weigh(Likelihood(lambda v: v[:, 0]).terms(batch, ones), batch, batch.behaviour_logprobs + apart)
    tokens = correction.weigh(Likelihood().terms(batch, ones), batch, batch.behaviour_logprobs + apart)

    ratio = torch.where(batch.mask, apart, 0.0).sum(1).exp()
    wanted = torch.where(ratio <= 3.0, ratio, 0.0)
    assert bool((wanted == 0).any())
    assert bool((wanted > 0).any())
    assert_close(rows.loss[0].values, wanted)
    assert_close(tokens.loss[0].values, wanted[:, None].expand(batch.mask.shape))


def test_what_is_masked_counts_in_the_denominator():
    _, batch, apart = _policy_and_batch()
    correction = GapCorrection(Correction(kind="masked", cap=1.0))
    ones = {Column.LOGPROB: -torch.ones(batch.mask.shape)}
    plain = Terms(loss=Likelihood().terms(batch, ones).loss[:1])
    plain = Terms(loss=(replace(plain.loss[0], reduction=Reduction.TOKEN_MEAN),))

    weighed = reduce_terms(correction.weigh(plain, batch, batch.behaviour_logprobs + apart), batch)

    kept = (apart <= 0) & batch.mask
    assert_close(weighed, apart.exp()[kept].sum() / batch.mask.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_demonstrations_are_never_weighed(kind):
    _, batch, apart = _policy_and_batch(demonstrations=True)
    weights = GapCorrection(Correction(**kind)).weights(batch, apart * 3)

    assert bool((weights[batch.demonstration] == 1).all())
    assert bool((weights[~batch.demonstration] != 1).any())


@pytest.mark.parametrize("objective", ["reinforce", "clipped", "rover", "cross_entropy"])
@pytest.mark.parametrize("kind", KINDS)
def test_corrected_weights_do_not_depend_on_the_cut_into_micro_batches(kind, objective):
    whole, metrics = _trained(kind, objective=objective)
    cut, cut_metrics = _trained(kind, objective=objective, micro_batch_rows=1)
    plain, _ = _trained({"kind": "none"}, objective=objective)

    assert_close(cut, whole)
    assert not torch.allclose(whole, plain, atol=1e-6)
    for name in metrics:
        assert cut_metrics[name] == pytest.approx(metrics[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_an_update_are_those_of_the_old_policy_in_all_its_steps(kind):
    """Frozen before the first step, though the policy moves: as if the weights had been worked out by hand."""
    policy, batch, _ = _policy_and_batch()
    trainer = _trainer(policy, REGISTRY.build("objective", "reinforce"), kind, {"epochs": 3})
    seen = []
    weigh = trainer._correction.weigh

    def watched(terms, micro, old):
        seen.append(old[micro.mask].sort().values)
        return weigh(terms, micro, old)

    trainer._correction.weigh = watched
    with torch.no_grad():
        before = policy.columns(batch.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]
    trainer.update(batch, 1)

    assert len(seen) == 3
    for old in seen:
        assert_close(old, before[batch.mask].sort().values)
    with torch.no_grad():
        after = policy.columns(batch.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]
    assert not torch.allclose(after[batch.mask], before[batch.mask], atol=1e-3)


def test_a_policy_that_acts_as_it_is_trained_learns_bitwise_the_same_with_weights_of_one():
    policies = []
    for kind in ("none", "truncated", "masked"):
        policy, batch, apart = _policy_and_batch()
        batch = replace(batch, behaviour_logprobs=torch.where(batch.mask, batch.behaviour_logprobs + apart, 0.0))
        with torch.no_grad():
            own = policy.columns(batch.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]
        batch = replace(batch, behaviour_logprobs=torch.where(batch.mask, own, 0.0))
        metrics = _trainer(policy, REGISTRY.build("objective", "clipped"), {"kind": kind}).update(batch, 1)
        policies.append(_parameters(policy))
        assert metrics["train/correction/gap_mean"] == 0.0
        if kind != "none":
            assert metrics["train/correction/effective_share"] == 1.0
            assert metrics[f"train/correction/{kind}_share"] == 0.0

    assert torch.equal(policies[0], policies[1])
    assert torch.equal(policies[0], policies[2])


def test_metrics_count_sampled_tokens_once_however_many_epochs():
    _, batch, apart = _policy_and_batch(demonstrations=True)
    sampled = batch.mask & ~batch.demonstration[:, None]
    ratios = apart[sampled].exp().double()
    for schedule in ({}, {"epochs": 2, "minibatches": 2}):
        policy, batch, apart = _policy_and_batch(demonstrations=True)
        trainer = _trainer(policy, Likelihood(), {"kind": "masked", "floor": 0.5, "cap": 2.0}, schedule)
        metrics = trainer.update(batch, 1)

        kept = ratios[(ratios >= 0.5) & (ratios <= 2)]
        assert metrics["train/correction/gap_mean"] == pytest.approx(float(apart[sampled].abs().mean()), rel=1e-4)
        assert metrics["train/correction/masked_share"] == pytest.approx(1 - len(kept) / len(ratios))
        assert metrics["train/correction/largest_ratio"] == pytest.approx(float(ratios.max()), rel=1e-4)
        share = float(kept.sum() ** 2 / (kept.square().sum() * len(ratios)))
        assert metrics["train/correction/effective_share"] == pytest.approx(share, rel=1e-4)


def test_no_correction_measures_the_gap_where_the_weights_that_acted_are_trained():
    policy, batch, apart = _policy_and_batch()
    trainer = _trainer(policy, Likelihood(), {"kind": "none"})

    fresh, stale = trainer.update(batch, 1), trainer.update(batch, 2, fresh=False)

    assert fresh["train/correction/gap_mean"] == pytest.approx(float(apart[batch.mask].abs().mean()), rel=1e-4)
    assert fresh["train/act_train_logprob_gap"] == pytest.approx(float(apart[batch.mask].abs().max()), rel=1e-4)
    assert not [name for name in stale if "gap" in name or "correction" in name]


def test_the_gap_is_measured_before_the_weights_move():
    policy, batch, apart = _policy_and_batch()

    metrics = _trainer(policy, Likelihood(), {"kind": "none"}, {"epochs": 3}).update(batch, 1)

    assert metrics["train/correction/gap_mean"] == pytest.approx(float(apart[batch.mask].abs().mean()), rel=1e-4)
    assert metrics["train/act_train_logprob_gap"] == pytest.approx(float(apart[batch.mask].abs().max()), rel=1e-4)


@pytest.mark.parametrize(
    ("objective", "correction", "said"),
    [
        (
            Likelihood(lambda v: v[:, 0]),
            {"kind": "truncated"},
            "'policy', whose values are of rows; level: sequence can",
        ),
        (Likelihood(name="mine"), {"kind": "truncated"}, "corrects the loss term 'policy'; this one has kl, mine"),
    ],
)
def test_a_loss_that_cannot_be_weighed_is_refused_by_name(objective, correction, said):
    policy, batch, _ = _policy_and_batch()

    with pytest.raises(ConfigError, match=f"update.correction: .*{said}"):
        _trainer(policy, objective, correction).update(batch, 1)


def test_a_loss_of_whole_groups_is_refused_by_name():
    _, batch, _ = _policy_and_batch()
    term = LossTerm(name="policy", values=torch.ones(2), reduction=Reduction.GROUP_MEAN)

    with pytest.raises(ConfigError, match="values are of groups; kind: none"):
        GapCorrection(Correction(kind="truncated", level="sequence")).weigh(
            Terms(loss=(term,)), batch, batch.behaviour_logprobs
        )


def test_options_without_effect_are_refused():
    with pytest.raises(ValidationError, match="cap without a kind corrects nothing"):
        Correction(cap=3.0)
    with pytest.raises(ValidationError, match=r"floor 0.5 belongs to kind: masked"):
        Correction(kind="truncated", floor=0.5)
    assert Correction(kind="none", cap=3.0).kind == "none"  # an arm that switches a shared correction off


def test_old_logprobs_are_asked_for_only_where_something_is_corrected():
    assert GapCorrection(Correction()).needs == frozenset()
    assert GapCorrection(Correction(kind="masked")).needs == {OLD_LOGPROB}
    assert Gap(GapCorrection(Correction(kind="masked")), Workers()).metrics() == {}


@pytest.mark.parametrize(
    ("objective", "level", "said"),
    [
        ("dpo", "token", "its loss is of whole groups"),
        ("p3o", "sequence", "its loss is of whole groups"),
        ("sppo", "token", "its loss is of whole rollouts. Give level: sequence"),
        ("sppo", "sequence", None),
        ("clipped", "token", None),
    ],
)
def test_a_plan_refuses_a_correction_that_its_objective_cannot_take(objective, level, said):
    text = (
        "name: x\nenvironment: {use: countdown}\npolicy: {use: causal_lm}\nsampler: {use: group}\nrewards: [{use: exact}]\n"
        f"objective: {{use: {objective}}}\nupdate: {{correction: {{kind: truncated, level: {level}}}}}"
    )
    if said is None:
        assert planner.make(parse_experiment(text), REGISTRY).trials[0].settings.update.correction.level == level
        return

    with pytest.raises(ConfigError) as caught:
        planner.make(parse_experiment(text), REGISTRY)

    assert [(p.path, said in p.message) for p in caught.value.problems] == [("update.correction", True)]
