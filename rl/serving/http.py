"""The HTTP side of the endpoint: routes, refusals and server-sent events. Knows neither Ray nor a model."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any, Protocol
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route

from executors.executor import Executor
from rl.serving.completions import CompletionRequest, ReplyRequest
from rl.serving.events import events, whole
from rl.serving.gate import Figures, Gate, Limits
from rl.serving.keys import Keyring
from rl.serving.responses import ResponseRequest, Translation
from rl.serving.tools import PATH, ToolsApp
from rl.serving.weights import Servers
from rl.serving.wire import ChatError, read, unknown_model

_COUNTED = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/completions",
    "/v1/models",
    "/v1/tools",
    "/health",
    "/metrics",
)

Answer = tuple[int, dict[str, Any]]
"""HTTP status and body."""


class Engine(Protocol):
    """What answers requests for replies; errors of a request are answers too."""

    async def ready(self) -> int:
        """The version of the weights that answer where a request asks for no others."""
        ...

    async def models(self) -> list[dict[str, Any]]:
        """What requests may name as their model, as ``/v1/models`` lists it; what answers by default comes first."""
        ...

    async def complete(self, chat: ReplyRequest) -> Answer:
        """The whole response."""
        ...

    def stream(self, chat: ReplyRequest) -> AsyncIterator[Answer]:
        """The response in chunks, each with status 200; an error is the last of them."""
        ...


class ChatEngine:
    """The ChatServers of the weights that requests ask for as one Engine: what they raise becomes an answer."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    async def ready(self) -> int:
        return self._servers.version

    async def models(self) -> list[dict[str, Any]]:
        return await self._servers.models()

    async def complete(self, chat: ReplyRequest) -> Answer:
        try:
            async with self._servers.lease(chat.model) as server:
                return 200, await server.complete(chat)
        except ChatError as error:
            return error.status, error.body()

    async def stream(self, chat: ReplyRequest) -> AsyncIterator[Answer]:
        try:
            async with self._servers.lease(chat.model) as server:
                async for chunk in server.stream(chat):
                    yield 200, chunk
        except ChatError as error:
            yield error.status, error.body()


def build_api(
    engine: Engine,
    *,
    limits: Limits = Limits(),
    keys: Keyring | None = None,
    figures: Figures | None = None,
    executor: Executor | None = None,
    host: str = "127.0.0.1",
) -> FastAPI:
    """The routes.

    Args:
        engine: what answers.
        limits: of what is taken on at once.
        keys: of those who may ask; everyone may by default.
        figures: where the requests are counted.
        executor: runs the tools for MCP clients; None where nobody may have them run.
        host: where the server listens.
    """
    figures, keys = figures or Figures(), keys or Keyring()
    tools = ToolsApp(engine.models, executor, host)
    api = FastAPI(title="Apprentice", docs_url=None, redoc_url=None, openapi_url=None, lifespan=tools.running)
    api.router.routes.append(Route(PATH, tools))
    api.add_middleware(Gate, limits=limits, keys=keys, figures=figures, routes=frozenset(_COUNTED))
    api.add_exception_handler(ChatError, _refused)
    api.add_exception_handler(HTTPException, _no_route)
    api.add_exception_handler(Exception, _failed)

    @api.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok", "version": await engine.ready()})

    @api.get("/metrics")
    async def metrics() -> Response:
        return Response(figures.text(), media_type="text/plain; version=0.0.4")

    @api.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": await engine.models()})

    @api.get("/v1/models/{name:path}")
    async def named(name: str) -> Response:
        there = {model["id"]: model for model in await engine.models()}
        if name not in there:
            raise unknown_model(name, there)
        return JSONResponse(there[name])

    @api.post("/v1/chat/completions")
    async def chat(http: Request) -> Response:
        request = read(await http.body(), None)
        if request.apprentice.execute and not keys.required:
            _require_no_page(http)
        return await _answered(engine, request)

    @api.post("/v1/completions")
    async def completions(http: Request) -> Response:
        return await _answered(engine, read(await http.body(), None, CompletionRequest))

    @api.post("/v1/responses")
    async def responses(http: Request) -> Response:
        return await _responded(engine, read(await http.body(), None, ResponseRequest))

    return api


def _require_no_page(http: Request) -> None:
    """See that no page of another site has a browser on this machine ask: without keys, nothing else would stop it.

    Raises:
        ChatError: one does.
    """
    origin = urlsplit(http.headers.get("origin", "")).hostname
    if "origin" in http.headers and origin not in ("127.0.0.1", "localhost", "::1"):
        raise ChatError("pages of other sites may not have tools run here", status=403, code="foreign_origin")


async def _answered(engine: Engine, request: ReplyRequest) -> Response:
    """The engine's answer to a request as it came."""
    if not request.stream:
        status, body = await engine.complete(request)
        return JSONResponse(body, status)
    chunks = engine.stream(request)
    status, first = await anext(chunks)
    if status != 200:
        return JSONResponse(first, status)
    return StreamingResponse(_events(first, chunks), media_type="text/event-stream")


async def _responded(engine: Engine, request: ResponseRequest) -> Response:
    """The engine's answer to a request that is put to it in a chat's words."""
    translation = Translation(request)
    if not request.stream:
        status, body = await engine.complete(translation.chat)
        return JSONResponse(whole(request, body) if status == 200 else translation.error(body), status)
    chunks = engine.stream(translation.chat)
    status, first = await anext(chunks)
    if status != 200:
        return JSONResponse(translation.error(first), status)
    return StreamingResponse(_named_events(request, first, chunks), media_type="text/event-stream")


async def _named_events(
    request: ResponseRequest, first: dict[str, Any], chunks: AsyncIterator[Answer]
) -> AsyncIterator[str]:
    """Server-sent events by name, as responses have them."""
    async for event in events(request, first, _answers(chunks)):
        yield f"event: {event['type']}\n{_event(event)}"


async def _answers(chunks: AsyncIterator[Answer]) -> AsyncIterator[Answer]:
    """The same; where the engine fails, that is the last of them."""
    try:
        async for answer in chunks:
            yield answer
    except Exception as error:
        yield 503, _unavailable(error).body()


async def _events(first: dict[str, Any], chunks: AsyncIterator[Answer]) -> AsyncIterator[str]:
    """Server-sent events; a stream that fails ends with the error in place of ``[DONE]``."""
    yield _event(first)
    async for status, chunk in _answers(chunks):
        yield _event(chunk)
        if status != 200:
            return
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ChatError)
    return JSONResponse(error.body(), error.status)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = f"{error.detail}: {request.method} {request.url.path}; there are {', '.join(_COUNTED)}"
    return JSONResponse(ChatError(told, code=None, status=error.status_code).body(), error.status_code)


async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse(_unavailable(error).body(), 503)


def _unavailable(error: BaseException) -> ChatError:
    """The error of a request that the engine did not answer; the cause is in the log."""
    logging.getLogger(__name__).error("the engine did not answer", exc_info=error)
    return ChatError(f"the engine did not answer: {type(error).__name__}", status=503, code="engine_unavailable")
