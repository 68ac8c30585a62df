"""The HTTP side of the endpoint: routes, refusals and server-sent events. Knows neither Ray nor a model."""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from rl.serving.chat import ChatServer
from rl.serving.gate import Figures, Gate, Limits
from rl.serving.wire import ChatError, ChatRequest, read, unknown_model

_ROUTES = "/v1/chat/completions, /v1/models, /health and /metrics"
_COUNTED = ("/v1/chat/completions", "/v1/models", "/health", "/metrics")

Answer = tuple[int, dict[str, Any]]
"""HTTP status and body."""


class Engine(Protocol):
    """What answers chat requests; errors of a request are answers too."""

    async def ready(self) -> int:
        """The version of the weights."""
        ...

    async def complete(self, chat: ChatRequest) -> Answer:
        """The whole response."""
        ...

    def stream(self, chat: ChatRequest) -> AsyncIterator[Answer]:
        """The response in chunks, each with status 200; an error is the last of them."""
        ...


class ChatEngine:
    """A ChatServer as an Engine: what it raises becomes an answer."""

    def __init__(self, server: ChatServer) -> None:
        self._server = server

    async def ready(self) -> int:
        return self._server.policy.version

    async def complete(self, chat: ChatRequest) -> Answer:
        try:
            return 200, await self._server.complete(chat)
        except ChatError as error:
            return error.status, error.body()

    async def stream(self, chat: ChatRequest) -> AsyncIterator[Answer]:
        try:
            async for chunk in self._server.stream(chat):
                yield 200, chunk
        except ChatError as error:
            yield error.status, error.body()


def build_api(
    engine: Engine, model: Mapping[str, Any], *, limits: Limits = Limits(), keys: Mapping[str, str] = {}
) -> FastAPI:
    """The routes of one served policy.

    Args:
        engine: what answers.
        model: the policy as ``/v1/models`` describes it.
        limits: of what is taken on at once.
        keys: labels by the digests of keys; without any, everyone may ask.
    """
    api = FastAPI(title="Apprentice", docs_url=None, redoc_url=None, openapi_url=None)
    figures = Figures()
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
        return JSONResponse({"object": "list", "data": [model]})

    @api.get("/v1/models/{name:path}")
    async def named(name: str) -> Response:
        if name != model["id"]:
            raise unknown_model(name, model["id"])
        return JSONResponse(dict(model))

    @api.post("/v1/chat/completions")
    async def chat(http: Request) -> Response:
        request = read(await http.body(), model["id"])
        if not request.stream:
            status, body = await engine.complete(request)
            return JSONResponse(body, status)
        chunks = engine.stream(request)
        status, first = await anext(chunks)
        if status != 200:
            return JSONResponse(first, status)
        return StreamingResponse(_events(first, chunks), media_type="text/event-stream")

    return api


async def _events(first: dict[str, Any], chunks: AsyncIterator[Answer]) -> AsyncIterator[str]:
    """Server-sent events; a stream that fails ends with the error in place of ``[DONE]``."""
    yield _event(first)
    try:
        async for status, chunk in chunks:
            yield _event(chunk)
            if status != 200:
                return
    except Exception as error:
        yield _event(_unavailable(error).body())
        return
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ChatError)
    return JSONResponse(error.body(), error.status)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = f"{error.detail}: {request.method} {request.url.path}; there are {_ROUTES}"
    return JSONResponse(ChatError(told, code=None, status=error.status_code).body(), error.status_code)


async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse(_unavailable(error).body(), 503)


def _unavailable(error: BaseException) -> ChatError:
    """The error of a request that the engine did not answer; the cause is in the log."""
    logging.getLogger(__name__).error("the engine did not answer", exc_info=error)
    return ChatError(f"the engine did not answer: {type(error).__name__}", status=503, code="engine_unavailable")
