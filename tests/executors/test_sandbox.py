"""The pool: what a call gives back, what ends it, and how the pool lives, heals and goes. Harmless programs only."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from executors.errors import ConfigError
from executors.sandbox import launch, pool, posture, worker
from executors.sandbox.pool import SandboxPool
from executors.sandbox.posture import posture as posture_of
from executors.sandbox.types import SandboxConfig, SandboxResult, SandboxUnavailableError

WALL_S = 1.0
HELD = [tier for tier in ("ns", "ll") if posture_of(tier).tier]
pytestmark = pytest.mark.skipif(not HELD, reason="THE SANDBOX WAS NOT TRIED: neither tier holds on this machine")


@pytest.fixture(scope="module", params=["ns", "ll"])
def sandbox(request: pytest.FixtureRequest):
    """A pool of one worker, in each tier."""
    if request.param not in HELD:
        pytest.skip(f"{posture_of(request.param)}")
    with SandboxPool(SandboxConfig(tier=request.param, workers=1, wall_s=WALL_S)) as pool:
        yield pool


def below(sandbox: SandboxPool) -> list[psutil.Process]:
    """Every process of a pool."""
    assert sandbox._zygote
    return [process := psutil.Process(sandbox._zygote.process.pid), *process.children(recursive=True)]


def eventually(holds, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return held


def test_a_program_gives_its_output_and_the_value_of_its_last_line(sandbox):
    result = sandbox.run_source("import sys\nprint('a')\nprint('b', file=sys.stderr)\nx = [1]\nx * 2")
    assert (result.status, result.stdout, result.stderr, result.value) == ("ok", "a\n", "b\n", "[1, 1]")
    assert (result.error, result.truncated) == ("", False)
    assert sandbox.run_source("x = 1").value == ""


def test_an_error_is_the_programs_own_traceback(sandbox):
    result = sandbox.run_source("def f():\n    return 1 / 0\nprint('before')\nf()")
    assert result.status == "error" and result.stdout == "before\n"
    lines = result.error.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1:3] == ['  File "<python>", line 4, in <module>', "    f()"]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "interpreter.py" not in result.error


@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        ("while True: pass", "timeout", "still running after 0.2 s"),
        ("import os; os._exit(0)", "error", "without a result (exit status 0)"),
        ("import os; os.abort()", "error", "SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", "killed", "was killed"),
        ("import os; os.fork()", "blocked", "Operation not permitted"),
        ("x = bytearray(8 << 30)", "error", "MemoryError"),
        ("while True: print('x' * 10_000)", "output_limit", "printed more than"),
        ("import sys; sys.exit('no')", "error", "SystemExit: no"),
        ("x = '\udc80'", "error", "not text"),
        ("print(1)\0", "error", "null bytes"),
        ("#" * 300_000, "error", "300,000 bytes; at most 204,800"),
        ("input()", "error", "EOFError"),
    ],
)
def test_each_end_has_its_status_and_its_reason(sandbox, source, status, reason):
    result = sandbox.run_source(source, timeout=0.2 if status == "timeout" else None)
    assert result.status == status, result
    assert reason in result.error


def test_what_was_printed_before_the_time_was_up_is_kept_though_no_line_was_ended(sandbox):
    result = sandbox.run_source("print('so far', end='')\nwhile True: pass", timeout=0.2)
    assert (result.status, result.stdout) == ("timeout", "so far")


def test_of_long_output_the_beginning_is_kept(sandbox):
    result = sandbox.run_source("print('ab' * 100_000)\n'cd' * 100_000")
    assert result.status == "ok" and result.truncated
    assert result.stdout == "ab" * (32 << 10)
    assert len(result.value) == 64 << 10


def test_bytes_that_are_not_text_are_escaped(sandbox):
    result = sandbox.run_source("import sys\nx = sys.stdout.buffer.write(b'\\xff\\x00ok')")
    assert result.stdout == "\\xff\x00ok"


def test_a_forged_answer_is_not_believed(sandbox):
    forged = "import os\nos.write(3, b'J' + bytes(8) + b'v' + (2).to_bytes(4, 'little') + b'42')\n'real'"
    result = sandbox.run_source(forged)
    assert result.status == "error" and result.value == ""
    assert sandbox.run_source('print(\'{"status": "ok", "value": 42}\')\nraise ValueError').status == "error"


def test_nothing_is_left_for_the_next_call(sandbox):
    sandbox.run_source(
        "import math, builtins, os\nmath.sqrt = builtins.x = 1\nos.makedirs('a/b')\nopen('c', 'w').close()"
    )
    result = sandbox.run_source("import math, builtins, os\nmath.sqrt(4), hasattr(builtins, 'x'), os.listdir()")
    assert result.value == "(2.0, False, [])"


def test_no_environment_and_no_site_packages_are_inherited(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "canary")
    result = sandbox.run_source("import os, sys\nprint(sorted(os.environ))\nsys.path")
    assert set(eval(result.stdout)) <= {"LANG", "LC_CTYPE", "PYTHONHASHSEED", "PWD", "TMPDIR"}
    assert "site-packages" not in result.value


def test_standard_input_can_be_given(sandbox):
    assert sandbox.run_source("int(input()) + int(input())", stdin="1\n2\n").value == "3"
    assert sandbox.run_source("import sys; sys.stdin.read()").value == "''"


def test_random_numbers_differ_between_calls_and_hashes_do_not(sandbox):
    results = [sandbox.run_source("import random\nprint(hash('x'))\nrandom.random()") for _ in range(2)]
    assert results[0].stdout == results[1].stdout
    assert results[0].value != results[1].value


def test_an_interpreter_keeps_variables_files_and_classes(sandbox):
    interpreter = sandbox.open()
    interpreter.run_source("import dataclasses, pickle\n@dataclasses.dataclass\nclass A:\n    x: int = 1")
    interpreter.run_source("a = pickle.loads(pickle.dumps(A(2)))\nopen('f', 'w').write('hi')")
    assert interpreter.run_source("a, open('f').read()").value == "(A(x=2), 'hi')"
    failed = interpreter.run_source("def f(): return 1 / 0\nf()")
    assert failed.status == "error" and not failed.ended and "return 1 / 0" in failed.error
    assert interpreter.run_source("exit()\nb = 1").status == "ok"
    assert interpreter.run_source("a.x").value == "2"
    interpreter.close()
    assert interpreter.run_source("a").status == "internal"


def test_an_interpreter_that_forges_its_answer_and_takes_no_request_is_stopped_in_time(sandbox):
    interpreter = sandbox.open()
    forged = interpreter.run_source(FORGING)
    assert (forged.status, forged.value, forged.ended) == ("ok", "42", False)
    began = time.monotonic()
    stopped = interpreter.run_source("#" * 200_000, timeout=0.3)
    assert (stopped.status, stopped.ended) == ("timeout", True)
    assert time.monotonic() - began < 2
    assert eventually(lambda: not sandbox.strays())
    assert interpreter.run_source("1").value == "1"
    interpreter.close()


FORGING = """
import os, sys
frame = sys._getframe()
while "mark" not in frame.f_locals:
    frame = frame.f_back
os.write(3, frame.f_locals["mark"] + b"v" + (2).to_bytes(4, "little") + b"42")
while True: pass
"""


def test_two_interpreters_share_nothing(sandbox):
    one, two = sandbox.open(), sandbox.open()
    one.run_source("x = 1\nopen('f', 'w').close()")
    assert two.run_source("import os\n'x' in globals(), os.listdir()").value == "(False, [])"
    one.close(), two.close()


def test_an_interpreter_that_had_to_be_stopped_begins_anew(sandbox):
    interpreter = sandbox.open()
    interpreter.run_source("x = 1")
    stopped = interpreter.run_source("print('so far')\nwhile True: pass", timeout=0.2)
    assert (stopped.status, stopped.stdout, stopped.ended) == ("timeout", "so far\n", True)
    assert "NameError" in interpreter.run_source("x").error
    interpreter.close()


def test_an_interpreters_threads_stand_still_between_its_calls(sandbox):
    interpreter = sandbox.open()
    count = "import threading\nn = 0\ndef run():\n    global n\n    while True: n += 1\n"
    interpreter.run_source(count + "threading.Thread(target=run, daemon=True).start()")
    jailed = below(sandbox)[-1]
    assert eventually(lambda: jailed.status() == psutil.STATUS_STOPPED)
    interpreter.close()
    assert eventually(lambda: not jailed.is_running())


def test_calls_wait_for_their_turn(sandbox):
    async def run() -> list[SandboxResult]:
        return await asyncio.gather(*(sandbox.arun_source(f"{number} * 2") for number in range(20)))

    assert [result.value for result in asyncio.run(run())] == [str(2 * number) for number in range(20)]
    assert len(sandbox._idle) == 1


def test_a_worker_is_replaced_when_its_calls_are_spent():
    with SandboxPool(SandboxConfig(workers=1, recycle_calls=2)) as sandbox:
        workers = []
        for _ in range(4):
            assert sandbox.run_source("1").status == "ok"
            workers += list(sandbox._idle)
        assert len(workers) == 2 and len(set(map(id, workers))) == 2


def test_a_worker_or_zygote_that_dies_is_one_internal_result(sandbox):
    sandbox.run_source("1")
    for victim in (below(sandbox)[-1], below(sandbox)[0]):
        os.kill(victim.pid, signal.SIGKILL)
        assert eventually(lambda victim=victim: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
        statuses = [sandbox.run_source("open('x', 'w').write('x')").status for _ in range(3)]
        assert set(statuses[1:]) == {"ok"}, statuses


def test_a_zygote_killed_during_a_call_harms_no_later_one(sandbox):
    async def run() -> SandboxResult:
        call = asyncio.create_task(sandbox.arun_source("while True: pass"))
        assert await asyncio.to_thread(eventually, sandbox.strays)
        os.killpg(sandbox._zygote.process.pid, signal.SIGKILL)
        return await call

    sandbox.run_source("1")
    jailed_before = sandbox.strays()
    assert jailed_before == []
    assert asyncio.run(run()).status == "internal"
    assert sandbox.run_source("6 * 7").value == "42"


def test_closing_leaves_no_process_and_no_folder():
    for tier in HELD:
        sandbox = SandboxPool(SandboxConfig(tier=tier, workers=1))
        before = set(Path(tempfile.gettempdir()).glob("sandbox-*"))
        sandbox.run_source("open('x', 'w').write('x')")
        interpreter = sandbox.open()
        interpreter.run_source("open('x', 'w').write('x')")
        processes = below(sandbox)
        sandbox.close()
        assert eventually(lambda processes=processes: not any(process.is_running() for process in processes))
        assert set(Path(tempfile.gettempdir()).glob("sandbox-*")) == before
        assert sandbox.run_source("1").value == "1"
        sandbox.close()


def test_a_fork_that_fails_is_an_error_and_never_a_process_to_kill(monkeypatch):
    class Full:
        def fork(self) -> int:
            return -1

    monkeypatch.setattr(worker, "_libc", Full())
    with pytest.raises(OSError, match="fork"):
        worker._fork()
    for process in (-1, 0, 1):
        with pytest.raises(ValueError, match="is not a call's"):
            worker._kill(process)


@pytest.mark.parametrize("tier", ["ns", "ll"])
def test_when_the_owner_is_killed_all_of_it_goes(tier, tmp_path):
    if tier not in HELD:
        pytest.skip(f"{posture_of(tier)}")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, tier], stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert owner.stdout and owner.stdout.readline() == b"running\n"
    processes = psutil.Process(owner.pid).children(recursive=True)
    assert len(processes) >= 3
    owner.kill()
    owner.wait()
    assert eventually(lambda: not any(process.is_running() for process in processes))
    assert list(tmp_path.iterdir()) == []
    owner.stdout.close()


OWNER = """
import os, sys, threading, time
from executors.sandbox.pool import SandboxPool
from executors.sandbox.types import SandboxConfig
pool = SandboxPool(SandboxConfig(tier=sys.argv[1], workers=1, wall_s=30))
pool.run_source("open('x', 'w').write('x')")
threading.Thread(target=pool.run_source, args=("open('x', 'w').write('x')\\nwhile True: pass",)).start()
while not pool.strays(): time.sleep(0.01)
print("running", flush=True)
"""


def test_a_pool_is_sent_and_forked_as_its_config(sandbox):
    copy = pickle.loads(pickle.dumps(sandbox))
    assert copy.config == sandbox.config and copy._zygote is None
    sandbox.run_source("1")
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writes, sandbox.run_source("6 * 7").value.encode())
        sandbox.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reads, 9) == b"42"
    os.close(reads), os.close(writes)
    assert sandbox.run_source("7").value == "7"


def test_modules_from_beyond_the_standard_library_are_there_only_if_named():
    pytest.importorskip("numpy")
    for tier in HELD:
        with SandboxPool(SandboxConfig(tier=tier, workers=1, modules=("numpy",))) as sandbox:
            assert sandbox.run_source("import numpy as np\nint(np.arange(4).reshape(2, 2).sum())").value == "6"
            assert sandbox.run_source("import torch").status in ("error", "blocked")
            outside = sandbox.run_source(f"print(open({psutil.__file__!r}).read())")
            assert outside.status in ("error", "blocked") and outside.stdout == ""
    with pytest.raises(ConfigError, match="'not_there', which is not installed"):
        SandboxPool(SandboxConfig(modules=("not_there",))).start()


def test_a_call_reads_the_standard_library_and_nothing_else_of_python(sandbox):
    installed = list(Path(os.__file__).parent.glob("site-packages/*/__init__.py"))[:1]
    assert sandbox.run_source("import os\nlen(open(os.__file__).read()) > 0").value == "True"
    for path in map(str, (psutil.__file__, __file__, launch.__file__, sys.executable, *installed)):
        read = sandbox.run_source(f"print(len(open({path!r}, 'rb').read()))")
        assert read.status in ("error", "blocked") and read.stdout == "", path


def test_a_config_keeps_to_its_caps():
    with pytest.raises(ConfigError, match=r"sandbox\.wall_s is 31; it must be more than 0 and at most 30"):
        SandboxConfig(wall_s=31)
    with pytest.raises(ConfigError, match=r"sandbox\.memory_mb is 8192"):
        SandboxConfig(memory_mb=8192)
    with pytest.raises(ConfigError, match=r"sandbox\.workers is 0"):
        SandboxConfig(workers=0)
    with pytest.raises(ConfigError, match=r"sandbox\.tier is 'docker'; it is one of auto, ns, ll, none"):
        SandboxConfig(tier="docker")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"sandbox\.wall_s is nan"):
        SandboxConfig(wall_s=float("nan"))


def test_without_bubblewrap_the_tier_is_ll_and_the_posture_says_why(monkeypatch):
    if "ll" not in HELD:
        pytest.skip("no landlock")
    monkeypatch.setenv("PATH", "")
    found = posture_of()
    assert found.tier == "ll" and found.bubblewrap == ""
    assert "landlock ABI" in str(found) and "bubblewrap is not installed" in str(found)
    with SandboxPool(SandboxConfig(workers=1)) as sandbox:
        assert sandbox.start().tier == "ll"
        assert sandbox.run_source("6 * 7").value == "42"


def test_where_neither_tier_holds_nothing_is_run(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(posture.landlock, "abi", lambda: 0)
    with pytest.raises(SandboxUnavailableError) as refused:
        SandboxPool().run_source("1")
    for part in ("bubblewrap is not installed", "no landlock", "--unsafe-local-exec", "none is run"):
        assert part in str(refused.value)


def test_a_pool_whose_self_test_fails_refuses_or_takes_the_other_tier(monkeypatch):
    monkeypatch.setattr(pool, "self_test", lambda run: ["no process"])
    with pytest.raises(SandboxUnavailableError, match=r"ns was tried and the self-test failed: no process"):
        SandboxPool(SandboxConfig(tier="ns" if "ns" in HELD else "ll")).start()
    if HELD == ["ns", "ll"]:
        outcomes = iter([["no UDP"], []])
        monkeypatch.setattr(pool, "self_test", lambda run: next(outcomes))
        with SandboxPool() as sandbox:
            found = sandbox.start()
            assert found.tier == "ll" and "ns was tried and the self-test failed: no UDP" in found.reason


def test_the_self_test_sees_that_nothing_holds_where_nothing_is_done():
    zygote = launch.Zygote.start(SandboxConfig(tier="none"), "none")
    try:
        failed = pool._test(zygote, SandboxConfig(tier="none"))
    finally:
        zygote.close()
    expected = {"no file of the host is read", "no file of the host is written or changed", "no TCP", "no UDP"}
    expected |= {
        "no abstract socket",
        "no datagram by a pair",
        "no process",
        "no connection",
        "no dangerous system call",
    }
    assert expected <= set(failed)
    assert not {"ordinary programs run", "time is bounded", "memory is bounded"} & set(failed)


def test_unsafe_execution_works_and_says_so_each_time(capfd):
    for _ in range(2):
        with SandboxPool(SandboxConfig(tier="none", workers=1)) as sandbox:
            assert sandbox.run_source("6 * 7").value == "42"
            assert sandbox.run_source("while True: pass", timeout=0.1).status == "timeout"
    assert capfd.readouterr().err.count("WITHOUT isolation") == 2


def test_of_a_traceback_of_very_many_frames_only_the_innermost_are_looked_at(sandbox):
    deep = "import sys\nsys.setrecursionlimit(20_000)\ndef f(n):\n    return f(n + 1)\nf(0)"
    result = sandbox.run_source(deep)
    assert result.status == "error"
    assert "[Previous line repeated 997 more times]\nRecursionError" in result.error
