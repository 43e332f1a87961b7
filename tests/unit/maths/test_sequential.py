"""Bounds of several looks: as published, as one look of the fixed rule, and as they must move; races to the best."""

import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchestrator.maths import sequential, verdict
from orchestrator.maths.sequential import Course, bounds, look, race, spent

LOOKS = (3, 5, 8, 12, 20)
counts = st.integers(2, 6)
designs = st.lists(counts, min_size=2, max_size=4).map(tuple)


def course(arms, looks=LOOKS, most=None):
    most = most or looks[-1]
    return Course(counts=tuple((n,) * arms for n in looks), shares=tuple(n / most for n in looks))


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arms", "confidence", "published"),
    [
        (1, 0.95, (4.92, 3.76, 3.03, 2.75, 2.47)),
        (8, 0.95, (4.54, 4.10, 3.62, 3.38, 3.10)),
        (1, 0.90, (3.96, 3.15, 2.61, 2.37, 2.10)),  # of equivalence: two one-sided tests at 5 %
    ],
)
def test_bounds_are_those_published(arms, confidence, published):
    assert bounds(course(arms + 1), confidence) == pytest.approx(published, rel=0.04)  # their draws and ours: 1 % each


@settings(max_examples=10, deadline=None)
@given(designs, st.sampled_from([0.8, 0.95]))
def test_one_look_is_the_fixed_rule(design, confidence):
    one = Course(counts=(design,), shares=(1.0,))

    assert bounds(one, confidence)[0] == verdict.bound(design, confidence)
    assert bounds(one, confidence, left=[1])[0] == verdict.bound(design, confidence, left=design[1:2])


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 4), st.lists(st.integers(2, 12), min_size=2, max_size=4, unique=True).map(sorted), st.data())
def test_a_look_before_never_lowers_the_next_bound(arms, looks, data):
    extra = data.draw(st.integers(2, looks[-1] - 1))
    assume(extra not in looks)
    more = sorted([*looks, extra])
    place = more.index(extra)

    fewer, all_of_them = bounds(course(arms, looks)), bounds(course(arms, more))

    assert all_of_them[:place].tolist() == fewer[:place].tolist()
    assert all_of_them[place + 1] >= fewer[place] - 1e-9 if len(fewer) == 1 else True
    assert all_of_them[-1] >= verdict.bound((looks[-1],) * arms)


def test_bounds_of_looks_made_do_not_depend_on_those_to_come():
    whole = bounds(course(3))

    for made in range(1, len(LOOKS)):
        assert bounds(course(3, LOOKS[:made], most=20)).tolist() == whole[:made].tolist()


def test_arms_left_have_narrower_bounds_and_unequal_seeds_have_their_own():
    mixed = Course(counts=((3, 3, 3, 3), (5, 5, 3, 5)), shares=(0.5, 1.0))

    all_of_them, two, one = (bounds(mixed, left=left) for left in ([1, 2, 3], [1, 3], [1]))

    assert (all_of_them >= two).all()
    assert (two >= one).all()
    assert bounds(mixed, left=[1]).tolist() == bounds(mixed, left=[3]).tolist()
    assert bounds(mixed, left=[1])[1] != bounds(mixed, left=[2])[1]


def test_equal_arms_exceed_the_bounds_of_all_looks_together_in_the_error_promised():
    made = course(4)
    drawn = np.abs(sequential._equal_arms((3, 5, 8, 12, 20), ((3, 5, 8, 12, 20),) * 3)).max(axis=2)

    crossed = (drawn > bounds(made)[:, None]).cumsum(axis=0) > 0

    assert crossed.mean(axis=1) == pytest.approx([spent(n / 20) for n in LOOKS], abs=2e-4)
    assert spent(1.0) == pytest.approx(0.05)
    assert spent(0.15) == pytest.approx(0.05 * np.log(1 + 0.15 * (np.e - 1)))


def test_an_arm_that_is_not_there_yet_takes_no_error():
    late = Course(counts=((3, 3, 1), (5, 5, 3)), shares=(0.6, 1.0))

    assert bounds(late)[0] == pytest.approx(bounds(course(2, (3,), most=5))[0], rel=0.04)
    assert np.isinf(bounds(late, left=[2])[0])
    assert np.isfinite(bounds(late, left=[2])[1])
    assert np.isinf(bounds(Course(counts=((1, 3, 3),), shares=(1.0,)))).all()


def test_ten_looks_at_sixteen_arms_take_seconds_once():
    looks = (3, 4, 5, 6, 7, 8, 10, 12, 15, 19)
    began = time.process_time()

    bounds(course(16, looks, most=20))

    assert time.process_time() - began < 6.0  # a look adds 0.2 s
    began = time.process_time()
    bounds(course(16, looks, most=20))
    assert time.process_time() - began < 0.01


@pytest.mark.parametrize("shares", [(0.5,), (0.5, 0.4), (0.5, 1.1), (0.0, 1.0)])
def test_shares_that_do_not_rise_to_one_are_refused(shares):
    with pytest.raises(ValueError, match="expected them to rise to 1"):
        Course(counts=((3, 3), (5, 5)), shares=shares)


# --- looks -----------------------------------------------------------------------------------------------------------

EQUAL = np.full(4, 1e-4)


def test_a_single_look_decides_as_the_fixed_rule():
    means, seeds = np.array([0.5, 0.53, 0.501, 0.45]), (5, 5, 4, 6)

    found = look(means, EQUAL, Course(counts=(seeds,), shares=(1.0,)), margin=0.02)
    fixed = verdict.decide(means, EQUAL, seeds, margin=0.02)

    assert found.named.tolist() == fixed.named.tolist() == [1, 0, -1]
    assert found.difference.tolist() == fixed.difference.tolist()
    assert found.error.tolist() == fixed.error.tolist()
    assert found.difference - found.bound * found.error == pytest.approx(np.where(fixed.named > 0, 0, 0) + fixed.low)
    assert found.equivalent.tolist() == [False, True, False]


def test_the_second_arm_is_judged_among_those_left():
    made = course(3, (5,), most=5)
    wide, narrow = bounds(made)[0], bounds(made, left=[2])[0]
    error = verdict.distances([0, 0, 0], EQUAL[:3], (5,) * 3)[1][0]
    second = error * (wide + narrow) / 2

    with_first = look([0.0, 1.0, second], EQUAL[:3], made)
    alone = look([0.0, 0.0, second], EQUAL[:3], made)
    later = look([0.0, 1.0, second], EQUAL[:3], made, open_arms=[2], named_before=[1])
    after_equal = look([0.0, 0.0, second], EQUAL[:3], made, open_arms=[2])

    assert narrow < wide
    assert with_first.named.tolist() == [1, 1]
    assert alone.named.tolist() == [0, 0]
    assert later.named.tolist() == [0, 1]
    assert after_equal.named.tolist() == [0, 0]  # an arm found equivalent stays in the family


def test_an_arm_without_two_seeds_is_not_judged():
    found = look([0.5, 0.9, 0.9], EQUAL[:3], Course(counts=((5, 1, 5),), shares=(1.0,)), margin=0.1)

    assert found.named.tolist() == [0, 1]
    assert np.isnan(found.difference[0])
    assert not found.equivalent.any()


def test_looks_side_by_side_are_judged_as_each_alone():
    generator = np.random.default_rng(3)
    means, variances = generator.normal(size=(6, 3)) * 0.02, 1e-4 * generator.chisquare(4, size=(6, 3)) / 4
    made = course(3, (3, 5), most=20)

    together = look(means, variances, made, margin=0.05)

    for row in range(6):
        alone = look(means[row], variances[row], made, margin=0.05)
        assert together.named[row].tolist() == alone.named.tolist()
        assert together.equivalent[row].tolist() == alone.equivalent.tolist()


def test_without_any_spread_nothing_is_decided():
    found = look([0.5, 0.9], [0.0, 0.0], course(2, (5,), most=5), margin=1.0)

    assert found.named.tolist() == [0]
    assert not found.equivalent.any()


# --- races -----------------------------------------------------------------------------------------------------------


def test_a_race_of_two_is_a_one_sided_test_by_hand():
    made = course(2, (5,), most=5)
    bar = bounds(made, one_sided=True)[0]
    assert bar == pytest.approx(verdict.bound((5, 5), 0.90), rel=0.02)  # 5 % on one side are 10 % on both
    error = verdict.distances([0, 0], EQUAL[:2], (5, 5))[1][0]

    near = race([0.5, 0.5 + 0.99 * bar * error], EQUAL[:2], made, margin=0.02)
    far = race([0.5, 0.5 + 1.01 * bar * error], EQUAL[:2], made, margin=0.02)

    assert near.behind.tolist() == [False, False]
    assert far.behind.tolist() == [True, False]
    assert int(far.leader) == int(near.leader) == 1
    assert near.reach == pytest.approx([1.99 * bar * error, 0.01 * bar * error], rel=1e-6)
    assert near.tied.tolist() == [1.99 * bar * error < 0.02, True]


def test_arms_tied_with_the_best_are_named_and_those_behind_are_not():
    means = np.array([0.50, 0.505, 0.503, 0.30])

    found = race(means, EQUAL, course(4, (20,)), margin=0.05)

    assert found.behind.tolist() == [False, False, False, True]
    assert found.tied.tolist() == [True, True, True, False]
    assert int(found.leader) == 1
    none = race(means, EQUAL, course(4, (20,)))
    assert not none.tied.any()


def test_an_arm_that_fell_behind_puts_nobody_behind():
    means = np.array([0.60, 0.50, 0.49])

    everyone = race(means, EQUAL[:3], course(3, (5,), most=5))
    rest = race(means, EQUAL[:3], course(3, (5,), most=5), live=[1, 2])

    assert everyone.behind.tolist() == [False, True, True]
    assert rest.behind.tolist() == [False, False, False]
    assert int(rest.leader) == 1


def test_the_best_of_equal_arms_falls_behind_in_five_percent_or_less():
    generator = np.random.default_rng(5)
    rows = generator.normal(size=(4000, 4, 12))
    live = [set(range(4)) for _ in rows]
    lost = 0
    for index, seeds in enumerate((3, 5, 8, 12)):
        made = course(4, (3, 5, 8, 12)[: index + 1], most=12)
        found = race(rows[..., :seeds].mean(-1), rows[..., :seeds].var(-1, ddof=1), made)
        for row in range(len(rows)):
            live[row] -= set(np.flatnonzero(found.behind[row]))
    lost = np.mean([0 not in standing for standing in live])  # any fixed one of equal arms is the best

    assert 0.01 < lost < 0.05
