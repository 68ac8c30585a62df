"""Which process drives a run, as its folder says, so that it can be told to stop from elsewhere."""

import json
import os
import shlex
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from executors.errors import ApprenticeError, ConfigError, DataError

_FILE = "driver.json"
_CLOCK = 2.0
"""Seconds by which two readings of when a process began may differ."""


class StillEndingError(ApprenticeError):
    """A run was told to stop and has not come to its end yet."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """One process that drives, or drove, a run."""

    host: str
    pid: int
    started: float
    """When the process began, in seconds since the epoch: another process of the same number began at another time."""
    command: tuple[str, ...]
    """That continues the run."""
    job: str | None = None
    """The submission id, where ``ray job submit`` started it."""

    @classmethod
    def of(cls, run: Path) -> "Driver":
        """Who drives a run, or did last.

        Raises:
            DataError: the folder does not say.
        """
        try:
            said = json.loads((run / _FILE).read_text())
            return cls(**{**said, "command": tuple(said["command"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{run} does not say which process drives it ({_FILE}: {error}); if it is running, press Ctrl-C where "
                "it was started"
            ) from error

    @property
    def here(self) -> bool:
        """Whether it was started on this machine."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether that very process runs on this machine."""
        if not self.here:
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < _CLOCK
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def note_driver(run: Path) -> None:
    """Say in a run's folder that this process drives it."""
    process = psutil.Process()
    words = [word for word in sys.argv[1:] if word != "--resume"]
    driver = Driver(
        host=socket.gethostname(),
        pid=process.pid,
        started=process.create_time(),
        command=("apprentice", *words, "--resume"),
        job=_job(),
    )
    fresh = run / f".{_FILE}.{process.pid}"
    fresh.write_text(json.dumps(asdict(driver), indent=2) + "\n")
    os.replace(fresh, run / _FILE)


def stop(run: Path, *, wait: float) -> str:
    """Tell the process that drives a run to stop, as Ctrl-C would, and wait until it has.

    Args:
        run: the folder.
        wait: seconds at most.

    Returns:
        What became of it, for the user.

    Raises:
        ConfigError: it runs on another machine.
        DataError: the folder does not say who drives it.
        StillEndingError: it has not ended in that time.
    """
    driver = Driver.of(run)
    if not driver.here:
        raise ConfigError(f"{run} is driven by process {driver.pid} on {driver.host}; stop it there")
    if not driver.alive:
        return f"nothing drives {run} any more (process {driver.pid} has ended)"
    os.kill(driver.pid, signal.SIGTERM)
    until = time.monotonic() + wait
    while driver.alive:
        if time.monotonic() > until:
            raise StillEndingError(
                f"process {driver.pid} was told to stop and is still ending after {wait:g} s; it gives up what is "
                "under way first: wait, or say --wait with more seconds"
            )
        time.sleep(0.1)
    return f"stopped {run}; nothing is lost. This continues it:\n  {shlex.join(driver.command)}"


def stop_job(driver: Driver, address: str | None) -> list[str]:
    """The command that ends a submitted job through Ray."""
    return ["ray", "job", "stop", *(["--address", address] if address else []), str(driver.job)]


def _job() -> str | None:
    """The submission id that this process runs under, where Ray started it."""
    try:
        told = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", ""))
        return told["metadata"]["job_submission_id"]
    except (ValueError, KeyError, TypeError):
        return None
