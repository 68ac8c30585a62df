"""A run's curves and episodes in trackio, for real, and in what has the interface of Weights & Biases."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from typer.testing import CliRunner

from executors.errors import ConfigError
from rl.cli import app
from rl.run import Run
from rl.tracking import Position, Tracker, TrackerError, follow, require_tracker
from tests.rl.test_exports import run

__all__ = ["run"]


class Recorded:
    """Keeps what it is sent; refuses from some message on."""

    def __init__(self, limit: int = 10**9) -> None:
        self.begun: list[dict] = []
        self.sent: list[tuple[dict, int | None]] = []
        self.limit = limit

    def init(self, **options) -> None:
        self.begun.append(options)

    def log(self, figures, step=None) -> None:
        if len(self.sent) >= self.limit:
            raise OSError("no route to host")
        self.sent.append((figures, step))

    def finish(self) -> None:
        pass


def test_trackio_has_the_curves_by_stage_and_the_best_and_worst_episodes(run, tmp_path):
    pytest.importorskip("trackio")
    Run(run).log({"stage": "clone", "step": 0, "loss": 2.5, "note": "no number", "grad_norm": float("nan")})
    Run(run).log({"stage": "warning", "warning": "nothing to draw"})
    place = tmp_path / "tracked"
    command = [sys.executable, "-m", "rl", "track", str(run), "--project", "tried", "--every", "2"]
    done = subprocess.run(command, env=os.environ | {"TRACKIO_DIR": str(place)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 lines of metrics and every 2th of 3 groups" in done.stdout
    with closing(sqlite3.connect(place / "tried.db")) as kept:
        rows = [(step, json.loads(said)) for step, said in kept.execute("select step, metrics from metrics")]
    (figures,) = [(step, said) for step, said in rows if "clone/loss" in said]
    assert figures == (0, {"clone/loss": 2.5, "clone/step": 0.0})
    assert any(path.is_file() for path in (place / "traces" / "tried" / "run").rglob("*"))


def test_what_was_sent_is_not_sent_again_and_a_refusal_loses_nothing(run, monkeypatch):
    module = Recorded(limit=1)
    monkeypatch.setitem(sys.modules, "wandb", module)
    for step in range(3):
        Run(run).log({"stage": "improve", "step": step, "loss": float(step)})
    tracker = Tracker("wandb", "tried", Run(run), None, 1)
    with pytest.raises(TrackerError, match="no route to host"):
        tracker.send(None)
    assert tracker.position == Position()
    module.limit, module.sent = 10**9, []
    assert tracker.send(None) == Position(lines=3)
    assert [(sent["improve/loss"], step) for sent, step in module.sent] == [(0.0, 0), (1.0, 1), (2.0, 2)]
    Run(run).log({"stage": "improve", "step": 3, "loss": 3.0})
    assert follow(tracker, None) == Position(lines=4)
    assert len(module.sent) == 4
    assert module.begun[0]["id"] == module.begun[0]["name"] == "run"


def test_an_episode_is_messages_with_what_it_was_worth(run, monkeypatch):
    module = Recorded()
    monkeypatch.setitem(sys.modules, "wandb", module)
    done = CliRunner().invoke(app, ["track", str(run), "--to", "wandb", "--every", "1"])
    assert done.exit_code == 0, done.output
    traces = [json.loads(value) for sent, _ in module.sent for name, value in sent.items() if "episodes/best" in name]
    assert len(traces) == 3
    assert traces[0]["messages"][0]["role"] == "user"
    assert {"task", "round", "reward", "source"} <= set(traces[0])


def test_a_tracker_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        require_tracker("wandb")
