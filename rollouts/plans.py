"""What can be asked of an API, planned from its schema: calls that depend on one another, with values made up."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from executors.corpus.toolset import GET_DETAILS
from executors.errors import DataError
from executors.openapi.operations import Operation
from executors.schemas.fabricate import fabricate_arguments
from executors.schemas.vocabulary import Draw, plain, words

_TAKEN = re.compile(r"^\$\{(\w+) from (\w+)\}$")
_ID = ("id", "uuid", "code")
_FINDS = {"search", "find", "list", "query"}


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call of a plan."""

    tool: str
    arguments: Mapping[str, Any]
    """A value may be ``${petId from searchPets}``: it is taken from what an earlier call gave."""

    def gold(self) -> dict[str, str]:
        """As ToolAlpaca writes an expected call."""
        return {"Action": self.tool, "Action_Input": json.dumps(dict(self.arguments), ensure_ascii=False)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Calls that serve one request."""

    calls: tuple[PlannedCall, ...]
    details: str = ""
    """What only the user can say, where the request leaves it out."""
    left_out: tuple[str, ...] = field(default=())
    """Arguments that the request does not name."""


class Planner:
    """Makes plans for one API."""

    def __init__(self, name: str, operations: Sequence[Operation], seed: int = 0) -> None:
        self.operations = {one.name: one for one in operations}
        self.draw = Draw.of("plans", seed, name)
        self._chains = [
            (first, second)
            for first in operations
            for second in operations
            if _finds(first) and first is not second and (key := _key_of(second)) and _leads(first, second, key)
        ]

    def plan(self, number: int) -> Plan:
        """One plan; another for another number.

        About half are single calls; the others find something first, ask for two things, or have to ask the user.
        """
        draw = self.draw.at("plan", number)
        kind = draw.at("kind").share()
        if kind < 0.3 and self._chains:
            return self._chain(draw)
        if kind < 0.42 and len(self.operations) > 1:
            return self._pair(draw)
        if kind < 0.52 and (plan := self._asking(draw)) is not None:
            return plan
        return Plan(calls=(self._call(self._drawn(draw), draw),))

    def _chain(self, draw: Draw) -> Plan:
        """Find something, then do something to it."""
        first, second = draw.at("chain").pick(self._chains)
        key = _key_of(second)
        arguments = dict(self._call(second, draw.at("second")).arguments)
        arguments[key] = f"${{{key} from {first.name}}}"
        return Plan(calls=(self._call(first, draw, least=1), PlannedCall(second.name, arguments)))

    def _pair(self, draw: Draw) -> Plan:
        """Two things that have nothing to do with each other."""
        names = sorted(self.operations, key=lambda name: draw.at("pair", name).key)[:2]
        return Plan(calls=tuple(self._call(self.operations[name], draw.at(name)) for name in names))

    def _asking(self, draw: Draw) -> Plan | None:
        """A call with a required argument that only the user knows."""
        apt = [one for one in self.operations.values() if one.parameters.get("required")]
        if not apt:
            return None
        call = self._call(draw.at("apt").pick(apt), draw)
        name = draw.at("missing").pick(self.operations[call.tool].parameters["required"])
        said = " ".join(words(name))
        details = f"The {said} is {call.arguments[name]}."
        asked = PlannedCall(GET_DETAILS, {"Question": f"What is the {said}?"})
        return Plan(calls=(asked, call), details=details, left_out=(name,))

    def _drawn(self, draw: Draw) -> Operation:
        return self.operations[draw.at("operation").pick(list(self.operations))]

    def _call(self, operation: Operation, draw: Draw, least: int = 0) -> PlannedCall:
        """A call whose arguments the schema accepts; with at least some of them, where it has any."""
        seed = draw.at("arguments", operation.name).hex(12)
        arguments = fabricate_arguments(operation.parameters, seed, optional=0.4)
        if len(arguments) < least:
            arguments = fabricate_arguments(operation.parameters, seed, optional=1.0)
            arguments = dict(list(arguments.items())[: max(2, len(operation.parameters.get("required", ())))])
        return PlannedCall(operation.name, arguments)


def settled(call: PlannedCall, observed: Mapping[str, str]) -> dict[str, Any]:
    """A call's arguments with what earlier calls gave in place of what is to be taken from them.

    Args:
        call: planned.
        observed: by function, what its call gave.

    Raises:
        DataError: an earlier call gave no such thing.
    """
    arguments = dict(call.arguments)
    for name, value in arguments.items():
        if isinstance(value, str) and (taken := _TAKEN.match(value)):
            found = _found(result_of(observed.get(taken[2], "")), taken[1])
            if found is None:
                raise DataError(f"{taken[2]} gave no {taken[1]}: {observed.get(taken[2], 'it was not called')[:120]}")
            arguments[name] = found
    return arguments


def result_of(observation: str) -> Any:
    """The answer in an observation, ``Status Code: 200. Response: {...}``; None where it is no JSON."""
    try:
        return json.loads(observation.partition("Response: ")[2])
    except ValueError:
        return None


def _found(value: Any, name: str) -> Any:
    """The first value in an answer that bears a name, or that is the key of the first thing in it."""
    if isinstance(value, list):
        return next((found for item in value if (found := _found(item, name)) is not None), None)
    if not isinstance(value, Mapping):
        return None
    for key, item in value.items():
        if plain(key) in (plain(name), *_ID) and isinstance(item, str | int):
            return item
    return next((found for item in value.values() if (found := _found(item, name)) is not None), None)


def _finds(operation: Operation) -> bool:
    return operation.method == "GET" and words(operation.name)[0] in _FINDS


def _key_of(operation: Operation) -> str:
    """The argument in the path that names a thing."""
    inside = re.findall(r"\{([^{}]+)\}", operation.path)
    return next((name for name in reversed(inside) if words(name)[-1] in _ID), "")


def _leads(first: Operation, second: Operation, key: str) -> bool:
    """Whether what the first finds has the key of the second: they are about the same thing."""
    noun = words(key)[:-1]
    inside = [part for part in second.path.split("/") if part]
    place = inside.index(f"{{{key}}}") if f"{{{key}}}" in inside else 0
    collection = inside[place - 1] if place else ""
    last = first.path.rstrip("/").rpartition("/")[2]
    return bool(noun or collection) and last == collection
