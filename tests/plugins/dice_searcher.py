"""A searcher of Ray Tune as somebody might write one: it draws from the global generator and remembers what it was told."""

import numpy as np
from ray.tune.search import Searcher


class Dice(Searcher):
    """Throws dice near the best configuration so far."""

    def __init__(self, width: float = 0.5, **options):
        super().__init__(**options)
        self.width, self.space, self.live, self.best = width, None, {}, None

    def set_search_properties(self, metric, mode, config, **spec):
        """Take the space, once."""
        self._metric, self._mode, self.space = metric, mode, config
        return True

    def suggest(self, trial_id):
        """Draw every option, and keep some of the best's."""
        drawn = {name: domain.sample() for name, domain in self.space.items()}
        if self.best is not None:
            drawn = {name: self.best[1][name] if np.random.random() < self.width else drawn[name] for name in drawn}
        self.live[trial_id] = drawn
        return dict(drawn)

    def on_trial_complete(self, trial_id, result=None, error=False):
        """Remember the best."""
        config = self.live.pop(trial_id)
        if result and (self.best is None or result[self._metric] > self.best[0]):
            self.best = result[self._metric], config


class Closed(Dice):
    """Takes these options and no others, one of them without a default."""

    def __init__(self, sides: int, seed: int | None = None):
        super().__init__()
        self.sides, self.seed = sides, seed


NotOne = dict
