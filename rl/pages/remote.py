"""The pages as a Ray Serve app."""

import signal
import threading
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.schema import LoggingConfig

from rl import remote
from rl.pages.app import pages_app
from rl.serving.app import ServingError, require_free

NAME = "pages"


@serve.ingress()
class Pages:
    """The replica that reads runs and writes pages."""

    def __init__(self, storage: str) -> None:
        self._storage = storage

    def __serve_build_asgi_app__(self) -> FastAPI:
        return pages_app(Path(self._storage))


def serve_pages(storage: Path, *, host: str = "127.0.0.1", port: int = 8266, blocking: bool = True) -> remote.Cluster:
    """Serve the pages about a folder of runs until Ctrl-C.

    Args:
        storage: the folder of runs, or a run's own.
        host: to listen on; the pages ask nobody who they are.
        port: to listen on.
        blocking: whether to wait for Ctrl-C and stop; otherwise the caller stops the cluster that is returned.

    Raises:
        ConfigError: the port is taken.
        ServingError: the app did not come up.
    """
    require_free(host, port)
    cluster = remote.start(num_cpus=2)
    try:
        _deploy(storage.resolve(), host, port)
        if blocking:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            print(f"the runs in {storage} are at http://{host}:{port}; Ctrl-C stops it", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        cluster.stop()
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _deploy(storage: Path, host: str, port: int) -> None:
    deployment: Any = serve.deployment
    quiet = LoggingConfig(enable_access_log=False)
    app = deployment(
        Pages, ray_actor_options={"num_cpus": 0}, graceful_shutdown_wait_loop_s=0.1, logging_config=quiet
    ).bind(str(storage))
    serve.start(http_options={"host": host, "port": port}, logging_config=quiet)
    try:
        serve.run(app, name=NAME, route_prefix="/")
    except (RuntimeError, RayError) as error:
        raise ServingError(f"the pages could not be served: {str(error)[:500]}") from error
