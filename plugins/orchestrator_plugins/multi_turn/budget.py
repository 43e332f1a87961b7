"""The protocol of one budget for demonstrations and games: what a split costs, and which splits spend it all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

DEMONSTRATION = 10
"""Units a demonstration costs; arXiv:2510.01132 takes ten times a game."""
GAME = 1
"""Units a distinct training game costs, however often it is played again."""


def cost(demonstrations: int, games: int, *, demonstration: float = DEMONSTRATION, game: float = GAME) -> float:
    """Units that a split spends.

    :param demonstrations: distinct games that are demonstrated
    :param games: distinct games that are trained on, revisited in every epoch at no further cost
    :param demonstration: units one demonstration costs
    :param game: units one game costs
    :raises ValueError: when a count is negative
    """
    if demonstrations < 0 or games < 0:
        raise ValueError(f"{demonstrations} demonstrations and {games} games; expected counts of at least 0")
    return demonstrations * demonstration + games * game


def splits(
    budget: int, demonstrations: Iterable[int], *, demonstration: int = DEMONSTRATION, game: int = GAME
) -> Iterator[tuple[int, int]]:
    """Pair each number of demonstrations with the games that spend the rest of the budget.

    :returns: (demonstrations, games), each costing exactly the budget
    :raises ValueError: when the demonstrations alone cost more, or the rest buys no whole number of games
    """
    for count in demonstrations:
        rest = budget - count * demonstration
        if rest < 0 or rest % game:
            raise ValueError(
                f"{count} demonstrations leave {rest} of {budget} units; expected a multiple of {game}, at least 0"
            )
        yield count, rest // game
