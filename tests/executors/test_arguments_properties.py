"""What holds for all arguments and schemas, tried on hundreds of them."""

import json
import math
import string
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from executors.arguments import ArgumentLimits, check_arguments, read_call
from executors.cassette import Cassette
from executors.catalog import Catalog
from executors.errors import BadCallError, DataError
from executors.executor import Executor
from executors.schemas.checks import Validator, compile_check
from executors.schemas.coercion import coerced, relaxed
from executors.schemas.parameters import Parameters
from executors.tools.calculator import calculator
from executors.types import MalformedCall, ToolCall
from tests.executors.effort import effort

steady = settings(deadline=None, derandomize=True, database=None, max_examples=120)

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.sampled_from(["a", "b", "c", "day", "é"])
INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SMALL = st.one_of(st.integers(-3, 3), st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), st.booleans(), st.none(), TEXT)
SCALARS = st.one_of(SMALL, INTEGERS, FLOATS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES | TEXT, inner, max_size=3))
)
ARGUMENTS = st.dictionaries(NAMES | TEXT, VALUES, max_size=4)
ANYTHING = st.recursive(
    st.one_of(SCALARS, st.floats(), st.integers(), st.binary(max_size=4), st.text(max_size=4), st.just(object())),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(), st.none()), inner, max_size=3),
    ),
)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"])
SIZES = st.integers(0, 3)
CHOICES = st.lists(SMALL, min_size=1, max_size=3)
MARKS = '{}[]":,\\u0d8 \n\t1e-+.tfnN'
BOUNDS = st.one_of(st.integers(-2, 2), st.sampled_from([-0.5, 0.5, 1.0]))


def _keywords(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Schemas of the keywords that are compiled, of some that are not, and of one that says nothing."""
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
            "enum": st.lists(SMALL | st.lists(SMALL, max_size=1), min_size=1, max_size=3),
            "const": SMALL,
            "minimum": BOUNDS,
            "maximum": BOUNDS,
            "exclusiveMinimum": BOUNDS,
            "exclusiveMaximum": BOUNDS,
            "minLength": SIZES,
            "maxLength": SIZES,
            "minItems": SIZES,
            "maxItems": SIZES,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "required": st.lists(NAMES, max_size=2, unique=True),
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "d"]), inner, max_size=1),
            "additionalProperties": inner,
            "format": st.just("date"),
        },
    )


SCHEMAS = st.booleans() | _keywords(st.booleans() | _keywords(st.booleans()))
COMPILED = st.recursive(
    st.fixed_dictionaries(
        {"type": TYPES}, optional={"enum": st.lists(SMALL, min_size=1, max_size=3), "minimum": BOUNDS}
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}, optional={"maxItems": SIZES}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, min_size=1, max_size=3)},
            optional={
                "required": st.lists(NAMES, max_size=2, unique=True),
                "additionalProperties": st.booleans() | inner,
            },
        ),
    ),
)


@settings(steady, max_examples=300)
@given(schema=SCHEMAS, value=VALUES)
@example(schema={"enum": [1]}, value=True)
@example(schema={"enum": [True]}, value=1)
@example(schema={"const": 1}, value=1.0)
@example(schema={"type": "integer"}, value=1.0)
def test_a_compiled_check_is_of_one_mind_with_jsonschema(schema, value):
    check = compile_check(schema)
    if check is not None:
        assert check(value) == Validator(schema).is_valid(value)


@steady
@given(schema=COMPILED, value=VALUES)
def test_schemas_of_the_usual_keywords_are_all_compiled(schema, value):
    check = compile_check(schema)
    assert check is not None
    assert check(value) == Validator(schema).is_valid(value)


@steady
@given(schema=SCHEMAS, arguments=ARGUMENTS, coerce=st.booleans())
def test_arguments_are_read_or_refused_and_never_change_on_being_read_again(schema, arguments, coerce):
    whole = {"type": "object", "properties": {"a": schema, "b": schema}, "required": ["a"]}
    parameters = Parameters(whole, coerce=coerce)
    before = json.dumps(arguments)
    read, refusal = {}, None
    try:
        read = parameters.read(arguments)
    except BadCallError as error:
        refusal = str(error)
    if refusal is None:
        assert Validator(relaxed(whole) if coerce else whole).is_valid(read)
        assert parameters.read(read) == read
    else:
        assert coerce or not Validator(whole).is_valid(arguments)
        assert refusal.endswith("You need to change the input and try again.")
        assert len(refusal) < 10_000
    assert json.dumps(arguments) == before


@steady
@given(arguments=st.dictionaries(st.text(max_size=3), ANYTHING, max_size=3))
def test_whatever_is_no_json_is_refused_with_a_typed_error(arguments):
    try:
        Parameters({"type": "object"}).read(arguments)
    except BadCallError as error:
        str(error).encode()
    else:
        assert json.loads(json.dumps(arguments, allow_nan=False)) == arguments
        json.dumps(arguments, ensure_ascii=False).encode()


@steady
@given(schema=st.dictionaries(st.sampled_from(sorted(Validator.VALIDATORS)), ANYTHING, max_size=3), arguments=ARGUMENTS)
def test_a_schema_that_is_none_is_a_typed_error(schema, arguments):
    try:
        Parameters(schema).read(arguments)
    except (BadCallError, DataError):
        return


@steady
@given(
    text=st.text(max_size=40) | st.text(alphabet='{}[]":,\\u0d8 \n\t1e-+.tfnN', max_size=60) | st.binary(max_size=30)
)
def test_any_text_is_a_call_or_a_malformed_one(text):
    call = read_call(text)
    assert isinstance(call, MalformedCall) or isinstance(call.arguments, dict)
    if isinstance(call, MalformedCall):
        call.error.encode()
        assert 0 < len(call.error) < 400


@steady
@given(name=st.text(alphabet=string.ascii_letters, min_size=1), arguments=ARGUMENTS, cut=st.integers(1, 200))
def test_a_call_is_read_back_as_it_was_written_and_never_when_it_was_cut(name, arguments, cut):
    text = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    assert read_call(text) == read_call(text.encode()) == ToolCall(name, arguments)
    assert isinstance(read_call(text[:-cut]), MalformedCall)


@steady
@given(depth=st.integers(1, 200), width=st.integers(0, 300), chars=st.integers(0, 3000))
def test_what_is_too_deep_too_wide_or_too_long_is_refused_and_nothing_else(depth, width, chars):
    limits = ArgumentLimits(max_chars=2000, max_depth=16, max_keys=100)
    value: object = "x" * chars
    for _ in range(depth - 1):
        value = [value]
    arguments = {"deep": value, **{f"k{i}": None for i in range(width)}}
    fits = depth <= 16 and width + 1 <= 100
    with effort(seconds=2):
        try:
            check_arguments(arguments, limits)
        except BadCallError:
            assert not fits or chars > 1000
        else:
            assert fits and chars <= 2000


@steady
@given(name=ANYTHING | st.just("calculator"), arguments=ANYTHING | st.dictionaries(st.just("expression"), ANYTHING))
def test_whatever_is_called_with_whatever_ends_in_an_observation(name, arguments):
    with tempfile.TemporaryDirectory() as folder:
        cassette = Cassette(Path(folder, "calls.jsonl"))
        executor = Executor(Catalog([calculator]), coerce=True, cassette=cassette)
        observation = executor.run(ToolCall(name, arguments))
        cassette.close()
    assert observation.status in ("ok", "bad_call", "tool_error", "blocked")
    assert len(observation.content.encode()) < 10_000


def _typed(value: object) -> dict[str, object]:
    """The schema of scalars in their own types, at any depth."""
    if isinstance(value, dict):
        return {"type": "object", "properties": {key: _typed(item) for key, item in value.items()}}
    if isinstance(value, list):
        return {"type": "array", "prefixItems": [_typed(item) for item in value]}
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return {"type": kinds[type(value)]}


def _as_strings(value: object) -> object:
    if isinstance(value, dict):
        return {key: _as_strings(item) for key, item in value.items()}
    return value if value is None or isinstance(value, str) else json.dumps(value)


PLAIN = st.one_of(
    st.integers(-(10**17), 10**17),
    st.floats(-1e30, 1e30).filter(lambda x: abs(x) > 1e-30 or not x),
    st.booleans(),
    TEXT,
)


@steady
@given(arguments=st.dictionaries(NAMES, PLAIN | st.dictionaries(NAMES, PLAIN, max_size=2), max_size=4))
def test_coercion_brings_back_what_was_written_as_strings(arguments):
    schema = _typed(arguments)
    again = coerced(_as_strings(arguments), schema)
    assert again == arguments
    assert json.dumps(again) == json.dumps(arguments)
    assert coerced(again, schema) == again


@steady
@given(schema=SCHEMAS, value=VALUES)
def test_coercion_leaves_what_fits_and_keeps_every_number(schema, value):
    made = coerced(value, schema)
    assert coerced(made, schema) == made
    if isinstance(schema, dict) and isinstance(schema.get("type"), str) and Validator(schema).is_valid(value):
        assert made == value or not isinstance(value, (str, bool, type(None)))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        assert math.isclose(made, value, rel_tol=0, abs_tol=0)
