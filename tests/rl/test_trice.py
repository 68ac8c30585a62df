"""TRICE, whole: a mixture from its foundation to its figures, through the command; and its configs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from executors.executor import Executor
from executors.tools.calculator import calculate
from executors.types import ToolCall
from rewards.correctness import read_number
from rl.config import override, read_yaml, validate
from rl.recipes.trice import TriceConfig
from rl.sweep.grid import jobs, read_grid
from rollouts.store import Log
from rollouts.types import Group

ROOT = Path(__file__).parents[2]
MIXTURE = "configs/trice/mixture.yaml"
SHORT = [
    *(
        f"tasks.parts.{part}.tasks.{key}"
        for part in ("sums", "facts", "units")
        for key in ("demonstrations=90", "train=30")
    ),
    *(f"tasks.parts.{part}.tasks.{key}" for part in ("sums", "facts", "units") for key in ("validation=4", "test=8")),
    "tasks.parts.two_steps.tasks.test=4",
    "cloning.foundation.steps=12",
    "cloning.steps=6",
    "cloning.demonstrator.questions=24",
    "improvement.rounds=2",
    "improvement.tasks_per_round=16",
    "improvement.validate_every=2",
    "improvement.refresh={kind: offline}",
    "ray.dashboard=false",
]


@pytest.mark.ray
@pytest.mark.slow
def test_a_mixture_is_trained_in_three_stages_and_told_apart_by_data_set(tmp_path):
    """Foundation, stage 1 on data of its own making, stage 2 on candidates of the beginning."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "rl", "train", MIXTURE, *SHORT, "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(
        command, cwd=ROOT, env=inherited | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "run"
    ledger = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in ledger] == ["foundation", "demonstrations", "clone", "improve"]
    counted = ledger[1]["origins"]
    assert sum(sum(part.values()) for part in counted.values()) == 24
    own = {group.task.id: group for group in Log(run / "demonstrations" / "own.jsonl", Group).read()}
    taught = list(Log(run / "demonstrations" / "taught.jsonl", Group).read())
    assert (len(own), len(taught)) == (24, 24 - sum(part["own"] for part in counted.values()))
    assert all(group.episodes[0].observations[0].ok for group in taught)
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    for state in ("base", "start", "final", "always_call", "always_direct"):
        assert summary[state]["n"] == 28
        for figure in ("accuracy", "accuracy_trice", "true_yes", "false_no", "need/facts", "accuracy/two_steps"):
            assert summary[state][figure].keys() == {"value", "low", "high"}
    assert summary["groups"]["stale"] == 0
    page = (run / "report.html").read_text()
    assert "<h3>two_steps</h3>" in page


def test_every_arm_of_the_grid_is_a_config_that_can_be_run():
    grid = read_grid(ROOT / "configs/trice/grid.yaml")
    every = jobs(grid, Path("runs"))
    assert len(every) == 3 * len(grid.running)
    for job in every:
        content = override(read_yaml(ROOT / job.config), job.overrides)
        config = validate(content, TriceConfig, job.arm)
        assert config.tasks.kind == "mixture"
    arms = {job.arm for job in every}
    assert {"mix", "mix-stage-2", "few-shot", "sft-0-tools", "sft-100-tools", "split-facts", "unseen-tool"} <= arms


@pytest.mark.parametrize(
    ("expression", "value"), [("(12/60)*50", 10.0), ("2^3", 8.0), ("1,000*2", 2000.0)], ids=lambda value: str(value)
)
def test_trices_calls_come_to_what_trice_says(expression, value):
    assert read_number(calculate(expression, caret_is_power=True)) == value


@pytest.mark.parametrize("expression", ["", "10/0", "50%*20", "9**9**9"])
def test_what_trices_calculator_fails_at_is_an_observation(expression, executor: Executor):
    seen = executor.run(ToolCall("calculator", {"expression": expression}))
    assert seen.status == "tool_error"
    assert seen.seconds < 1
