"""Values for a JSON Schema: valid, of the kind that their names promise, and the same for the same seed."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from jsonschema import Draft202012Validator

from executors.errors import DataError
from executors.schemas import vocabulary
from executors.schemas.patterns import matching
from executors.schemas.vocabulary import Draw

Schema = Mapping[str, Any]

ABSENT: Any = object()
"""What a ``known`` function answers where it has no value of its own."""

Path = tuple[str, ...]

Known = Callable[[Path, Schema, Draw], Any]

_EXAMPLES = re.compile(r"(?:e\.g\.|for example|such as|\bone of)[:,]?\s*([^().;]+)", re.IGNORECASE)
_QUOTED = re.compile(r"""["'`“‘]([^"'`”’]{1,40})["'`”’]""")
_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\s*(?:-|–|to|and)\s*(-?\d+(?:\.\d+)?)")
_DATES = (("YYYY-MM-DDTHH", "date-time"), ("YYYY-MM-DD HH", "date-time"), ("YYYY-MM-DD", "date"), ("ISO 8601", "date"))
_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_TRIES = 8
_MAX_NESTING = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Taste:
    """How full the values are."""

    optional: float = 1.0
    """Share of the optional properties that are given."""
    examples: float = 0.35
    """Share of the values that are a schema's example, where it has one."""
    items: int = 2
    """Items of a list inside, where the schema leaves that open; one deeper down."""
    max_depth: int = 6
    """Levels below which only what is required is given."""


def fabricate_arguments(schema: Schema, seed: int | str, *, optional: float = 0.5) -> dict[str, Any]:
    """Arguments that a tool's schema accepts.

    Args:
        schema: of type ``object``, as in ``ToolSpec.parameters``.
        seed: another one gives other arguments.
        optional: share of the optional arguments that are given.

    Raises:
        DataError: none were found; the schema may allow no arguments at all.
    """
    validator = Draft202012Validator(dict(schema))
    taste = Taste(optional=optional, examples=0.6)
    arguments: Any = {}
    for attempt in range(_TRIES):
        arguments = Fabricator(taste, root=schema).value(
            {"type": "object", **schema}, Draw.of("arguments", seed, attempt)
        )
        if isinstance(arguments, dict) and validator.is_valid(arguments):
            return arguments
        taste = Taste(optional=1.0 if attempt % 2 else 0.0, examples=0.0)
    problem = next(iter(validator.iter_errors(arguments))).message
    raise DataError(f"no arguments were found that the schema accepts: {' '.join(problem.split())[:200]}")


class Fabricator:
    """Makes values for the schemas of one document."""

    def __init__(self, taste: Taste = Taste(), *, root: Schema | None = None, known: Known | None = None) -> None:
        """
        Args:
            taste: how full the values are.
            root: what ``$ref`` pointers start from.
            known: asked first for each value, with its path, schema and draw; ``ABSENT`` leaves it to the fabricator.
        """
        self.taste = taste
        self._root = root or {}
        self._known = known

    def value(self, schema: Schema | bool, draw: Draw, path: Path = ()) -> Any:
        """A value for a schema.

        Args:
            schema: JSON Schema 2020-12.
            draw: settles every choice.
            path: the names of the fields that lead to it, from the outermost on; an item's is its list's in singular.
        """
        if isinstance(schema, Mapping) and schema.get("oneOf"):
            return self._one_of(schema, draw, path)
        schema = self.whole(schema, draw)
        if self._known is not None and (found := self._known(path, schema, draw)) is not ABSENT:
            return found
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return draw.at("enum").pick([value for value in schema["enum"] if value is not None] or [None])
        kind, name = _kind(schema), path[-1] if path else ""
        if kind == "object":
            return self._object(schema, draw, path)
        if kind == "array":
            return self._array(schema, draw, path)
        if (example := self._example(schema, draw, name)) is not ABSENT:
            return example
        if kind in ("integer", "number"):
            return _number(schema, draw, name, whole=kind == "integer")
        if kind == "boolean":
            return vocabulary.truth(name, draw)
        return None if kind == "null" else _text(schema, draw, path)

    def _one_of(self, schema: Schema, draw: Draw, path: Path) -> Any:
        """A value for exactly one of several schemas; it may take tries to find one that no other accepts."""
        validator = Draft202012Validator(dict(schema))
        either = {"anyOf": schema["oneOf"], **{key: schema[key] for key in schema if key != "oneOf"}}
        made = self.value(either, draw, path)
        alone = Fabricator(self.taste, root=self._root)
        for attempt in range(_TRIES):
            if validator.is_valid(made):
                break
            made = alone.value(either, draw.at("one", attempt), path)
        return made

    def whole(self, schema: Schema | bool, draw: Draw, depth: int = 0) -> Schema:
        """A schema with its references followed, and one of its alternatives chosen."""
        if isinstance(schema, bool) or depth > _MAX_NESTING:
            return {}
        if isinstance(reference := schema.get("$ref"), str):
            target = _pointed(self._root, reference)
            return self.whole({**target, **{key: schema[key] for key in schema if key != "$ref"}}, draw, depth + 1)
        parts = list(schema.get("allOf") or ())
        options = [item for key in ("anyOf", "oneOf") for item in schema.get(key) or ()]
        if options := [item for item in options if item != {"type": "null"}]:
            parts.append(draw.at("option").pick(options))
        whole = {key: schema[key] for key in schema if key not in ("allOf", "anyOf", "oneOf")} if parts else schema
        for part in parts:
            whole = _both(whole, self.whole(part, draw, depth + 1))
        return whole

    def _example(self, schema: Schema, draw: Draw, name: str) -> Any:
        """One of the schema's own examples, now and then; the ids of things would all be the same."""
        if draw.at("example").share() >= self.taste.examples or vocabulary.words(name)[-1:] == ["id"]:
            return ABSENT
        offered = [*(schema.get("examples") or ()), *([schema["default"]] if "default" in schema else ())]
        plain = {key: item for key, item in schema.items() if key not in ("examples", "default")}
        offered = [item for item in offered if item is not None and fits(item, plain)]
        return draw.at("which").pick(offered) if offered else ABSENT

    def _object(self, schema: Schema, draw: Draw, path: Path) -> dict[str, Any]:
        properties, required = schema.get("properties") or {}, schema.get("required") or ()
        rest = schema.get("additionalProperties", {})
        deep, least = len(path) >= self.taste.max_depth, schema.get("minProperties") or 0
        made: dict[str, Any] = {}
        for key in dict.fromkeys([*properties, *required]):
            item = properties.get(key, rest)
            spared = deep or draw.at("given", key).share() >= self.taste.optional
            if key in required or not spared or len(properties) <= least:
                made[key] = self.value(item, draw.part(key), (*path, key))
        if not made and rest in ({}, True) and not deep and self.taste.optional == 1:
            made["name"] = vocabulary.text("name", draw, path[-1] if path else "")
        named = isinstance(rest, Mapping) and bool(rest) and not properties and not deep
        wanted = max(least, 2 if named else 0)
        names = schema.get("propertyNames") or {"type": "string"}
        for at in range(4 * wanted):
            if len(made) < wanted and rest is not False:
                key = str(self.value(names, draw.alone("name", at), (*path, "code")))
                made.setdefault(key, self.value(rest, draw.alone("rest", at), path))
        return made

    def _array(self, schema: Schema, draw: Draw, path: Path) -> list[Any]:
        first, items = list(schema.get("prefixItems") or ()), schema.get("items", {})
        length = self.length(schema, len(path)) if items is not False else len(first)
        inner = (*path[:-1], vocabulary.singular(path[-1])) if path else ()
        made: list[Any] = []
        for at in range(length * 4):
            if len(made) == length:
                break
            item = first[len(made)] if len(made) < len(first) else items
            value = self.value(item, draw.alone(at), inner)
            if value not in made or (at >= 2 * length and not schema.get("uniqueItems")):
                made.append(value)
        return made

    def length(self, schema: Schema, depth: int) -> int:
        """How many items a list at some depth is given."""
        usual = 0 if depth > self.taste.max_depth else self.taste.items if depth < 3 else 1
        least = max(schema.get("minItems") or 0, len(schema.get("prefixItems") or ()))
        return int(min(max(usual, least), schema.get("maxItems", math.inf)))


def fits(value: Any, schema: Schema) -> bool:
    """Whether a schema accepts a value. Quick for plain values of plain schemas."""
    if isinstance(value, dict | list) or schema.keys() & _HARD:
        return Draft202012Validator(dict(schema)).is_valid(value)
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds = schema.get("type")
    if kinds is None:
        return True
    return any(_is_a(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))


_HARD = {"$ref", "allOf", "anyOf", "oneOf", "not", "if", "const", "pattern", "minLength", "maxLength", "multipleOf"}
_HARD |= {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and (isinstance(value, int) or value.is_integer()))
    return (kind == "string" and isinstance(value, str)) or (kind == "null" and value is None)


def _kind(schema: Schema) -> str:
    """The type of what a schema describes; the first of several that is not null."""
    kinds = schema.get("type")
    if isinstance(kinds, str):
        return kinds
    if kinds:
        return next((kind for kind in kinds if kind != "null"), "null")
    if schema.keys() & {"properties", "additionalProperties", "required", "minProperties"}:
        return "object"
    if schema.keys() & {"items", "prefixItems", "minItems", "maxItems"}:
        return "array"
    return "number" if schema.keys() & {"minimum", "maximum", "multipleOf"} else "string"


def _both(one: Schema, other: Schema) -> dict[str, Any]:
    """What two schemas say together; where they speak of the same, the second adds to lists and bounds."""
    made = {**one, **other}
    if "properties" in one and "properties" in other:
        shared = one["properties"].keys() & other["properties"].keys()
        both = {key: _both(one["properties"][key], other["properties"][key]) for key in shared}
        made["properties"] = {**one["properties"], **other["properties"], **both}
    if "required" in one and "required" in other:
        made["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    if "enum" in one and "enum" in other:
        made["enum"] = [value for value in one["enum"] if value in other["enum"]]
    for keys, tighter in ((_LEAST, max), (_MOST, min)):
        made |= {key: tighter(one[key], other[key]) for key in keys if key in one and key in other}
    return made


def _pointed(root: Schema, reference: str) -> Schema:
    """What a local pointer leads to; anything where it leads nowhere."""
    node: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _number(schema: Schema, draw: Draw, name: str, *, whole: bool) -> float:
    usual = _described_range(schema) or vocabulary.number(name)
    low, high = _bound(schema, "minimum", "exclusiveMinimum", max), _bound(schema, "maximum", "exclusiveMaximum", min)
    least, most = Fraction(str(usual[0])), Fraction(str(usual[1]))
    least, most = least if low is None else max(least, low), most if high is None else min(most, high)
    if least >= most and (low is not None or high is not None):
        least = low if low is not None else (high or 0) - 100
        most = high if high is not None else least + 100
    step = Fraction(str(schema.get("multipleOf") or (1 if whole else 0)))
    if step and whole:
        step = Fraction(step.numerator)  # the multiples that are whole
    tick = step or min(Fraction(1, 100), (most - least) / 100) or 1
    first = math.ceil(least / tick) + (least == _exact(schema, "exclusiveMinimum") and not least % tick)
    last = math.floor(most / tick) - (most == _exact(schema, "exclusiveMaximum") and not most % tick)
    made = Fraction(0)
    for attempt in range(64):
        made = Fraction(tick) * (first + draw.at("number", attempt).below(last - first + 1))
        if not step or not float(made) / float(step) % 1:  # as validators reckon, in floating point
            break
    return int(made) if whole or (step and made.denominator == 1) else float(made)


def _exact(schema: Schema, key: str) -> Fraction | None:
    return Fraction(str(schema[key])) if key in schema else None


def _bound(schema: Schema, key: str, exclusive: str, tighter: Callable[..., Fraction]) -> Fraction | None:
    """The tighter of two bounds, where there are any."""
    bounds = [bound for bound in (_exact(schema, key), _exact(schema, exclusive)) if bound is not None]
    return tighter(bounds) if bounds else None


def _described_range(schema: Schema) -> tuple[float, float] | None:
    """The range that a description names, as in ``from 1 to 5``."""
    said = _RANGE.search(str(schema.get("description", "")))
    if said is None or float(said[1]) >= float(said[2]):
        return None
    return float(said[1]), float(said[2])


def _text(schema: Schema, draw: Draw, path: Path) -> str:
    least, most = schema.get("minLength") or 0, schema.get("maxLength", math.inf)
    made = _likely(schema, draw, path)
    if pattern := schema.get("pattern"):
        tries = [made, *(matching(pattern, draw.at(at)) for at in range(_TRIES))]
        return next((text for text in tries if least <= len(text) <= most and re.search(pattern, text)), made)
    if len(made) < least:
        filler = vocabulary.text("description", draw)
        made = f"{made} {filler * (least // len(filler) + 1)}"[:least]
    return made if len(made) <= most else made[: schema["maxLength"]]


def _likely(schema: Schema, draw: Draw, path: Path) -> str:
    """A text of the kind that the format, the description or the name suggests."""
    said = str(schema.get("description", ""))
    form = str(schema.get("format") or next((form for mark, form in _DATES if mark in said), ""))
    if form in vocabulary.FORMATS:
        return vocabulary.FORMATS[form](draw)
    if offered := _mentioned(said):
        return draw.at("mentioned").pick(offered)
    owner, name = ("", "", *path)[-2:]
    return vocabulary.text(name, draw, owner, said)


def _mentioned(description: str) -> list[str]:
    """The examples that a description gives, as in ``the kind of fruit (e.g. apple, pear)``."""
    found = _EXAMPLES.search(description)
    if found is None:
        return []
    if quoted := _QUOTED.findall(description[found.start() :]):
        return [text.strip() for text in quoted if text.strip()]
    parts = re.split(r",|\bor\b|\band\b", found[1])
    cleaned = [part.strip(" \"'`“”‘’:") for part in parts]
    return [part for part in cleaned if 0 < len(part) <= 40 and part.lower() not in ("etc", "...", "more")]
