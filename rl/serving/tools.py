"""``/v1/tools``: the tools as a list, and to MCP clients as an MCP server, where the server runs tools for its callers.

Each MCP connection is an episode of the executor's, with all its limits.
"""

import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from executors.catalog import Catalog
from executors.executor import Executor
from executors.mcp.server import mcp_app
from executors.tool import Tool
from rl.serving.wire import ChatError

PATH = "/v1/tools"


class ToolsApp:
    """An ASGI app that lists tools, and speaks MCP."""

    def __init__(
        self, models: Callable[[], Awaitable[list[dict[str, Any]]]], executor: Executor | None, host: str
    ) -> None:
        """
        Args:
            models: the served policies, each with its tools, as ``/v1/models`` lists them.
            executor: runs calls; None where nobody may call.
            host: where the server listens: on this machine alone, pages of other sites are kept out.
        """
        self._models = models
        self._mcp: Any = None
        self._lacks_sdk = executor is not None and importlib.util.find_spec("mcp") is None
        if executor is not None and not self._lacks_sdk:
            self._mcp = mcp_app(executor, host=host, path=PATH)

    @asynccontextmanager
    async def running(self, _: object = None) -> AsyncIterator[None]:
        """As long as MCP connections may be open."""
        if self._mcp is None:
            yield
            return
        async with self._mcp.router.lifespan_context(self._mcp):
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if request.method == "GET" and "text/event-stream" not in request.headers.get("accept", ""):
            await JSONResponse({"object": "list", "data": await self._listed()})(scope, receive, send)
        elif self._mcp is not None:
            await self._mcp(scope, receive, send)
        else:
            error = self._refusal()
            await JSONResponse(error.body(), error.status)(scope, receive, send)

    async def _listed(self) -> list[dict[str, Any]]:
        """Every tool once, by its name."""
        found: dict[str, dict[str, Any]] = {}
        for model in await self._models():
            for offered in model.get("tools", ()):
                found.setdefault(offered["function"]["name"], {"object": "tool", **offered["function"]})
        return list(found.values())

    def _refusal(self) -> ChatError:
        if self._lacks_sdk:
            return ChatError(
                "MCP needs its SDK, which this server lacks: pip install 'apprentice[mcp]'", status=501, code="no_mcp"
            )
        return ChatError(
            "this server runs no tools for its callers; it was started without --execute",
            status=403,
            code="execution_disabled",
        )


def together(executors: Sequence[Executor]) -> Executor | None:
    """One executor for the tools of all; of tools that have the same name the first. None where there is none.

    Arguments are taken as each tool's own executor takes them; the time-out and the length of what is observed are the
    longest of all.
    """
    if len(executors) < 2:
        return next(iter(executors), None)
    tools: dict[str, Tool] = {}
    coerced: set[str] = set()
    for executor in executors:
        for tool in executor.catalog:
            if tool.name not in tools:
                tools[tool.name] = tool
                coerced |= {tool.name} if executor.coerces(tool.name) else set()
    timeout, length = (max(getattr(one, name) for one in executors) for name in ("timeout", "max_chars"))
    return Executor(Catalog(tools.values()), timeout=timeout, max_chars=int(length), coerce=frozenset(coerced))
