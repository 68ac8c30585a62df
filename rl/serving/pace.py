"""How often the pieces of a stream travel: the first at once, later ones together, so that each trip is worth it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, TypeVar

Piece = TypeVar("Piece")

_TRIPS = 100.0
"""Of all streams together, in a second."""
_SHORTEST = 0.04
"""Seconds between two trips of one stream; nobody reads faster."""


class Pace:
    """Bundles the pieces of streams; what a stream waits grows with the number of streams."""

    def __init__(self) -> None:
        self._streams = 0

    async def bundled(self, pieces: AsyncIterator[Piece]) -> AsyncGenerator[list[Piece]]:
        """The same pieces in the same order: the first alone, then all that came meanwhile, and the last without delay.

        Args:
            pieces: of one stream; it is closed with this one, and what it raises is raised behind its last piece.
        """
        gathered: list[Piece] = []
        came = asyncio.Event()
        gathering = asyncio.ensure_future(_gather(pieces, gathered, came))
        gathering.add_done_callback(lambda _: came.set())
        self._streams += 1
        try:
            while not gathering.done() or gathered:
                await came.wait()
                if gathered:
                    bundle = gathered[:]
                    gathered.clear()
                    yield bundle
                if gathering.done():
                    continue
                came.clear()
                await asyncio.wait({gathering}, timeout=max(_SHORTEST, self._streams / _TRIPS))
                if gathered:
                    came.set()
            await gathering
        finally:
            self._streams -= 1
            gathering.cancel()
            with suppress(asyncio.CancelledError):
                await gathering


async def _gather(pieces: Any, gathered: list[Any], came: asyncio.Event) -> None:
    async with aclosing(pieces):
        async for piece in pieces:
            gathered.append(piece)
            came.set()
