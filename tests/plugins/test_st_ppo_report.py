"""The stress test's measures and verdicts on made-up runs, and the report's section."""

import math
from html.parser import HTMLParser

import numpy as np
import pytest
from orchestrator_plugins.st_ppo.claims import Run, collapse, judge, paired_difference, rise_before
from orchestrator_plugins.st_ppo.report import method, read_runs, render

from orchestrator.api import Phase, Study, TrialSpec
from orchestrator.testing import make_settings, make_study

STEADY = [0.4, 0.5, 0.6, 0.5, 0.6, 0.7] * 4
FALLEN = [0.4, 0.45, 0.4, 0.35, 0.3, 0.2, *[0.05] * 18]


def run(success=STEADY, seed=0, tokens=0.2, turns=0.2, norm=1.0):
    success = np.array(success)
    full = np.ones_like(success)
    return Run(
        seed=seed,
        success=success,
        clipped_tokens=tokens * full,
        clipped_turns=turns * full,
        clipped_norm=norm * full,
    )


# --- measures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("success", "found"),
    [
        (STEADY, None),
        (FALLEN, 5),  # 0.2 is the first that lies 0.2 below 0.45 and stays there
        ([0.5] + [0.3] * 10, 1),  # exactly 0.2 below, exactly ten iterations
        ([0.5] + [0.3] * 9, None),  # too short to say
        ([0.5] + [0.1] * 9 + [0.4] + [0.1] * 9, None),  # came back once
        ([0.5] + [0.1] * 9 + [0.4] + [0.1] * 10, 11),
        ([0.1] * 15, None),  # never had anything to lose
        ([0.5, math.nan] + [0.1] * 10, 2),  # an iteration without a measure hides nothing
    ],
)
def test_a_collapse_is_deep_and_lasts(success, found):
    assert collapse(success) == found


@pytest.mark.parametrize(
    ("success", "down"),
    [
        (STEADY, False),
        (FALLEN, False),  # a collapse
        ([0.5] * 6 + [0.3] * 9, True),
        ([0.5] * 6 + [0.3] * 5, True),
        ([0.5] * 6 + [0.3] * 4, False),
        ([0.5] * 6 + [0.3] * 4 + [0.31], False),  # on its way back
    ],
)
def test_who_fell_too_late_for_a_collapse_is_down(success, down):
    assert run(success).is_down is down


def test_the_rise_before_a_collapse_is_a_rank_correlation():
    assert rise_before([9, 9, 1, 2, 4, 8, 0], at=5, window=3) == pytest.approx(1.0)
    assert rise_before([8, 4, 2, 1, 50], at=3) == pytest.approx(-1.0)
    assert rise_before([1, 2, 3], at=2) is None
    assert rise_before([1, np.nan, 2, np.nan, 3], at=4) is None
    assert rise_before([1.0] * 9, at=8) is None


def test_differences_are_paired_by_seed():
    one = [run([0.5 + 0.1 * seed] * 20, seed=seed) for seed in range(4)]
    other = [run([0.2 + 0.1 * seed] * 20, seed=seed) for seed in (3, 2, 1, 0, 9)]

    interval = paired_difference(one, other)

    assert interval == pytest.approx((0.3, 0.3, 0.3))
    assert paired_difference(one[:1], other) is None


# --- verdicts ---------------------------------------------------------------------------------------------


def verdicts(**arms):
    return {claim.name: claim.verdict for claim in judge(arms)}


def seeds(count=5, **fields):
    return [run(seed=seed, **fields) for seed in range(count)]


def test_the_papers_headline_holds_where_it_should():
    token = [run(FALLEN, seed=seed, tokens=0.3) for seed in range(5)]
    for one in token:
        one.clipped_norm[:6] = 2.0 ** np.arange(6)

    found = verdicts(token=token, s=seeds(), st=seeds(tokens=0.2, turns=0.2), replayed=[*token[:4], run(seed=4)])

    assert found == {"F1": "holds", "F2": "holds", "F3": "holds", "F4": "holds", "F5": "holds"}


def test_the_papers_headline_is_refuted_where_it_should_be():
    token = [run(FALLEN, seed=seed) for seed in range(5)]
    for one in token:
        one.clipped_norm[:6] = 2.0 ** -np.arange(6)
    fallen = [run(FALLEN, seed=seed) for seed in range(2)] + seeds()[2:]

    found = verdicts(token=token, s=seeds(success=[0.1] * 24), st=fallen, replayed=seeds())

    assert found == {"F1": "refuted", "F2": "refuted", "F3": "refuted", "F4": "refuted", "F5": "refuted"}


def test_clipping_is_compared_by_turns_too():
    assert verdicts(token=seeds(tokens=0.3), st=seeds(tokens=0.1, turns=0.29))["F1"] == "refuted"
    assert verdicts(token=seeds(tokens=0.3), st=seeds(tokens=0.1, turns=0.27))["F1"] == "holds"


def test_without_a_collapse_nothing_is_confirmed():
    found = verdicts(token=seeds(), s=seeds(), st=seeds(), replayed=seeds())

    assert (found["F2"], found["F4"], found["F5"]) == ("untested", "untested", "untested")


def test_a_fall_too_late_to_be_a_collapse_leaves_it_open():
    token = [run(FALLEN, seed=seed) for seed in range(5)]
    late = [0.5] * 16 + [0.0] * 8
    st = [run(FALLEN), run(late, seed=1), *seeds()[2:]]

    [found] = [claim for claim in judge({"token": token, "st": st}) if claim.name == "F2"]

    assert found.verdict == "undecided"
    assert found.evidence.endswith("ST-PPO collapsed in 1 of 5 and down at the end of 1 more")
    assert verdicts(token=token, st=[run(late), *seeds()[1:]])["F2"] == "holds"


def test_factors_explain_nothing_where_their_own_order_does_not_help():
    token = [run(FALLEN, seed=seed) for seed in range(5)]

    assert verdicts(token=token, s=token, replayed=token)["F5"] == "untested"
    assert verdicts(token=token, s=seeds(), replayed=token)["F5"] == "holds"
    assert verdicts(token=token, s=token, replayed=seeds())["F5"] == "refuted"


def test_what_did_not_run_is_untested():
    assert set(verdicts(turn=seeds()).values()) == {"untested"}
    assert verdicts(token=seeds(1), s=seeds(1), st=seeds(1))["F3"] == "undecided"


def test_a_collapse_in_the_first_iterations_says_nothing_about_what_came_before():
    early = [run([0.5, *[0.1] * 20], seed=seed) for seed in range(5)]

    assert verdicts(token=early)["F4"] == "undecided"


# --- the section ------------------------------------------------------------------------------------------


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def settings(objective, lr=1e-3):
    return make_settings(objective={"use": "st_ppo", **objective}, optimizer={"lr": lr})


def rows(success):
    fixed = {"train/clip_fraction": 0.25, "st_ppo/clip_fraction/turns": 0.5, "train/gradient_norm/clipped": 0.125}
    for step, value in enumerate(success, start=1):
        yield {"step": step, "kind": "step", "metrics": {"rollout/correct": value, **fixed}}
    yield {"step": len(success), "kind": "evaluation", "metrics": {"eval/pass_at_1": 0.9}}


def write(directory, arms):
    """A run of two seeds; each arm is (objective options, success by iteration)."""
    return make_study(
        directory,
        (
            (TrialSpec(id=f"{place}-s{seed}", arm=arm, seed=seed, settings=settings(objective)), list(rows(success)))
            for place, (arm, (objective, success)) in enumerate(arms.items())
            for seed in range(2)
        ),
    )


def _table(page):
    return page.partition("<figure>")[0]


ARMS = {
    "token-ppo": ({"ratio": "token", "correction": "none"}, FALLEN),
    "st<ppo>": ({"ratio": "turn", "correction": "raw"}, STEADY),
    "wide": ({"ratio": "token", "correction": "none", "clip_low": 0.4, "clip_high": 0.4}, STEADY),
}


def test_the_section_tabulates_arms_and_judges_claims(tmp_path):
    page = render(write(tmp_path, ARMS))

    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert "<td>token-ppo</td><td>2</td><td>2</td><td>0</td><td>0.45</td><td>0.05</td><td>0.250</td>" in page
    assert "<td>st&lt;ppo&gt;</td><td>2</td><td>0</td><td>0</td><td>0.70</td>" in page
    assert "<td>F2</td>" in page
    assert "<td>holds</td><td>Token-PPO collapsed in 2 of 2; ST-PPO collapsed in 0 of 2</td>" in page
    assert "at learning rate" not in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")


def test_runs_are_read_by_arm(tmp_path):
    _, runs = read_runs(write(tmp_path, ARMS))

    assert {arm: [one.seed for one in found] for arm, found in runs.items()} == {arm: [0, 1] for arm in ARMS}
    assert runs["token-ppo"][0].success.tolist() == FALLEN
    assert runs["token-ppo"][0].clipped_norm.tolist() == [0.125] * 24


def test_a_row_that_a_kill_has_torn_is_left_out(tmp_path):
    whole = render(write(tmp_path, ARMS))

    for file in tmp_path.glob("trials/*/metrics.jsonl"):
        with file.open("a", encoding="utf-8") as open_file:
            open_file.write('{"step": 25, "kind": "st')

    assert _table(render(Study.read(tmp_path))) == _table(whole)


def test_runs_without_the_objective_have_no_section(tmp_path):
    clipped = TrialSpec(id="a", arm="a", seed=0, settings=make_settings(objective={"use": "clipped"}))
    bare = TrialSpec(id="b", arm="b", seed=0, settings=make_settings())

    assert render(make_study(tmp_path, [(clipped, list(rows(STEADY))), (bare, list(rows(STEADY)))])) is None


def test_trials_that_a_search_tried_are_no_seeds_of_their_arm(tmp_path):
    token = {"ratio": "token", "correction": "none"}
    tried = [
        TrialSpec(id=f"tune-{i}", arm="a", seed=1000, phase=Phase.TUNE, sample=i, settings=settings(token, lr))
        for i, lr in enumerate((1e-3, 1e-4))
    ]
    chosen = [TrialSpec(id=f"a-s{seed}", arm="a", seed=seed, settings=settings(token, 1e-4)) for seed in range(3)]

    study = make_study(
        tmp_path, [*((spec, list(rows(FALLEN))) for spec in tried), *((spec, list(rows(STEADY))) for spec in chosen)]
    )

    assert "<td>a</td><td>3</td><td>0</td>" in render(study)
    only_tuning = make_study(tmp_path / "tuning", [(spec, list(rows(FALLEN))) for spec in tried])
    assert render(only_tuning) is None


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        ({"ratio": "token", "correction": "none"}, "token"),
        ({"ratio": "turn", "correction": "none"}, "turn"),
        ({"ratio": "token", "correction": "raw"}, "s"),
        ({"ratio": "turn", "correction": "raw"}, "st"),
        ({"ratio": "token", "correction": "none", "replay_factors": [0.5]}, "replayed"),
        ({"ratio": "turn", "correction": "ratio"}, None),
        ({"ratio": "token", "correction": "none", "clip_high": 0.3}, None),
        ({"ratio": "turn", "correction": "raw", "turn_gradient": "token"}, None),
    ],
)
def test_an_arms_method_is_read_off_its_options(objective, name):
    assert method(settings(objective)) == name
