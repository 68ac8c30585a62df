"""Exploring by workers on Ray: the same trials as in one process, and a worker that dies costs none of them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rl.cli import app
from rollouts.memory import Trial
from rollouts.store import Log
from tests.executors.endpoints import FakeEndpoint, endpoint


def wrong(body: dict[str, Any]) -> str:
    """Calls, and never as the query means it."""
    return 'Thought: so.\nAction: double\nAction Input: {"number": -1}\nObservation:'


def explored(folder: Path, served: FakeEndpoint, **further: Any) -> list[Trial]:
    folder.mkdir(exist_ok=True)
    content = {
        "recipe": "ste",
        "name": "apart",
        "tools": [{"tests.rl.exploring_apart:deadly_tools": {"folder": str(folder)}}],
        "policies": {"teacher": {"kind": "endpoint", "base_url": served.url, "model": "m", "mode": "text"}},
        "actors": [{"policy": "teacher"}, {"policy": "imagined"}],
        "exploration": {"episodes": 4, "trials": 2, "max_turns": 1, "ltm_sync": 2, "focus": 0.5},
        **further,
    }
    path = folder / "ste.yaml"
    path.write_text(json.dumps(content))
    done = CliRunner().invoke(app, ["explore", str(path), "--run-dir", str(folder / "run")])
    assert done.exit_code == 0, (done.output, done.exception)
    return list(Log(folder / "run" / "explored.jsonl", Trial).read())


def told(trials: list[Trial]) -> list[tuple[str, str, bool | None, list[str], int]]:
    return sorted(
        (one.id, one.task.prompt, one.solved, [attempt.text for attempt in one.attempts], one.calls) for one in trials
    )


@pytest.mark.ray
def test_workers_make_the_same_trials_as_one_process_though_one_of_them_dies(tmp_path):
    with endpoint(wrong) as served:
        alone, apart = tmp_path / "alone", tmp_path / "apart"
        alone.mkdir()
        (alone / "died").touch()  # nobody dies here
        expected = explored(alone, served)
        settings = {"workers": 2, "cpus": 1}
        trials = explored(apart, served, place=settings, ray={"num_cpus": 2, "dashboard": False})
    assert told(trials) == told(expected) and len(trials) == 16 and (apart / "died").exists()
    made, wanted = (Counter((folder / "made.jsonl").read_text().split()) for folder in (apart, alone))
    assert made.keys() == wanted.keys()
    assert 1 <= made.total() - wanted.total() <= 4  # what ran in the worker that died, and nothing that it wrote down
    assert not list((apart / "run" / "calls").rglob("*.jsonl"))
