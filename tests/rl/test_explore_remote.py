"""Exploring by workers on Ray: the same trials as in one process, and a worker that dies costs none of them."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError
from typer.testing import CliRunner

from rl.cli import app
from rl.serving.sources import Placement
from rl.trials import remote
from rl.trials.remote import TrialPool, TrialsFailedError
from rl.trials.worker import Place
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


class StandIn:
    """A worker as the pool sees it, without Ray: how long a trial takes with it, and whether it answers."""

    def __init__(self, seconds: float, answers: bool = True) -> None:
        self.make = SimpleNamespace(remote=lambda *_: asyncio.sleep(seconds, self))
        self.ping = SimpleNamespace(remote=lambda: asyncio.sleep(0 if answers else 60))


def pool(monkeypatch: pytest.MonkeyPatch, *workers: StandIn, error: Exception | None = None) -> TrialPool:
    waiting = iter(workers)

    def started(pings: Any, timeout: float) -> None:
        for ping in pings:
            ping.close()
        if error is not None:
            raise error

    actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda _: next(waiting)))
    monkeypatch.setattr(remote, "ray", SimpleNamespace(remote=lambda _: actor, get=started, kill=lambda *_, **__: None))
    setting: Any = None
    return TrialPool(setting, Placement(workers=len(workers)), timeout=0.1)


def test_a_long_trial_is_waited_for_where_its_worker_answers_and_made_elsewhere_where_not(monkeypatch):
    known: Any = None
    slow, dead, quick = StandIn(0.35), StandIn(60, answers=False), StandIn(0)
    alone = pool(monkeypatch, slow)
    assert asyncio.run(alone.make(Place("add", 0, 0), known, ())) is slow and alone.deaths == 0
    both = pool(monkeypatch, dead, quick)
    assert asyncio.run(both.make(Place("add", 0, 0), known, ())) is quick and both.deaths == 1


def test_workers_that_cannot_be_started_are_told_by_what_was_raised_there(monkeypatch):
    class Died(RayActorError):
        def __str__(self) -> str:
            return "The actor died\nTraceback (most recent call last):\n  File ...\nDataError: models/t is no model\n"

    with pytest.raises(TrialsFailedError, match="could not be started: DataError: models/t is no model; look"):
        pool(monkeypatch, StandIn(0), error=Died())


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
