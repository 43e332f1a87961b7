"""The gradient of every installed objective is the same however its mini-batch is cut, padded or shared out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.api import Couples, load_registry
from orchestrator.testing import make_batch, make_outputs, objective_gradients, pad_batch

REGISTRY = load_registry()
SIZES = (3, 1, 4, 2)


def _objective(name):
    try:
        REGISTRY.describe("objective", name).config.model_validate({})
    except ValidationError as error:
        pytest.skip(f"needs options without defaults: {error.error_count()}")
    return REGISTRY.build("objective", name)


@st.composite
def partitions(draw, count):
    """A random order of 0..count-1, cut at random places."""
    order = draw(st.permutations(range(count)))
    cuts = sorted(draw(st.sets(st.integers(1, count - 1))))
    return [order[start:stop] for start, stop in zip([0, *cuts], [*cuts, count], strict=True)]


@pytest.mark.parametrize("name", REGISTRY.names("objective"))
@settings(max_examples=12)
@given(st.integers(0, 1000), partitions(sum(SIZES)), partitions(len(SIZES)), st.integers(0, 4), st.integers(0, 4))
def test_gradient_ignores_micro_batches_and_padding(name, seed, by_row, by_group, left, right):
    objective = _objective(name)
    batch, outputs = _case(objective, seed)
    members = [(batch.group == group).nonzero().flatten() for group in range(len(SIZES))]
    parts = [torch.cat([members[group] for group in part]) for part in by_group]
    if objective.couples == Couples.ROWS:
        parts = [torch.tensor(sorted(part)) for part in by_row]

    whole = objective_gradients(_objective(name), batch, outputs)
    padded, wide = pad_batch(batch, outputs, left=left, right=right)
    cut = objective_gradients(_objective(name), padded, wide, parts)

    assert whole.keys() == cut.keys()
    for key, gradient in whole.items():
        width = batch.mask.shape[1]
        found = cut[key][:, left : left + width] if gradient.dim() > 1 else cut[key]
        torch.testing.assert_close(found, gradient, atol=1e-9, rtol=1e-9, msg=lambda text, key=key: f"{key}: {text}")
    assert any(bool(whole[key].any()) for key in ("loss/logits", "loss/values"))


def _case(objective, seed):
    """A batch the objective accepts: with a demonstration in each group if it insists on one."""
    for demonstrations in (bool(seed % 2), not seed % 2):
        batch = make_batch(
            sizes=SIZES, needs=objective.needs, dtype=torch.float64, seed=seed, demonstrations=demonstrations
        )
        outputs = make_outputs(batch, seed=seed + 1)
        try:
            objective_gradients(objective, batch, outputs)
        except ValueError as error:
            if "demonstration" not in str(error):
                raise
            continue
        return batch, outputs
    raise AssertionError("the objective refuses batches with and without demonstrations")
