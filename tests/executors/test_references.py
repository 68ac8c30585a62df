"""The schemas of OpenAPI documents as JSON Schema 2020-12."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from executors.openapi.references import Resolver
from tests.executors.effort import effort


def schema(node: Any, request: bool = True, **schemas: Any) -> dict[str, Any]:
    resolver = Resolver(document={"components": {"schemas": schemas}}, request=request)
    found = resolver.schema(node)
    Draft202012Validator.check_schema(found)
    return found


def ref(name):
    return {"$ref": f"#/components/schemas/{name}"}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        (
            {"type": "string", "enum": ["a"], "nullable": True},
            {"type": ["string", "null"], "enum": ["a", None]},
        ),
        (
            {"oneOf": [{"type": "string"}], "nullable": True, "title": "T"},
            {"title": "T", "anyOf": [{"oneOf": [{"type": "string"}]}, {"type": "null"}]},
        ),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 1}),
        ({"type": "integer", "maximum": 9, "exclusiveMaximum": False}, {"type": "integer", "maximum": 9}),
        ({"type": "string", "example": "x", "xml": {}, "x-more": 1}, {"type": "string", "examples": ["x"]}),
        ({"type": "object", "additionalProperties": "true"}, {"type": "object", "additionalProperties": True}),
        ({"type": "string", "required": True, "pattern": "("}, {"type": "string"}),
        ({"type": "float"}, {"type": "number"}),
        ({"type": "list", "items": {"type": "dict"}}, {"type": "array", "items": {"type": "object"}}),
        ({"type": "array", "items": [{"type": "string"}]}, {"type": "array", "prefixItems": [{"type": "string"}]}),
        ({"type": ["string", "null"], "const": "a"}, {"type": ["string", "null"], "const": "a"}),
        ({"enum": "abc", "minLength": -1, "default": None}, {"default": None}),
        (True, {}),
        ("string", {}),
    ],
)
def test_what_older_or_careless_documents_say_is_read(written, read):
    assert schema(written) == read


def test_a_reference_is_put_in_place_and_what_stands_beside_it_wins():
    pet = {"type": "object", "description": "A pet.", "properties": {"name": {"type": "string"}}}
    assert schema(ref("Pet") | {"description": "Yours."}, Pet=pet) == pet | {"description": "Yours."}


def test_pointers_are_unescaped():
    document = {"paths": {"/a b/{id}": {"x~y": [{"type": "integer"}]}}}
    found = Resolver(document=document).schema({"$ref": "#/paths/~1a%20b~1%7Bid%7D/x~0y/0"})
    assert found == {"type": "integer"}


@pytest.mark.parametrize(
    ("pointer", "warning"),
    [
        ("#/components/schemas/Nobody", "leads nowhere"),
        ("#/components/schemas/0", "leads nowhere"),
        ("#name", "leads outside"),
        ("../policies.yaml", "leads outside"),
        ("http://127.0.0.1:1/secret.json", "leads outside"),
    ],
)
def test_what_a_dangling_reference_stands_for_is_left_open(pointer, warning):
    resolver = Resolver(document={"components": {"schemas": {}}})
    assert resolver.schema({"type": "array", "items": {"$ref": pointer}}) == {"type": "array", "items": {}}
    assert warning in resolver.warnings[0]


def test_an_answer_keeps_its_plain_fields_where_its_cycle_is_cut():
    country = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "borders": {"type": "array", "items": ref("Country")}},
        "additionalProperties": False,
    }
    inner = schema(ref("Country"), request=False, Country=country)["properties"]["borders"]["items"]
    assert inner == {"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": False}
    assert schema(ref("Country"), Country=country)["properties"]["borders"]["items"] == {"type": "object"}


def test_a_cycle_is_cut_where_it_closes():
    node = {
        "type": "object",
        "description": "A node.",
        "properties": {"next": ref("Node"), "value": {"type": "string"}},
    }
    assert schema(ref("Node"), Node=node)["properties"] == {
        "next": {"type": "object", "description": "A node."},
        "value": {"type": "string"},
    }
    assert schema(ref("Loop"), Loop=ref("Loop")) == {}


def test_references_that_multiply_are_cut_off_in_bounded_time():
    bomb = {f"L{n}": {"properties": {str(i): ref(f"L{n + 1}") for i in range(10)}} for n in range(30)}
    bomb["L30"] = {}
    with effort(seconds=2):
        resolver = Resolver(document={"components": {"schemas": bomb}}, max_nodes=5_000)
        resolver.schema(ref("L0"))
    assert resolver.warnings == ["a schema was cut: it is too deep or too large"]


def test_a_long_chain_of_references_is_cut():
    chain = {f"C{n}": ref(f"C{n + 1}") for n in range(5_000)}
    assert Resolver(document={"components": {"schemas": chain}}).schema(ref("C0")) == {}


def test_members_of_all_of_become_one_object_where_they_agree():
    base = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}
    more = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    assert schema({"allOf": [ref("Base"), more], "description": "Both."}, Base=base) == {
        "type": "object",
        "description": "Both.",
        "properties": {"id": {"type": "integer"}, "name": {"type": "string"}},
        "required": ["id", "name"],
    }


def test_members_of_all_of_stay_apart_where_they_disagree():
    one, other = ({"type": "object", "properties": {"id": {"type": kind}}} for kind in ("integer", "string"))
    assert schema({"allOf": [one, other]}) == {"allOf": [one, other]}
    closed = {"type": "object", "additionalProperties": False}
    assert schema({"allOf": [one, closed]}) == {"allOf": [one, closed]}


def test_a_lone_member_of_all_of_is_the_schema_itself():
    written = {"allOf": [ref("Colour")], "nullable": True, "description": "Its colour."}
    colour = {"type": "string", "enum": ["red"], "description": "A colour."}
    assert schema(written, Colour=colour) == {
        "type": ["string", "null"],
        "enum": ["red", None],
        "description": "Its colour.",
    }


def test_properties_that_only_travel_the_other_way_are_left_out():
    user = {
        "type": "object",
        "required": ["id", "password"],
        "properties": {"id": {"type": "integer", "readOnly": True}, "password": {"type": "string", "writeOnly": True}},
    }
    assert schema(user)["required"] == list(schema(user)["properties"]) == ["password"]
    assert schema(user, request=False)["required"] == list(schema(user, request=False)["properties"]) == ["id"]


WORDS = (
    "type properties items allOf anyOf oneOf not required enum const minimum exclusiveMinimum multipleOf minLength "
    "pattern nullable additionalProperties default example examples format description title $ref uniqueItems "
    "patternProperties prefixItems if then dependentSchemas readOnly"
)
KEYWORDS = st.sampled_from(WORDS.split())
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["string", "object", "array", "integer", "#/components/schemas/A"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYWORDS, VALUES, max_size=6), VALUES)
def test_whatever_is_written_the_schema_is_valid(node, other):
    schema(node, A=other)
    schema(node, request=False, A=other)
