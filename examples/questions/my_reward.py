"""A reward of one's own: the right number, and a little for showing the step that leads to it."""


def score(text, reference, level):
    """Score an answer such as ``7+5=12 12+6=18``; ``reference`` and ``level`` are the row's own."""
    last = text.strip().rpartition("=")[2]
    if last != reference:
        return 0.0
    steps = text.count("=")
    return 1.0 if steps >= level else 0.8  # an answer out of nowhere is worth less
