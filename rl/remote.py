"""The Ray cluster of this process: one that it starts for itself, or one that ``RAY_ADDRESS`` names."""

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ray
import ray._private.worker as ray_worker
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from executors.errors import ApprenticeError, ConfigError
from rl.storage import Notes

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # more collapse as soon as two processes share the cores
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # or the dashboard's Train tab stays empty
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""What every process of a run has in its environment, unless the user's own says otherwise."""

NAMESPACE = "apprentice"


class ClusterError(ApprenticeError):
    """Ray could not be started."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The Ray cluster that this process drives."""

    address: str
    """Of its head: what ``RAY_ADDRESS`` is set to by others who join it."""
    dashboard: str | None
    """Where the dashboard is; None without one. It asks for the cluster's token."""
    token: Path | None
    """The file with the token that this process made for it; None where the user's own applies."""
    session: Path | None
    """Ray's folder of a cluster that was started here; None for one that was joined."""
    logs: Path | None
    """Where Ray's logs are, live and afterwards."""

    @property
    def local(self) -> bool:
        """Whether this process started it."""
        return self.session is not None

    def stop(self) -> None:
        """Leave the cluster, and end it where it was started here; its logs stay. May be called twice."""
        ray.shutdown()
        if self.session is None or not self.session.exists():
            return
        if self.logs is not None and self.logs.is_symlink():
            self.logs.unlink()
            shutil.copytree(self.session / "logs", self.logs, ignore_dangling_symlinks=True)
        shutil.rmtree(self.session, ignore_errors=True)


def start(*, num_cpus: int, object_store_mib: int = 200, dashboard: bool = False, logs: Path | None = None) -> Cluster:
    """The cluster that ``RAY_ADDRESS`` names, as under ``ray job submit``; else a new one, see ``start_local``."""
    with _signals_kept():
        if os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
            return connect(logs=logs)
        return start_local(num_cpus=num_cpus, object_store_mib=object_store_mib, dashboard=dashboard, logs=logs)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Leave SIGTERM to who had it: Ray would end the process on the spot, and with it what a run still has to say."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def start_local(
    *, num_cpus: int, object_store_mib: int = 200, dashboard: bool = False, logs: Path | None = None
) -> Cluster:
    """Start Ray on this machine, for this process and as long as it lives.

    It asks everyone for a token, which this process makes unless the user's environment has one; nothing is written
    to the user's home, and nothing but errors to the console.

    Args:
        num_cpus: that Ray believes in; declared needs are counted against it.
        object_store_mib: shared memory for objects: at least three times the weights that are published.
        dashboard: whether to start it; it takes about 200 MB.
        logs: folder of the driver's ``ray.log`` and of Ray's own logs, in ``ray/<session>``; by default they are
            deleted with the session.

    Raises:
        ClusterError: Ray did not start; the message has the cause.
    """
    _require_none()
    prepare_environment()
    token = _make_token()
    _log_to(logs)
    try:
        context: Any = ray.init(
            address="local",
            num_cpus=num_cpus,
            object_store_memory=object_store_mib * 2**20,
            include_dashboard=dashboard,
            log_to_driver=False,
            namespace=NAMESPACE,
            _temp_dir=str(_folder() / "ray"),  # which Ray opens to everybody
        )
    except Exception as error:
        ray.shutdown()
        raise ClusterError(f"Ray could not be started: {_first_line(error)}") from error
    session = Path(context.address_info["session_dir"])
    kept = None if logs is None else logs.resolve() / "ray" / session.name
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.symlink_to(session / "logs")
    url = f"http://{context.dashboard_url}" if context.dashboard_url else None
    cluster = Cluster(context.address_info["address"], url, token, session, kept)
    atexit.register(cluster.stop)
    return cluster


def connect(*, logs: Path | None = None) -> Cluster:
    """Join the cluster that ``RAY_ADDRESS`` names.

    Args:
        logs: folder of the driver's ``ray.log``; Ray's own logs stay on the cluster's machines.

    Raises:
        ConfigError: there is none, or it does not let us in.
    """
    _require_none()
    address = os.environ.get("RAY_ADDRESS", "")
    prepare_environment()
    _log_to(logs)
    try:
        _reach(address)
        context: Any = ray.init(address=address, log_to_driver=False, namespace=NAMESPACE)
    except Exception as error:
        ray.shutdown()
        raise ConfigError(
            f"RAY_ADDRESS is {address!r} and no cluster could be joined there ({_first_line(error)}); check that it "
            "runs and that this shell has its token (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH), or unset "
            "RAY_ADDRESS to start a cluster on this machine"
        ) from error
    url = f"http://{context.dashboard_url}" if context.dashboard_url else None
    return Cluster(context.address_info["address"], url, None, None, None)


def _reach(address: str) -> None:
    """Raise OSError where nobody listens; Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def require_gpus(count: float) -> None:
    """See that the cluster has as many GPUs as a config asks for; without, Ray would wait for them for ever.

    Raises:
        ConfigError: it has fewer.
    """
    there = ray.cluster_resources().get("GPU", 0.0)
    if count > there:
        raise ConfigError(
            f"the config asks for {count:g} GPUs and the cluster has {there:g}; set learner.gpu: false and "
            "rollouts.gpus: 0, or join a cluster that has them"
        )


def require_storage(folder: str, *, timeout: float = 60.0) -> int:
    """See that every node of the cluster can write and read a run's folder, before anything is trained.

    On each node a task reads a note of this process's and leaves one of its own, which this process reads.

    Args:
        folder: a path, or an address that ``pyarrow`` knows.
        timeout: seconds that a node has to answer.

    Returns:
        How many nodes there are; where it is this machine alone, nothing is asked.

    Raises:
        ConfigError: a node cannot, or gives no answer; the message names each of them.
    """
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    if len(nodes) < 2:
        return len(nodes)
    notes, mine = Notes(folder), f"driver-{secrets.token_hex(4)}"
    wrong = [("this machine", told)] if (told := notes.leave(mine, mine)) else []
    if not wrong:
        ask: Any = ray.remote(num_cpus=0, max_retries=0)(Notes.answer)
        there = {id: NodeAffinitySchedulingStrategy(id, soft=False) for id in nodes}
        asked = {id: ask.options(scheduling_strategy=on).remote(notes, id, {mine: mine}) for id, on in there.items()}
        answers = [(_node_name(nodes[id]), _answered(one, notes, id, timeout)) for id, one in asked.items()]
        wrong = [(name, told) for name, told in answers if told]  # two nodes of one machine have the same name
        notes.remove()
    if wrong:
        told = "\n".join(f"  {name}: {reason}" for name, reason in wrong)
        raise ConfigError(
            f"{len(wrong)} of the cluster's {len(nodes)} nodes cannot use the run's folder {folder}:\n{told}\n"
            "mount the same file system there under the same path, or set storage to a folder that all nodes share"
        )
    return len(nodes)


def _answered(asked: Any, notes: Notes, name: str, timeout: float) -> str:
    """What is wrong on a node that was asked; nothing where it left its note."""
    try:
        return ray.get(asked, timeout=timeout) or notes.read(name, name)
    except GetTimeoutError:
        ray.cancel(asked, force=True)
        return f"it gave no answer within {timeout:g} s"
    except RayError as error:
        return f"its task failed ({_first_line(error)}); is Apprentice installed there?"


def _node_name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def prepare_environment() -> None:
    """Set what the processes of a run inherit, where the user has not set it: see ``ENVIRONMENT``."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _require_none() -> None:
    if ray.is_initialized():
        raise ClusterError("this process drives a Ray cluster already; stop that one first, or use another process")


def _make_token() -> Path | None:
    """A token of our own where the user has chosen none; a new local cluster then asks for tokens by itself.

    ``RAY_AUTH_MODE`` is left to ``ray.init``, which sets it: Ray has read the environment when it was imported.
    """
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        path = _folder() / "auth_token"
        return path if os.environ.get("RAY_AUTH_TOKEN_PATH") == str(path) else None
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    path = _folder() / "auth_token"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
    return path


@cache
def _folder() -> Path:
    """A private folder of this process, gone when it ends; its path is short because sockets' paths have to be."""
    root = "/tmp" if os.access("/tmp", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="apprentice-", dir=root))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def _log_to(folder: Path | None) -> None:
    """Send what Ray says in this process to a file rather than to the console."""
    handler: logging.Handler = logging.NullHandler()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / "ray.log", delay=True)
    for name in ["ray", *(name for name in logging.root.manager.loggerDict if name.startswith("ray."))]:
        logger = logging.getLogger(name)
        for old in logger.handlers:
            with contextlib.suppress(Exception):
                old.close()
        logger.handlers.clear()
        logger.propagate = name != "ray"
    logging.getLogger("ray").addHandler(handler)
    if hasattr(ray_worker, "print_to_stdstream"):  # what the raylet says of dead workers; Ray has no setting for it
        ray_worker.print_to_stdstream = _note


def _note(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
    """Take what Ray would print for the user into its log."""
    for line in data.get("lines", ()):
        logging.getLogger("ray").warning("(%s) %s", data.get("pid"), line)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or [''])[0][:300]}"
