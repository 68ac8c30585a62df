"""How often the pieces of a stream travel."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from rl.serving import pace
from rl.serving.pace import Pace


async def test_the_first_piece_travels_at_once_and_later_ones_together_in_order(monkeypatch):
    monkeypatch.setattr(pace, "_SHORTEST", 5.0)
    came = asyncio.Event()

    async def pieces() -> AsyncIterator[int]:
        yield 0
        await came.wait()
        for number in range(1, 6):
            yield number
            await asyncio.sleep(0)

    bundles = Pace().bundled(pieces())
    assert await asyncio.wait_for(anext(bundles), 1) == [0]
    came.set()
    assert [bundle async for bundle in bundles] == [[1, 2, 3, 4, 5]], "the end waits for no pace"


async def test_what_a_stream_raises_comes_behind_its_last_piece_and_closing_ends_it():
    closed = []

    async def broken() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise ValueError("no more")

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 0
                await asyncio.sleep(0.001)
        finally:
            closed.append(True)

    bundles, seen = Pace().bundled(broken()), []
    while len(seen) < 2:
        seen += await anext(bundles)
    assert seen == [1, 2]
    with pytest.raises(ValueError, match="no more"):
        await anext(bundles)
    own = Pace()
    running = own.bundled(endless())
    await anext(running)
    await running.aclose()
    assert closed == [True]
    assert [bundle async for bundle in own.bundled(empty())] == []


async def empty() -> AsyncIterator[int]:
    for _ in ():
        yield 0
