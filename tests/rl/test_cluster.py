"""The Ray cluster that a process starts for itself, or joins."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from executors.errors import ConfigError
from rl.remote import Cluster, ClusterError, start, start_local

pytestmark = pytest.mark.ray

JOINS = (
    "from rl.remote import start; cluster = start(num_cpus=1); print(cluster.local, cluster.address); cluster.stop()"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of nobody's, and no address of a cluster in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield home


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def cluster(home: Path, logs: Path) -> Iterator[Cluster]:
    start_local(num_cpus=1).stop()  # a process may do so more than once
    cluster = start(num_cpus=2, object_store_mib=80, logs=logs)
    yield cluster
    cluster.stop()


def test_address_where_nobody_listens_is_a_config_error_that_names_it(home, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS is '127.0.0.1:1' .*refused.*RAY_AUTH_MODE"):
        start(num_cpus=1)


def test_workers_inherit_the_environment_and_the_home_is_left_alone(cluster, home):
    @ray.remote
    def environment() -> dict[str, str]:
        return dict(os.environ)

    inherited = ray.get(environment.remote(), timeout=60)
    assert inherited["OMP_NUM_THREADS"] == "1"
    assert inherited["RAY_AUTH_MODE"] == "token"
    assert inherited["RAY_AUTH_TOKEN_PATH"] == str(cluster.token)
    assert not (home / ".ray").exists()
    assert ray.cluster_resources()["CPU"] == 2


def test_nobody_else_can_read_or_replace_the_token(cluster):
    assert cluster.token.stat().st_mode & 0o777 == 0o600
    assert cluster.token.parent.stat().st_mode & 0o777 == 0o700


def test_second_cluster_in_one_process_is_refused_and_the_first_lives_on(cluster):
    with pytest.raises(ClusterError, match="already"):
        start(num_cpus=1)
    assert ray.is_initialized()


def test_process_that_is_told_the_address_and_the_token_joins(cluster):
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    joined = subprocess.run([sys.executable, "-c", JOINS], env=environment, capture_output=True, text=True, timeout=120)
    assert joined.stdout.strip() == f"False {cluster.address}", joined.stderr
    assert ray.cluster_resources()["CPU"] == 2


def test_logs_are_live_and_outlast_the_cluster(cluster, logs):
    (live,) = (logs / "ray").iterdir()
    assert live.is_symlink()
    cluster.stop()
    assert not live.is_symlink()
    assert list(live.glob("gcs_server*"))
    assert not cluster.session.exists()
    assert (logs / "ray.log").exists()
    cluster.stop()
