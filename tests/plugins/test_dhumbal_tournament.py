"""Tournaments: the published figures to the digit, resumption, statistics, searches, the procedure and its report."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from random import Random

import numpy as np
import pytest
from orchestrator_plugins.dhumbal.config import TournamentConfig
from orchestrator_plugins.dhumbal.game import Phase, Round
from orchestrator_plugins.dhumbal.players import Aggressive, RandomPlayer, play
from orchestrator_plugins.dhumbal.results import summarise
from orchestrator_plugins.dhumbal.search import CALL, Defect, Ismcts, Mcts, determinise, moves
from orchestrator_plugins.dhumbal.statistics import cohens_d, correlation, half_width, paired_bootstrap, welch
from orchestrator_plugins.dhumbal.tournament import ROUNDS, STATE, Chronicle, Tournament, play_tournament
from pydantic import ValidationError
from scipy import stats


def run(directory, seed=42, **options):
    tournament = Tournament(TournamentConfig(resamples=100, **options), seed)
    records = play_tournament(tournament, Chronicle(directory), lambda *_: None)
    return tournament, records


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    tournament, records = run(tmp_path_factory.mktemp("released"))
    return summarise(tournament, records)


# --- the published rule tournament, digit by digit ---------------------------------------------------------


def column(summary, name):
    return [row[name] for row in summary["table"]]


def test_released_settings_give_the_published_win_rates(released):
    assert column(released, "win_rate") == [35.05859375, 19.43359375, 25.09765625, 20.41015625]


def test_released_settings_give_the_published_table(released):
    assert column(released, "half_width") == pytest.approx(
        [2.922565029385889, 2.423592773495344, 2.655647206629959, 2.468641831044279], rel=1e-12
    )
    assert column(released, "coins") == [6.1552734375, -2.23046875, 0.07421875, -3.9990234375]
    assert column(released, "call_success") == pytest.approx(
        [76.16822429906543, 93.65079365079364, 80.59071729957806, 72.1030042918455], rel=1e-12
    )
    assert column(released, "cards_asked_again") == [1.1015625, 1.1064453125, 1.107421875, 1.1279296875]
    assert column(released, "risk") == pytest.approx(
        [-0.18385982345474278, -0.17951426874731394, -0.2773978274643077, -0.3438567931644346], rel=1e-12
    )


def test_released_settings_give_the_published_course_of_play(released):
    assert column(released, "calls") == [428, 126, 237, 233]
    assert released["turns_per_round"] == pytest.approx(23.05, abs=0.005)
    assert released["endings"] == {"call": 1007, "empty": 17}
    assert released["reshuffles"] == 68


def test_released_settings_give_the_published_tests(released):
    pairs = released["pairs"]

    assert [pair["wins"]["d"] for pair in pairs] == pytest.approx(
        [0.35647654, 0.21849658, 0.33167096, -0.13646228, -0.02445178, 0.11198368], abs=1e-8
    )
    assert [pair["coins"]["d"] for pair in pairs] == pytest.approx(
        [0.24304705, 0.16784580, 0.28601119, -0.07528599, 0.05944996, 0.12834801], abs=1e-8
    )
    assert [pair["calls"]["d"] for pair in pairs] == pytest.approx(
        [0.70381549, 0.40647177, 0.41602941, -0.28675996, -0.27745404, 0.00928950], abs=1e-8
    )
    assert [pair["wins"]["p"] for pair in pairs] == pytest.approx(
        [
            1.2839639276787884e-15,
            8.384034291024766e-07,
            9.473733258922113e-14,
            0.00205415687,
            0.5803167549,
            0.0113945228,
        ],
        rel=1e-8,
    )
    assert [pair["coins"]["p"] for pair in pairs] == pytest.approx(
        [4.4002100058366736e-08, 1.5145207959e-4, 1.250319520269698e-10, 0.0887795221, 0.1789231341, 0.0037385319],
        rel=1e-8,
    )
    assert released["alpha"] == pytest.approx(0.00833, abs=5e-6)


@pytest.mark.parametrize(
    ("change", "win_rate"),
    [({"pick_base": 3}, 31.54296875), ({"value_weight": 0.8}, 34.1796875), ({"risk_factor": 1.0}, 35.05859375)],
)
def test_the_published_ablations_of_aggressive(tmp_path, change, win_rate):
    styles = ({"player": "aggressive"} | change, "conservative", "balanced", "opportunistic")
    tournament, records = run(tmp_path, players=styles)

    assert summarise(tournament, records)["table"][0]["win_rate"] == win_rate


def test_a_rule_tournament_plays_two_thousand_rounds_a_second(tmp_path):
    best = 0.0
    for attempt in range(3):
        began = time.process_time()
        run(tmp_path / str(attempt))
        best = max(best, 1024 / (time.process_time() - began))

    assert best >= 2000


def test_seat_rotated_tournament_meets_its_band(tmp_path):
    tournament, records = run(tmp_path, deals=256, seating="all")
    summary = summarise(tournament, records)
    rates = dict(zip(tournament.names, column(summary, "win_rate"), strict=True))

    assert summary["rounds"] == 6144
    assert 26.5 <= rates["aggressive"] <= 31
    assert min(rates, key=rates.get) == "conservative"


def test_aggressive_beats_three_random_players(tmp_path):
    rest = [{"player": "random", "name": f"random {i}"} for i in range(3)]
    tournament, records = run(tmp_path, players=["aggressive", *rest], deals=500, seating="cyclic")

    assert len(records) == 2000
    assert summarise(tournament, records)["table"][0]["win_rate"] >= 92


def test_identical_players_win_more_in_early_seats(tmp_path):
    same = [{"player": "aggressive", "name": name} for name in "abcd"]
    tournament, records = run(tmp_path, players=same, deals=4096)
    rates = summarise(tournament, records)["seat_win_rate"]

    assert rates == pytest.approx([29.5, 26.0, 23.3, 21.2], abs=2.5)


# --- pairing, bankruptcy, resumption -----------------------------------------------------------------------


def test_every_seating_of_a_deal_starts_from_the_same_cards(tmp_path):
    class Recorder(Aggressive):
        def __init__(self):
            super().__init__()
            self.opened = []

        def discard(self, game):
            if game.turn == 1:
                self.opened.append(tuple(game.hands[0]))
            return super().discard(game)

    tournament = Tournament(TournamentConfig(deals=3, seating="cyclic"), 7)
    recorder = Recorder()
    tournament.players = [recorder] * 4
    for _ in range(12):
        tournament.play_round()

    assert len(set(recorder.opened)) == 3


def test_records_are_by_player_wherever_they_sat(tmp_path):
    _, records = run(tmp_path, deals=2, seating="all")

    assert sorted(tuple(record.seats) for record in records[:24]) == sorted(
        tuple(record.seats) for record in records[24:]
    )
    assert all(sum(record.deltas) == 0 for record in records)
    assert all(record.deltas[record.winner] > 0 for record in records)


def test_a_tournament_of_the_broke_ends(tmp_path):
    tournament, records = run(tmp_path, players=["aggressive", "random"], start_coins=200, stop_when_broke=True)

    assert len(records) < 1024
    assert sum(coins > 0 for coins in tournament.coins) == 1


PLAYERS = ["opportunistic", {"player": "ismcts", "iterations": 3}, "balanced", "random"]


@pytest.mark.parametrize("seating", ["fixed", "cyclic"])
def test_an_interrupted_tournament_continues_to_identical_totals(tmp_path, seating):
    options = {"players": PLAYERS, "deals": 12, "seating": seating, "chunk": 5}
    _, whole = run(tmp_path / "whole", **options)

    class Killed(Exception):
        pass

    def kill(count, records):
        raise Killed

    for _ in range(3):  # three processes die, each after one chunk
        tournament = Tournament(TournamentConfig(resamples=100, **options), 42)
        with pytest.raises(Killed):
            play_tournament(tournament, Chronicle(tmp_path / "cut"), kill)
        with (tmp_path / "cut" / ROUNDS).open("ab") as file:
            file.write(b"[0,1,")  # a line the crash cut off
        if tournament.over:
            break
    tournament, continued = run(tmp_path / "cut", **options)

    assert continued == whole
    assert tournament.round == len(whole)


def test_a_killed_process_leaves_a_tournament_that_continues(tmp_path):
    options = {"deals": 3000, "chunk": 16}
    program = (
        "import json, sys\nfrom pathlib import Path\n"
        "from orchestrator_plugins.dhumbal.config import TournamentConfig\n"
        "from orchestrator_plugins.dhumbal.tournament import Chronicle, Tournament, play_tournament\n"
        "tournament = Tournament(TournamentConfig(**json.loads(sys.argv[1])), 42)\n"
        "play_tournament(tournament, Chronicle(Path(sys.argv[2])), lambda *_: None)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, json.dumps(options), str(tmp_path / "cut")])
    give_up = time.monotonic() + 60
    while not (tmp_path / "cut" / STATE).exists() and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    _, whole = run(tmp_path / "whole", **options)
    _, continued = run(tmp_path / "cut", **options)

    assert continued == whole


def test_a_state_of_other_options_is_refused(tmp_path):
    run(tmp_path, deals=2)

    with pytest.raises(ValueError, match="written with other options"):
        run(tmp_path, deals=2, pickup="previous_top")


def test_more_deals_continue_a_finished_tournament(tmp_path):
    _, whole = run(tmp_path / "whole", deals=20)
    run(tmp_path / "grown", deals=8)
    _, grown = run(tmp_path / "grown", deals=20)

    assert grown == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"players": ["aggressive"]}, "1 given; Dhumbal is played by 2 to 5"),
        ({"players": ["random", "random"]}, "random named more than once"),
        ({"players": ["agressive", "random"]}, "agressive"),
        ({"players": [{"player": "ismcts", "iterations": 0}, "random"]}, "greater than or equal to 1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValidationError, match=message):
        TournamentConfig(**options)


# --- statistics ---------------------------------------------------------------------------------------------


def test_statistics_of_the_study():
    x, y = [1, 0, 1, 1], [0, 0, 1, 0]
    test = welch(x, y)

    assert test.t == pytest.approx(1.414214, abs=5e-7)
    assert test.df == pytest.approx(6)
    assert test.p == pytest.approx(stats.ttest_ind(x, y, equal_var=False).pvalue)
    assert cohens_d(x, y) == pytest.approx(1.0)
    assert cohens_d(x, y, released=True) == pytest.approx(1.154701, abs=5e-7)
    assert 100 * half_width(904 / 1024, 1024) == pytest.approx(2.0, abs=0.05)
    assert pytest.approx(88.3, abs=0.05) == 100 * 904 / 1024


def test_constant_series_have_no_test():
    assert math.isnan(welch([1, 1], [1, 1]).p)
    assert cohens_d([1, 1], [1, 1]) == 0
    assert correlation([1, 1], [0, 1]) is None
    with pytest.raises(ValueError, match="at least two on each side"):
        welch([1], [1, 2])


def test_paired_bootstrap_agrees_with_the_normal_interval():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=400) * 10  # pairing takes the deal's luck out
    x, y = shared + rng.normal(size=400) + 0.3, shared + rng.normal(size=400)
    found = paired_bootstrap(x, y, seed=1)
    error = np.std(x - y) / 20

    assert found.mean == pytest.approx(np.mean(x - y))
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.02)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.02)
    assert found == paired_bootstrap(x, y, seed=1)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_bootstrap([1, 2, 3], [1, 2])


# --- searches -----------------------------------------------------------------------------------------------


def test_a_guess_keeps_what_the_seat_sees():
    game = Round([0] * 4, Random(5))
    for _ in range(9):
        if game.phase == Phase.DISCARD:
            game.discard([game.hands[game.seat][0]])
        else:
            game.draw(False)
    guess = determinise(game, game.seat, Random(1))

    assert guess.hands[game.seat] == game.hands[game.seat]
    assert guess.pile == game.pile
    assert [len(hand) for hand in guess.hands] == [len(hand) for hand in game.hands]
    assert len(guess.deck) == len(game.deck)
    assert sorted([c for hand in guess.hands for c in hand] + guess.pile + guess.deck) == list(range(52))
    assert guess.points == [sum(c % 13 + 1 for c in hand) for hand in guess.hands]
    assert guess.hands != game.hands


@pytest.mark.parametrize("search", [Mcts(iterations=200), Ismcts(iterations=200)])
def test_searches_call_with_seven_points_against_full_hands(search):
    game = Round([0] * 4, Random(5))
    game.hands[0], game.points[0], game.phase = [5, 13], 7, Phase.CALL

    assert search.choose(game) == CALL
    assert search.call(game)


@pytest.mark.parametrize("search", [Mcts(iterations=10, trees=3), Ismcts(iterations=10)])
def test_searches_leave_the_round_as_it_is_and_count_their_playouts(search):
    game = Round([0] * 4, Random(5))
    before = ([hand[:] for hand in game.hands], game.deck[:], game.pile[:], game.phase)
    search.playouts = 0
    choice = search.choose(game)

    assert choice in moves(game)
    assert search.playouts == 10
    assert (game.hands, game.deck, game.pile, game.phase) == before


def test_searches_do_not_look_at_hidden_cards():
    game = Round([0] * 2, Random(8))
    swapped = game.copy()
    swapped.hands[1], swapped.deck[:5] = game.deck[:5], game.hands[1]
    swapped.points[1] = sum(c % 13 + 1 for c in swapped.hands[1])
    choices = []
    for state in (game, swapped):
        state.rng = Random(3)
        choices.append(Ismcts(iterations=30).choose(state))

    assert choices[0] == choices[1]


def test_ismcts_beats_three_random_players():
    rng, players = Random(2), [Ismcts(iterations=15)] + [RandomPlayer()] * 3
    won = sum(play(Round([0] * 4, rng), players).winner == 0 for _ in range(30))

    assert won >= 14  # a random player in its seat would win about nine


def test_ace_opponents_make_calling_look_bad():
    def votes(defects):
        game = Round([0] * 2, Random(5))
        game.hands[0], game.points[0], game.phase = [5, 13], 7, Phase.CALL
        found = {0: 0.0, CALL: 0.0}
        Ismcts(iterations=60, defects=defects)._search(game, found)
        return found

    clean, defective = votes(()), votes([Defect.ACE_OPPONENTS])

    assert clean[CALL] > clean[0]
    assert defective[CALL] < defective[0]


def test_a_time_limit_ends_a_search():
    search = Ismcts(iterations=10**6, seconds=0.02)
    search.choose(Round([0] * 4, Random(5)))

    assert 1 <= search.playouts < 10**4
