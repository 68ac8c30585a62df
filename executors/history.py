"""What the states of an episode went through before a process died, so that fresh ones can be made the same."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from executors.errors import TransientError
from executors.gate import Gate
from executors.states import States
from executors.step import Prepared
from executors.threads import Outcome
from executors.types import Observation, ToolCall


@dataclass(frozen=True, slots=True)
class Made:
    """A call that was made earlier or elsewhere, and what came back."""

    number: int
    """In its episode."""
    call: ToolCall
    observation: Observation


@dataclass(slots=True)
class Past:
    """The calls of one state that a recording, or another process, has answered."""

    maker: Any
    """What makes the state."""
    calls: list[Made] = field(default_factory=list)
    """In their order; a fresh state has yet to see them."""
    live: bool = False
    """Whether a call was made since: what a recording says of later ones is of another course of things."""
    lost: str = ""
    """Why the state cannot be made again."""
    catching_up: asyncio.Lock = field(default_factory=asyncio.Lock)
    gate: Gate = field(default_factory=lambda: Gate(1, None))
    """Lets one call at a time at the state."""


class History:
    """The pasts of an episode's states. A fresh state is taken through its past when the first live call needs it."""

    def __init__(
        self, states: States, repeat: Callable[[Made, Any], Awaitable[Observation | None]], recorded: bool
    ) -> None:
        """
        Args:
            states: opens and holds the states.
            repeat: makes a call once more in a state; None where that call may not be made twice.
            recorded: whether a recording may answer calls, so that every state may have a past.
        """
        self.said: str | None = None
        """What a recording says that the environments said on being opened."""
        self._states = states
        self._repeat = repeat
        self._recorded = recorded
        self._pasts: dict[int, Past] = {}

    def of(self, maker: Any) -> Past:
        """The past of a maker's state."""
        past = self._pasts.get(id(maker))
        if past is None:
            past = self._pasts[id(maker)] = Past(maker)
        return past

    def turn(self, prepared: Prepared | None) -> contextlib.AbstractAsyncContextManager[None]:
        """A call's turn at the state that it shares, to which calls come one after another, in their order."""
        shares = None if prepared is None else prepared.shares
        return contextlib.nullcontext() if shares is None else self.of(shares).gate

    def owing(self, eager: Iterable[Any]) -> list[Any]:
        """What makes the states that calls were answered for, and that nobody needed yet; and the eager ones."""
        makers = [past.maker for past in self._pasts.values() if past.calls and not past.live]
        return makers + [maker for maker in eager if maker not in makers]

    def is_seen(self, maker: Any) -> bool:
        """Whether a state that is open has seen all of its past; it is about to be changed."""
        if not self._recorded and not self._pasts:
            return True
        past = self.of(maker)
        past.live = past.live or not past.calls
        return past.live and not past.lost

    async def current(self, maker: Any, timeout: float) -> Outcome:
        """A state that has seen all of its past; a ``TransientError`` where it cannot be had."""
        opened = await self._states.open(maker, timeout)
        if opened.error is not None or self.is_seen(maker):
            return opened
        past = self.of(maker)
        async with past.catching_up:
            if not past.live:
                past.lost = await self._differs(past, opened.value)
                past.live = True
        return Outcome(error=TransientError(past.lost), words=past.lost) if past.lost else opened

    async def _differs(self, past: Past, state: Any) -> str:
        """Take a fresh state through its past; says how it now differs, where it does."""
        eager = getattr(past.maker, "eager", False)
        if eager and self.said is not None and (getattr(state, "opening", None) or "") not in self.said:
            return lost("its environment now begins otherwise")
        for made in past.calls:
            name, before = f"call {made.number}, {made.call.tool},", made.observation
            if before.status == "timeout":
                return lost(f"{name} came to no end in time")
            now = await self._repeat(made, state)
            if now is None:
                return lost(f"{name} may not be made twice")
            if (now.content, now.status) != (before.content, before.status):
                was, is_now = (f"{told.content[:80]!r} ({told.status})" for told in (before, now))
                return lost(f"{name} gave {was} and now gives {is_now}")
        return ""


def lost(reason: str) -> str:
    """What a call is told whose state is gone."""
    return f"the state of this episode was lost with the process that held it, and cannot be made again: {reason}"
