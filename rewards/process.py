"""Whether an attempt made the calls that it should have, by rule: ToolAlpaca's process correctness without a model.

Every expected call has to be there once for itself, under the same name and with arguments that agree; and nothing
else may be called, save what asks the user or reads what was cut off. How many of the expected arguments have to agree
is the level's to say.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["names", "required", "mentioned", "all"]
LEVELS: tuple[Level, ...] = ("names", "required", "mentioned", "all")
"""Which expected arguments have to agree, each level with those of the one before.

- ``names``: none.
- ``required``: those that the documentation requires.
- ``mentioned``: those whose value stands in the instruction, too.
- ``all``: all.
"""
HELPERS = frozenset({"getDetails", "retrievalDataFromFile"})
"""Functions that may be called at any time: they ask the user, or read what was too long to show."""
WILDCARD = "${}"
"""Stands in for an expected value that only the episode knows."""

_PLACEHOLDER = re.compile(r'"?\$\{[^{}",\]]*\}?"?')
_QUOTED_PLACEHOLDER = re.compile(r'"\{[^{}":,]*\}"')
_OPTIONAL = "[Optional]"


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a solution; of an expected one, where values may be wildcards."""

    tool: str
    arguments: Mapping[str, Any] | None
    """None where they cannot be read."""
    optional: bool = False
    """Whether it need not be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What is known of a task besides its expected calls."""

    text: str = ""
    required: Mapping[str, Collection[str]] = field(default_factory=dict)
    """By function, the parameters that its documentation requires."""
    secrets: Collection[str] = ()
    """Parameters that authenticate: their values are never compared."""


def read_gold(action: str, arguments: str) -> Step:
    """An expected call as ToolAlpaca writes it: ``[Optional]`` before a name, ``${id from search}`` for a value."""
    optional = action.strip().startswith(_OPTIONAL)
    name = action.strip().removeprefix(_OPTIONAL).strip()
    text = _QUOTED_PLACEHOLDER.sub(f'"{WILDCARD}"', _PLACEHOLDER.sub(f'"{WILDCARD}"', arguments))
    return Step(name, _object(text), optional)


def read_step(action: str, arguments: str) -> Step:
    """A call that was made."""
    return Step(action.strip(), _object(arguments))


def process_correct(gold: Sequence[Step], made: Sequence[Step], told: Instruction, level: Level) -> bool:
    """Whether the calls that were made are the expected ones.

    Args:
        gold: the expected calls, in any order.
        made: the calls of an attempt.
        told: what the instruction and the documentation say.
        level: which arguments have to agree.
    """
    names = {step.tool for step in gold} | HELPERS
    if any(step.tool not in names for step in made):
        return False
    needed = [step for step in gold if not step.optional]
    return all_matched(
        [[place for place, step in enumerate(made) if _same_call(one, step, told, level)] for one in needed]
    )


def agrees(expected: Any, given: Any) -> bool:
    """Whether a value is as good as the expected one.

    Case and blanks at the ends do not count, a number may be written as a text, lists (and texts that list things by
    commas) may be in another order, objects may say more; an empty expected value, or one that is a placeholder, agrees
    with anything.
    """
    if expected in ("", None, WILDCARD) or (isinstance(expected, Mapping | list) and not expected):
        return True
    if isinstance(expected, Mapping):
        return isinstance(given, Mapping) and all(
            key in given and agrees(expected[key], given[key]) for key in expected
        )
    if isinstance(expected, list):
        if all(item == WILDCARD for item in expected):
            return True
        return isinstance(given, list) and len(given) == len(expected) and _same_items(expected, given)
    left, right = _number(expected), _number(given)
    if isinstance(expected, str) and isinstance(given, str) and "," in expected:
        return sorted(_listed(expected)) == sorted(_listed(given))
    if left is not None and right is not None:
        return left == right
    return str(expected).strip().casefold() == str(given).strip().casefold()


def all_matched(choices: Sequence[Sequence[int]]) -> bool:
    """Whether everyone can have one of their choices for themselves (a bipartite matching).

    Args:
        choices: for each, the places that would do.
    """
    holder: dict[int, int] = {}

    def seat(one: int, refused: set[int]) -> bool:
        for place in choices[one]:
            if place not in refused:
                refused.add(place)
                if place not in holder or seat(holder[place], refused):
                    holder[place] = one
                    return True
        return False

    return all(seat(one, set()) for one in range(len(choices)))


def _same_call(gold: Step, made: Step, told: Instruction, level: Level) -> bool:
    if gold.tool != made.tool:
        return False
    compared = _compared(gold, told, level)
    if not compared:
        return True
    given = made.arguments
    return given is not None and all(
        agrees(value, given.get(name)) if name in given else _free(value) for name, value in compared.items()
    )


def _compared(gold: Step, told: Instruction, level: Level) -> Mapping[str, Any]:
    """The expected arguments that have to agree."""
    if level == "names" or gold.arguments is None or gold.tool in HELPERS:
        return {}
    open_to_all = {name: value for name, value in gold.arguments.items() if name not in told.secrets}
    if level == "all":
        return open_to_all
    required = told.required.get(gold.tool, ())
    instruction = told.text.casefold()
    return {
        name: value
        for name, value in open_to_all.items()
        if name in required or (level == "mentioned" and _mentioned(value, instruction))
    }


def _mentioned(value: Any, instruction: str) -> bool:
    if isinstance(value, Mapping | list):
        parts = value.values() if isinstance(value, Mapping) else value
        return bool(value) and all(_mentioned(part, instruction) for part in parts)
    return str(value).strip() != "" and str(value).strip().casefold() in instruction


def _free(value: Any) -> bool:
    """Whether an expected value need not be given at all."""
    return agrees(value, object())


def _same_items(expected: list[Any], given: list[Any]) -> bool:
    return all_matched([[place for place, item in enumerate(given) if agrees(one, item)] for one in expected])


def _listed(text: str) -> list[str]:
    return [part.strip().casefold() for part in text.split(",")]


def _number(value: Any) -> float | None:
    try:
        return float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError):
        return None


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
