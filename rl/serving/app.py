"""The Ray Serve app: policies behind OpenAI's HTTP interface.

An ingress speaks HTTP and knows no model; each policy has an engine, which holds its weights. Replies that are not
streamed cross between them once.
"""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from executors.catalog import Catalog
from executors.errors import ApprenticeError, ConfigError
from executors.executor import Executor
from rl import remote
from rl.serving.chat import REPLY, ChatServer
from rl.serving.completions import ReplyRequest
from rl.serving.execution import Execution
from rl.serving.gate import Figures, Limits, log_to_stderr
from rl.serving.http import Answer, ChatEngine, build_api
from rl.serving.keys import KEYS, KEYS_FILE, Keyring, keys_from_environment
from rl.serving.offering import Offering
from rl.serving.pace import Pace
from rl.serving.split import SPLIT, Router, Split
from rl.serving.tools import together
from rl.serving.weights import Opener, Weights
from rollouts.formats import Format
from rollouts.policy import Policy
from rollouts.types import Sampling

APP = "apprentice"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MAX_ONGOING = 256
"""Requests that a replica works on at once; more wait at the proxy."""


class ServingError(ApprenticeError):
    """The server did not come up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmOptions:
    """How ``ray.serve.llm`` is to run a model."""

    replicas: int = 1
    """Engines that share the requests."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Of vLLM's ``AsyncEngineArgs``, such as ``tensor_parallel_size`` or ``max_model_len``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A policy that is served."""

    name: str
    """What clients call it."""
    checkpoints: Path
    """The folder that its run publishes them in."""
    checkpoint: str = "best"
    """The one that answers by default: ``best``, ``newest``, or its name in the folder."""
    staged: bool = False
    """Whether each stage of the run has a folder of its own in there, named after it."""
    format: Format
    """That it was trained to read and write."""
    catalog: Catalog
    """The tools that it was trained with; clients run them."""
    offering: Offering = Offering()
    """What else it can be offered, and which tools where a request names none."""
    opener: Opener | None = None
    """What loads a checkpoint where that is not a model as transformers knows it."""
    executor: Callable[[], Executor] | None = None
    """Runs the tools here for clients who ask for it; by default nobody may."""
    max_turns: int = 4
    """Calls after which an episode that is played here ends without an answer."""
    sampling: Sampling = REPLY
    """Of replies whose request does not say."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """Directories of further LoRA adapters, by what clients call them."""
    keep: int = 1
    """Models kept in memory beside that which answers by default."""
    follow: float | None = None
    """Seconds between looks at the folder for newer weights; by default those of the start go on answering."""
    llm: LlmOptions | None = None
    """How ``ray.serve.llm`` runs the checkpoint; by default the replica does, see ``rl.serving.engine``."""

    def published(self) -> Any:
        """Its checkpoints, as ``rl.serving.published.Published`` reads them."""
        from rl.serving.published import Published

        return Published(self.checkpoints, self.checkpoint, staged=self.staged)


class EngineReplica(ChatEngine):
    """The replica with a policy's weights."""

    def __init__(self, served: Served, llm: DeploymentHandle | None = None) -> None:
        """
        Args:
            served: the policy.
            llm: what holds its weights, where they are not held here.
        """
        import torch  # here and nowhere else in this app

        from rl.serving.policies import LocalPolicy
        from rl.serving.published import read_adapter

        torch.set_num_threads(1)
        gpu = torch.cuda.is_available()
        specs = served.catalog.specs()
        execution = Execution(executor=served.executor(), max_turns=served.max_turns) if served.executor else None

        def open_model(path: Path, version: int) -> Policy:
            return LocalPolicy(served.name, str(path), version, gpu=gpu)()

        def build(policy: Policy) -> ChatServer:
            return ChatServer(
                policy,
                served.format,
                specs,
                sampling=served.sampling,
                execution=execution,
                offering=served.offering,
            )

        opener = served.opener or open_model
        if llm is not None and served.llm is not None:
            from rl.serving.llm import LlmOpener, context_of

            path = served.published().default().path
            opener = LlmOpener(served.name, path, llm, context_of(path, served.llm))
        weights = Weights(
            served.name,
            served.published(),
            opener,
            build,
            adapters={name: read_adapter(path, name) for name, path in served.adapters.items()},
            keep=served.keep,
            about={"tools": [spec.as_openai() for spec in specs]},
        )
        super().__init__(weights)
        self._pace = Pace()
        if served.follow is not None:
            self._following = asyncio.ensure_future(weights.follow(served.follow))

    async def bundles(self, chat: ReplyRequest) -> AsyncIterator[list[Answer]]:
        """As ``stream``, several chunks at a time."""
        async with aclosing(self._pace.bundled(self.stream(chat))) as bundles:
            async for bundle in bundles:
                yield bundle


class EngineHandle:
    """An engine's replica, from another process."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._streaming = handle.options(stream=True)

    async def ready(self) -> int:
        return await self._handle.ready.remote()

    async def models(self) -> list[dict[str, Any]]:
        return await self._handle.models.remote()

    async def complete(self, chat: ReplyRequest) -> Answer:
        return await self._handle.complete.remote(chat)

    async def stream(self, chat: ReplyRequest) -> AsyncIterator[Answer]:
        bundles: Any = self._streaming.bundles.remote(chat)
        async for bundle in bundles:
            for chunk in bundle:
                yield chunk


@serve.ingress()
class Ingress:
    """The replica that speaks HTTP; it reads and refuses requests, and has no weights."""

    def __init__(
        self,
        names: Sequence[str],
        engines: Sequence[DeploymentHandle],
        split: Split | None,
        limits: Limits,
        keys: Keyring,
        executors: Sequence[Callable[[], Executor]],
        host: str,
    ) -> None:
        self._figures = Figures()
        handles = dict(zip(names, map(EngineHandle, engines), strict=True))
        self._engine = Router(handles, split, self._figures)
        self._limits = limits
        self._keys = keys
        self._executor = together([build() for build in executors])
        self._host = host
        log_to_stderr()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(
            self._engine,
            limits=self._limits,
            keys=self._keys,
            figures=self._figures,
            executor=self._executor,
            host=self._host,
        )


@dataclass(frozen=True, slots=True)
class Server:
    """Policies being served."""

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
    *policies: Served,
    split: Split | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits = Limits(),
    logs: Path | None = None,
    dashboard: bool = False,
    blocking: bool = True,
) -> Server:
    """Serve policies until Ctrl-C, or until the process is told to end.

    Args:
        policies: one, or several under names of their own.
        split: how requests that name none of them are shared out.
        host: to listen on; beyond this machine only with keys in ``APPRENTICE_API_KEYS`` or the file that
            ``APPRENTICE_API_KEYS_FILE`` names, which every caller then has to send, and where Ray asks for its token.
        port: to listen on.
        limits: of what is taken on at once.
        logs: folder for logs; kept nowhere by default.
        dashboard: whether to start Ray's.
        blocking: whether to wait for Ctrl-C and stop; otherwise the caller stops the server that is returned.

    Raises:
        ConfigError: the port is taken, or the endpoint would be open to other machines without keys or tokens.
        DataError: there is no such checkpoint.
        ServingError: the server did not come up; the message has the cause.
    """
    keys = keys_from_environment()
    _require_closed(host, keys)
    require_free(host, port)
    _require_apart(policies)
    for served in policies:
        chosen = served.published().default()
        if served.llm is not None:
            _require_llm(served, chosen.path)
        if served.executor:
            served.catalog.require()
    cluster = remote.start(num_cpus=3 + len(policies), dashboard=dashboard, logs=logs)
    server = Server(f"http://{host}:{port}/v1", cluster)
    try:
        _deploy(policies, split, host, port, limits, keys)
        if blocking:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            names = ", ".join([*([SPLIT] if split else []), *(served.name for served in policies)])
            print(f"{names} at {server.url} (OpenAI's interface); Ctrl-C stops it", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        server.stop()
    except BaseException:
        server.stop()
        raise
    return server


def _require_closed(host: str, keys: Keyring) -> None:
    """See that other machines get in with a key alone, and do not get at Ray's own ports either."""
    if host in LOOPBACK:
        return
    if not keys.required:
        raise ConfigError(
            f"--host {host} opens the endpoint to other machines: put keys into {KEYS} first (label:key, separated by "
            f"commas), or name a file of them in {KEYS_FILE}, or listen on 127.0.0.1"
        )
    joins = os.environ.get("RAY_ADDRESS", "local") not in ("", "local")
    if os.environ.get("RAY_AUTH_MODE", "" if joins else "token").lower() != "token":
        where = "the cluster that RAY_ADDRESS names" if joins else "Ray on this machine"
        raise ConfigError(
            f"--host {host} opens this machine to others, and {where} would run whatever they send to it: start it "
            "with RAY_AUTH_MODE=token and a token, and set RAY_AUTH_MODE=token here; or listen on 127.0.0.1"
        )


def _require_llm(served: Served, path: Path) -> None:
    """See that ``ray.serve.llm`` can run a policy as it is asked for."""
    from rl.serving.llm import require_llm

    asked = {"--follow": served.follow is not None, "--adapter": bool(served.adapters)}
    for option in (name for name, given in asked.items() if given):
        raise ConfigError(f"{option} needs an engine that takes new weights, and --engine llm holds one checkpoint")
    if served.opener is not None:
        raise ConfigError(
            f"{served.name} decodes with more than a causal model (its tools are rows of its own); leave --engine out"
        )
    require_llm(path)


def _require_apart(policies: Sequence[Served]) -> None:
    """See that every name means one thing."""
    names = [name for served in policies for name in (served.name, *served.adapters)]
    wrong = [name for name in names if names.count(name) > 1 or ":" in name or (len(policies) > 1 and name == SPLIT)]
    if wrong:
        raise ConfigError(
            f"{wrong[0]!r} cannot be the name of one of several policies here: each has another, without a colon, and "
            f"none is {SPLIT!r}"
        )
    if len(policies) > 1 and any(served.adapters for served in policies):
        raise ConfigError("--adapter needs to know its model: serve one run with it")


def _deploy(
    policies: Sequence[Served], split: Split | None, host: str, port: int, limits: Limits, keys: Keyring
) -> None:
    deployment: Any = serve.deployment
    options = {
        "max_ongoing_requests": _MAX_ONGOING,
        "max_constructor_retry_count": 1,
        "graceful_shutdown_wait_loop_s": 0.1,
        "logging_config": LoggingConfig(enable_access_log=False),
    }
    gpus = min(1.0, ray.cluster_resources().get("GPU", 0.0) / len(policies))
    engines = []
    for number, served in enumerate(policies, start=1):
        needs = {"num_cpus": 1, "num_gpus": 0.0 if served.llm else gpus}
        replica = deployment(EngineReplica, name=f"Engine-{number}", ray_actor_options=needs, **options)
        engines.append(replica.bind(served, *([_llm(served)] if served.llm else [])))
    names = [served.name for served in policies]
    executors = [served.executor for served in policies if served.executor]
    ingress = deployment(Ingress, ray_actor_options={"num_cpus": 0}, **options).bind(
        names, engines, split, limits, keys, executors, host
    )
    serve.start(http_options={"host": host, "port": port}, logging_config=LoggingConfig(enable_access_log=False))
    try:
        serve.run(ingress, name=APP, route_prefix="/")
    except Exception as error:
        raise ServingError(f"{', '.join(names)} could not be served: {_cause(error)}") from error


def _llm(served: Served) -> Any:
    """What holds the weights of a policy that ``ray.serve.llm`` runs."""
    from rl.serving import llm

    assert served.llm is not None
    return llm.llm_application(served.name, served.published().default().path, served.llm)


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
