"""What ``make demo`` deletes and what it continues."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The Makefile with a command that only says how it was called."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.installed", ".venv/bin/apprentice"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('#!/bin/sh\necho "$@"\n')
        (tmp_path / name).chmod(0o755)
    return tmp_path


def demo(project: Path, run: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # make may run the tests
    command = ["make", "--no-print-directory", "demo", f"RUN={run}"]
    return subprocess.run(command, cwd=project, env=ours, capture_output=True, text=True)


def left(project: Path, *files: str) -> None:
    for file in files:
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).touch()


def test_finished_demo_is_made_again_and_a_stopped_one_continued(project):
    train = "train configs/trice/tiny.yaml --run-dir runs/demo"
    assert demo(project, "runs/demo").stdout.strip() == train
    left(project, "runs/demo/config.resolved.yaml")
    assert demo(project, "runs/demo").stdout.strip() == f"{train} --resume"
    left(project, "runs/demo/evaluation/summary.json", "runs/other/config.resolved.yaml")
    assert demo(project, "runs/demo").stdout.strip() == train
    assert [path.name for path in (project / "runs").iterdir()] == ["other"]


def test_folder_that_is_no_run_is_left_alone(project):
    left(project, "runs/mine/config.resolved.yaml", "runs/mine/evaluation/summary.json")
    done = demo(project, "runs")
    assert done.returncode == 2
    assert "runs is there and is not a run" in done.stdout
    assert (project / "runs/mine/evaluation/summary.json").is_file()
