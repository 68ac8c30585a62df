"""Why a run's processes failed: what they left behind, read for the likeliest cause, and what to try."""

import contextlib
import re
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

OWN_CODE, OUT_OF_MEMORY, LOST, TOO_LATE, FAILED = 4, 5, 6, 7, 1
"""Exit codes of the command, by cause; 2 and 3 are mistakes in a config and in data, 130 is a run that was stopped."""
_SECONDS = 5.0
_LINES = 12
"""Of a dead worker's log."""
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_PID = re.compile(r"\bpid[:=]\s*(\d+)")
_RAISED = re.compile(r"^(?:\x1b\[\d+m)*([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning))\b:? ?(.*)$")
_OURS = Path(__file__).resolve().parents[1]
_PACKAGES = ("executors", "rollouts", "rewards", "rl")
_MEMORY = ("out of memory", "outofmemory", "memory monitor", "bad_alloc", "memoryerror", "cannot allocate memory")
_NODE = ("node died", "nodediederror", "lost node", "node is dead", "its node has died", "node failure")
_LATE = ("gettimeouterror", "nothing came for", "timed out", "no answer within", "within the timeout")
_KILLED = ("sigkill", "connection error code 2", "worker process has died", "died unexpectedly", "actordiederror")


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that it may have been."""

    name: str
    weight: int
    """How much speaks for it: the most is told first."""
    evidence: str
    remedy: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is known of one."""

    message: str
    causes: tuple[Cause, ...]
    """The likeliest first; at least one."""
    frame: str = ""
    """The innermost line of the user's own code that the error passed, and the error."""
    process: int | None = None
    memory: str = ""
    """Of the dead process, when it was last seen."""
    log: tuple[str, ...] = ()
    """The last lines that it wrote."""
    log_path: str = ""

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return self.causes[0].exit_code

    def lines(self) -> list[str]:
        """For the user."""
        likely, *others = self.causes
        told = [f"error: {self.message}", f"likely     {likely.name}: {likely.evidence}"]
        told += [f"           or {other.name}: {other.evidence}" for other in others[:2]]
        told += [f"your code  {self.frame}"] if self.frame else []
        told += (
            [f"process    {self.process}: {self.memory or 'nothing is known of its memory'}"] if self.process else []
        )
        if self.log:
            told += [f"its log    {self.log_path}, the end of it:", *(f"           | {line}" for line in self.log)]
        return [*told, f"try        {likely.remedy}"]


@dataclass(slots=True)
class Witness:
    """What this machine's processes took, from time to time, for the one that is found dead later."""

    seen: dict[int, tuple[float, int]] = field(default_factory=dict)
    """By process, when it was last seen (monotonic) and how many bytes of memory it held then."""

    def look(self) -> None:
        """See what the processes below this one hold."""
        now = time.monotonic()
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                self.seen[process.pid] = (now, process.memory_info().rss)

    def told(self, pid: int) -> str:
        """What was seen of a process; empty where nothing was."""
        if pid not in self.seen:
            return ""
        when, held = self.seen[pid]
        total = psutil.virtual_memory().total
        return (
            f"held {held / 2**20:,.0f} MiB when last seen {time.monotonic() - when:.0f} s ago, of "
            f"{total / 2**20:,.0f} that the machine has"
        )


@contextlib.contextmanager
def witnessed(witness: Witness) -> Iterator[None]:
    """Look at the processes below this one every few seconds, for as long as this lasts."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_SECONDS):
            witness.look()

    thread = threading.Thread(target=watch, name="witness", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def explain(error: BaseException, logs: Path, witness: Witness | None = None) -> Failure:
    """Find out why processes of a run failed.

    Args:
        error: what the driver was told; what caused it is read too.
        logs: the run's folder of logs.
        witness: what was seen of the processes.
    """
    text = "\n".join(_told(error))
    found = [int(pid) for pid in _PID.findall(text)]
    process = found[-1] if found else None
    path, log = _log_of(process, logs)
    memory = witness.told(process) if witness is not None and process is not None else ""
    frame = own_frame_in(text) or own_frame_in("\n".join(log))
    causes = sorted(_causes(text, "\n".join(log), frame, memory), key=lambda cause: -cause.weight)
    return Failure(
        message=str(error).splitlines()[0] if str(error) else type(error).__name__,
        causes=tuple(causes),
        frame=frame,
        process=process,
        memory=memory,
        log=tuple(log[-_LINES:]),
        log_path=str(path) if path else "",
    )


def write_failure(failure: Failure, run: Path) -> Path:
    """Keep what is known of a failure in the run's folder."""
    folder = run / "errors"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}.txt"
    path.write_text("\n".join(failure.lines()) + "\n")
    return path


def own_frame_in(text: str) -> str:
    """The innermost line of a user's own code in tracebacks, with the error; empty where there is none."""
    own, error = "", ""
    for line in text.splitlines():
        if match := _FRAME.search(line):
            path, number, name = match.groups()
            if _is_own(Path(path)):
                own, error = f"{path}, line {number}, in {name}", ""
        elif own and not error and (raised := _RAISED.match(line.strip())):
            error = f"{raised[1]}: {raised[2]}".rstrip(": ")
    return f"{own}: {error}" if own and error else own


def _is_own(path: Path) -> bool:
    """Whether a file is neither Python's, nor of an installed package, nor of this project."""
    if not path.is_absolute() or "site-packages" in path.parts or "dist-packages" in path.parts:
        return False
    foreign = [Path(sysconfig.get_path("stdlib")), *(_OURS / package for package in _PACKAGES), Path(sys.prefix)]
    return not any(path.is_relative_to(folder) for folder in foreign)


def _told(error: BaseException | None) -> Iterator[str]:
    """What an error says, and what caused it, and that."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield f"{type(error).__name__}: {error}"
        failures = getattr(error, "worker_failures", None)
        if isinstance(failures, Mapping):
            yield from (f"{type(one).__name__}: {one}" for one in failures.values())
        inner = getattr(error, "cause", None)
        error = error.__cause__ or (inner if isinstance(inner, BaseException) else error.__context__)


def _log_of(process: int | None, logs: Path) -> tuple[Path | None, list[str]]:
    """What a process wrote, its errors before all else."""
    if process is None:
        return None, []
    for kind in ("err", "out"):
        for path in sorted(logs.glob(f"**/*-{process}.{kind}")):
            lines = [line.rstrip() for line in path.read_text(errors="replace").splitlines()]
            told = [line for line in lines if line and not line.startswith(":")]  # Ray's own marks
            if told:
                return path, told
    return None, []


def _causes(text: str, log: str, frame: str, memory: str) -> Iterator[Cause]:
    said, wrote = text.lower(), log.lower()
    gpu = "cuda" in said + wrote
    if named := next((word for word in _MEMORY if word in said + wrote), None):
        where = "learner.max_tokens or the batch" if gpu else "rollouts.workers, learner.max_tokens or the model"
        remedy = f"take less: smaller {where}; 'apprentice plan' says what each process takes"
        yield Cause("out of memory", 90, f"it says {named!r}", remedy, OUT_OF_MEMORY)
    if frame:
        remedy = "mend that line, try it with 'apprentice check', then --resume"
        yield Cause("your own code", 80, "an exception came through it", remedy, OWN_CODE)
    if named := next((word for word in _NODE if word in said), None):
        remedy = "--resume continues; 'ray status' says which nodes are there"
        yield Cause("a node was lost", 85, f"Ray says {named!r}", remedy, LOST)
    if named := next((word for word in _LATE if word in said), None):
        remedy = "raise rollouts.timeout, or see what the worker waits for in its log; then --resume"
        yield Cause("no answer in time", 70, f"it says {named!r}", remedy, TOO_LATE)
    if any(word in said for word in _KILLED):
        yield from _killed(memory)
    yield Cause(
        "a failure inside a process",
        1,
        "nothing says more",
        "see the log above and logs/ of the run; then --resume",
        FAILED,
    )


def _killed(memory: str) -> Iterator[Cause]:
    """A process that went without a word: by the kernel, for want of memory, or by somebody."""
    available = psutil.virtual_memory().available
    short = available < psutil.virtual_memory().total // 10
    held = memory or f"{available / 2**20:,.0f} MiB of the machine's memory are free now"
    remedy = "take fewer or smaller workers ('apprentice plan' says what each takes), then --resume"
    yield Cause(
        "out of memory", 60 if short else 30, f"the kernel ends a process without a word; {held}", remedy, OUT_OF_MEMORY
    )
    remedy = "--resume continues with nothing lost; if it comes again, see the log above"
    yield Cause("a worker was killed", 50, "its process went without a word", remedy, LOST)
