"""What the command says, without training."""

import errno
import shlex
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError
from typer.testing import CliRunner

from executors.errors import DataError
from rl import cli
from rl.recipes import prepared, trice

CONFIG = Path(__file__).parents[2] / "configs/trice/tiny.yaml"


def test_error_of_another_process_is_told_without_its_traceback(monkeypatch, capsys):
    def fail() -> None:
        raise RayTaskError("play", "Traceback: ...", DataError("row 2: no answer")).as_instanceof_cause()

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == DataError.exit_code
    assert capsys.readouterr().err == "error: row 2: no answer\n"


def test_resume_command_can_be_pasted_into_a_shell(monkeypatch, capsys, tmp_path):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepared, "prepare", lambda _: object())
    monkeypatch.setattr("rl.recipes.lengths.require_lengths", lambda *_: None)
    monkeypatch.setattr("rl.data.tasks.benchmark.digests", lambda _: {})
    monkeypatch.setattr(trice, "train", interrupted)
    folder, assignments = tmp_path / "my run", ["model={kind: tiny, width: 32}"]
    with pytest.raises(SystemExit):
        cli._train_one(CONFIG, assignments, folder, resume=False)
    command = capsys.readouterr().err.splitlines()[-1]
    told = ["apprentice", "train", str(CONFIG), *assignments, "--run-dir", str(folder), "--resume"]
    assert shlex.split(command) == told


def test_runs_that_cannot_be_pooled_are_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "_train_one", lambda *_: None)
    cli.train(CONFIG, ["evaluation={kind: ranking}"], run_dir=tmp_path / "r", seeds="0,1")
    told = f"such runs are not pooled; each has its own summary: {tmp_path}/r-seed0, {tmp_path}/r-seed1"
    assert capsys.readouterr().out == told + "\n"


def test_a_full_disk_is_told_without_a_traceback(monkeypatch, capsys):
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/runs/x/model.safetensors")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert "the disk is full (/runs/x/model.safetensors)" in capsys.readouterr().err


def test_help_says_of_every_verb_what_it_does_in_one_whole_line():
    shown = CliRunner().invoke(cli.app, ["--help"], terminal_width=80).output
    verbs = shown.partition("Commands:\n")[2].splitlines()
    assert len(verbs) > 15 and all(line.endswith(".") and not line.endswith("...") for line in verbs), verbs
