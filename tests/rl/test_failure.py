"""What a user is told when a process of a run fails: the likeliest cause, their own line, the log, the memory."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from executors.errors import DataError
from rewards.own import own_reward
from rl.failure import (
    FAILED,
    LOST,
    OUT_OF_MEMORY,
    OWN_CODE,
    TOO_LATE,
    Witness,
    explain,
    own_frame_in,
    witnessed,
    write_failure,
)
from rl.remote import start_local
from rollouts.types import Episode, Task

KILLED = """ActorDiedError: The actor died unexpectedly before finishing this task.
	class_name: RolloutWorker
	actor_id: 5f
	pid: 4242
	ip: 127.0.0.1
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed
by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed by SIGSEGV."""
TRACEBACK = f"""Traceback (most recent call last):
  File "/home/me/my_tools.py", line 7, in convert
    return rates[unit]
  File "{sys.base_prefix}/lib/python3.11/json/decoder.py", line 1, in decode
KeyError: 'furlong'"""


def failed(text: str, cause: str = "") -> Exception:
    error = RuntimeError(text)
    error.__cause__ = RuntimeError(cause) if cause else None
    return error


@pytest.mark.parametrize(
    ("cause", "name", "code"),
    [
        ("OutOfMemoryError: Task was killed due to the node running low on memory: memory monitor", "out of memory", 5),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "out of memory", OUT_OF_MEMORY),
        (TRACEBACK, "your own code", OWN_CODE),
        ("NodeDiedError: its node has died", "a node was lost", LOST),
        ("GetTimeoutError: nothing came for 900 s", "no answer in time", TOO_LATE),
        ("segmentation of the tasks went wrong", "a failure inside a process", FAILED),
    ],
)
def test_the_likeliest_cause_comes_first_with_a_code_of_its_own(tmp_path, cause, name, code):
    failure = explain(failed("rollout workers died 3 times", cause), tmp_path)
    assert failure.causes[0].name == name
    assert failure.exit_code == code
    assert failure.lines()[-1].startswith("try        ")


def test_a_worker_that_went_without_a_word_is_told_with_its_log_and_its_memory(tmp_path):
    folder = tmp_path / "ray" / "session"
    folder.mkdir(parents=True)
    (folder / "worker-ab-01-4242.err").write_text(":actor_name:W\n" + "\n".join(f"line {n}" for n in range(40)))
    (folder / "worker-ab-01-777.err").write_text("another worker's\n")
    witness = Witness({4242: (time.monotonic() - 3, 300 * 2**20)})
    failure = explain(failed("rollout workers died 3 times over the same 4 tasks", KILLED), tmp_path, witness)
    assert failure.process == 4242
    assert {cause.name for cause in failure.causes[:2]} == {"a worker was killed", "out of memory"}
    assert failure.log[-1] == "line 39" and len(failure.log) == 12
    assert "held 300 MiB when last seen 3 s ago" in failure.memory
    kept = write_failure(failure, tmp_path).read_text()
    assert "process    4242: held 300 MiB" in kept and "| line 39" in kept and "--resume" in kept


def test_the_innermost_line_of_the_users_own_code_is_found_and_no_library_of_others():
    assert own_frame_in(TRACEBACK) == "/home/me/my_tools.py, line 7, in convert: KeyError: 'furlong'"
    ours = f'  File "{Path(__file__).parents[2]}/rl/improve.py", line 3, in improve\nValueError: no'
    packaged = '  File "/x/site-packages/torch/nn.py", line 3, in forward\nValueError: no'
    assert own_frame_in(ours) == own_frame_in(packaged) == ""


def test_a_reward_that_raises_is_told_by_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = tmp_path / "raising_reward_file.py"
    own.write_text("def reward(task, episode):\n    return {}['nothing']\n")
    episode = Episode(task_id="t", source="s", policy="live", version=0, turns=(), answer="1", stop="answer")
    with pytest.raises(
        DataError, match=r"reward fails on an attempt at task 't': line 2, in reward: KeyError"
    ) as caught:
        own_reward(str(own), Task(id="t", prompt="?", answer="1"), episode)
    assert caught.value.exit_code == 3


def test_processes_below_are_seen_while_they_live():
    witness = Witness()
    with witnessed(witness):
        child = psutil.Popen([sys.executable, "-c", "input()"], stdin=-1)
        try:
            witness.look()
            assert "of" in witness.told(child.pid) and witness.told(os.getpid()) == ""
        finally:
            child.kill()
            child.wait()


@pytest.mark.ray
def test_of_a_worker_that_is_killed_ray_tells_enough(tmp_path):
    import ray

    class Worker:
        def pid(self) -> int:
            print("about to work", file=sys.stderr, flush=True)
            return os.getpid()

        def work(self) -> None:
            time.sleep(60)

    cluster = start_local(num_cpus=1, logs=tmp_path)
    try:
        worker = ray.remote(Worker).remote()
        process = ray.get(worker.pid.remote(), timeout=60)
        witness = Witness()
        witness.look()
        pending = worker.work.remote()
        os.kill(process, signal.SIGKILL)
        with pytest.raises(ray.exceptions.RayError) as caught:
            ray.get(pending, timeout=60)
    finally:
        cluster.stop()
    failure = explain(failed("rollout workers died", str(caught.value)), tmp_path, witness)
    assert failure.process == process
    assert {cause.name for cause in failure.causes[:2]} == {"a worker was killed", "out of memory"}
    assert "about to work" in "\n".join(failure.log)
    assert failure.memory.startswith("held ")
