"""Judges the sandbox by hostile programs: what they were to achieve must not have happened.

A program that is to be ``blocked`` is judged by effects alone, whatever it or the sandbox says: secrets in its output,
files of the host changed, connections received, processes left. The programs know where to aim: files that begin with
``/var/tmp/sbx_canary``, port 18999 on loopback and the abstract socket ``sbx_canary``.
"""

import contextlib
import hashlib
import json
import os
import re
import socket
import sysconfig
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.errors import ConfigError, DataError
from executors.sandbox.pool import SandboxPool
from executors.sandbox.types import SandboxResult

CANARIES = Path("/var/tmp")
NAME = "sbx_canary"
SECRET = CANARIES / f"{NAME}_secret"
PORT = 18999
ON_TIME_S = 0.5
SETTLE_S = 1.0
EFFECTS = re.compile(r"PWNED|CONNECTED|\bSENT\b|LISTENING|LEAKED-STATE|GOT6G|WROTE\dG|MADE100K")
"""What the programs print on standard output where an effect that leaves no other trace has come about."""
ACCEPTED = {
    "ok": {"ok"},
    "error": {"error", "blocked", "killed", "output_limit"},
    "timeout": {"timeout", "error", "blocked", "killed", "output_limit"},
}
"""The statuses that will do, for what must become of a program; of ``blocked`` ones any will."""


@dataclass(frozen=True, slots=True)
class Row:
    """One hostile call, or a control among them."""

    id: str
    tool: str
    input: Any
    """A program, an expression, a request or the text of arguments."""
    must: str
    """``ok``, ``error``, ``timeout`` or ``blocked``."""
    why: Any = ""
    """Of an expression that must be ok, its value; else for people."""

    @property
    def text(self) -> str:
        """The input as text; what is something else is written as JSON."""
        return self.input if isinstance(self.input, str) else json.dumps(self.input)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one row."""

    id: str
    tool: str
    must: str
    got: str
    """What it came to, in the words of ``must``; ``failed`` where what it did beside, or its lateness, undoes it."""
    passed: bool
    seconds: float
    note: str = ""
    """What went wrong; empty where nothing did."""
    status: str = ""
    """What the part that bore the call said itself."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSONL file.

    Raises:
        DataError: it cannot be read, or a line is not a row.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read hostile calls from {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            rows.append(Row(str(found["id"]), found["tool"], found["input"], found["must"], found.get("why", "")))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path}:{number} is not a hostile call ({type(error).__name__}: {error}); "
                "each line is an object with id, tool, input and must"
            ) from error
        if rows[-1].must not in ("ok", "error", "timeout", "blocked"):
            raise DataError(f"{path}:{number}: must is {rows[-1].must!r}; it is one of ok, error, timeout, blocked")
    return rows


def judge_python(rows: Iterable[Row], pool: SandboxPool, *, unsafe: bool = False) -> list[Verdict]:
    """Run programs in order, one at a time, and judge each by its status and its effects.

    Beside what it must come to, every program must be back on time, leave no process, print no more than is kept, and
    leave a worker that answers the next call.

    Args:
        rows: those of the tool ``python``; others are passed over.
        pool: where they run.
        unsafe: run them though the pool isolates nothing. Only on a host that may be lost.

    Raises:
        ConfigError: the pool isolates nothing.
        SandboxUnavailableError: neither tier holds here.
    """
    if pool.config.tier == "none" and not unsafe:
        raise ConfigError("hostile programs are not run without isolation; set sandbox.tier to auto, ns or ll")
    pool.start()
    with _canaries() as canaries:
        return [_judged(row, pool, canaries) for row in rows if row.tool == "python"]


def _judged(row: Row, pool: SandboxPool, canaries: "Canaries") -> Verdict:
    started = time.monotonic()
    result = pool.run_source(row.text)
    seconds = time.monotonic() - started
    effects = canaries.effects(result)
    if row.must == "blocked":
        effects += [f"it printed {found}" for found in sorted(set(EFFECTS.findall(result.stdout)))]
    if seconds > pool.config.wall_s + ON_TIME_S:
        effects.append(f"it took {seconds:.1f} s")
    if len(result.stdout) + len(result.stderr) > 4 * pool.config.output_kb << 10:
        effects.append(f"{len(result.stdout) + len(result.stderr):,} characters were kept")
    if strays := _strays(pool):
        effects.append(f"processes left: {len(strays)}")
    if pool.run_source("6 * 7").value != "42":
        effects.append("the next call failed")
    fits = row.must == "blocked" or result.status in ACCEPTED[row.must]
    if result.status == "internal":
        effects.append(result.error)
    got = row.must if fits and not effects else "failed" if effects else result.status
    note = "; ".join(effects) or _why(fits, result)
    return Verdict(row.id, row.tool, row.must, got, fits and not effects, seconds, note, result.status)


def _why(fits: bool, result: SandboxResult) -> str:
    return "" if fits else (result.error.strip().splitlines() or ["no error"])[-1]


def _strays(pool: SandboxPool) -> list[int]:
    """Processes that stay, after a moment for those that are just ending."""
    deadline = time.monotonic() + SETTLE_S
    while (strays := pool.strays()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return strays


class Canaries:
    """What hostile programs are after, and what shows that one got it."""

    def __init__(self, secrets: Sequence[str], listeners: Sequence[socket.socket]) -> None:
        self._secrets = secrets
        self._listeners = listeners
        self._files = _snapshot()

    def effects(self, result: SandboxResult) -> list[str]:
        """What has happened since the last look that should not have."""
        said = result.stdout + result.stderr + result.value + result.error
        found = ["a secret was printed"] * any(secret in said for secret in self._secrets)
        files = _snapshot()
        changed = sorted(path for path in files.keys() | self._files.keys() if files.get(path) != self._files.get(path))
        if changed:
            found += [f"{path} changed" for path in changed]
            _plant(self._secrets[0])
        self._files = _snapshot()
        return found + ["a connection came in"] * bool(sum(map(_received, self._listeners)))


@contextmanager
def _canaries() -> Iterator[Canaries]:
    """Set them up, and clear them away."""
    mark = os.urandom(8).hex()
    secrets = [f"CANARY-{kind}-{mark}" for kind in ("file", "environment", "memory")]
    path = str(CANARIES / f"{NAME}.sock")
    with ExitStack() as stack:
        stack.callback(_clear)
        _clear()
        _plant(secrets[0])
        stack.callback(_restore, "CANARY_TOKEN", os.environ.get("CANARY_TOKEN"))
        os.environ["CANARY_TOKEN"] = secrets[1]
        listeners = [
            stack.enter_context(_listening(*where))
            for where in (
                (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", PORT)),
                (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", PORT)),
                (socket.AF_UNIX, socket.SOCK_STREAM, path),
                (socket.AF_UNIX, socket.SOCK_DGRAM, f"{path}.dgram"),
                (socket.AF_UNIX, socket.SOCK_STREAM, f"\0{NAME}"),
                (socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{NAME}.dgram"),
            )
        ]
        yield Canaries(secrets, listeners)


@contextmanager
def _listening(family: int, kind: int, address: Any) -> Iterator[socket.socket]:
    with socket.socket(family, kind) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            raise ConfigError(
                f"a canary cannot listen at {address!r}: {error}; is another judgement of hostile calls going on?"
            ) from error
        if kind == socket.SOCK_STREAM:
            listener.listen()
        listener.setblocking(False)
        yield listener


def _received(listener: socket.socket) -> bool:
    """Whether anything has come in since the last look; it is taken out."""
    some = False
    with contextlib.suppress(BlockingIOError):
        while True:
            if listener.type == socket.SOCK_STREAM:
                listener.accept()[0].close()
            else:
                listener.recv(1)
            some = True
    return some


def _places() -> set[Path]:
    """Where programs would leave something to be found, or run, later."""
    python = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    return {CANARIES, Path("/tmp"), Path.home(), Path.cwd(), Path("/usr/lib/python3/dist-packages"), *python}


def _snapshot() -> dict[Path, tuple[Any, ...]]:
    """The canary files with their contents, modes, owners and times."""
    found: dict[Path, tuple[Any, ...]] = {}
    for place in _places():
        for pattern in (f"{NAME}*", "leak*"):
            for path in place.glob(pattern):
                facts = path.lstat()
                content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
                found[path] = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_mtime_ns, facts.st_nlink, content)
    return found


def _plant(secret: str) -> None:
    """Put the secret where the programs look for it, whatever has become of it."""
    SECRET.write_text(secret)
    SECRET.chmod(0o600)


def _clear() -> None:
    for path in CANARIES.glob(f"{NAME}*"):
        if not path.is_dir():
            path.unlink()


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
