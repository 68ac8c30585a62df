"""Judges how hostile HTTP calls end, in a world of their own."""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from executors.catalog import Catalog
from executors.executor import Executor
from executors.hostile.python import ACCEPTED
from executors.hostile.world import HOST, NAMES, World
from executors.http.client import HttpClient, HttpConfig
from executors.tools.http import http_tool
from executors.types import MalformedCall, ToolCall

_GRACE = 1.0
"""Seconds beyond its deadline after which a call is late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpVerdict:
    """How one row ended."""

    id: str
    must: str
    """How it has to end: ok, error, timeout or blocked."""
    got: str
    """How it ended, in the words of ``must``. Whether something was blocked is read from what did not happen, not from
    what the call says; a refusal in any words is an error."""
    passed: bool
    detail: str
    """What the policy read, and what went wrong."""


def judge_http(rows: Iterable[Mapping[str, Any]], *, deadline: float = 1.0) -> list[HttpVerdict]:
    """Run every row's call through the whole executor, and judge it.

    ``blocked`` means that nothing forbidden happened: no connection to any address but the allowed host's, and no
    forbidden method, host or header at its server. The others are judged by the observation's status. A row also
    fails if it is late, or if the call after it does not work.

    Args:
        rows: of tool ``http``, with ``id``, ``must`` and ``input``: the arguments as JSON text.
        deadline: seconds that a call may take.
    """
    return asyncio.run(_judge(list(rows), deadline))


async def _judge(rows: list[Mapping[str, Any]], deadline: float) -> list[HttpVerdict]:
    async with World() as world:
        config = HttpConfig(allow=tuple(NAMES), deadline=deadline)
        client = HttpClient(config, resolve=world.resolve, network=world.network)
        executor = Executor(Catalog([http_tool(client)]), timeout=deadline + _GRACE)
        return [await _judge_row(row, world, executor, deadline) for row in rows]


async def _judge_row(row: Mapping[str, Any], world: World, executor: Executor, deadline: float) -> HttpVerdict:
    world.effects.clear()
    world.lookups.clear()
    started = time.perf_counter()
    observation = await executor.arun(_call(row["input"]))
    problems = [f"late: {seconds:.1f} s"] if (seconds := time.perf_counter() - started) > deadline + _GRACE else []
    effects = list(world.effects)
    after = await executor.arun(ToolCall("http", {"url": f"http://{HOST}/ok"}))
    problems += [] if after.ok else [f"the next call failed: {after.content}"]
    got = observation.status if observation.status in ("ok", "timeout", "blocked") else "error"
    must = row["must"]
    fits = must == "blocked" or got in ACCEPTED[must]
    passed = fits and not effects and not problems
    return HttpVerdict(
        id=row["id"],
        must=must,
        got=must if passed else "failed" if fits else got,
        passed=passed,
        detail="; ".join([f"{observation.status}: {observation.content[:200]}", *effects, *problems]),
    )


def _call(text: str) -> ToolCall | MalformedCall:
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        return MalformedCall(text, f"the arguments are not JSON: {error}")
    if not isinstance(arguments, dict):
        return MalformedCall(text, "the arguments must be a JSON object")
    return ToolCall("http", arguments)
