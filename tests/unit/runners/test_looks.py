"""Seeds added look by look: which trials follow, what is written down, and that it can be cut off anywhere."""

from __future__ import annotations

import dataclasses
import itertools
import json

import looked_runs
import numpy as np
import pytest
from looked_runs import LEVEL, Watcher, begun, planned, play, play_all, value

from orchestrator.errors import ConfigError
from orchestrator.experiment.planner import confirmations
from orchestrator.maths.sequential import Course, bounds, spent
from orchestrator.maths.verdict import distances, moments
from orchestrator.runners.extend import extend
from orchestrator.runners.sweep import Sweep
from orchestrator.runs.journal import read
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.study import Study
from orchestrator.verdict.study import judge_study


def shown(directory):
    found, why = judge_study(Study.read(directory))
    assert found is not None, why
    return found.headline, [
        (c.arm, str(c.outcome), c.difference, c.interval, c.look, c.seeds) for c in found.comparisons
    ]


def test_open_arms_and_the_baseline_get_seeds_and_decided_arms_get_none(tmp_path):
    sweep = begun(tmp_path, planned(margin=None))

    play_all(sweep)

    looks = read(tmp_path).looks
    assert [look.decided for look in looks] == [{"good": "better"}, {}, {}]
    assert [look.open for look in looks] == [("equal",)] * 3
    assert [look.counts for look in looks] == [
        {"base": 2, "equal": 2, "good": 2},
        {"base": 3, "equal": 3, "good": 2},
        {"base": 5, "equal": 5, "good": 2},
    ]
    assert [look.spent for look in looks] == pytest.approx([spent(0.4), spent(0.6), 0.05])
    assert [look.over for look in looks] == [False, False, True]
    assert sorted(t.id for t in Study.read(tmp_path).trials) == sorted(
        [f"{arm}-s{seed}" for arm in ("base", "equal") for seed in range(5)] + ["good-s0", "good-s1"]
    )
    assert sweep.progress.said[0].startswith("look 1, 2 seeds: decided good better; open: equal; 2.62 % of 5 % error")


def test_a_design_ends_with_the_look_that_decides_the_last_arm(tmp_path):
    sweep = begun(tmp_path, planned())

    play_all(sweep)

    (look,) = read(tmp_path).looks
    assert look.over
    assert look.decided == {"equal": "equivalent", "good": "better"}
    headline, comparisons = shown(tmp_path)
    assert "Better than base: good" in headline
    assert "Equivalent to base within ±0.200: equal" in headline
    assert "Looked at after 2 seeds, 2.62 % of 5 % error spent" in headline
    assert [(arm, outcome, seeds) for arm, outcome, _, _, _, seeds in comparisons] == [
        ("equal", "equivalent", (2, 2)),
        ("good", "better", (2, 2)),
    ]


def test_an_arm_keeps_the_numbers_of_the_look_that_decided_it(tmp_path):
    play_all(begun(tmp_path, planned(margin=None)))

    good = next(c for c in judge_study(Study.read(tmp_path))[0].comparisons if c.arm == "good")

    first = [np.array([value(arm, seed) for seed in range(2)]) for arm in ("base", "equal", "good")]
    assert good.difference == pytest.approx(first[2].mean() - first[0].mean())
    bar = bounds(Course(counts=((2, 2, 2),), shares=(0.4,)))[0]
    pooled = np.mean([arm.var(ddof=1) for arm in first])
    shrunk = [(4 * pooled + arm.var(ddof=1)) / 5 for arm in first]
    error = np.sqrt((shrunk[0] + shrunk[2]) / 2)
    assert good.interval.low == pytest.approx(good.difference - bar * error)


def test_a_run_cut_off_at_any_moment_makes_the_looks_of_an_unbroken_one(tmp_path):
    plan = planned(("base", "near", "equal", "good"), margin=None)
    play_all(begun(tmp_path / "whole", plan))
    whole = read(tmp_path / "whole").looks
    assert {look.number: sorted(look.decided) for look in whole}[1]
    steps = sum(len(look.open) for look in whole) + 20

    cut = begun(tmp_path / "cut", plan)
    for _ in range(steps):  # one trial a driver
        spec = cut.next()
        if spec is None:
            break
        play(cut, spec)
        cut.close()
        with (tmp_path / "cut" / "journal.jsonl").open("ab") as journal:
            journal.write(b'{"kind":"look","num')
        cut = Sweep(plan, tmp_path / "cut", Watcher())
    assert cut.finished

    assert read(tmp_path / "cut").looks == whole
    assert shown(tmp_path / "cut") == shown(tmp_path / "whole")


@pytest.mark.parametrize("kept", range(1, 4))
def test_a_journal_that_lost_its_end_gets_the_same_looks_again(tmp_path, kept):
    plan = planned(margin=None)
    sweep = begun(tmp_path, plan)
    play_all(sweep)
    sweep.close()
    looks = read(tmp_path).looks
    path = RunFolder(tmp_path).journal
    lines = path.read_text().splitlines(keepends=True)
    places = [place for place, line in enumerate(lines) if json.loads(line)["kind"] == "look"]
    path.write_text(
        "".join(lines[: places[kept - 1] + (kept == 2)])
    )  # before a look, or after one and before its trials

    again = Sweep(plan, tmp_path, Watcher())
    play_all(again)

    assert read(tmp_path).looks == looks


def test_a_report_in_between_says_what_is_decided_and_writes_nothing(tmp_path):
    sweep = begun(tmp_path, planned(margin=None))
    for spec in itertools.islice(iter(sweep.next, None), 8):
        play(sweep, spec)
    before = RunFolder(tmp_path).journal.read_bytes()

    headline, comparisons = shown(tmp_path)

    assert RunFolder(tmp_path).journal.read_bytes() == before
    assert "Decided so far, for good: better than base: good. Still open: equal." in headline
    assert "2.62 % of 5 % error spent" in headline
    assert {arm: outcome for arm, outcome, *_ in comparisons} == {"equal": "undecided", "good": "better"}


def test_before_the_first_look_nothing_is_decided(tmp_path):
    sweep = begun(tmp_path, planned())
    for spec in itertools.islice(iter(sweep.next, None), 5):
        play(sweep, spec)

    headline, comparisons = shown(tmp_path)

    assert headline.startswith("Preliminary")
    assert {outcome for _, outcome, *_ in comparisons} == {"undecided"}


def test_values_that_changed_after_a_look_are_said_and_decide_nothing(tmp_path):
    play_all(begun(tmp_path, planned()))
    folder = RunFolder(tmp_path).trial("good-s0")
    folder.metrics.write_text(folder.metrics.read_text().replace("0.9", "0.1").replace("0.8", "0.1"))

    found, _ = judge_study(Study.read(tmp_path))

    assert found.doubts == ("Look 1 was made of other values than the trials' files hold now; what it decided stands.",)
    assert {c.arm: str(c.outcome) for c in found.comparisons}["good"] == "better"


def test_a_look_is_made_of_the_seeds_that_ended_well(tmp_path):
    plan = planned(margin=None)
    sweep = begun(tmp_path, plan)
    play_all(sweep, failing=("equal-s0", "good-s1"))

    looks = read(tmp_path).looks
    assert [look.counts["equal"] for look in looks] == [1, 2, 4]
    assert looks[0].counts["good"] == 1
    assert "good" not in looks[0].decided
    assert looks[1].decided == {"good": "better"}


def test_a_trial_that_failed_is_run_again_only_while_its_arm_is_open(tmp_path):
    plan = planned(("base", "equal", "good", "near"), looks=[3, 4, 6], margin=None)
    sweep = begun(tmp_path, plan)
    while not sweep.history.looks:
        spec = sweep.next()
        if spec is not None and not sweep.history.looks:
            play(sweep, spec, failing=("good-s0", "equal-s0"))
    sweep.close()
    assert "good" in sweep.history.looks[0].decided

    again = Sweep(plan, tmp_path, Watcher())
    waiting = []
    while (spec := again.next()) is not None:
        waiting.append(spec.id)
        play(again, spec)

    assert "equal-s0" in waiting
    assert "good-s0" not in waiting


def test_no_look_is_made_where_nothing_was_measured(tmp_path, caplog):
    plan = planned(metric="eval/nothing")
    sweep = begun(tmp_path, plan)

    play_all(sweep)

    assert read(tmp_path).looks == []
    assert "No finished trial measured 'eval/nothing'" in caplog.text
    assert len(sweep.history.trials) == 6


def test_seeds_added_afterwards_explore_and_the_design_keeps_its_word(tmp_path):
    plan = planned()
    sweep = begun(tmp_path, plan)
    play_all(sweep)
    sweep.close()
    own = shown(tmp_path)[0]

    added = extend(plan, tmp_path, 3)
    longer = Sweep(plan, tmp_path, Watcher())
    play_all(longer)

    assert added.seeds == (5, 6, 7)  # the design's own seeds are left to it
    assert added.arms == ("base", "equal", "good")
    found, _ = judge_study(Study.read(tmp_path))
    assert found.headline.startswith("Exploratory, since 3 seeds were added after the design had ended")
    assert found.registered == own
    assert {arm.arm: len(arm.seeds) for arm in found.arms} == {"base": 5, "equal": 5, "good": 5}
    assert read(tmp_path).looks == sweep.history.looks


def test_seeds_are_not_added_to_a_run_that_has_not_ended(tmp_path):
    plan = planned()
    sweep = begun(tmp_path, plan)
    play(sweep, sweep.next())
    sweep.close()

    with pytest.raises(ConfigError, match="has not ended"):
        extend(plan, tmp_path, 3)


def test_runs_that_share_an_arm_are_taken_together_for_exploration_alone(tmp_path):
    play_all(begun(tmp_path / "one", planned()))
    play_all(begun(tmp_path / "two", planned()))

    found, _ = judge_study(Study.read(tmp_path / "one", tmp_path / "two"))

    assert (
        found.exploratory.startswith("seeds of several runs are taken together")
        or "decided as it went" in found.exploratory
    )


# --- races -----------------------------------------------------------------------------------------------------------


def test_in_a_race_arms_are_dropped_as_they_fall_behind(tmp_path):
    sweep = begun(tmp_path, planned(("base", "near", "good", "last"), compare="best", margin=0.01))

    play_all(sweep)

    looks = read(tmp_path).looks
    assert looks[0].decided == {"base": "worse", "near": "worse", "last": "worse"}
    assert looks[0].leader == "good"
    assert looks[-1].over
    headline, comparisons = shown(tmp_path)
    assert headline.startswith("good is the best of 4 arms: every other fell behind")
    assert {outcome for _, outcome, *_ in comparisons} == {"worse"}
    assert len(sweep.history.trials) == 8


def test_a_race_ends_when_those_left_are_tied_within_the_margin(tmp_path):
    sweep = begun(tmp_path, planned(("base", "equal", "good"), compare="best", margin=0.2, mode="min"))

    play_all(sweep)

    (look,) = read(tmp_path).looks
    assert look.over
    assert look.decided["good"] == "worse"  # less is better
    headline, comparisons = shown(tmp_path)
    assert "Tied with the best within ±0.200: " in headline
    assert {arm: outcome for arm, outcome, *_ in comparisons}["good"] == "worse"
    assert sorted(outcome for _, outcome, *_ in comparisons) == ["equivalent", "worse"]


def test_seeds_that_are_listed_race_in_one_look(tmp_path):
    plan = planned(("base", "near", "good"), compare="best")
    listed = plan.experiment.model_copy(update={"seeds": (0, 1, 2)})
    plan = dataclasses.replace(
        plan,
        experiment=listed,
        trials=confirmations(dataclasses.replace(plan, experiment=listed), {key: {} for key in plan.arms}),
    )
    sweep = begun(tmp_path, plan)
    play(sweep, sweep.next())
    assert shown(tmp_path)[0].startswith("Preliminary")

    play_all(sweep)

    assert read(tmp_path).looks == []
    headline, comparisons = shown(tmp_path)
    assert headline.startswith("good is the best of 3 arms: every other fell behind, the nearest by 0.3")
    assert "Looked at" not in headline
    assert {outcome for _, outcome, *_ in comparisons} == {"worse"}


def test_a_look_at_nothing_but_failures_decides_nothing_and_the_next_one_does(tmp_path):
    sweep = begun(tmp_path, planned())
    first = {f"{arm}-s{seed}" for arm in LEVEL for seed in range(2)}

    play_all(sweep, failing=first)

    looks = read(tmp_path).looks
    assert [(look.trials == (), look.spent, look.over) for look in looks[:1]] == [(True, 0.0, False)]
    assert [look.counts["base"] for look in looks] == [0, 1, 3]
    assert looks[-1].decided == {"equal": "equivalent", "good": "better"}
    assert "Better than base: good" in shown(tmp_path)[0]


def test_what_a_search_chose_is_confirmed_look_by_look(tmp_path):
    plan = planned(("base", "equal"), margin=None)
    chosen = {"base": {"optimizer.lr": 1.25}, "equal": {"optimizer.lr": 1.5}}
    sweep = begun(tmp_path, dataclasses.replace(plan, trials=confirmations(plan, chosen)))

    play_all(sweep)

    later = [entry.spec for entry in sweep.history.trials.values() if entry.spec.seed >= 2]
    assert [(spec.id, spec.settings.optimizer.lr, dict(spec.searched)) for spec in later[:2]] == [
        ("base-s2", 1.25, {"optimizer.lr": 1.25}),
        ("equal-s2", 1.5, {"optimizer.lr": 1.5}),
    ]
    assert len(later) == 6


def test_an_arm_left_alone_is_held_against_the_bound_of_one_arm(tmp_path):
    play_all(begun(tmp_path, planned(margin=None)))

    equal = next(c for c in judge_study(Study.read(tmp_path))[0].comparisons if c.arm == "equal")

    made = Course(counts=((2, 2, 2), (3, 3, 2), (5, 5, 2)), shares=(0.4, 0.6, 1.0))
    samples = [[value(arm, seed) for seed in range(n)] for arm, n in (("base", 5), ("equal", 5), ("good", 2))]
    means, variances, counts = moments(samples)
    difference, error, _ = distances(means, variances, counts)
    reach = bounds(made, left=[1])[-1] * error[0]
    assert reach < 0.99 * bounds(made)[-1] * error[0]
    assert tuple(equal.interval) == pytest.approx((difference[0] - reach, difference[0] + reach))


def test_an_arm_that_fell_behind_does_not_come_back(tmp_path, monkeypatch):
    def fading(arm, seed):
        return value(arm, seed) if arm == "base" or seed < 2 else 0.01 * seed

    monkeypatch.setitem(LEVEL, "equal", LEVEL["good"])
    monkeypatch.setattr(looked_runs, "value", fading)
    sweep = begun(tmp_path, planned(("base", "equal", "good"), compare="best", margin=None))

    play_all(sweep)

    looks = read(tmp_path).looks
    assert looks[0].decided == {"base": "worse"}
    assert [look.counts["base"] for look in looks] == [2, 2, 2]
    assert {look.leader for look in looks} <= {"equal", "good"}
