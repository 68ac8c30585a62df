"""Stopping a run from elsewhere, by what its folder says of the process that drives it."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from executors.errors import ConfigError, DataError
from rl.driver import Driver, StillEndingError, note_driver, stop, stop_job
from rl.pages.shelf import Shelf

ROOT = Path(__file__).parents[2]


@pytest.fixture
def started(tmp_path):
    """Processes that say in a folder that they drive it, and end at SIGTERM, or do not."""
    processes = []

    def start(handler: str) -> Path:
        code = "import signal, sys, time; from pathlib import Path; from rl.driver import note_driver; "
        code += f"signal.signal(signal.SIGTERM, {handler}); "
        code += f"sys.argv = ['rl', 'train', 'my config.yaml', '--resume']; note_driver(Path({str(tmp_path)!r})); "
        code += "time.sleep(60)"
        processes.append(subprocess.Popen([sys.executable, "-c", code], cwd=ROOT))
        while not (tmp_path / "driver.json").exists():
            time.sleep(0.02)
        return tmp_path

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_the_process_that_drives_a_run_is_told_to_stop_and_waited_for(started):
    run = started("lambda *_: sys.exit(130)")
    (run / "config.resolved.yaml").write_text("name: mine\n")
    assert Driver.of(run).alive and Shelf(run).card(".").status == "running"
    told = stop(run, wait=20)
    assert "nothing is lost" in told and told.endswith("apprentice train 'my config.yaml' --resume")
    assert not Driver.of(run).alive
    assert Shelf(run).card(".").status == "stopped", "at once, though it wrote something a moment ago"
    assert "nothing drives" in stop(run, wait=1)


def test_one_that_takes_its_time_is_not_killed(started):
    run = started("signal.SIG_IGN")
    with pytest.raises(StillEndingError, match="still ending"):
        stop(run, wait=0.3)
    assert Driver.of(run).alive


def test_another_process_of_the_same_number_is_left_alone(tmp_path):
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        note_driver(tmp_path)
        path = tmp_path / "driver.json"
        before = psutil.Process(bystander.pid).create_time() - 3600
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": bystander.pid, "started": before}))
        assert "nothing drives" in stop(tmp_path, wait=1)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_run_of_another_machine_or_of_nobody_is_said_to_be_so(tmp_path):
    with pytest.raises(DataError, match="does not say which process drives it"):
        stop(tmp_path, wait=1)
    note_driver(tmp_path)
    path = tmp_path / "driver.json"
    assert json.loads(path.read_text())["host"] == socket.gethostname()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "elsewhere"}))
    with pytest.raises(ConfigError, match="on elsewhere; stop it there"):
        stop(tmp_path, wait=1)


def test_a_submitted_job_is_stopped_through_ray(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "mine-1"}}))
    note_driver(tmp_path)
    driver = Driver.of(tmp_path)
    assert driver.job == "mine-1"
    assert stop_job(driver, "http://head:8265") == ["ray", "job", "stop", "--address", "http://head:8265", "mine-1"]


@pytest.mark.parametrize(
    ("words", "told"), [("apprentice tra", ["train", "track"]), ("apprentice train --see", ["--seed", "--seeds"])]
)
def test_a_shell_is_told_how_a_word_may_go_on(words, told):
    environment = {"_APPRENTICE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'apprentice'; from rl.cli import main; main()"]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True
    )
    assert done.stdout.split() == told


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_completion(shell):
    command = [sys.executable, "-m", "rl", "completion", shell]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "_APPRENTICE_COMPLETE" in done.stdout


def test_being_told_to_stop_is_the_same_as_ctrl_c():
    from rl import cli

    with pytest.raises(KeyboardInterrupt):
        cli._interrupt(signal.SIGTERM, None)
