import pytest

from executors.errors import BadCallError, DataError
from executors.schemas.parameters import Parameters
from tests.executors.effort import effort

TRIP = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2, "maxLength": 20},
        "days": {"type": "integer", "minimum": 1, "maximum": 30},
        "class": {"type": "string", "enum": ["first", "second"]},
        "price": {"type": "number", "exclusiveMinimum": 0},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "stops": {"type": "array", "items": {"$ref": "#/$defs/Stop"}, "maxItems": 2},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
    "$defs": {
        "Stop": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "hours": {"type": "integer"}},
            "required": ["city"],
        }
    },
}
AGAIN = "You need to change the input and try again."


def refusal(arguments, schema=TRIP, **options) -> str:
    with pytest.raises(BadCallError) as caught:
        Parameters(schema, **options).read(arguments)
    return str(caught.value)


def test_arguments_that_fit_are_a_copy_of_what_was_given():
    given = {"city": "Rome", "days": 3, "stops": [{"city": "Pisa"}]}
    read = Parameters(TRIP).read(given)
    assert read == given
    read["stops"][0]["city"] = "Bari"
    assert given["stops"] == [{"city": "Pisa"}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"days": "3"}, f'Parameter type error: "days", expected integer, but got string. {AGAIN}'),
        ({"days": 3.0}, f'Parameter type error: "days", expected integer, but got number. {AGAIN}'),
        ({"days": True}, f'Parameter type error: "days", expected integer, but got boolean. {AGAIN}'),
        ({"days": None}, f'Parameter type error: "days", expected integer, but got null. {AGAIN}'),
        ({"days": 0}, f'Parameter type error: "days", expected integer of at least 1, but got 0. {AGAIN}'),
        ({"price": 0}, f'Parameter type error: "price", expected number over 0, but got 0. {AGAIN}'),
        (
            {"class": "third"},
            f"Parameter type error: \"class\", expected one of ['first', 'second'], but got \"third\". {AGAIN}",
        ),
        (
            {"city": "x"},
            f'Parameter type error: "city", expected string of at least 2 characters, but got 1 characters. {AGAIN}',
        ),
        ({"note": 5}, f'Parameter type error: "note", expected string or null, but got integer. {AGAIN}'),
        ({"stops": {}}, f'Parameter type error: "stops", expected array, but got object. {AGAIN}'),
        (
            {"stops": [{"city": "a"}] * 3},
            f'Parameter type error: "stops", expected array of at most 2 items, but got 3 items. {AGAIN}',
        ),
        (
            {"stops": [{"city": "a"}, {"city": 1}]},
            f'Parameter type error: "stops/1/city", expected string, but got integer. {AGAIN}',
        ),
        ({"stops": [{}]}, f'Missing required parameters: "stops/0/city". {AGAIN}'),
        ({"dayz": 1}, f'Unknown parameter: "dayz"; closest: "days". {AGAIN}'),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_expected(change, says):
    assert refusal({"city": "Rome", "days": 3} | change) == says


def test_everything_that_is_missing_is_named_at_once_and_before_the_rest():
    assert refusal({}) == f'Missing required parameters: "city", "days". {AGAIN}'
    assert refusal({"town": "Rome", "days": 3}) == (
        'Missing required parameters: "city". Unknown parameter: "town"; there are: "city", "days", "class", "price", '
        f'"note", "stops". {AGAIN}'
    )


def test_a_message_stays_short_whatever_was_written():
    assert len(refusal({"city": ["x" * 60_000], "days": "9" * 1000, "x" * 5000: 1})) < 800
    many = {"type": "object", "additionalProperties": {"type": "integer"}}
    assert len(refusal({f"key{i}": "x" * 200 for i in range(250)}, many)) < 800
    assert len(refusal({f"key{i}": 1 for i in range(250)}, {"type": "object", "additionalProperties": False})) < 800


def test_a_schema_that_is_none_or_refers_to_nothing_is_not_the_policys_fault():
    for broken in ({"type": "text"}, {"pattern": "("}):
        with pytest.raises(DataError, match="not a JSON Schema"):
            Parameters({"type": "object", "properties": {"a": broken}})
    for broken in ({"$ref": "#/$defs/Gone"}, {"$ref": "https://example.com/schema.json"}):
        with pytest.raises(DataError, match="cannot be checked"):
            Parameters({"type": "object", "properties": {"a": broken}}).read({"a": "x"})
    with pytest.raises(DataError, match="cannot be checked"):
        Parameters({"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}).read({"a": 1})


def test_patterns_are_applied_where_they_take_bounded_time():
    def read(pattern, text):
        return Parameters({"type": "object", "properties": {"a": {"pattern": pattern}}}).read({"a": text})

    assert read(r"^[a-z]+-\d{2}$", "abc-12")
    for pattern, text in ((r"^[a-z]+-\d{2}$", "abc-1"), (r"^[A-Z]{3}$", "x" * 5000)):
        with pytest.raises(BadCallError, match="expected string that matches"):
            read(pattern, text)
    with effort(seconds=2):
        for pattern in (r"^(a+)+$", r"^(a|aa)*$", r"^(?:a*){2,}$", r".*.*.*=x"):
            assert read(pattern, "a" * 5000 + "!")


def test_coercion_takes_what_was_plainly_meant_and_only_where_it_is_asked_for():
    given = {"city": "Rome", "days": "3", "price": 12, "class": "", "stops": [{"city": "Pisa", "hours": 2.0}]}
    read = Parameters(TRIP, coerce=True).read(given)
    assert read == {"city": "Rome", "days": 3, "price": 12.0, "class": "", "stops": [{"city": "Pisa", "hours": 2}]}
    assert [type(value) for value in (read["days"], read["price"], read["stops"][0]["hours"])] == [int, float, int]
    assert refusal(given).count("Parameter type error") == 3
    switch = {"type": "object", "properties": {"on": {"type": "boolean"}, "level": {"enum": [1, 2], "type": "integer"}}}
    assert Parameters(switch, coerce=True).read({"on": "True", "level": "2"}) == {"on": True, "level": 2}
    assert Parameters(switch, coerce=True).read({"level": ""}) == {"level": ""}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", "3.5"),
        ("integer", 3.5),
        ("integer", "three"),
        ("integer", "1_000"),
        ("integer", " 3"),
        ("integer", "٣"),
        ("integer", True),
        ("integer", "9" * 19),
        ("number", "nan"),
        ("number", "inf"),
        ("number", "1e400"),
        ("number", "0x10"),
        ("boolean", "yes"),
        ("boolean", 1),
        ("string", 5),
        ("string", None),
        ("null", "null"),
    ],
)
def test_coercion_guesses_nothing(kind, value):
    schema = {"type": "object", "properties": {"a": {"type": kind}}}
    assert refusal({"a": value}, schema, coerce=True).startswith(f'Parameter type error: "a", expected {kind}')
