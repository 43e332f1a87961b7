"""placeholder"""


def lean_for(lm, config):
    return None
