"""Whether an answer is right: numeric, exact or contained."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from rollouts.types import Episode, Task

Match = Literal["numeric", "exact", "contained", "mixed", "trice"]
"""How an answer is compared with the expected one.

- ``numeric``: the last number of both.
- ``exact``: the same text, case and blanks aside.
- ``contained``: the expected text stands in it.
- ``mixed``: ``numeric`` where a number is expected, else ``contained``: for tasks of several kinds.
- ``trice``: the last numbers as TRICE's evaluation reads them.
"""

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+")
_TRICE_NUMBER = re.compile(r"\d+[\.\,]?\d*")
_TRICE_WORDS = 20


def correctness(task: Task, episode: Episode, match: Match = "numeric") -> float:
    """1.0 where the episode's answer is the task's answer or one of its aliases, else 0.0."""
    if task.answer is None or episode.answer is None:
        return 0.0
    same = _MATCHES[match]
    return float(any(same(episode.answer, expected) for expected in _expected(task)))


def _expected(task: Task) -> Iterable[str]:
    return (task.answer or "", *task.aliases)


def read_number(text: str) -> float | None:
    """The last number in a text, its sign and thousands' commas read; None where there is none."""
    found = [match[0] for match in _NUMBER.finditer(text) if any(character.isdigit() for character in match[0])]
    if not found:
        return None
    value = float(found[-1].replace(",", ""))
    return value if math.isfinite(value) else None


def read_number_as_trice(text: str) -> float:
    """The last number as TRICE's evaluation reads it: signs lost, ``1,234,567`` is 567, no number is 0."""
    found = _TRICE_NUMBER.findall(text)
    try:
        return round(float(found[-1].replace(",", "")), 2) if found else 0.0
    except ValueError:
        return 0.0


def right_as_trice(task: Task, episode: Episode) -> bool:
    """Whether TRICE's own evaluation counts an attempt as right, its quirks included; ``correctness`` is the fair rule.

    Numbers: what the tool came to, or without a call the last number written, equal at two decimals; whatever failed
    counts as 0, and so is right where 0 is expected. Texts: any alias somewhere in what the tool's user answered, or
    without a call (and of multilingual questions always) in the first twenty words.
    """
    if task.answer is None or not episode.finished:
        return False
    if _NUMBER.fullmatch(task.answer.strip()):
        given = _tool_value(episode) if episode.called else read_number_as_trice(episode.answer or "")
        return any(given == _rounded(expected) for expected in _expected(task))
    told = episode.answer or ""
    if not episode.called or task.labels.get("task") == "MLQA":
        told = " ".join(told.split()[:_TRICE_WORDS])
    return any(expected.lower() in told.lower() for expected in _expected(task))


def _tool_value(episode: Episode) -> float:
    """What the first call came to, as a number; 0 where it came to none."""
    seen = episode.observations[0]
    return _rounded(seen.content) if seen.ok else 0.0


def _rounded(text: str) -> float:
    value = read_number(text)
    return 0.0 if value is None else round(value, 2)


def _numeric(given: str, expected: str) -> bool:
    left, right = read_number(given), read_number(expected)
    return left is not None and right is not None and math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-9)


def _trice(given: str, expected: str) -> bool:
    return read_number_as_trice(given) == read_number_as_trice(expected)


def _normal(text: str) -> str:
    return " ".join(text.lower().split())


def _exact(given: str, expected: str) -> bool:
    return _normal(given) == _normal(expected)


def _contained(given: str, expected: str) -> bool:
    return _normal(expected) in _normal(given)


def _mixed(given: str, expected: str) -> bool:
    return (_numeric if _NUMBER.fullmatch(expected.strip()) else _contained)(given, expected)


_MATCHES: Mapping[Match, Callable[[str, str], bool]] = {
    "numeric": _numeric,
    "exact": _exact,
    "contained": _contained,
    "mixed": _mixed,
    "trice": _trice,
}
