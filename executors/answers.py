"""What a tool's function came to, in words: its answer, or its failure and of what kind that is."""

import inspect
from collections.abc import AsyncIterator, Sequence
from typing import Any

from executors.content import as_text, as_text_async, cut
from executors.errors import BadCallError, BlockedError, ToolError, TransientError, UnknownToolError
from executors.threads import LateError, Outcome
from executors.types import Status


def answer(function: Any, state: Sequence[Any], arguments: dict[str, Any], max_chars: int) -> Any:
    """Call a tool's function and put what it returns in words, or into a coroutine that gives the words."""
    value = function(*state, **arguments)
    if isinstance(value, str):
        return cut(value, max_chars)
    if inspect.isawaitable(value) or isinstance(value, AsyncIterator):
        return _awaited(value, max_chars)
    return as_text(value, max_chars)


async def _awaited(value: Any, max_chars: int) -> str:
    if inspect.isawaitable(value):
        value = await value
    return await as_text_async(value, max_chars) if isinstance(value, AsyncIterator) else as_text(value, max_chars)


def failure(outcome: Outcome, tool: str, timeout: float) -> tuple[str, Status]:
    """What the policy reads of a failure, and its kind."""
    match outcome.error:
        case LateError():
            return f"{tool} did not answer within {timeout:g} s", "timeout"
        case TimeoutError():
            return outcome.words or f"{tool} did not answer in time", "timeout"
        case UnknownToolError() | BadCallError():
            return outcome.words, "bad_call"
        case BlockedError():
            return outcome.words, "blocked"
        case TransientError():
            return outcome.words, "unavailable"
        case ToolError():
            return outcome.words, "tool_error"
        case ConnectionError():  # a tool written for others cannot raise TransientError
            return f"{type(outcome.error).__name__}: {outcome.words}", "unavailable"
    return f"{type(outcome.error).__name__}: {outcome.words}", "tool_error"
