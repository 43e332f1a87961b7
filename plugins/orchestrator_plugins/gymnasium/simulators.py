"""Making a simulator, and saying what is wrong where that fails."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium

from orchestrator.api import ConfigError, Problem


def make_simulator(name: str, kwargs: Mapping[str, Any], max_steps: int | None = None) -> gymnasium.Env:
    """Make a registered simulator.

    :param max_steps: steps after which a play is cut off; None: as registered
    :raises ConfigError: it is not registered, needs more packages or refuses its arguments
    """
    options = {"disable_env_checker": True, **kwargs}
    if max_steps is not None:
        options["max_episode_steps"] = max_steps
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*out of date.*")
            return gymnasium.make(name, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ConfigError([Problem("environment.id", f"{name} needs more packages: {error}")]) from None
    except gymnasium.error.Error as error:
        raise ConfigError(
            [Problem("environment.id", f"{error} List them: python -m gymnasium.envs.registration")]
        ) from None
    except TypeError as error:
        raise ConfigError([Problem("environment.kwargs", f"{name} refused them: {error}")]) from None
