"""An OpenAPI document in ToolAlpaca's words: a text for each function, and where each function is.

The texts are settled by the document alone. ``describe`` gives what the published corpus holds for its documents.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from executors.openapi.tools import METHODS

_HEADING = "The detailed output format for the tools is outlined below:"


@dataclass(frozen=True, slots=True)
class Documentation:
    """What ToolAlpaca says of an API's functions."""

    text: str
    """All of it (``NLDocumentation``)."""
    functions: Mapping[str, str]
    """By function, what is said of it; under ``components``, what is said of the schemas that they share."""
    projection: Mapping[str, tuple[str, str]]
    """By function, its path and its method in small letters."""


def describe(document: Mapping[str, Any]) -> Documentation:
    """The documentation of an OpenAPI 3 document, such as ``load_document`` gives."""
    functions: dict[str, str] = {}
    parts: list[str] = []
    projection: dict[str, tuple[str, str]] = {}
    for path, method, shared, node in _operations(document):
        name = node.get("operationId") or f"{_plain(path)}_{method}"
        told = _function(document, shared, node)
        parts.append(f"{name}: {told}")
        functions[name] = told.strip()
        projection[name] = (path, method)
    components = _components(document)
    text = "\n".join(parts) + "\n" + (f"\n{components}" if components else "")
    return Documentation(text, {**functions, "components": components}, projection)


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    for path, item in document.get("paths", {}).items():
        for method, node in item.items():
            if method in METHODS and isinstance(node, Mapping):
                yield path, method, item, node


def _plain(path: str) -> str:
    return path.strip("/").replace("/", "_").replace("{", "").replace("}", "")


def _function(document: Mapping[str, Any], shared: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    told = node.get("summary") or node.get("description") or ""
    listed = [*node.get("parameters", ()), *shared.get("parameters", ())]
    found = [_followed(document, one) for one in listed]
    parameters = {one["name"]: _parameter(document, one) for one in found if "name" in one}
    parameters |= _body(document, _followed(document, node.get("requestBody") or {}))
    return f"{told}\nParameters: {json.dumps(parameters, ensure_ascii=False)}\n{_output(document, node)}"


def _parameter(document: Mapping[str, Any], parameter: Mapping[str, Any]) -> str:
    schema = _followed(document, parameter.get("schema") or {})
    required = "Required. " if parameter.get("required") else ""
    if schema.get("enum"):
        kind = f"{schema.get('type') or 'string'}. One of: [{', '.join(map(str, schema['enum']))}]."
    else:
        plain = schema.get("type") not in ("array", "object")
        kind = f"{schema.get('type') or 'string'}." if plain else f"{structure(document, schema)}. "
    return f"{required}{kind} {_sentence(parameter.get('description'))}"


def _body(document: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, str]:
    """The properties of a body, beside the parameters."""
    content = body.get("content") or {}
    schema = _followed(document, next(iter(content.values()), {}).get("schema") or {})
    return _properties(document, schema)


def _properties(document: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, str]:
    required = schema.get("required") or ()
    return {
        name: _property(document, _followed(document, item), name in required)
        for name, item in (schema.get("properties") or {}).items()
    }


def _property(document: Mapping[str, Any], schema: Mapping[str, Any], required: bool) -> str:
    choices = schema.get("enum")
    parts = [
        "Required." if required else "",
        f"{_shape(document, schema)}.",
        _sentence(schema.get("description")),
        f"One of: [{', '.join(map(str, choices))}]." if choices else "",
    ]
    return " ".join(filter(None, parts))


def _shape(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The shape of an input, in which the parts of an object are described too."""
    kind = schema.get("type") or ("object" if schema.get("properties") else "string")
    if kind == "array":
        items = _followed(document, schema.get("items") or {})
        inner = f"{_shape(document, items)}. " if items.get("properties") else _shape(document, items)
        return f"Array[{inner}]"
    if kind != "object":
        return str(kind)
    inside = ", ".join(f"{name}: {text}" for name, text in _properties(document, schema).items())
    return f"Object{{{inside}}}" if inside else "Object"


def _sentence(text: object) -> str:
    return f"{str(text).rstrip('. ')}." if text else ""


def _output(document: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    responses = node.get("responses") or {}
    code = next((code for code in responses if str(code).startswith("2")), None)
    if code is None:
        return "Output: "
    response = _followed(document, responses[code])
    text = f"Output: {(response.get('description') or '').rstrip('. ')}."
    media, found = next(iter((response.get("content") or {}).items()), ("", {}))
    return f"{text}\n - Format: {media}\n - Structure: {_answered(document, found.get('schema') or {})}"


def _answered(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    shaped = (
        "$ref" in schema or "items" in schema or "properties" in schema or schema.get("type") in ("array", "object")
    )
    return structure(document, schema) if shaped else ""


def structure(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The shape of what a schema describes, such as ``Array[Object{id, tags: Array[string]}]``."""
    if "$ref" in schema:
        return "#" + str(schema["$ref"]).rpartition("/")[2]
    if schema.get("type") == "array" or "items" in schema:
        return f"Array[{structure(document, schema.get('items') or {})}]"
    if schema.get("properties"):
        members = ", ".join(_member(document, name, item) for name, item in schema["properties"].items())
        return f"Object{{{members}}}"
    return "Object" if schema.get("type") == "object" else str(schema.get("type") or "")


def _member(document: Mapping[str, Any], name: str, schema: Mapping[str, Any]) -> str:
    """A property, with its shape where it has one; an object that is referred to is written out."""
    schema = _followed(document, schema)
    nested = schema.get("type") in ("array", "object") or schema.keys() & {"items", "properties"}
    return f"{name}: {structure(document, schema)}" if nested else name


def _components(document: Mapping[str, Any]) -> str:
    schemas = (document.get("components") or {}).get("schemas") or {}
    if not schemas:
        return ""
    lines = [
        f"#{name}: {structure(document, one) if one.get('type') in ('object', 'array') else ''}"
        for name, one in schemas.items()
    ]
    return "\n".join([_HEADING, *lines])


def _followed(document: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A node with its reference followed, where it is one into this document."""
    for _ in range(8):
        reference = node.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        found: Any = document
        for part in reference[2:].split("/"):
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        node = found if isinstance(found, Mapping) else {}
    return node
