"""The learner's ranks on several Ray nodes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_ranks_are_as_many_as_nodes_have_room_for_and_a_lost_node_changes_nothing_of_what_is_learned(tmp_path):
    told = tmp_path / "told.json"
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "tests.rl.learner_nodes", str(tmp_path / "run"), str(told)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(told.read_text())
    assert (result["before"], result["after"]) == (2, 1)
    assert result["steps"] == list(range(12))
    assert result["apart"] < 1e-3
