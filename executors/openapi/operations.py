"""One operation of an API: what a policy is told of it, and where each of its arguments travels."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from executors.openapi.references import Resolver
from executors.types import ToolSpec

Where = Literal["path", "query", "header", "cookie", "body"]

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_STYLES = {"path": "simple", "header": "simple", "query": "form", "cookie": "form"}
_PARAMETER_KEYS = {"name", "in", "required", "schema", "content", "style", "explode"}
_COMPOSED = {"allOf", "anyOf", "oneOf", "not", "if"}
_NOT_FOR_ARGUMENTS = {
    *("accept", "authorization", "connection", "content-length", "content-type", "cookie", "expect", "host"),
    *("keep-alive", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
}
"""Headers that are no arguments: OpenAPI says to ignore three of them, and the others steer the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """Where one argument of a call travels in the request."""

    name: str
    """What the API calls it; the policy knows it by another name where two share one."""
    where: Where
    style: str = "form"
    """How a list or an object is written out: OpenAPI's ``style``, or ``json`` for a parameter with ``content``."""
    explode: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of an API: what a policy is told of it and how its arguments become a request."""

    name: str
    """Matches ``^[A-Za-z0-9_-]{1,64}$`` and is unique within the document."""
    method: str
    """In capitals."""
    path: str
    """A template such as ``/pets/{petId}``."""
    description: str
    parameters: Mapping[str, Any]
    """A JSON Schema (2020-12) of type ``object``; the properties of a plain object body stand beside the parameters."""
    arguments: Mapping[str, Argument]
    """Where each argument travels; one that the document does not name goes to the body or else the query."""
    media: str = ""
    """The body's media type; empty where there is no body."""
    whole_body: str = ""
    """The argument that is the whole body; empty where the body's properties are arguments of their own."""
    body_required: bool = False
    response: Mapping[str, Any] | None = None
    """A JSON Schema of what a successful answer holds."""
    status: int = 200
    """The status of a successful answer."""
    answers_in: str = "application/json"
    """The media type of a successful answer."""
    security: tuple[tuple[str, ...], ...] = ()
    """Sets of security schemes, of which one is enough."""
    server: str = ""
    """The operation's own base address, where it has one."""

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(self.name, self.description, self.parameters, self.response)

    @property
    def locations(self) -> dict[str, Where]:
        return {name: argument.where for name, argument in self.arguments.items()}

    def without(self, names: frozenset[str]) -> "Operation":
        """The same operation, of whose parameters with these names a policy knows nothing."""
        hidden = {key for key, found in self.arguments.items() if found.name in names and found.where != "body"}
        schema = dict(self.parameters)
        schema["properties"] = {key: value for key, value in schema["properties"].items() if key not in hidden}
        schema["required"] = [key for key in schema.get("required", []) if key not in hidden]
        arguments = {key: value for key, value in self.arguments.items() if key not in hidden}
        return replace(self, parameters=schema, arguments=arguments) if hidden else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How an OpenAPI document is read."""

    closed: bool = False
    """Whether arguments that the document does not name are refused. Documents often forget one, and the recorded runs
    of ToolAlpaca sent such arguments on."""
    owner: str = ""
    """What the names of the tools are told apart by, where several documents share a catalog."""
    check_references: bool = True
    """Whether a body given by a ``$ref`` is checked; the recorded runs of ToolAlpaca did not look behind one."""


class OperationReader:
    """Reads one operation of a document."""

    def __init__(
        self, content: Mapping[str, Any], path: str, method: str, shared: Mapping[str, Any], node: Mapping[str, Any]
    ) -> None:
        """
        Args:
            content: the document.
            path: the operation's path.
            method: its key in the path item.
            shared: the path item.
            node: the operation itself.
        """
        self.content, self.path, self.method, self.shared, self.node = content, path, method, shared, node
        self.sent = Resolver(document=content)
        self.received = Resolver(document=content, request=False)
        self.properties: dict[str, Any] = {}
        self.required: list[str] = []
        self.arguments: dict[str, Argument] = {}

    def read(self, name: str, reading: Reading) -> tuple[Operation, list[str]]:
        """The operation under that name, and what in it could not be used."""
        for parameter in self._parameters():
            self._add(parameter)
        given = {argument.name for argument in self.arguments.values() if argument.where == "path"}
        for missing in dict.fromkeys(found for found in PLACEHOLDER.findall(self.path) if found not in given):
            self._add({"name": missing, "in": "path", "schema": {"type": "string"}})
        media, whole, needed, is_open = self._add_body(reading)
        schema: dict[str, Any] = {"type": "object", "properties": self.properties}
        if self.required:
            schema["required"] = self.required
        if reading.closed and not is_open:
            schema["additionalProperties"] = False
        status, answers_in, response = self._response()
        operation = Operation(
            name=name,
            method=self.method.upper(),
            path=self.path,
            description=_description(self.node, self.shared) or f"{self.method.upper()} {self.path}",
            parameters=schema,
            arguments=self.arguments,
            media=media,
            whole_body=whole,
            body_required=needed,
            response=response,
            status=status,
            answers_in=answers_in,
            security=_security(self.node.get("security", self.content.get("security"))),
            server=read_server(self.node.get("servers")) or read_server(self.shared.get("servers")),
        )
        return operation, [f"{name}: {warning}" for warning in (*self.sent.warnings, *self.received.warnings)]

    def _parameters(self) -> list[Mapping[str, Any]]:
        """The parameters of the path and of the operation; the operation's own win."""
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for holder in (self.shared, self.node):
            listed = holder.get("parameters")
            for item in listed if isinstance(listed, list) else []:
                parameter = self.sent.follow(item)
                name, where = parameter.get("name"), parameter.get("in")
                if not isinstance(name, str) or not isinstance(where, str) or where not in _STYLES:
                    self.sent.warnings.append(f"a parameter named {name!r} in {where!r} was left out")
                elif where == "path" and f"{{{name}}}" not in self.path:
                    self.sent.warnings.append(f"the path has no {{{name}}}, so that parameter was left out")
                elif where != "header" or name.lower() not in _NOT_FOR_ARGUMENTS:
                    found[name, where] = parameter
        return list(found.values())

    def _add(self, parameter: Mapping[str, Any]) -> None:
        name, where = parameter["name"], parameter["in"]
        style = parameter.get("style") if isinstance(parameter.get("style"), str) else _STYLES[where]
        schema = parameter.get("schema")
        if isinstance(content := parameter.get("content"), Mapping) and content:
            schema, style = self.sent.follow(next(iter(content.values()))).get("schema"), "json"
        elif schema is None:  # as in Swagger 2, the keywords stand in the parameter itself
            schema = {key: value for key, value in parameter.items() if key not in _PARAMETER_KEYS}
        schema = self.sent.schema(schema)
        if isinstance(text := parameter.get("description"), str) and text:
            schema["description"] = text
        explode = parameter.get("explode")
        explode = explode if isinstance(explode, bool) else style == "form"
        argument = Argument(name=name, where=where, style=str(style), explode=explode)
        self._take(schema, argument, required=where == "path" or parameter.get("required") is True)

    def _take(self, schema: dict[str, Any], argument: Argument, *, required: bool) -> str:
        """Note an argument, under another name where its own is taken."""
        key, number = argument.name, 1
        while key in self.properties:
            key = f"{argument.name}_{argument.where}{'' if number == 1 else number}"
            number += 1
        self.properties[key] = schema
        self.arguments[key] = argument
        if required:
            self.required.append(key)
        return key

    def _add_body(self, reading: Reading) -> tuple[str, str, bool, bool]:
        """The body's media type, the argument that is all of it, whether it is needed and takes more than it names."""
        body = self.sent.follow(self.node.get("requestBody"))
        content = body.get("content")
        if not isinstance(content, Mapping) or not content:
            return "", "", False, False
        media, needed = min(content, key=_preference), body.get("required") is True
        written = self.sent.follow(content[media]).get("schema")
        schema = self.sent.schema(written if _preference(media) < _AS_TEXT else {"type": "string"})
        if not reading.check_references and isinstance(written, Mapping) and "$ref" in written:
            schema = _unchecked(schema)
        properties = schema.get("properties", {})
        plain = not _COMPOSED & schema.keys() and schema.get("type", "object") == "object"
        if plain and properties and not properties.keys() & self.properties.keys():
            for name, item in properties.items():
                wanted = needed and name in schema.get("required", [])
                self._take(item, Argument(name=name, where="body"), required=wanted)
            return media, "", needed, schema.get("additionalProperties", False) is not False
        if isinstance(text := body.get("description"), str) and text:
            schema = {"description": text} | schema
        return media, self._take(schema, Argument(name="body", where="body"), required=needed), needed, False

    def _response(self) -> tuple[int, str, dict[str, Any] | None]:
        """The status of success, and the media type and schema of what comes with it: the first of 2xx, or else the
        default."""
        responses = self.node.get("responses")
        if not isinstance(responses, Mapping):
            return 200, "application/json", None
        code = next((code for code in responses if code.startswith("2")), "default")
        status = int(code) if code.isdecimal() else 200
        content = self.received.follow(responses.get(code)).get("content")
        if not isinstance(content, Mapping) or not content:
            return status, "application/json", None
        media = min(content, key=_preference)
        schema = self.received.follow(content[media]).get("schema")
        return status, media, self.received.schema(schema) if isinstance(schema, Mapping) else None


_AS_TEXT = 4


def _preference(media: str) -> int:
    """The order in which the media types of a body are preferred; from ``_AS_TEXT`` on they are sent as they are."""
    kind = media.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return 0
    known = {"*/*": 1, "application/*": 1, "application/x-www-form-urlencoded": 2, "multipart/form-data": 3}
    return known.get(kind, _AS_TEXT if kind.startswith("text/") else _AS_TEXT + 1)


def _unchecked(schema: dict[str, Any]) -> dict[str, Any]:
    """The properties of a schema, of which only the descriptions are left."""
    kept = {name: {k: v for k, v in item.items() if k == "description"} for name, item in schema["properties"].items()}
    return {"type": "object", "properties": kept}


def _description(*nodes: Mapping[str, Any]) -> str:
    """Summary and description of the first that has any, without saying anything twice."""
    for node in nodes:
        texts = [text.strip() for key in ("summary", "description") if isinstance(text := node.get(key), str)]
        texts = [text for text in dict.fromkeys(texts) if text]
        if told := [text for text in texts if not any(text in other for other in texts if other != text)]:
            return "\n".join(told)
    return ""


def _security(requirements: Any) -> tuple[tuple[str, ...], ...]:
    listed = requirements if isinstance(requirements, list) else []
    return tuple(tuple(item) for item in listed if isinstance(item, Mapping))


def read_server(servers: Any) -> str:
    """The first server's address with its variables at their defaults; empty where there is none."""
    first = servers[0] if isinstance(servers, list) and servers else None
    if not isinstance(first, Mapping) or not isinstance(url := first.get("url"), str):
        return ""
    variables = first.get("variables")
    for name, variable in (variables if isinstance(variables, Mapping) else {}).items():
        if isinstance(variable, Mapping) and "default" in variable:
            url = url.replace(f"{{{name}}}", str(variable["default"]))
    return url.strip()
