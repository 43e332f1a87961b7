"""The rules of Dhumbal: legal discards, points, showdowns, and the properties every round must have."""

from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.dhumbal.game import Ending, Phase, Pickup, Round
from orchestrator_plugins.dhumbal.players import STYLES, Aggressive, RandomPlayer, act, play
from orchestrator_plugins.dhumbal.rules import (
    CALL_LIMIT,
    card_id,
    card_name,
    hand_points,
    legal_discards,
    lowest_seat,
    settle,
    showdown,
)


def cards(text):
    return [card_id(name) for name in text.split()]


# --- unit cases -------------------------------------------------------------------------------------------

HANDS = [  # hand, points, legal discards, what Aggressive discards
    ("KS QH 9D 4C 2S", 40, 5, "KS"),
    ("9S 9H KD 2C AS", 34, 6, "9S 9H"),
    ("5S 6S 7S KD QC", 43, 6, "5S 6S 7S"),
    ("10S JS QS KS AS", 47, 8, "10S JS QS KS"),
    ("3S 3H 4S 5S 9D", 24, 7, "3S 4S 5S"),
    ("7S 7H 7D KC QC", 46, 9, "7S 7H 7D"),
    ("6S 3H AD", 10, 3, "6S"),
    ("4S 3H 2D AS", 10, 4, "AS"),
    ("8D 2C", 10, 2, "8D"),
]


@pytest.mark.parametrize(("hand", "points", "legal", "discard"), HANDS)
def test_hands_of_the_study(hand, points, legal, discard):
    held = cards(hand)

    assert hand_points(held) == points
    assert len(legal_discards(held)) == legal
    assert list(Aggressive().choose_discard(held, points)) == cards(discard)


@pytest.mark.parametrize(
    ("hand", "discard", "score"),
    [
        ("KS QH 9D 4C 2S", "KS", 19.5),
        ("KS QH 9D 4C 2S", "2S", 3.0),
        ("9S 9H KD 2C AS", "9S 9H", 32.752941),
        ("9S 9H KD 2C AS", "KD", 20.188235),
        ("5S 6S 7S KD QC", "5S 6S 7S", 37.423256),
        ("5S 6S 7S KD QC", "KD", 19.227907),
    ],
)
def test_aggressive_scores_of_the_study(hand, discard, score):
    found = Aggressive().score(cards(discard), hand_points(cards(hand)), run=len(discard.split()) > 2)

    assert found == pytest.approx(score, abs=5e-7)


def hand_worth(points, used):
    """Cards that add up to so many points, none of them used before; kings first."""
    held = []
    for card in sorted(range(52), key=lambda c: -(c % 13)):
        if card % 13 + 1 <= points and card not in used:
            held.append(card)
            used.add(card)
            points -= card % 13 + 1
    assert points == 0
    return held


@pytest.mark.parametrize(
    ("values", "caller", "winner", "deltas"),
    [
        ([6, 18, 31, 11], 0, 0, [60, -18, -31, -11]),
        ([8, 8, 27, 40], 0, 1, [-83, 83, 0, 0]),
        ([9, 25, 3, 3], 0, 2, [-40, 0, 40, 0]),
        ([2, 130, 104, 7], 0, 0, [207, -100, -100, -7]),
    ],
)
def test_showdowns_of_the_study(values, caller, winner, deltas):
    used = set()
    hands = [hand_worth(value, used) for value in values]

    assert showdown(hands, caller) == (winner, deltas)
    assert settle(values, caller) == (winner, deltas)


@pytest.mark.parametrize(
    ("values", "caller", "winner", "deltas"),
    [
        ([14, 6, 6, 20], 1, 2, [0, -46, 46, 0]),  # a tie: the first at the minimum loses as a failed caller
        ([14, 6, 9, 20], 1, 1, [-14, 43, -9, -20]),
    ],
)
def test_forced_showdowns_of_the_study(values, caller, winner, deltas):
    assert lowest_seat(values) == caller
    assert settle(values, caller) == (winner, deltas)


def test_a_caller_that_is_no_seat_is_refused():
    with pytest.raises(ValueError, match="caller 4 is no seat; expected 0 to 1"):
        settle([3, 4], 4)


@pytest.mark.parametrize(("points", "top", "takes"), [(11, 4, False), (14, 4, True), (16, 6, True), (16, 7, False)])
def test_aggressive_draws_of_the_study(points, top, takes):
    assert (top <= Aggressive().pick_threshold(points)) is takes


def test_ace_is_low_only():
    assert tuple(cards("QS KS AS")) not in legal_discards(cards("QS KS AS"))
    assert tuple(cards("AS 2S 3S")) in legal_discards(cards("3S AS 2S"))
    assert len(legal_discards(cards("KS AH 2H"))) == 3  # ids 12, 13, 14 follow each other but change suit


def test_no_five_cards_have_more_than_sixteen_discards():
    assert len(legal_discards(cards("9S 9H 9D 9C KS"))) == 16


def test_card_names_and_ids_match():
    assert [card_name(card) for card in (0, 12, 22, 51)] == ["AS", "KS", "10H", "KC"]
    assert all(card_id(card_name(card)) == card for card in range(52))
    with pytest.raises(ValueError, match="'1X' is no card"):
        card_id("1X")


# --- against brute force ----------------------------------------------------------------------------------


def is_set(chosen):
    ranks, suits = [c % 13 for c in chosen], {c // 13 for c in chosen}
    if len(chosen) == 1 or len(set(ranks)) == 1:
        return True
    return len(chosen) > 2 and len(suits) == 1 and sorted(ranks) == list(range(min(ranks), min(ranks) + len(ranks)))


hands = st.lists(st.integers(0, 51), min_size=1, max_size=5, unique=True)


@given(hands)
def test_legal_discards_are_all_subsets_that_form_a_set(hand):
    subsets = [c for size in range(1, len(hand) + 1) for c in combinations(sorted(hand), size)]

    assert legal_discards(hand) == tuple(sorted(c for c in subsets if is_set(c)))


@given(st.lists(st.integers(0, 51), min_size=3, max_size=5, unique=True), st.sampled_from(sorted(STYLES)))
def test_styles_choose_the_first_best_of_all_candidates(hand, style):
    player, points = STYLES[style](), hand_points(hand)
    if points <= CALL_LIMIT:
        return

    def score(chosen):  # as the study writes it
        worth = hand_points(chosen)
        same_suit = len(chosen) > 2 and len({c // 13 for c in chosen}) == 1
        value = worth * player.value_weight + 2 * len(chosen) * (len(chosen) > 1) + 3 * same_suit
        value += 50 * (points - worth <= 10) + worth / points * 10
        return value * player.risk_factor

    def extends(run):
        low, high = min(run), max(run)
        return (low % 13 > 0 and low - 1 in hand) or (high % 13 < 12 and high + 1 in hand)

    groups = [c for c in legal_discards(hand) if len(c) > 1 and len({x % 13 for x in c}) == 1]
    runs = [c for c in legal_discards(hand) if len(c) > 2 and len({x % 13 for x in c}) > 1 and not extends(c)]
    candidates = [(c,) for c in hand] + groups + runs
    chosen = player.choose_discard(hand, points)

    best = max(score(c) for c in candidates)
    assert score(chosen) == pytest.approx(best, abs=1e-9)
    if len(chosen) == 1:
        assert chosen[0] == next(c for c in hand if c % 13 == chosen[0] % 13)


@given(st.lists(st.integers(0, 130), min_size=2, max_size=5), st.data())
def test_payments_sum_to_zero_and_follow_the_definition(values, data):
    caller = data.draw(st.integers(0, len(values) - 1))
    winner, deltas = settle(values, caller)

    others = [v for seat, v in enumerate(values) if seat != caller]
    assert sum(deltas) == 0
    assert (winner == caller) == (values[caller] < min(others))
    assert values[winner] == min(values)
    if winner != caller:
        assert deltas[winner] == sum(min(v, 100) for v in values)


# --- rounds -----------------------------------------------------------------------------------------------


def players(count, style):
    return [RandomPlayer() if style == "random" else STYLES[style]()] * count


games = st.tuples(
    st.integers(2, 5), st.integers(0, 10_000), st.sampled_from(list(Pickup)), st.sampled_from(["random", *STYLES])
)


@given(games)
def test_every_reachable_state_is_sound_and_play_ends(game):
    seats, seed, pickup, style = game
    table = players(seats, style)
    state = Round([10_000] * seats, Random(seed), pickup)

    decisions = 0
    while state.phase != Phase.OVER:
        held = [card for hand in state.hands for card in hand]
        assert sorted(held + state.pile + state.deck) == list(range(52))
        assert [hand_points(hand) for hand in state.hands] == state.points
        assert all(len(hand) <= 5 for hand in state.hands)
        if state.phase == Phase.CALL:
            assert state.points[state.seat] <= CALL_LIMIT
        elif state.phase == Phase.DISCARD:
            assert legal_discards(state.hands[state.seat])
        else:
            assert state.offered in state.pile
        act(state, table[state.seat])
        decisions += 1

    assert decisions <= 300
    assert 1 <= state.turn <= 100
    assert sum(state.deltas) == 0
    assert state.ending in set(Ending)


@given(games)
def test_same_seed_same_round(game):
    seats, seed, pickup, style = game
    one, two = (play(Round([0] * seats, Random(seed), pickup), players(seats, style)) for _ in range(2))

    assert (one.hands, one.pile, one.deltas, one.turn) == (two.hands, two.pile, two.deltas, two.turn)


def test_previous_top_offers_the_card_beneath_the_discard():
    state = Round([0, 0], Random(3), Pickup.PREVIOUS_TOP)
    before, discarded = state.pile[-1], state.hands[0][0]
    while state.phase != Phase.DISCARD:
        state.call(False)
    state.discard([discarded])

    assert state.offered == before
    state.draw(True)

    assert state.hands[0][-1] == before
    assert state.pile == [discarded]


def test_own_top_offers_the_card_just_discarded():
    state = Round([0, 0], Random(3))
    discarded = state.hands[0][0]
    state.discard([discarded])

    assert state.offered == discarded


def test_an_illegal_discard_becomes_the_highest_single():
    state = Round([0, 0], Random(3))
    state.hands[0] = cards("KS QH 9D 4C KD")
    state.points[0] = 51
    state.discard(cards("KS QH"))

    assert card_name(state.pile[-1]) == "KS"
    assert state.hands[0] == cards("QH 9D 4C KD")


def test_an_empty_hand_ends_the_round_as_a_call_with_no_points():
    state = Round([0, 0], Random(3))
    state.hands[0], state.points[0] = cards("5S 5H"), 10
    state.phase = Phase.DISCARD
    state.discard(cards("5S 5H"))

    assert (state.ending, state.caller, state.winner) == (Ending.EMPTY, 0, 0)


def test_an_empty_deck_is_refilled_from_the_pile_beneath_its_top():
    state = Round([0, 0], Random(3))
    state.pile, state.deck = state.pile + state.deck, []
    state.discard([state.hands[0][0]])
    top, size = state.pile[-1], len(state.pile)
    state.draw(False)

    assert state.pile == [top]
    assert len(state.deck) == size - 2
    assert state.reshuffles == 1


def test_nothing_to_draw_forces_a_showdown_on_the_lowest_seat():
    state = Round([0, 0], Random(3))
    state.discard([state.hands[0][0]])
    state.pile, state.deck = state.pile[-1:], []
    lowest = lowest_seat(state.points)
    state.draw(False)

    assert (state.ending, state.caller) == (Ending.DECK, lowest)


def test_a_hundred_turns_force_a_showdown():
    class Silent(RandomPlayer):
        def call(self, game):
            return False

        def discard(self, game):
            return [game.hands[game.seat][0]]

        def draw(self, game):
            return False

    state = play(Round([0] * 4, Random(1)), [Silent()] * 4)

    assert (state.ending, state.turn) == (Ending.TURNS, 100)
    assert state.caller == lowest_seat(state.points)


def test_moves_out_of_phase_are_refused():
    state = Round([0, 0], Random(3))

    with pytest.raises(ValueError, match="seat 0 is to discard, not to draw"):
        state.draw(True)
    with pytest.raises(ValueError, match="6 seats; Dhumbal is played by 2 to 5"):
        Round([0] * 6, Random(0))
