"""Runs a corpus of hostile calls, each by the part of the executors that has to bear it."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from executors.hostile.arguments import judge_json_args
from executors.hostile.http import judge_http
from executors.hostile.python import Row, Verdict, judge_python, read_rows
from executors.sandbox.pool import SandboxPool
from executors.sandbox.types import SandboxConfig
from executors.tools.calculator import outcome

ON_TIME_S = 1.0


def judge(path: Path, config: SandboxConfig = SandboxConfig()) -> list[Verdict]:
    """Run every call of a corpus and say what became of it.

    Args:
        path: JSON lines with ``id``, ``tool`` (python, calculator, http or json_args), ``input``, and ``must``: ok,
            error, timeout or blocked. Of a calculator row that must be ok, ``why`` is the value.
        config: of the sandbox that the programs run in.

    Raises:
        DataError: the file or one of its lines cannot be read.
        SandboxUnavailableError: there are programs, and no sandbox holds here.
    """
    rows = read_rows(path)
    judges: dict[str, Callable[[list[Row]], list[Verdict]]] = {
        "python": lambda some: _python(some, config),
        "calculator": lambda some: [_calculator(row) for row in some],
        "http": _http,
        "json_args": _json_args,
    }
    verdicts: dict[int, Verdict] = {}
    for tool, judged in judges.items():
        if places := [place for place, row in enumerate(rows) if row.tool == tool]:
            verdicts |= zip(places, judged([rows[place] for place in places]), strict=True)
    return [verdicts.get(place) or _unknown(row, judges) for place, row in enumerate(rows)]


def _python(rows: list[Row], config: SandboxConfig) -> list[Verdict]:
    pool = SandboxPool(config)
    try:
        return judge_python(rows, pool)
    finally:
        pool.close()


def _calculator(row: Row) -> Verdict:
    """Nothing of an expression is ever run, so one that must be blocked may be refused in any words."""
    started = time.perf_counter()
    got, said = outcome(row.text)
    seconds = time.perf_counter() - started
    fits = got == "ok" and _equal(said, row.why) if row.must == "ok" else got in ("error", "blocked")
    return _told(row, got, fits, seconds, f"it came to {said}")


def _http(rows: list[Row]) -> list[Verdict]:
    started = time.perf_counter()
    found = judge_http([{"id": row.id, "must": row.must, "input": row.text} for row in rows])
    seconds = (time.perf_counter() - started) / len(rows)
    return [Verdict(v.id, "http", v.must, v.got, v.passed, seconds, "" if v.passed else v.detail) for v in found]


def _json_args(rows: list[Row]) -> list[Verdict]:
    verdicts = []
    for row in rows:
        started = time.perf_counter()
        (got,) = judge_json_args([{"input": row.text}])
        seconds = time.perf_counter() - started
        fits = got == row.must or (row.must != "ok" and got == "error")
        verdicts.append(_told(row, got, fits, seconds, f"it came to {got}"))
    return verdicts


def _told(row: Row, status: str, fits: bool, seconds: float, fault: str) -> Verdict:
    late = f"late: {seconds:.1f} s" if seconds > ON_TIME_S else ""
    passed = fits and not late
    got = row.must if passed else status if status != row.must else "failed"
    return Verdict(row.id, row.tool, row.must, got, passed, seconds, late or ("" if fits else fault), status)


def _unknown(row: Row, known: Sequence[str] | dict[str, Any]) -> Verdict:
    return Verdict(row.id, row.tool, row.must, "none", False, 0.0, f"no such tool; there are {', '.join(known)}")


def _equal(got: Any, expected: Any) -> bool:
    """Whether a value is the expected one; a corpus that gives none asks for none."""
    try:
        return abs(float(got) - float(expected)) <= 1e-9 * max(1.0, abs(float(expected)))
    except (TypeError, ValueError):
        return True
