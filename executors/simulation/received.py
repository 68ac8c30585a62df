"""From a request that came in over HTTP to the operation that it calls and the arguments that it gives."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from typing import Any
from urllib.parse import parse_qsl, unquote

from executors.arguments import LIMITS, ArgumentLimits, check_arguments
from executors.errors import BadCallError
from executors.http.client import Answer
from executors.openapi.operations import PLACEHOLDER, Argument, Operation
from executors.openapi.requests import MAX_BODY
from executors.schemas.fabricate import ABSENT, Schema
from executors.simulation.answers import answer_of
from executors.simulation.world import adapted

_LIMITS = ArgumentLimits(max_chars=MAX_BODY, max_keys=MAX_BODY, max_depth=LIMITS.max_depth + 1)
_SEPARATORS = {"spaceDelimited": " ", "pipeDelimited": "|"}


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came in."""

    method: str
    path: str
    """Still percent-encoded."""
    query: str
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes


class Router:
    """Finds the operation of a request, and reads its arguments: what ``executors.openapi.requests`` wrote."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        routes = [(_pattern(operation.path), operation) for operation in operations]
        self._routes = sorted(routes, key=lambda route: len(PLACEHOLDER.findall(route[1].path)))

    def find(self, received: Received) -> tuple[Operation, dict[str, Any]] | Answer:
        """The operation with its arguments; or the refusal of a request that calls none or cannot be read."""
        at_path = [
            (match, operation) for pattern, operation in self._routes if (match := pattern.fullmatch(received.path))
        ]
        if not at_path:
            return _refusal(404, f"there is nothing at {received.path}")
        for match, operation in at_path:
            if operation.method == received.method:
                return _read(operation, [unquote(value) for value in match.groups()], received)
        allowed = ", ".join(sorted({operation.method for _, operation in at_path}))
        return _refusal(405, f"{received.method} is not allowed at {received.path}; allowed: {allowed}")


def _refusal(status: int, message: str) -> Answer:
    return answer_of(status, {"error": {"code": status, "message": message}})


def _pattern(path: str) -> re.Pattern[str]:
    """What a path template matches; the query that a careless document wrote into it is left out."""
    parts = PLACEHOLDER.split("/" + path.partition("?")[0].strip("/"))
    return re.compile("".join("([^/]+)" if at % 2 else re.escape(part) for at, part in enumerate(parts)) + "/?")


def _read(
    operation: Operation, in_path: Sequence[str], received: Received
) -> tuple[Operation, dict[str, Any]] | Answer:
    schemas: Mapping[str, Schema] = operation.parameters.get("properties", {})
    placed = dict(zip(PLACEHOLDER.findall(operation.path.partition("?")[0]), in_path, strict=True))
    query = parse_qsl(received.query, keep_blank_values=True)
    cookies = [part.strip().split("=", 1) for part in received.headers.get("cookie", "").split(";") if "=" in part]
    given = {
        "path": [*placed.items()],
        "query": query,
        "header": [*received.headers.items()],
        "cookie": [(name, unquote(value)) for name, value in cookies],
    }
    arguments: dict[str, Any] = {}
    taken: set[str] = set()
    for key, argument in operation.arguments.items():
        if argument.where == "body":
            continue
        name = argument.name.lower() if argument.where == "header" else argument.name
        value = _value(argument, name, given[argument.where], schemas.get(key, {}), taken)
        if value is not ABSENT:
            arguments[key] = value
    arguments |= {name: value for name, value in query if name not in taken and name not in schemas}
    try:
        return operation, arguments | _from_body(operation, received, schemas)
    except ValueError as error:
        return _refusal(400, f"the body cannot be read: {error}")


def _value(argument: Argument, name: str, given: Sequence[tuple[str, str]], schema: Schema, taken: set[str]) -> Any:
    """One argument, undone as its style was written, in the type that its schema asks for."""
    values = [value for key, value in given if key == name]
    kinds = schema.get("type", ())
    if "object" in ([kinds] if isinstance(kinds, str) else kinds) and not values:
        return _object(argument, name, given, schema, taken)
    if not values:
        return ABSENT
    taken.add(name)
    if argument.style == "json":
        try:
            return _json(values[0])
        except ValueError:
            return values[0]
    return typed(_split(argument, values, schema), schema)


def _split(argument: Argument, values: list[str], schema: Schema) -> Any:
    """The pieces of a list; the text itself for anything else."""
    text = values[0]
    if argument.where == "path" and argument.style in ("label", "matrix"):
        text = text.lstrip(".;").rpartition("=")[2]
    kinds = schema.get("type", ())
    if "array" not in ([kinds] if isinstance(kinds, str) else kinds):
        return text
    if argument.explode and argument.where in ("query", "cookie"):
        return values
    return text.split(_SEPARATORS.get(argument.style, ",")) if text else []


def _object(argument: Argument, name: str, given: Sequence[tuple[str, str]], schema: Schema, taken: set[str]) -> Any:
    """An object whose fields were written one by one: as ``name[field]``, or under their own names."""
    properties = schema.get("properties", {})
    found: dict[str, Any] = {}
    for key, value in given:
        deep = re.fullmatch(re.escape(name) + r"\[([^\]]*)\]", key)
        if field := deep[1] if deep else key if key in properties and argument.explode else "":
            taken.add(key)
            found[field] = typed(value, properties.get(field, {}))
    return found or ABSENT


def typed(value: Any, schema: Schema) -> Any:
    """A text in the type that a schema asks for; as it is where it cannot be."""
    if isinstance(value, list):
        return [typed(item, schema.get("items", {})) for item in value]
    fit = adapted(value, {key: schema[key] for key in ("type", "enum") if key in schema})
    return value if fit is ABSENT or isinstance(fit, str) else fit


def _from_body(operation: Operation, received: Received, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """The arguments in the body.

    Raises:
        ValueError: it is not what its media type says.
    """
    if not operation.media or not received.body:
        return {}
    media = received.headers.get("content-type", "application/json")
    kind = media.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        value: Any = _form(parse_qsl(received.body.decode(), keep_blank_values=True))
    elif kind == "multipart/form-data":
        value = _form(_multipart(media, received.body))
    elif kind == "application/json" or kind.endswith("+json"):
        value = _json(received.body)
    else:
        value = received.body.decode(errors="replace")
    if operation.whole_body:
        return {operation.whole_body: value}
    if not isinstance(value, dict):
        raise ValueError("it must be an object")
    fields: dict[str, Any] = value
    keys = {argument.name: key for key, argument in operation.arguments.items() if argument.where == "body"}
    named = {keys.get(name, name): item for name, item in fields.items()}
    if kind == "application/json" or kind.endswith("+json"):
        return named
    return {key: typed(item, schemas.get(key, {})) for key, item in named.items()}


def _json(text: str | bytes) -> Any:
    """What JSON says, no deeper than a call may be."""
    try:
        value = json.loads(text, parse_constant=_no_number)
        check_arguments({"body": value}, _LIMITS)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except BadCallError as error:
        raise ValueError(str(error)) from error
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _form(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The fields of a form; those that come several times are lists."""
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return {name: values if len(values) > 1 else values[0] for name, values in fields.items()}


def _multipart(media: str, body: bytes) -> list[tuple[str, str]]:
    message = message_from_bytes(b"Content-Type: " + media.encode("latin-1") + b"\r\n\r\n" + body)
    if not message.is_multipart():
        raise ValueError("it has no parts")
    found = []
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        if isinstance(name, str):
            payload = part.get_payload(decode=True)
            found.append((name, payload.decode(errors="replace") if isinstance(payload, bytes) else ""))
    return found
