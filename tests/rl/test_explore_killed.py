"""Exploring in a process that is killed: what is on disk is all that the next one needs."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.rl.exploring_apart import explore

ROOT = Path(__file__).parents[2]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def begun(folder: Path, sync: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.rl.exploring_apart", str(folder), sync], cwd=ROOT)


def recorded(folder: Path) -> int:
    """Answers of calls that the journal has, whole lines only."""
    found = [line for path in (folder / "calls").glob("*.jsonl") for line in lines(path)]
    return sum('"observation": {' in line and line.endswith("}") for line in found)


@pytest.mark.parametrize("sync", ["strict", "waves"])
def test_killed_at_a_random_point_it_goes_on_where_it_was_and_makes_no_recorded_call_again(tmp_path, sync):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = [(one.id, one.task.prompt, one.solved) for one in explore(whole, sync)]
    draw, unrecorded = random.Random(f"killed/{sync}"), 0
    for kills, (least, most) in enumerate(((3, 20), (22, 40)), start=1):
        point = draw.randint(least, most)
        process = begun(cut, sync)
        until = time.monotonic() + 60
        while (
            len(lines(cut / "made.jsonl")) < point + unrecorded and process.poll() is None and time.monotonic() < until
        ):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        unrecorded = len(lines(cut / "made.jsonl")) - recorded(cut)
        assert 0 <= unrecorded <= 4 * kills  # calls that ran when it was killed: two tools, waves of two
    assert [(one.id, one.task.prompt, one.solved) for one in explore(cut, sync)] == expected
    made, wanted = (Counter(map(str, map(json.loads, lines(one / "made.jsonl")))) for one in (cut, whole))
    assert made.keys() == wanted.keys()
    assert sum(made.values()) - sum(wanted.values()) == unrecorded
