"""Values for the arguments of imagined calls: like those that are known, of many looks, and short enough to be said.

What is known of an argument are its examples, what its description names, what worked, and what the tool said when it
refused. Where nothing is known of it, an argument of a similar name may tell.
"""

import calendar
import random
import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from rollouts.memory import Memory, named_values

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")
_DIGITS = re.compile(r"\d+")
_WHOLE = re.compile(r"\bwhole\b|\binteger", re.IGNORECASE)
_MONTH = re.compile(r"\b(" + "|".join((*calendar.month_name[1:], *calendar.month_abbr[1:])) + r")\b")
_LENGTHS = (1, 1, 2, 2, 2, 3, 3, 4)
"""Digits of numbers of which nothing is known; short ones are the usual ones."""


def candidates(properties: Mapping[str, Any], name: str, memory: Memory, draw: random.Random) -> list[Any]:
    """Values to choose from for one argument; none where the schema itself says which there are.

    Args:
        properties: the schemas of all arguments.
        name: of the one.
        memory: what was tried with the tool.
        draw: settles every choice.
    """
    schema = properties[name]
    if not isinstance(schema, Mapping) or "enum" in schema or "const" in schema or schema.get("type") == "boolean":
        return []
    told = [*schema.get("examples", ()), *([schema["default"]] if "default" in schema else ())]
    kind, items = schema.get("type"), schema.get("items", {})
    whole = any(map(_WHOLE.search, (memory.spec.description, str(schema.get("description")), *memory.refusals())))
    if kind in ("integer", "number"):
        worked = told if told and draw.random() < 0.5 else []
        return [varied(value, draw) for value in worked] or [number(draw, whole=whole or kind == "integer")]
    if kind == "array" and isinstance(items, Mapping) and items.get("type") in ("integer", "number"):
        least, most = schema.get("minItems", 1), min(schema.get("maxItems", 3), 4)
        count = draw.randint(least, max(least, most))
        return [[number(draw, whole=whole or items["type"] == "integer") for _ in range(count)]]
    if kind != "string":
        return [varied(value, draw) for value in told]
    return _texts(properties, name, told, memory, draw)


def _texts(
    properties: Mapping[str, Any], name: str, told: Sequence[Any], memory: Memory, draw: random.Random
) -> list[Any]:
    """Texts for an argument: those that are told, those that worked, and those that errors named."""
    named = [*told, *named_values(str(properties[name].get("description", "")))]
    worked, failed = memory.worked(name), {repr(value) for value in memory.failed(name)}
    offered = [value for value in memory.offered() if repr(value) not in failed]
    if not named and not worked:
        named = [value for other in _akin(properties, name) for value in _known(properties, other, memory)]
    if offered and failed and draw.random() < (0.7 if len(worked) < 3 else 0.2):
        return [varied(value, draw) for value in offered]
    return [varied(value, draw) for value in (*named, *worked)] if draw.random() < 0.9 else []


def _known(properties: Mapping[str, Any], name: str, memory: Memory) -> list[Any]:
    return [*named_values(str(properties[name].get("description", ""))), *memory.worked(name)]


def _akin(properties: Mapping[str, Any], name: str) -> list[str]:
    """Other texts whose name shares a word with that of an argument: from_unit and to_unit."""
    own = set(name.lower().split("_"))
    texts = [other for other, schema in properties.items() if isinstance(schema, Mapping) and other != name]
    return [other for other in texts if properties[other].get("type") == "string" and own & set(other.split("_"))]


def number(draw: random.Random, *, whole: bool = False) -> int | float:
    """A number of one to four digits, now and then with decimals or below zero."""
    digits = draw.choice(_LENGTHS)
    value = draw.randint(10 ** (digits - 1), 10**digits - 1) * (-1 if draw.random() < 0.05 else 1)
    if whole or draw.random() < 0.6:
        return value
    return value / 10 ** draw.choice((1, 1, 2))


def varied(value: Any, draw: random.Random) -> Any:
    """A value of the same look: other digits, another date, the same words."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return draw.randint(-9, 99) if abs(value) < 100 else draw.randint(abs(value) // 10, abs(value) * 2)
    if isinstance(value, float):
        return round(value * draw.uniform(-0.2, 2), draw.choice((1, 1, 2)))
    if isinstance(value, list):
        return [varied(item, draw) for item in value]
    if isinstance(value, str) and _ISO.fullmatch(value):
        return (date(2000, 1, 1) + timedelta(days=draw.randrange(12_000))).isoformat()
    if isinstance(value, str):
        return _DIGITS.sub(
            lambda found: _number_like(found[0], draw), _MONTH.sub(lambda found: _month(found[0], draw), value)
        )
    return value


def _month(name: str, draw: random.Random) -> str:
    """Another month, as long or as short."""
    return draw.choice((calendar.month_abbr if len(name) == 3 else calendar.month_name)[1:])


def _number_like(digits: str, draw: random.Random) -> str:
    """Other digits: a year remains one, a day of a month too, a longer number may lose or gain a digit."""
    if len(digits) == 4 and digits[:2] in ("19", "20"):
        return str(draw.randint(1950, 2049))
    if len(digits) == 2:
        return str(draw.randint(1, 28)) if int(digits) <= 31 else str(draw.randint(10, 99))
    length = max(1, min(len(digits) + draw.choice((-1, 0, 0, 1)), 18))
    return str(draw.randint(10 ** (length - 1), 10**length - 1))
