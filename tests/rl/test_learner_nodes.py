"""The learner's ranks on several Ray nodes."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_ranks_are_as_many_as_nodes_have_room_for_and_a_lost_node_changes_nothing_of_what_is_learned(tmp_path):
    told = tmp_path / "told.json"
    command = [sys.executable, "-m", "tests.rl.learner_nodes", str(tmp_path / "run"), str(told)]
    subprocess.run(command, check=True, capture_output=True, timeout=540)
    result = json.loads(told.read_text())
    assert (result["before"], result["after"]) == (2, 1)
    assert result["steps"] == list(range(12))
    assert result["apart"] < 1e-3
