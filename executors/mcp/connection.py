"""Connections to MCP servers: each process has one thread for them all, whose event loop holds every session open."""

import asyncio
import atexit
import logging
import os
import shutil
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from executors.errors import BadCallError, ConfigError, ToolError, TransientError
from executors.http.credentials import Pass, redact
from executors.mcp.config import McpServer

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import CallToolResult
    from mcp_types import Tool as ServedTool

T = TypeVar("T")

CALL_TIMEOUT = 600.0
"""Seconds for a call where nobody says otherwise; the executor has its own time-out."""
READ_TIMEOUT = 300.0
"""Seconds that an HTTP server may keep silent on a stream that is open."""
MAX_TOOLS = 10_000
"""Tools of one server that are read; its further pages are not asked for."""
CLOSE_TIMEOUT = 5.0
"""Seconds that a server has to end."""
INHERITED = ("PATH", "HOME", "LANG")
"""The variables that a server started here inherits."""
_TAIL = 1000
_PATIENCE = 0.7
"""Share of a call's time for which it waits until the server is there."""
_USUAL = 10.0
"""Seconds that an executor gives a call where nobody says otherwise."""


class Connection:
    """The session with one server: opened when first needed, and again when it was lost."""

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self.checked: tuple[list[ServedTool], str] | None = None
        """The tools last compared with those pinned, and how they differ."""
        self._session: _Session | None = None
        self._opening: asyncio.Task[_Session] | None = None

    async def tools(self) -> list["ServedTool"]:
        """The server's tools as it listed them when the session began.

        Raises:
            TransientError: the server cannot be reached; says why.
        """
        return (await self._open()).tools

    async def call(self, tool: str, arguments: dict[str, Any]) -> "CallToolResult":
        """Call a tool, if need be over a second session.

        Raises:
            TransientError: both sessions were lost, or the server takes too long to start.
            TimeoutError: the server did not answer in time.
            BadCallError: the server finds fault with the arguments.
            ToolError: it answers with another error, or with what is no answer.
        """
        lost = None
        until = asyncio.get_running_loop().time() + _PATIENCE * (self.server.timeout or _USUAL)
        for _ in range(2):
            session = await self._ready(until)
            try:
                return await session.call(tool, arguments, self.server.timeout or CALL_TIMEOUT)
            except _LostError as error:
                lost = error
                if self._session is session:
                    self._session = None
                session.closing.set()
        raise TransientError(f"the MCP server {self.server.name!r} was lost twice: {lost}")

    async def close(self) -> None:
        """End the session, and with it a server that was started for it."""
        if self._opening is not None:
            self._opening.cancel()
        session, self._session = self._session, None
        if session is not None:
            session.closing.set()
            await asyncio.wait({session.task}, timeout=CLOSE_TIMEOUT)

    async def _ready(self, until: float) -> "_Session":
        """The session; a server that takes long to start is no fault of the call, which is tried again."""
        try:
            async with asyncio.timeout_at(until):
                return await self._open()
        except TimeoutError as error:
            raise TransientError(f"the MCP server {self.server.name!r} is still starting") from error

    async def _open(self) -> "_Session":
        """The session. A caller that gives up does not stop it from being opened for those that come later."""
        if self._session is not None and not self._session.task.done():
            return self._session
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._connect())
            self._opening.add_done_callback(_retrieved)
        return await asyncio.shield(self._opening)

    async def _connect(self) -> "_Session":
        self._session = await _connect(self.server)
        return self._session


def _retrieved(task: asyncio.Task[Any]) -> None:
    """Take note of a task's exception, which those who waited, if any still did, have been told."""
    if not task.cancelled():
        task.exception()


class _LostError(Exception):
    """A session ended under a call."""


@dataclass(slots=True)
class _Session:
    """An open session; the task that opened it keeps it, and closes it when told to."""

    client: "Client"
    tools: list["ServedTool"]
    task: asyncio.Task[None]
    closing: asyncio.Event
    passes: tuple[Pass, ...]

    async def call(self, tool: str, arguments: dict[str, Any], timeout: float) -> "CallToolResult":
        import anyio
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED, INVALID_PARAMS, REQUEST_TIMEOUT
        from pydantic import ValidationError

        answer = asyncio.ensure_future(self.client.call_tool(tool, arguments, read_timeout_seconds=timeout))
        try:
            await asyncio.wait({answer, self.task}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise _LostError(_reason(self.task, self.passes))
            return await answer
        except MCPError as error:
            if error.code == REQUEST_TIMEOUT:
                raise TimeoutError(f"{tool} did not answer within {timeout:g} s") from error
            if error.code == CONNECTION_CLOSED or error.message in _LOST:
                raise _LostError(redact(error.message, self.passes)) from error
            kind = BadCallError if error.code == INVALID_PARAMS else ToolError
            raise kind(redact(error.message, self.passes) or f"the server reports error {error.code}") from error
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise _LostError("the connection is closed") from error
        except (RuntimeError, ValidationError) as error:
            raise ToolError(f"the server's answer cannot be used: {redact(str(error), self.passes)[:500]}") from error
        finally:
            answer.cancel()


_LOST = {"Session terminated", "Server returned an error response"}
"""How the SDK words a lost HTTP session and an answer such as 503."""


async def _connect(server: McpServer) -> _Session:
    """Open a session in a task of its own: what was entered in a task has to be left in it."""
    expanded, passes = server.expanded()
    if expanded.url != server.url:
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log the URL, and with it what is secret there
    logging.getLogger("mcp.client.stdio").setLevel(logging.CRITICAL)  # a traceback for all that is no message
    ready: asyncio.Future[tuple[Client, list[ServedTool]]] = asyncio.get_running_loop().create_future()
    closing = asyncio.Event()
    with ExitStack() as stack:
        stderr = stack.enter_context(_Tail())
        task = asyncio.create_task(_hold(expanded, stderr.file, ready, closing), name=f"mcp-{server.name}")
        _here().tasks.add(task)
        task.add_done_callback(_here().tasks.discard)
        task.add_done_callback(_retrieved)
        try:
            await asyncio.wait({task, ready}, timeout=server.connect_timeout, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
    if ready.done():
        return _Session(*ready.result(), task, closing, passes)
    if task.done():
        said = redact(await asyncio.to_thread(stderr.text), passes)
        reason = _reason(task, passes) + (f"; it wrote: {said}" if said else "")
    else:
        task.cancel()
        reason = f"it did not answer within {server.connect_timeout:g} s"
    raise TransientError(f"the MCP server {server.name!r} cannot be reached: {reason}")


async def _hold(server: McpServer, stderr: TextIO, ready: asyncio.Future[Any], closing: asyncio.Event) -> None:
    from mcp import Client

    async with AsyncExitStack() as stack:
        client = Client(await _transport(server, stderr, stack), read_timeout_seconds=CALL_TIMEOUT, cache=None)
        await stack.enter_async_context(client)
        ready.set_result((client, await _listed(client)))
        await closing.wait()


async def _transport(server: McpServer, stderr: TextIO, stack: AsyncExitStack) -> Any:
    import httpx2
    from mcp.client.stdio import StdioServerParameters, get_default_environment, stdio_client
    from mcp.client.streamable_http import streamable_http_client

    if server.url:
        timeout = httpx2.Timeout(server.connect_timeout, read=READ_TIMEOUT)
        client = await stack.enter_async_context(httpx2.AsyncClient(headers=dict(server.headers), timeout=timeout))
        return streamable_http_client(server.url, http_client=client)
    env = {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(server.env)
    if os.sep not in server.command and shutil.which(server.command, path=env.get("PATH")) is None:
        raise FileNotFoundError(f"there is no command {server.command!r}")
    # The SDK lets a server inherit a few variables more; env(1) takes them away again.
    dropped = [word for name in sorted(get_default_environment().keys() - env.keys()) for word in ("-u", name)]
    args = [*dropped, server.command, *server.args]
    parameters = StdioServerParameters(command="env", args=args, env=env, cwd=server.cwd or None)
    return stdio_client(parameters, errlog=stderr)


async def _listed(client: "Client") -> list["ServedTool"]:
    """All of a server's tools, page by page."""
    if client.server_capabilities.tools is None:
        return []
    tools: list[ServedTool] = []
    cursor, seen = None, set()
    while True:
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None or cursor in seen or len(tools) >= MAX_TOOLS:
            return tools[:MAX_TOOLS]
        seen.add(cursor)


def _reason(task: asyncio.Task[None], passes: tuple[Pass, ...]) -> str:
    """Why a session's task ended: the innermost cause, without secrets."""
    error = None if task.cancelled() else task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is None:
        return "the connection ended"
    return redact(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, passes)


class _Tail:
    """The last that a server writes to its stderr, for the error that says why it did not start."""

    def __enter__(self) -> "_Tail":
        reader, writer = os.pipe()
        self.file = os.fdopen(writer, "w")
        self._kept = b""
        self._thread = threading.Thread(target=self._read, args=(reader,), name="mcp-stderr", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _read(self, reader: int) -> None:
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            while piece := pipe.read(4096):
                self._kept = (self._kept + piece)[-_TAIL:]

    def text(self) -> str:
        self._thread.join(timeout=0.5)
        return " ".join(self._kept.decode(errors="replace").split())


class _Process:
    """What a process has open: the thread, its loop, a connection per server."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.connections: dict[McpServer, Connection] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        threading.Thread(target=self.loop.run_forever, name="mcp", daemon=True).start()
        atexit.register(self.close)

    def close(self) -> None:
        """End every session, and with them the servers that were started, before the process ends."""
        if self is _process:
            with suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(timeout=CLOSE_TIMEOUT + 1)

    async def _close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self.connections.values()))
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=CLOSE_TIMEOUT)


_lock = threading.Lock()
_process: _Process | None = None


def _here() -> _Process:
    global _process
    with _lock:
        if _process is None:
            _process = _Process()
        return _process


def _forget() -> None:
    """A forked process has none of its parent's threads."""
    global _process, _lock
    _process, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def connection(server: McpServer) -> Connection:
    """This process's connection to a server.

    Raises:
        ConfigError: the MCP SDK is not installed.
    """
    try:
        import mcp  # noqa: F401
    except ImportError as error:
        raise ConfigError("MCP needs its SDK, which is not installed: pip install 'apprentice[mcp]'") from error
    connections = _here().connections
    with _lock:
        return connections.setdefault(server, Connection(server))


def submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Run something of a ``Connection``'s in the thread that owns it; from any thread or event loop."""
    return asyncio.run_coroutine_threadsafe(coroutine, _here().loop)


def close(servers: tuple[McpServer, ...]) -> None:
    """End this process's sessions with these servers."""
    process = _here()
    for server in servers:
        if (connection := process.connections.pop(server, None)) is not None:
            submit(connection.close()).result(timeout=CLOSE_TIMEOUT + 1)
