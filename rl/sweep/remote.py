"""A grid's runs as Ray tasks: each is the command itself, in a process of its own that joins the cluster."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ray
from ray.exceptions import RayError

from rl.sweep.grid import Job

_KEPT = 4000
"""Characters of a failed run's last words."""
_INHERITED = (
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_AUTH_TOKEN",
    "APPRENTICE_DATA",
    "APPRENTICE_UNSAFE_LOCAL_EXEC",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    job: Job
    code: int
    """Exit status of the command."""
    said: str
    """The last of what it printed."""


def run_jobs(jobs: Sequence[Job], address: str, notice: Callable[[Outcome], None], *, parallel: int) -> list[Outcome]:
    """Run what is not done yet, a number at once.

    Args:
        jobs: the runs.
        address: of the cluster, which each run joins.
        notice: called with each that ends.
        parallel: runs at once.

    Returns:
        Those that did not end well.
    """
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    if environment.keys() & {"RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN"}:
        environment.setdefault("RAY_AUTH_MODE", "token")  # ray.init has set it for this process alone
    waiting = [job for job in jobs if not job.done]
    under_way: dict[ray.ObjectRef, Job] = {}
    failed = []
    train = ray.remote(num_cpus=0, max_retries=1)(_train)
    try:
        while waiting or under_way:
            while waiting and len(under_way) < parallel:
                job = waiting.pop(0)
                under_way[train.remote(job, address, environment, os.getcwd())] = job
            (ended,), _ = ray.wait(list(under_way), num_returns=1)
            job = under_way.pop(ended)
            outcome = _outcome(job, ended)
            notice(outcome)
            if outcome.code:
                failed.append(outcome)
    finally:
        for reference in under_way:
            with contextlib.suppress(RayError):
                ray.cancel(reference, force=False)
    return failed


def _outcome(job: Job, reference: ray.ObjectRef) -> Outcome:
    try:
        return ray.get(reference, timeout=60)
    except RayError as error:
        return Outcome(job, 1, str(error)[-_KEPT:])


def _train(job: Job, address: str, environment: Mapping[str, str], folder: str) -> Outcome:
    """One run, in the process of a Ray task; a task that is cancelled interrupts it, so that it can be resumed."""
    full = {**os.environ, **environment, "RAY_ADDRESS": address}
    process = subprocess.Popen(
        [sys.executable, "-m", "rl", *job.arguments()],
        cwd=folder,
        env=full,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate()
    except BaseException:
        process.terminate()
        process.wait(timeout=60)
        raise
    return Outcome(job, process.returncode, said[-_KEPT:])
