"""A search whose driver is killed goes on to the same proposals and the same decisions, whoever makes them."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
from orchestrator_plugins import optuna, ray_tune, tuning

from orchestrator.api import Component, Decision, Judged, PluginConfig, TrialResult, derive_seed, hookimpl
from orchestrator.contract.plan import Phase
from orchestrator.errors import PluginContractError
from orchestrator.runners.sweep import Sweep
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.results import write_result
from orchestrator.runs.store import load_plan, save_plan
from orchestrator.runs.study import Study
from orchestrator.testing import load_only, make_plan, make_settings

EARLIER = Path(__file__).parents[2] / "data" / "searches_of_0.1"
STEPS = 3
SPACE = {"optimizer.lr": {"loguniform": [1e-4, 1.0]}, "schedule.epochs": {"int": [1, 4]}}


class Chance(PluginConfig):
    turn: float = 0.5


class Hill:
    """Climbs from the best so far, its steps drawn from seed, arm and number."""

    adaptive = True

    def propose(self, search, known):
        index = len(known.tried)
        scored = [one for one in known.tried if one.score is not None]
        drawn = search.space.draw(index, derive_seed(search.seed, search.arm))
        if not scored:
            return drawn
        best = max(scored, key=lambda one: one.score)
        path = search.space.dimensions[index % len(search.space.dimensions)].path
        return {**best.values, path: drawn[path]}


class Laggards:
    """Stops who is below the mean of what was reported so far at that step."""

    def __init__(self, config):
        self.config = config

    def judge(self, report, before):
        others = [j.report.score for j in before if isinstance(j, Judged) and j.report.step == report.step]
        return Decision(stop=len(others) > 1 and report.score < self.config.turn * sum(others) / len(others))


class Stranger:
    @hookimpl
    def provide_searchers(self):
        return [Component(name="hill", build=lambda _: Hill())]

    @hookimpl
    def provide_schedulers(self):
        return [Component(name="laggards", config=Chance, build=Laggards)]


@pytest.fixture(scope="module")
def registry():
    return load_only(tuning, optuna, ray_tune, Stranger())


def planned(directory, registry, searcher, scheduler="none", **tune):
    """A plan of two arms whose search proposes as it goes."""
    plan = make_plan(
        make_settings(),
        make_settings(),
        search=SPACE,
        tune={"samples": 6, "searcher": searcher, "scheduler": scheduler, "metric": "eval/score", **tune},
    )
    plan = dataclasses.replace(plan, trials=())
    save_plan(plan, directory)
    return plan


def measured(spec, step):
    lr, epochs = spec.searched["optimizer.lr"], spec.searched["schedule.epochs"]
    score = 1 - abs(math.log10(lr) + 2) / 4 + 0.05 * epochs
    return {
        "eval/score": score * step / STEPS,
        "eval/brevity": float(epochs),
        "cost/generated_tokens": step * (90.0 + epochs),
    }


def play(plan, directory, registry):
    """Play a search to its end, two trials side by side; the one that spent least goes next."""
    sweep = Sweep(plan, directory, registry=registry)
    while not sweep.finished:
        while len(sweep.live) < 2 and (spec := sweep.next()) is not None:
            sweep.started(spec.id)
        entry = min((sweep.history.trials[trial] for trial in sweep.live), key=_turn)
        step = entry.last_step + 1 if entry.last_step > 0 else 1
        stop = step <= STEPS and sweep.report(entry.spec.id, step, measured(entry.spec, step))
        if stop or step >= STEPS:
            end(directory, entry.spec, "stopped" if stop else "done", step)
            sweep.ended(entry.spec.id, "stopped" if stop else "done")
    sweep.close()


def _turn(entry):
    return entry.last_step < STEPS, entry.last_step, entry.spec.id  # first whoever has only to end


def end(directory, spec, status, step):
    result = TrialResult(trial=spec.id, arm=spec.arm, seed=spec.seed, status=status, step=step)
    write_result(RunFolder(directory).trial(spec.id), result)


def lines(directory):
    return RunFolder(directory).journal.read_text().splitlines(keepends=True)


def told(directory):
    """Everything a journal says was proposed, decided and chosen; not when, nor who held it."""
    kept = []
    for line in lines(directory):
        record = json.loads(line)
        if record["kind"] == "trials":
            kept += [("trial", spec["id"], spec["searched"]) for spec in record["specs"]]
        elif record["kind"] in ("suggestion", "report"):
            kept.append({key: value for key, value in record.items() if key not in ("time", "lost")})
    return kept


def killed(directory, after, into):
    """The folder of a run whose driver was killed after so many lines of its journal."""
    shutil.copytree(directory, into, ignore=shutil.ignore_patterns("trials", "journal*"))
    plan, kept = load_plan(into), lines(directory)[:after]
    RunFolder(into).journal.write_text("".join(kept))
    specs = {spec.id: spec for spec in plan.trials}
    for record in map(json.loads, kept):
        if record["kind"] == "trials":
            specs |= {spec.id: spec for spec in _specs(record)}
        elif record["kind"] == "end":
            end(into, specs[record["trial"]], record["status"], record["step"])
    return plan


def _specs(record):
    from orchestrator.contract.plan import TrialSpec

    return [TrialSpec.from_json(fields) for fields in record["specs"]]


def moments(directory, count):
    """So many places to cut a journal at, from before the first proposal to before the last line."""
    last = len(lines(directory)) - 1
    return [1 + round(place * (last - 1) / (count - 1)) for place in range(count)]


SEARCHES = {
    "a stranger's": ("hill", {"use": "laggards", "turn": 0.95}),
    "optuna, by default": ("optuna", {"use": "optuna_pruner", "n_startup_trials": 1}),
    "a sampler with a population": (
        {"use": "optuna", "sampler": "NSGAIISampler", "population_size": 2},
        {"use": "optuna_pruner", "pruner": "SuccessiveHalvingPruner", "min_resource": 90, "reduction_factor": 2},
    ),
    "a searcher of Ray Tune": (
        {"use": "ray", "searcher": "dice_searcher:Dice"},
        {"use": "median", "minimum": 1},
    ),
}


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_search_killed_at_any_of_five_moments_goes_on_as_it_would_have(tmp_path, registry, kind):
    searcher, scheduler = SEARCHES[kind]
    if "Ray" in kind:
        pytest.importorskip("ray")
    play(planned(tmp_path / "whole", registry, searcher, scheduler), tmp_path / "whole", registry)
    whole = told(tmp_path / "whole")
    assert {record["decision"] for record in whole if isinstance(record, dict) and record["kind"] == "report"} == {
        "continue",
        "stop",
    }
    assert sum(isinstance(record, dict) and record["kind"] == "suggestion" for record in whole) == 2 * 6

    for number, after in enumerate(moments(tmp_path / "whole", 5)):
        again = tmp_path / f"killed-{number}"
        play(killed(tmp_path / "whole", after, again), again, registry)
        assert told(again) == whole, f"killed after line {after}"


def test_a_search_killed_twice_goes_on_as_it_would_have(tmp_path, registry):
    searcher, scheduler = SEARCHES["a sampler with a population"]
    play(planned(tmp_path / "whole", registry, searcher, scheduler), tmp_path / "whole", registry)

    once, twice = tmp_path / "once", tmp_path / "twice"
    play(killed(tmp_path / "whole", 20, once), once, registry)
    play(killed(once, 40, twice), twice, registry)

    assert told(twice) == told(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["optuna-asha", "random-median", "grid-none"])
def test_a_search_that_an_earlier_version_began_goes_on_as_it_would_have(tmp_path, registry, kind):
    whole = told(EARLIER / kind)

    for number, after in enumerate(moments(EARLIER / kind, 5)):
        again = tmp_path / f"killed-{number}"
        play(killed(EARLIER / kind, after, again), again, registry)
        assert told(again) == whole, f"killed after line {after}"


def test_several_metrics_end_in_a_front_of_which_the_best_by_the_first_is_confirmed(tmp_path, registry):
    two = {"metric": ["eval/score", "eval/brevity"], "mode": ["max", "min"]}
    plan = planned(tmp_path, registry, "optuna", **two)
    play(plan, tmp_path, registry)

    for one in Study.read(tmp_path).searched:
        reached = {tried.index: one.values(tried) for tried in one.tried}
        best = max(values[0] for values in reached.values())
        assert one.values(one.chosen)[0] == best
        assert one.chosen in one.front
        for tried in one.tried:  # off the front somebody is as good in both and better in one
            score, length = reached[tried.index]
            beaten = any(s >= score and n <= length and (s, n) != (score, length) for s, n in reached.values())
            assert (tried in one.front) != beaten


def test_a_searcher_that_has_nothing_now_is_asked_again_when_more_is_known(tmp_path, registry):
    asked = []

    class Waits(Hill):
        """Proposes one after the other: nothing while one is being played."""

        def propose(self, search, known):
            asked.append((search.arm, len(known.events)))
            waits = any(one.status == "running" for one in known.tried) or len(known.tried) == 3
            return None if waits else super().propose(search, known)

    class Patient:
        @hookimpl
        def provide_searchers(self):
            return [Component(name="waits", build=lambda _: Waits())]

    registry = load_only(tuning, Patient())
    play(planned(tmp_path, registry, "waits"), tmp_path, registry)

    proposals = [record for record in told(tmp_path) if isinstance(record, dict) and record["kind"] == "suggestion"]
    for arm in ("arm0", "arm1"):
        assert [one["index"] for one in proposals if one["arm"] == arm] == [0, 1, 2]
    assert len(asked) == len(set(asked))  # never twice with the same knowledge


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"optimizer.lr": 5.0, "schedule.epochs": 1}, r"5\.0 for optimizer\.lr, which is loguniform"),
        ({"optimizer.lr": 0.1}, "expected one for each of"),
        ("0.1", "expected a mapping"),
    ],
)
def test_a_proposal_that_is_not_of_the_space_is_refused_with_the_plugins_name(tmp_path, values, expected):
    class Lost:
        adaptive = True

        def propose(self, search, known):
            return values

    class Stray:
        @hookimpl
        def provide_searchers(self):
            return [Component(name="lost", build=lambda _: Lost())]

    sweep = Sweep(planned(tmp_path, None, "lost"), tmp_path, registry=load_only(Stray()))

    with pytest.raises(PluginContractError, match=expected) as caught:
        sweep.next()

    assert "searcher 'lost'" in "".join(caught.value.__notes__)
    sweep.close()


def test_a_decision_that_is_none_is_refused_with_the_plugins_name(tmp_path, registry):
    class Mute:
        def judge(self, report, before):
            return True

    class Silent:
        @hookimpl
        def provide_schedulers(self):
            return [Component(name="mute", build=lambda _: Mute())]

    sweep = Sweep(planned(tmp_path, None, "hill", "mute"), tmp_path, registry=load_only(Stranger(), Silent()))
    spec = sweep.next()
    assert spec.phase is Phase.TUNE
    sweep.started(spec.id)

    with pytest.raises(PluginContractError, match="judge returned True; expected Decision") as caught:
        sweep.report(spec.id, 1, measured(spec, 1))

    assert "scheduler 'mute'" in "".join(caught.value.__notes__)
    sweep.close()
