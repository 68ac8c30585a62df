"""Whether a call is the expected one: the tool, then its arguments (STE's string rule and a strict one)."""

from collections.abc import Mapping
from typing import Any, Literal

from executors.types import ToolCall
from rollouts.types import Episode, Task

ExtraKeys = Literal["ignore", "reject"]


def same_arguments(given: Mapping[str, Any], expected: Mapping[str, Any], extra_keys: ExtraKeys = "ignore") -> bool:
    """STE's string rule: every expected key is there and reads the same, case and outer blanks aside.

    Args:
        given: the arguments of the policy's call.
        expected: the arguments of the gold call.
        extra_keys: ``ignore`` as published, where keys that were not expected pass; ``reject`` where they fail.
    """
    if extra_keys == "reject" and set(given) - set(expected):
        return False
    return all(key in given and _text(given[key]) == _text(value) for key, value in expected.items())


def _text(value: Any) -> str:
    return str(value).strip().lower()


CallLevel = Literal["malformed", "wrong_tool", "wrong_arguments", "correct"]
CALL_LEVELS: tuple[CallLevel, ...] = ("malformed", "wrong_tool", "wrong_arguments", "correct")
"""Worst first."""


def call_level(task: Task, episode: Episode, extra_keys: ExtraKeys = "ignore") -> CallLevel:
    """How far the episode's first call got: malformed or missing < wrong tool < wrong arguments < correct."""
    call = episode.calls[0] if episode.calls else None
    if task.gold is None or not isinstance(call, ToolCall):
        return "malformed"
    if call.tool != task.gold.tool:
        return "wrong_tool"
    return "correct" if same_arguments(call.arguments, task.gold.arguments, extra_keys) else "wrong_arguments"
