"""The Ray Serve app: a policy behind OpenAI's HTTP interface.

Two deployments: an ingress that speaks HTTP and knows no model, and the engine that holds the weights. Replies that
are not streamed cross between them once.
"""

import json
import signal
import socket
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from executors.catalog import Catalog
from executors.errors import ApprenticeError, ConfigError, DataError
from executors.types import ToolSpec
from rl import remote
from rl.serving.chat import REPLY, ChatServer
from rl.serving.gate import KEYS, Limits, keys_from_environment, log_to_stderr
from rl.serving.http import Answer, ChatEngine, build_api
from rl.serving.wire import ChatRequest
from rollouts.formats import Format
from rollouts.types import Sampling

APP = "apprentice"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MAX_ONGOING = 256
"""Requests that a replica works on at once; more wait at the proxy."""


class ServingError(ApprenticeError):
    """The server did not come up."""


class EngineReplica(ChatEngine):
    """The replica with the weights."""

    def __init__(
        self, checkpoint: str, model_id: str, format: Format, specs: Sequence[ToolSpec], sampling: Sampling
    ) -> None:
        import torch  # here and nowhere else in this app

        from rl.serving.policies import LocalPolicy

        version = _version(Path(checkpoint))
        policy = LocalPolicy(model_id, checkpoint, version, gpu=torch.cuda.is_available())()
        super().__init__(ChatServer(policy, format, specs, sampling=sampling))


class EngineHandle:
    """The engine's replica, from another process."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._streaming = handle.options(stream=True)

    async def ready(self) -> int:
        return await self._handle.ready.remote()

    async def complete(self, chat: ChatRequest) -> Answer:
        return await self._handle.complete.remote(chat)

    def stream(self, chat: ChatRequest) -> AsyncIterator[Answer]:
        chunks: Any = self._streaming.stream.remote(chat)
        return chunks


@serve.ingress()
class Ingress:
    """The replica that speaks HTTP; it reads and refuses requests, and has no weights."""

    def __init__(
        self, engine: DeploymentHandle, model: Mapping[str, Any], limits: Limits, keys: Mapping[str, str]
    ) -> None:
        self._engine = EngineHandle(engine)
        self._model = model
        self._limits = limits
        self._keys = keys
        log_to_stderr()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self._engine, self._model, limits=self._limits, keys=self._keys)


@dataclass(frozen=True, slots=True)
class Server:
    """A policy being served."""

    url: str
    """The base URL of OpenAI clients."""
    cluster: remote.Cluster

    def stop(self) -> None:
        """Stop serving, and Ray with it where it was started for this."""
        try:
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
    limits: Limits = Limits(),
    logs: Path | None = None,
    dashboard: bool = False,
    blocking: bool = True,
) -> Server:
    """Serve a checkpoint until Ctrl-C, or until the process is told to end.

    Args:
        checkpoint: a model directory.
        model_id: what clients call it.
        format: that it was trained to read and write.
        catalog: the tools that it was trained with; clients run them.
        host: to listen on; beyond this machine only with keys in ``APPRENTICE_API_KEYS``, which every caller then has
            to send.
        port: to listen on.
        sampling: of replies whose request does not say.
        limits: of what is taken on at once.
        logs: folder for logs; kept nowhere by default.
        dashboard: whether to start Ray's.
        blocking: whether to wait for Ctrl-C and stop; otherwise the caller stops the server that is returned.

    Raises:
        ConfigError: the port is taken, or the endpoint would be open to other machines without a key.
        DataError: the directory holds no model.
        ServingError: the server did not come up; the message has the cause.
    """
    keys = keys_from_environment()
    if host not in LOOPBACK and not keys:
        raise ConfigError(
            f"--host {host} opens the endpoint to other machines: put keys into {KEYS} first (label:key, separated by "
            "commas), or listen on 127.0.0.1"
        )
    require_free(host, port)
    if not any((checkpoint / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise DataError(f"{checkpoint} is not a model directory: it has no config.json")
    cluster = remote.start(num_cpus=4, dashboard=dashboard, logs=logs)
    server = Server(f"http://{host}:{port}/v1", cluster)
    try:
        _deploy(checkpoint.resolve(), model_id, format, catalog, sampling, host, port, limits, keys)
        if blocking:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            print(f"{model_id} listens at {server.url} (OpenAI chat completions); Ctrl-C stops it", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        server.stop()
    except BaseException:
        server.stop()
        raise
    return server


def _deploy(
    checkpoint: Path,
    model_id: str,
    format: Format,
    catalog: Catalog,
    sampling: Sampling,
    host: str,
    port: int,
    limits: Limits,
    keys: Mapping[str, str],
) -> None:
    deployment: Any = serve.deployment
    options = {
        "max_ongoing_requests": _MAX_ONGOING,
        "max_constructor_retry_count": 1,
        "graceful_shutdown_wait_loop_s": 0.1,
        "logging_config": LoggingConfig(enable_access_log=False),
    }
    gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
    specs = catalog.specs()
    needs = {"num_cpus": 1, "num_gpus": gpus}
    engine = deployment(EngineReplica, name="Engine", ray_actor_options=needs, **options).bind(
        str(checkpoint), model_id, format, specs, sampling
    )
    model = {
        "id": model_id,
        "object": "model",
        "created": int(checkpoint.stat().st_mtime),
        "owned_by": APP,
        "tools": [spec.as_openai() for spec in specs],
    }
    ingress = deployment(Ingress, ray_actor_options={"num_cpus": 0}, **options).bind(engine, model, limits, keys)
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
            return told[-1].removeprefix("executors.errors.")[:500]
    return str(error)[:500]


def require_free(host: str, port: int) -> None:
    """See that an address can be listened on. Raises ConfigError where it cannot."""
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
