"""The Ray Serve app: a policy behind OpenAI's HTTP interface.

Two deployments: an ingress that speaks HTTP and knows no model, and the engine that holds the weights. Replies that
are not streamed cross between them once.
"""

import json
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig
from starlette.exceptions import HTTPException

from executors.catalog import Catalog
from executors.errors import ApprenticeError, ConfigError, DataError
from executors.types import ToolSpec
from rl import remote
from rl.serving.chat import REPLY, ChatServer
from rl.serving.protocol import ChatError, ChatRequest, read, unknown_model
from rollouts.formats import Format
from rollouts.types import Sampling

APP = "apprentice"
_MAX_ONGOING = 256
"""Requests that a replica works on at once; more wait at the proxy."""

api = FastAPI(title="Apprentice", docs_url=None, redoc_url=None, openapi_url=None)


class ServingError(ApprenticeError):
    """The server did not come up."""


@api.exception_handler(ChatError)
async def _refused(_: Request, error: ChatError) -> Response:
    return JSONResponse(error.body(), error.status)


@api.exception_handler(HTTPException)
async def _no_route(request: Request, error: HTTPException) -> Response:
    told = (
        f"{error.detail}: {request.method} {request.url.path}; there are /v1/chat/completions, /v1/models and /health"
    )
    return JSONResponse(ChatError(told, status=error.status_code, code=None).body(), error.status_code)


@api.exception_handler(Exception)
async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse(_unavailable(error).body(), 503)


def _unavailable(error: BaseException) -> ChatError:
    told = (str(error).strip().splitlines() or [""])[-1]
    return ChatError(f"no answer: {type(error).__name__}: {told[:200]}", status=503, code="engine_unavailable")


class Engine:
    """The replica with the weights."""

    def __init__(
        self, checkpoint: str, model_id: str, format: Format, specs: Sequence[ToolSpec], sampling: Sampling
    ) -> None:
        from rl.serving.policies import LocalPolicy  # torch: here and nowhere else in this app

        policy = LocalPolicy(model_id, checkpoint, version=_version(Path(checkpoint)))()
        self._chat = ChatServer(policy, format, specs, sampling=sampling)

    async def ready(self) -> int:
        """The version of the weights."""
        return self._chat.policy.version

    async def complete(self, chat: ChatRequest) -> tuple[int, dict[str, Any]]:
        """HTTP status and body."""
        try:
            return 200, await self._chat.complete(chat)
        except ChatError as error:
            return error.status, error.body()

    async def stream(self, chat: ChatRequest) -> AsyncIterator[tuple[int, dict[str, Any]]]:
        """Chunks, each with status 200; an error is the last of them."""
        try:
            async for chunk in self._chat.stream(chat):
                yield 200, chunk
        except ChatError as error:
            yield error.status, error.body()


@serve.ingress(api)
class Ingress:
    """Speaks HTTP: reads and refuses requests, and passes on what the engine says."""

    def __init__(self, engine: DeploymentHandle, model_id: str, tools: Sequence[dict[str, Any]], created: int) -> None:
        self._engine = engine
        self._model = {
            "id": model_id,
            "object": "model",
            "created": created,
            "owned_by": APP,
            "tools": list(tools),
        }

    @api.get("/health")
    async def health(self) -> Response:
        """Whether the engine answers."""
        return JSONResponse({"status": "ok", "version": await self._engine.ready.remote()})

    @api.get("/v1/models")
    async def models(self) -> Response:
        """The model, and the tools that it was trained with as entries of a request's ``tools``."""
        return JSONResponse({"object": "list", "data": [self._model]})

    @api.get("/v1/models/{name:path}")
    async def model(self, name: str) -> Response:
        if name != self._model["id"]:
            raise unknown_model(name, self._model["id"])
        return JSONResponse(self._model)

    @api.post("/v1/chat/completions")
    async def chat(self, http: Request) -> Response:
        chat = read(await http.body(), self._model["id"])
        if not chat.stream:
            status, body = await self._engine.complete.remote(chat)
            return JSONResponse(body, status)
        chunks = self._engine.options(stream=True).stream.remote(chat)
        status, first = await anext(chunks)
        if status != 200:
            return JSONResponse(first, status)
        return StreamingResponse(_events(first, chunks), media_type="text/event-stream")


async def _events(first: dict[str, Any], chunks: AsyncIterator[tuple[int, dict[str, Any]]]) -> AsyncIterator[str]:
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


@dataclass(frozen=True, slots=True)
class Server:
    """A policy being served."""

    url: str
    """The base URL of OpenAI clients."""
    cluster: remote.Cluster

    def stop(self) -> None:
        """Stop serving, and Ray with it where it was started for this."""
        try:
            if self.cluster.local:
                serve.shutdown()
            else:
                serve.delete(APP)
        finally:
            self.cluster.stop()


def serve_run(
    checkpoint: Path,
    model_id: str,
    format: Format,
    catalog: Catalog,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    sampling: Sampling = REPLY,
    logs: Path | None = None,
    dashboard: bool = False,
    blocking: bool = True,
) -> Server:
    """Serve a checkpoint until Ctrl-C.

    Args:
        checkpoint: a model directory.
        model_id: what clients call it.
        format: that it was trained to read and write.
        catalog: the tools that it was trained with; clients run them.
        host: to listen on; beyond this machine the endpoint is open to whoever reaches it.
        port: to listen on.
        sampling: of replies whose request does not say.
        logs: folder for logs; kept nowhere by default.
        dashboard: whether to start Ray's.
        blocking: whether to wait for Ctrl-C and stop; otherwise the caller stops the server that is returned.

    Raises:
        ConfigError: the port is taken.
        DataError: the directory holds no model.
        ServingError: the server did not come up; the message has the cause.
    """
    _require_free(host, port)
    if not (checkpoint / "config.json").is_file():
        raise DataError(f"{checkpoint} is not a model directory: it has no config.json")
    cluster = remote.start(num_cpus=4, dashboard=dashboard, logs=logs)
    server = Server(f"http://{host}:{port}/v1", cluster)
    try:
        _deploy(checkpoint.resolve(), model_id, format, catalog, sampling, host, port)
        if blocking:
            print(f"{model_id} listens at {server.url} (OpenAI chat completions); Ctrl-C stops it", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        server.stop()
    except BaseException:
        server.stop()
        raise
    return server


def _deploy(
    checkpoint: Path, model_id: str, format: Format, catalog: Catalog, sampling: Sampling, host: str, port: int
) -> None:
    options = {
        "max_ongoing_requests": _MAX_ONGOING,
        "max_constructor_retry_count": 1,
        "logging_config": LoggingConfig(enable_access_log=False),
    }
    gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
    specs = catalog.specs()
    engine = serve.deployment(Engine, ray_actor_options={"num_cpus": 1, "num_gpus": gpus}, **options).bind(
        str(checkpoint), model_id, format, specs, sampling
    )
    created = int((checkpoint / "config.json").stat().st_mtime)
    tools = [spec.as_openai() for spec in specs]
    ingress = serve.deployment(Ingress, ray_actor_options={"num_cpus": 0}, **options).bind(
        engine, model_id, tools, created
    )
    serve.start(http_options={"host": host, "port": port}, logging_config=LoggingConfig(enable_access_log=False))
    try:
        serve.run(ingress, name=APP, route_prefix="/")
    except Exception as error:
        raise ServingError(f"{model_id} could not be served: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    """Why the app did not come up: what a replica raised, where Serve has noted it, else what Serve says."""
    try:
        deployments = serve.status().applications[APP].deployments.values()
    except Exception:
        deployments = []
    for text in [*(deployment.message for deployment in deployments), str(error)]:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        told = [line for line in lines if "Error" in line.split(":")[0]]
        if told:
            return told[-1][:500]
    return str(error)[:500]


def _require_free(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({getattr(error, 'strerror', None) or error}); "
            f"choose another port with --port, such as --port {port + 1}"
        ) from error


def _version(checkpoint: Path) -> int:
    """The step that the checkpoint was saved at; 0 where it does not say."""
    noted = checkpoint / "apprentice.json"
    return int(json.loads(noted.read_text()).get("step", 0)) if noted.is_file() else 0
