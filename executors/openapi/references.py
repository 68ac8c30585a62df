"""From the schemas of an OpenAPI document to JSON Schema 2020-12, with every local ``$ref`` put in its place."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard
from urllib.parse import unquote

from executors.schemas.normalise import type_of

_ONE = ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "dependentSchemas")
_TEXTS = ("title", "description", "format")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_FLAGS = ("uniqueItems", "deprecated", "readOnly", "writeOnly")
_ANNOTATIONS = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
_MERGEABLE = _ANNOTATIONS | {"type", "properties", "required"}


@dataclass(kw_only=True)
class Resolver:
    """Reads the objects and schemas of one document; what it cannot use it leaves out and lists in ``warnings``.

    Nothing outside the document is fetched. A dangling ``$ref`` becomes ``{}``, a cycle is cut where it closes, and
    a reader that has copied ``max_nodes`` schemas gives ``{}`` for the rest, so that no document can exhaust it.
    """

    document: Mapping[str, Any]
    request: bool = True
    """Whether the schemas say what is sent, without ``readOnly`` properties, or what is received."""
    max_nodes: int = 20_000
    max_depth: int = 64
    warnings: list[str] = field(default_factory=list)
    nodes: int = 0

    def follow(self, node: Any) -> Mapping[str, Any]:
        """The object that a node is, or that its ``$ref`` leads to; empty where there is none."""
        for _ in range(16):
            if not isinstance(node, Mapping):
                return {}
            if not isinstance(reference := node.get("$ref"), str):
                return node
            node = self._target(reference)
        self._warn("a $ref leads in a circle and was left out")
        return {}

    def schema(self, node: Any) -> dict[str, Any]:
        """A schema object as JSON Schema 2020-12 without references."""
        return self._schema(node, 0, ())

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings and len(self.warnings) < 100:
            self.warnings.append(warning)

    def _target(self, reference: str) -> Any:
        """What a local pointer such as ``#/components/schemas/Pet`` leads to; None where it leads nowhere."""
        if not reference.startswith("#/"):
            self._warn(f"$ref {reference!r} leads outside the document and was left out")
            return None
        node: Any = self.document
        for part in unquote(reference[2:]).split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping) and key in node:
                node = node[key]
            elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
                node = node[int(key)]
            else:
                self._warn(f"$ref {reference!r} leads nowhere and was left out")
                return None
        return node

    def _schema(self, node: Any, depth: int, path: tuple[str, ...]) -> dict[str, Any]:
        self.nodes += 1
        if isinstance(node, bool):
            return {} if node else {"not": {}}
        if not isinstance(node, Mapping):
            return {}
        if depth > self.max_depth or self.nodes > self.max_nodes:
            self._warn("a schema was cut: it is too deep or too large")
            return {}
        if isinstance(reference := node.get("$ref"), str):
            target = self._target(reference)
            beside = {key: value for key, value in node.items() if key != "$ref"}
            if reference in path:
                return _outline(target) | ({} if self.request else self._leaves(target, depth))
            whole = {**target, **beside} if isinstance(target, Mapping) else beside
            return self._schema(whole, depth + 1, (*path, reference))
        schema = dict(self._keywords(node)) | dict(self._subschemas(node, depth + 1, path))
        self._drop_one_way(schema)
        return _with_null(_merged(_with_bounds(schema, node)), node)

    def _leaves(self, target: Any, depth: int) -> dict[str, Any]:
        """What an answer still holds where its cycle is cut: the fields that lead no further."""
        fields = target.get("properties") if isinstance(target, Mapping) else None
        plain = {name: item for name, item in fields.items() if _is_plain(item)} if isinstance(fields, Mapping) else {}
        if not plain:
            return {}
        leaves: dict[str, Any] = {"properties": {name: self._schema(item, depth, ()) for name, item in plain.items()}}
        return leaves | ({"additionalProperties": False} if target.get("additionalProperties") is False else {})

    def _keywords(self, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """The keywords of a schema that hold no schemas, as far as their values can be used."""
        if type_ := self._type(node.get("type")):
            yield "type", type_
        for key in _TEXTS:
            if isinstance(value := node.get(key), str) and value:
                yield key, value
        for key in _NUMBERS:
            if _is_number(value := node.get(key)):
                yield key, value
        for key in _COUNTS:
            if _is_number(value := node.get(key)) and value >= 0 and value == int(value):
                yield key, int(value)
        for key in _FLAGS:
            if node.get(key) is True:
                yield key, True
        if _is_number(step := node.get("multipleOf")) and step > 0:
            yield "multipleOf", step
        if isinstance(pattern := node.get("pattern"), str):
            if _compiles(pattern):
                yield "pattern", pattern
            else:
                self._warn(f"the pattern {pattern!r} is no Python expression and was left out")
        if isinstance(enum := node.get("enum"), list) and enum:
            yield "enum", list(enum)
        if isinstance(required := node.get("required"), list):
            names = list(dict.fromkeys(name for name in required if isinstance(name, str)))
            yield "required", names
        for key in ("const", "default"):
            if key in node:
                yield key, node[key]
        examples = node.get("examples")
        if isinstance(examples, list) and examples:
            yield "examples", examples
        elif "example" in node:
            yield "examples", [node["example"]]

    def _subschemas(self, node: Mapping[str, Any], depth: int, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for key in _ONE:
            value = node.get(key)
            if key == "additionalProperties" and value in (True, False, "true", "false"):
                yield key, value in (True, "true")
            elif key == "items" and isinstance(value, list) and value:
                yield "prefixItems", [self._schema(item, depth, path) for item in value]
            elif isinstance(value, Mapping | bool):
                yield key, self._schema(value, depth, path)
        for key in _MANY:
            if isinstance(value := node.get(key), list) and value:
                yield key, [self._schema(item, depth, path) for item in value]
        for key in _NAMED:
            if isinstance(value := node.get(key), Mapping):
                named = {name: self._schema(item, depth, path) for name, item in value.items()}
                yield key, {name: item for name, item in named.items() if key != "patternProperties" or _compiles(name)}

    def _type(self, value: Any) -> str | list[str] | None:
        if isinstance(value, list):
            types = list(dict.fromkeys(type_ for item in value if isinstance(type_ := self._type(item), str)))
            return types or None
        if not isinstance(value, str):
            return None
        if (known := type_of(value)) is None:
            self._warn(f"the type {value!r} is none of JSON Schema's and was left out")
        return (known or {}).get("type")

    def _drop_one_way(self, schema: dict[str, Any]) -> None:
        """Take out the properties that only travel the other way."""
        flag = "readOnly" if self.request else "writeOnly"
        gone = {name for name, item in schema.get("properties", {}).items() if item.get(flag)}
        if gone:
            schema["properties"] = {name: item for name, item in schema["properties"].items() if name not in gone}
            schema["required"] = [name for name in schema.get("required", []) if name not in gone]
        if not schema.get("required", True):
            del schema["required"]


def _outline(target: Any) -> dict[str, Any]:
    """What is left of a schema where its cycle is cut: its type and its description."""
    if not isinstance(target, Mapping):
        return {}
    kept = {key: target[key] for key in ("title", "description") if isinstance(target.get(key), str)}
    return kept | ({"type": target["type"]} if target.get("type") in ("object", "array") else {})


def _is_plain(node: Any) -> bool:
    """Whether a schema is of a value without parts."""
    return isinstance(node, Mapping) and node.get("type") in ("string", "number", "integer", "boolean")


def _with_bounds(schema: dict[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAPI 3.0 says ``exclusiveMinimum: true`` beside ``minimum``; 2020-12 gives the bound itself."""
    for flag, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if node.get(flag) is True and bound in schema:
            schema[flag] = schema.pop(bound)
    return schema


def _with_null(schema: dict[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAPI 3.0 says ``nullable: true``; 2020-12 names the type null."""
    if node.get("nullable") is not True or not schema.keys() - _ANNOTATIONS:
        return schema
    if "type" not in schema and "enum" not in schema:
        notes = {key: schema.pop(key) for key in _ANNOTATIONS & schema.keys()}
        return notes | {"anyOf": [schema, {"type": "null"}]}
    if "type" in schema:
        types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        schema["type"] = list(dict.fromkeys([*types, "null"]))
    if None not in schema.get("enum", [None]):
        schema["enum"] = [*schema["enum"], None]
    return schema


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    """One object schema for an ``allOf`` whose members say nothing against one another."""
    if "allOf" not in schema:
        return schema
    whole = {key: value for key, value in schema.items() if key != "allOf"}
    alone = len(schema["allOf"]) == 1 and not whole.keys() - _ANNOTATIONS
    for member in schema["allOf"]:
        if not alone and (member.keys() | whole.keys()) - _MERGEABLE:
            return schema
        properties = dict(whole.get("properties", {}))
        for name, item in member.get("properties", {}).items():
            if properties.setdefault(name, item) != item:
                return schema
        if whole.get("type", member.get("type")) != member.get("type", whole.get("type")):
            return schema
        required = list(dict.fromkeys([*whole.get("required", []), *member.get("required", [])]))
        whole = member | whole
        whole |= ({"properties": properties} if properties else {}) | ({"required": required} if required else {})
    return whole


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True
