"""Rewards by a function of a user's own file."""

import math
from collections.abc import Mapping
from pathlib import Path

from executors.errors import ConfigError, DataError
from executors.own_file import load_own_file, own_frame
from rewards.types import Reward
from rollouts.types import Episode, Task

FUNCTION = "reward"


def own_reward(path: str, task: Task, episode: Episode) -> Reward:
    """What a user's function says an episode is worth.

    Args:
        path: of the file, whose ``reward(task, episode)`` gives a number, or a mapping of parts to numbers that are
            summed.
        task: that was attempted.
        episode: the attempt.

    Raises:
        ConfigError: the file has no such function.
        DataError: the function fails, or gives something else; with the line of the file.
    """
    function = getattr(load_own_file(path), FUNCTION, None)
    if not callable(function):
        raise ConfigError(f"{path} has no function reward(task, episode); write one, or name another kind of rewards")
    try:
        given = function(task, episode)
    except Exception as error:
        told = own_frame(error, Path(path).resolve())
        raise DataError(f"{path}: reward fails on an attempt at task {task.id!r}: {told}") from error
    parts = given if isinstance(given, Mapping) else {FUNCTION: given}
    for name, value in parts.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise DataError(
                f"{path}: reward gives {value!r} for {name!r} on an attempt at task {task.id!r}; "
                "a reward is a finite number, or a mapping of parts to such"
            )
    parts = {str(name): float(value) for name, value in parts.items()}
    return Reward(sum(parts.values()), parts)
