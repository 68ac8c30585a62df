"""A catalog served as an MCP server, over stdin and stdout or streamable HTTP, with its own schemas and outcomes."""

from __future__ import annotations

import argparse
import asyncio
import hmac
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from executors.catalog import Catalog
from executors.errors import ApprenticeError, ConfigError
from executors.executor import Executor
from executors.mcp.client import STATUS
from executors.named import load_tools
from executors.types import Observation, Scene, ToolCall, ToolSpec

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server
    from mcp_types import CallToolResult
    from starlette.types import ASGIApp

    from executors.session import Session

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATH = "/mcp"
"""Where the HTTP server answers."""


def serve_mcp(
    executor: Executor,
    transport: Literal["stdio", "http"] = "stdio",
    host: str = "127.0.0.1",
    port: int = 8765,
    *,
    name: str = "apprentice",
    token: str | None = None,
) -> None:
    """Serve an executor's tools until the client goes away (stdio) or the process is told to end (http).

    Each connection is an episode of its own. The protocol of 2026 has no connections over HTTP: there, a call is an
    episode, and a catalog with stateful tools offers only the older protocol, which has them.

    Args:
        executor: runs the calls; its ``calls_per_episode`` is for each connection, and None where that has no end.
        transport: ``stdio``, or ``http`` for streamable HTTP at ``http://host:port/mcp``.
        host: address to listen on.
        port: 0 for any that is free; the address is written to stderr.
        name: what the server calls itself.
        token: what clients must send as ``Authorization: Bearer``; None asks for nothing.

    Raises:
        ConfigError: the MCP SDK is not installed, the address cannot be listened on, or it is open to other machines
            and there is no token.
    """
    _require_sdk()
    if transport == "stdio":
        asyncio.run(_serve_stdio(executor, name))
        return
    if host not in LOOPBACK and not token:
        raise ConfigError(f"{host} is open to other machines: give a token that clients must send, or use 127.0.0.1")
    listener = _listen(host, port)
    url = f"http://{host}:{listener.getsockname()[1]}{PATH}"
    print(f"{len(executor.catalog)} tools at {url}", file=sys.stderr, flush=True)
    asyncio.run(_serve_http(mcp_app(executor, host=host, name=name, token=token), listener))


def mcp_app(
    executor: Executor,
    *,
    host: str = "127.0.0.1",
    name: str = "apprentice",
    token: str | None = None,
    path: str = PATH,
) -> ASGIApp:
    """The HTTP server as an ASGI application that answers at a path; see ``serve_mcp``."""
    app = _server(executor, name, per_process=False).streamable_http_app(streamable_http_path=path, host=host)
    return app if token is None else _Guard(app, token)


def _require_sdk() -> None:
    try:
        import mcp  # noqa: F401
    except ImportError as error:
        raise ConfigError("MCP needs its SDK, which is not installed: pip install 'apprentice[mcp]'") from error


def _server(executor: Executor, name: str, *, per_process: bool) -> Server[Session | None]:
    """The protocol's side of an executor.

    Args:
        executor: runs the calls.
        name: what the server calls itself.
        per_process: whether there is one connection, whose session lasts as long as the server.
    """
    import mcp_types
    from mcp.server.lowlevel import Server
    from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

    served = mcp_types.ListToolsResult(tools=[_served(spec) for spec in executor.catalog.specs()])
    stateful = any(tool.state is not None for tool in executor.catalog)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[Session | None]:
        session = _open(executor) if per_process else None
        try:
            yield session
        finally:
            if session is not None:
                await session.aclose()

    async def list_tools(*_: Any) -> mcp_types.ListToolsResult:
        return served

    async def call_tool(context: Any, params: mcp_types.CallToolRequestParams) -> CallToolResult:
        session = context.lifespan_context or _of_connection(context.session._connection, executor)
        return _result(await session.arun(ToolCall(params.name, params.arguments or {})))

    async def discover(*_: Any) -> mcp_types.DiscoverResult:
        return mcp_types.DiscoverResult(
            supported_versions=list(HANDSHAKE_PROTOCOL_VERSIONS), capabilities=server.get_capabilities()
        )

    server = Server(name, lifespan=lifespan, on_list_tools=list_tools, on_call_tool=call_tool)
    if stateful and not per_process:
        server.add_request_handler("server/discover", mcp_types.RequestParams, discover)
    return server


def _open(executor: Executor) -> Session:
    return executor.open(Scene(episode=f"mcp-{uuid.uuid4().hex}"))


def _of_connection(connection: Any, executor: Executor) -> Session:
    """The session of an HTTP connection, closed with it; of one request in the protocol that has no connections."""
    if "session" not in connection.state:
        connection.state["session"] = session = _open(executor)
        connection.exit_stack.push_async_callback(session.aclose)
    return connection.state["session"]


def _served(spec: ToolSpec) -> Any:
    import mcp_types

    schema = {"type": "object", **spec.parameters}
    return mcp_types.Tool(name=spec.name, description=spec.description, input_schema=schema)


def _result(observation: Observation) -> CallToolResult:
    import mcp_types

    return mcp_types.CallToolResult(
        content=[mcp_types.TextContent(text=observation.content)],
        is_error=not observation.ok,
        _meta={STATUS: observation.status},
    )


async def _serve_stdio(executor: Executor, name: str) -> None:
    from mcp import stdio_server

    server = _server(executor, name, per_process=True)
    async with stdio_server() as (reads, writes):
        await server.run(reads, writes, server.create_initialization_options())


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error}; choose another with --host and --port") from error


async def _serve_http(app: ASGIApp, listener: socket.socket) -> None:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    await server.serve(sockets=[listener])


class _Guard:
    """Lets pass only requests that carry the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self.wanted = f"Bearer {token}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "http" and not hmac.compare_digest(given, self.wanted):
            headers = [(b"www-authenticate", b"Bearer"), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body"})
            return
        await self.app(scope, receive, send)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m executors.mcp.server TOOL...``: serve built-in tools or ``package.module:attribute``."""
    parser = argparse.ArgumentParser(prog="python -m executors.mcp.server", description=__doc__)
    parser.add_argument("tools", nargs="+", metavar="TOOL", help="a built-in such as calculator, or module:name")
    parser.add_argument("--http", action="store_true", help="streamable HTTP instead of stdin and stdout")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765, help="0 for any that is free")
    parser.add_argument("--token-env", metavar="NAME", help="the environment variable that holds the clients' token")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for one call")
    parser.add_argument("--max-chars", type=int, default=20_000, help="length to which an answer is cut")
    given = parser.parse_args(arguments)
    try:
        catalog = Catalog(tool for reference in given.tools for tool in load_tools(reference))
        executor = Executor(catalog, timeout=given.timeout, max_chars=given.max_chars, calls_per_episode=None)
        token = _token(given.token_env)
        serve_mcp(executor, "http" if given.http else "stdio", given.host, given.port, token=token)
    except ApprenticeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not (token := os.environ.get(variable)):
        raise ConfigError(f"the environment variable {variable} is not set; export it with the clients' token")
    return token


if __name__ == "__main__":
    sys.exit(main())
