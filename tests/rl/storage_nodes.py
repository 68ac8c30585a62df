"""Asks two Ray nodes of one machine whether they share a folder; one of them does not see it. Writes what was said.

A process of its own: Ray's authentication mode is chosen once a process.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from executors.errors import ConfigError
from rl.remote import require_storage


def main() -> None:
    shared, hidden = Path(sys.argv[1]) / "shared", Path(sys.argv[1]) / "hidden"
    hidden.mkdir()
    settings = {"include_dashboard": False, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **settings})
    start = [str(Path(sys.executable).with_name("ray")), "start", "--address", cluster.address, "--num-cpus=1"]
    start += ["--block", f"--object-store-memory={80 << 20}"]
    apart = ["bwrap", "--dev-bind", "/", "/", "--tmpfs", str(hidden), *start]
    node = subprocess.Popen(apart, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    said = {}
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        deadline = time.monotonic() + 60
        while len(ray.nodes()) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        said["nodes"] = require_storage(str(shared))
        said["left"] = [path.name for path in shared.iterdir()]
        try:
            require_storage(str(hidden))
        except ConfigError as error:
            said["error"] = str(error)
    finally:
        ray.shutdown()
        node.terminate()
        node.wait(30)
        cluster.shutdown()
    Path(sys.argv[2]).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
