"""Whether an answer is right: numeric, exact or contained."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from rollouts.types import Episode, Task

Match = Literal["numeric", "exact", "contained", "trice"]

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+")
_TRICE_NUMBER = re.compile(r"\d+[\.\,]?\d*")


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


_MATCHES: Mapping[Match, Callable[[str, str], bool]] = {
    "numeric": _numeric,
    "exact": _exact,
    "contained": _contained,
    "trice": _trice,
}
