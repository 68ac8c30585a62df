"""Whether every machine of a cluster has a run's folder, before anything is trained there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from executors.errors import ConfigError
from rl.run import Run
from rl.storage import Notes


@pytest.mark.parametrize("address", [False, True], ids=["path", "address"])
def test_machines_that_share_a_folder_read_each_others_notes(tmp_path, address):
    notes = Notes(f"file://{tmp_path}" if address else str(tmp_path))
    assert notes.leave("driver", "d") == ""
    assert notes.answer("node", {"driver": "d"}) == ""
    assert notes.read("node", "node") == ""
    notes.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_a_machine_cannot_do_is_told(tmp_path):
    notes = Notes(str(tmp_path / "runs"))
    assert "it does not see what another machine wrote" in notes.answer("node", {"driver": "d"})
    notes.leave("driver", "d")
    assert "something else" in notes.answer("node", {"driver": "e"})
    (tmp_path / "file").write_text("")
    assert "it cannot write there" in Notes(str(tmp_path / "file")).leave("driver", "d")
    assert "it cannot write there" in Notes("nowhere://bucket/runs").leave("driver", "d")


def test_an_object_store_is_no_place_for_a_run():
    with pytest.raises(ConfigError, match="s3:/bucket/runs is an object store"):
        Run.start(Path("s3://bucket/runs"), config_text="", resolved={}, resume=False)


@pytest.mark.ray
def test_a_node_without_the_folder_is_named_before_anything_starts(tmp_path):
    tried = subprocess.run(["bwrap", "--dev-bind", "/", "/", "true"], check=False) if _bubblewrap() else None
    if tried is None or tried.returncode:
        pytest.skip("bubblewrap cannot give a node another view of the files here; make sandbox installs it")
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "tests.rl.storage_nodes", str(tmp_path), str(tmp_path / "said.json")]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads((tmp_path / "said.json").read_text())
    assert (said["nodes"], said["left"]) == (2, [])
    assert "1 of the cluster's 2 nodes cannot use the run's folder" in said["error"]
    assert "it does not see what another machine wrote there" in said["error"]
    assert "mount the same file system there" in said["error"]


def _bubblewrap() -> bool:
    return any(os.access(Path(folder) / "bwrap", os.X_OK) for folder in os.environ["PATH"].split(os.pathsep))
