"""What a run, and a config, can be asked for without training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from executors.errors import ConfigError, DataError
from rl.config import validate
from rl.recipes import trained
from rl.recipes.trained import check_config, open_trained
from rl.recipes.trice import TriceConfig
from rl.run import Run

CONFIG = Path(__file__).parents[2] / "examples/temperature/config.yaml"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Questions whose answers are words."""
    path = tmp_path / "rows.jsonl"
    words = ("red", "green", "blue")
    path.write_text("".join(json.dumps({"prompt": f"Colour {i}?", "answer": words[i % 3]}) + "\n" for i in range(120)))
    return path


def config(rows: Path, **changes: Any) -> TriceConfig:
    content = yaml.safe_load(CONFIG.read_text()) | {"tasks": {"kind": "jsonl", "path": str(rows)}}
    return validate(content | changes, TriceConfig, "mine.yaml")


def test_check_says_how_many_gold_attempts_are_right(rows):
    lines = list(check_config(config(rows, rewards={"kind": "weighted", "match": "exact"})))
    count = lines[1].split(" train")[0].split()[-1]
    assert lines[-1] == f"gold       {count} of {count} gold attempts are right"


@pytest.mark.parametrize(
    "rewards",
    [{"kind": "weighted", "match": "numeric"}, {"kind": "trice", "match": "numeric"}, {"kind": "call_ladder"}],
    ids=lambda rewards: rewards["kind"],
)
def test_check_fails_where_most_gold_attempts_are_wrong(rows, rewards):
    found = check_config(config(rows, rewards=rewards))
    with pytest.raises(DataError, match=r"gold attempts are wrong .*expects the answer '(red|green|blue)'"):
        list(found)


def test_check_fails_where_gold_attempts_cannot_be_played(rows, monkeypatch):
    mine = config(rows)
    benchmark = replace(mine.tasks.load(0), recordings={"gold": {"another task": ("Answer: red",)}})
    monkeypatch.setattr(trained, "prepare", lambda _: benchmark)
    with pytest.raises(DataError, match="which failed: gold has no recording of task"):
        list(check_config(mine))


def test_run_whose_tasks_are_gone_still_has_its_policy_and_tools(rows, tmp_path):
    mine = config(rows)
    run = Run.start(tmp_path / "run", config_text="", resolved=mine.model_dump(mode="json"), resume=False)
    (run.folder("checkpoints/best") / "config.json").write_text("{}")
    rows.unlink()
    opened = open_trained(run.path)
    assert (opened.name, opened.catalog.names) == ("temperature", ("calculator",))
    assert opened.checkpoint == run.path / "checkpoints" / "best"


def test_a_run_that_was_started_before_a_key_came_is_told_which(tmp_path):
    Run.start(tmp_path / "run", config_text="", resolved={"seed": 3}, resume=False)
    with pytest.raises(ConfigError, match="differ in learner"):
        Run.start(tmp_path / "run", config_text="", resolved={"seed": 3, "learner": None}, resume=True)
