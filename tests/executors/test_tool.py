import asyncio
import dataclasses
import datetime
import functools
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, TypedDict, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, field_validator

from executors.catalog import Catalog
from executors.errors import BadCallError, ConfigError, UnknownToolError
from executors.executor import Executor
from executors.named import load_tool
from executors.tool import Limits, as_tool, tool
from executors.types import Scene, ToolCall


@tool
def convert(amount: float, unit: Literal["m", "ft"] = "m", precise: bool = False) -> str:
    """Convert a length.

    Written over two lines.

    Args:
        amount: how much,
            in the other unit.
        unit: the unit wanted.

    Returns:
        The length.
    """
    return f"{amount}{unit}"


def test_signature_and_docstring_become_the_schema():
    spec = convert.spec
    assert spec.name == "convert"
    assert spec.description == "Convert a length.\n\nWritten over two lines."
    assert spec.parameters["properties"]["amount"] == {"type": "number", "description": "how much, in the other unit."}
    assert spec.parameters["properties"]["unit"]["enum"] == ["m", "ft"]
    assert spec.parameters["properties"]["precise"] == {"default": False, "type": "boolean"}
    assert spec.parameters["required"] == ["amount"]
    assert spec.parameters["additionalProperties"] is False
    assert spec.returns == {"type": "string", "description": "The length."}


def test_a_tool_is_still_callable_and_can_be_sent_to_another_process():
    assert convert(3.0, unit="ft") == "3.0ft"
    assert pickle.loads(pickle.dumps(convert)) is convert
    assert pickle.loads(pickle.dumps(load_tool("calculator")))("1+1") == "2"


# The same rule as TRL ------------------------------------------------------------------------------------------------


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


def scalars(a: int, b: float, c: str, d: bool, e: Any) -> None:
    """Take one of each.

    Args:
        a: a whole number
        b: a number
        c: a text
        d: yes or no
        e: anything
    """


def defaults(a: int = 3, b: str = "x", c: float | None = None):
    """
    Take what may be left out

    Args:
      a: has a default
      b: has
         one too, and is described
         over three lines
      c: may be nothing
    """


def enums(color: Color, level: Level, maybe: Color | None = None) -> str:
    """Paint.

    Args:
        color: of the paint
        level: of the shine
        maybe: a second one

    Returns:
        str: what it looks like
    """
    return f"{color} {level} {maybe}"


def literals(unit: Literal["m", "ft"], mixed: Literal[1, "a", None], count: Literal[1, 2] = 1) -> int:
    """Measure.

    Args:
        unit: the unit
        mixed: several kinds
        count: how often

    Raises:
        ValueError: never.
    """
    return count


def options(a: Optional[int], b: Optional[list[str]] = None, c: str | None = "x"):  # noqa: UP045
    """Take options.

    Args:
        a: one
        b: two: with a colon
        c: three
    """


def unions(a: int | str, b: Union[int, float, None], c: int | list[int], d: list | tuple | str):  # noqa: UP007
    """Take unions.

    Args:
        a: one
        b: two
        c: three
        d: four
    """


def nested(a: list[list[int]], b: dict[str, list[float]], c: list[dict[str, Color | int]], d: list, e: dict) -> dict:
    """Nest.

    Longer words about nesting, over
    two lines.

    Args:
        a: a table
        b: a list for each key
        c: objects
        d: whatever list
        e: whatever object
    """
    return {}


def tuples(a: tuple[int, str], b: tuple, c: tuple[float, float, list[str]] = (0.0, 0.0, [])):
    """Take tuples.

    Args:
        a: a pair
        b: any
        c: three
    """


def choices(drink: str, size: int, extras: str = "none", cup: str | None = None) -> str:
    """Order a drink.

    Args:
        drink: what to drink (choices: ["tea", "coffee"])
        size: how large, in
            decilitres (choices: [2, 3])
        extras: on top (CHOICES: ["none", " milk "])
        cup: if any (choices: ["paper"])
    """
    return drink


def nothing() -> str:
    """Do nothing, and take nothing."""
    return ""


def returning(a: int) -> list[dict[str, int]]:
    """Give something back. Returns: more than this.

    Args:
        a: one
            note: this line is indented deeper, and belongs to it.

    Returns:
        The numbers,
        one for each.

    Raises:
        ValueError: now and then
    """
    return [{"a": a}]


class Desk:
    def sort(self, papers: list[str], newest: bool = True) -> list[str]:
        """Sort papers.

        Args:
            papers: their titles
            newest: whether new ones come first
        """
        return sorted(papers, reverse=newest)


@functools.lru_cache
def wrapped(a: int) -> str:
    """Remember.

    Args:
        a: what
    """
    return str(a)


FUNCTIONS = [scalars, defaults, enums, literals, options, unions, nested, tuples, choices, nothing, returning]
FUNCTIONS += [Desk().sort, wrapped, functools.wraps(nested)(lambda **arguments: arguments)]


def strict(schema: Any) -> Any:
    """What transformers writes, with its ``nullable`` as JSON Schema has it."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if schema.pop("nullable", False):
        if "anyOf" in schema:
            schema["anyOf"].append({"type": "null"})
        elif "type" in schema:
            kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            schema["type"] = [*kinds, "null"]
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
    return schema


def without(schema: Any, *keys: str) -> Any:
    if isinstance(schema, dict):
        return {key: without(value, *keys) for key, value in schema.items() if key not in keys}
    return [without(item, *keys) for item in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_function_for_trl_is_told_as_trl_tells_it(function):
    """Name, description, types, enums, descriptions, what is required: all that transformers says, and valid."""
    get_json_schema = pytest.importorskip("transformers.utils").get_json_schema
    theirs = get_json_schema(function)["function"]
    ours = as_tool(function).spec
    assert (ours.name, ours.description) == (theirs["name"], theirs["description"])
    said = without(dict(ours.parameters), "default", "minItems", "maxItems")
    assert said == {**strict(theirs["parameters"]), "additionalProperties": False}
    assert list(ours.parameters["properties"]) == list(theirs["parameters"]["properties"])
    assert ours.returns == strict(theirs.get("return"))
    Draft202012Validator.check_schema(dict(ours.parameters))


def a_union(hints: list[Any]) -> Any:
    return Union[tuple(hints)]  # noqa: UP007


SIMPLE = st.sampled_from([int, float, str, bool, list, dict, Color, Level, Literal["a", 1], Literal[True]])
HINTS = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        inner.map(lambda hint: list[hint]),
        inner.map(lambda hint: dict[str, hint]),
        inner.map(lambda hint: Optional[hint]),  # noqa: UP045
        st.lists(inner, min_size=2, max_size=3).map(a_union),
        st.tuples(inner, inner).map(lambda hints: tuple[hints]),
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(HINTS)
def test_any_hint_that_trl_reads_is_told_as_trl_tells_it(hint):
    get_json_schema = pytest.importorskip("transformers.utils").get_json_schema

    def function(a): ...

    function.__annotations__ = {"a": hint}
    function.__doc__ = "Do.\n\nArgs:\n    a: it"
    theirs = get_json_schema(function)["function"]["parameters"]
    ours = as_tool(function).spec.parameters
    assert without(dict(ours), "minItems", "maxItems") == {**strict(theirs), "additionalProperties": False}
    Draft202012Validator.check_schema(dict(ours))


def test_null_is_allowed_where_the_hint_allows_it():
    executor = Executor(Catalog([as_tool(enums)]))
    call = ToolCall("enums", {"color": "red", "level": 2, "maybe": None})
    assert executor.run(call).content == "Color.RED 2 None"
    assert executor.run(ToolCall("enums", {"color": None, "level": 2})).status == "bad_call"


def test_a_function_that_describes_no_argument_is_a_tool_too():
    @tool
    def bare(a: int) -> str: ...

    assert bare.spec.description == ""
    assert bare.spec.parameters["properties"] == {"a": {"type": "integer"}}


# What TRL refuses ----------------------------------------------------------------------------------------------------


class Place(BaseModel):
    city: str
    opened: datetime.date | None = None

    @field_validator("city")
    @classmethod
    def known(cls, city: str) -> str:
        if city == "Atlantis":
            raise ValueError("nobody has found it")
        return city.title()


class Range(TypedDict, total=False):
    low: int
    high: int


@dataclasses.dataclass
class Stay:
    place: Place
    nights: int = 1


@tool
def book(
    place: Place,
    stay: Stay,
    days: list[datetime.date],
    price: Range,
    color: Color = Color.BLUE,
    rooms: Annotated[int, Field(ge=1, le=9, description="how many")] = 1,
    name: Annotated[str, "who comes"] = "",
    others: list[Place] | None = None,
) -> list[str]:
    """Book a room.

    Args:
        place: where
    """
    return [repr(value) for value in (place, stay, days, price, color, rooms, name, others)]


def test_the_schema_of_a_model_names_its_fields_without_titles():
    schema = book.spec.parameters
    assert schema["properties"]["place"] == {"$ref": "#/$defs/Place", "description": "where"}
    assert schema["$defs"]["Place"]["properties"]["city"] == {"type": "string"}
    assert schema["$defs"]["Stay"]["required"] == ["place"]
    assert schema["$defs"]["Range"]["properties"] == {"low": {"type": "integer"}, "high": {"type": "integer"}}
    assert schema["properties"]["color"] == {"type": "string", "enum": ["red", "blue"], "default": "blue"}
    rooms = {"type": "integer", "minimum": 1, "maximum": 9, "description": "how many", "default": 1}
    assert schema["properties"]["rooms"] == rooms
    assert schema["properties"]["name"] == {"type": "string", "description": "who comes", "default": ""}
    assert schema["required"] == ["place", "stay", "days", "price"]
    Draft202012Validator.check_schema(dict(schema))


def test_arguments_arrive_as_the_types_that_the_function_names():
    arguments = {
        "place": {"city": "rome", "opened": "2020-01-02"},
        "stay": {"place": {"city": "oslo"}, "nights": 2},
        "days": ["2026-11-20"],
        "price": {"low": 3},
        "color": "red",
        "others": [{"city": "bern"}],
    }
    assert book(**arguments) == [
        repr(Place(city="Rome", opened=datetime.date(2020, 1, 2))),
        repr(Stay(Place(city="Oslo"), 2)),
        repr([datetime.date(2026, 11, 20)]),
        repr({"low": 3}),
        repr(Color.RED),
        "1",
        "''",
        repr([Place(city="Bern")]),
    ]


def test_what_a_type_refuses_is_a_bad_call_that_says_where():
    executor = Executor(Catalog([book]))
    good = {"place": {"city": "rome"}, "stay": {"place": {"city": "rome"}}, "days": [], "price": {}}
    assert executor.run(ToolCall("book", good)).ok
    wrong_day = executor.run(ToolCall("book", good | {"days": ["tomorrow"]}))
    assert wrong_day.status == "bad_call"
    assert "book at 'days/0': Input should be a valid date" in wrong_day.content
    sunk = executor.run(ToolCall("book", good | {"stay": {"place": {"city": "Atlantis"}}}))
    assert (sunk.status, "'stay/place/city': Value error, nobody has found it" in sunk.content) == ("bad_call", True)
    assert executor.run(ToolCall("book", good | {"rooms": 10})).status == "bad_call"
    assert executor.run(ToolCall("book", good | {"place": {}})).status == "bad_call"


def test_a_function_of_plain_types_is_called_as_it_is():
    def plain(a: int, b: list[str], c: dict[str, Any] | None = None) -> str:
        """Be plain."""
        return "x"

    assert as_tool(plain).function is plain
    assert as_tool(enums).function is not enums


def test_a_tool_with_typed_arguments_can_be_sent_to_another_process():
    assert pickle.loads(pickle.dumps(book)) is book
    sent = pickle.loads(pickle.dumps(as_tool(enums, name="paint")))
    assert sent.name == "paint"
    assert sent(color="red", level=1) == "Color.RED 1 None"


def test_a_tool_is_imported_by_name_in_a_process_that_never_saw_it():
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read())(2.0, unit='ft'))"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(convert), capture_output=True, check=True)
    assert done.stdout == b"2.0ft\n"


SCRIPT = """
import sys
from enum import Enum
from ray import cloudpickle
from executors.environment import environment_tools
from executors.tool import tool

class Kind(Enum):
    A = "a"

@tool
def show(kind: Kind) -> str:
    return f"it is {kind}"

class Bell:
    def reset(self): ...
    def ring(self, kind: Kind) -> str:
        return f"ring {kind}"

sys.stdout.buffer.write(cloudpickle.dumps([show, *environment_tools(Bell)]))
"""


def test_tools_of_a_script_reach_processes_that_cannot_import_it(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    script = [sys.executable, str(tmp_path / "script.py")]
    sent = subprocess.run(script, capture_output=True, check=True, env=environment)
    show, ring = pickle.loads(sent.stdout)
    assert show(kind="a") == "it is Kind.A"
    with Executor(Catalog([ring])).open(Scene()) as session:
        assert session.run(ToolCall("ring", {"kind": "a"})).content == "ring Kind.A"


def test_async_functions_methods_objects_and_partials_are_tools():
    async def later(day: datetime.date) -> str:
        """Wait."""
        return day.isoformat()

    class Adder:
        """Add to a number."""

        def __init__(self, start: int) -> None:
            self.start = start

        def __call__(self, more: int) -> int:
            return self.start + more

    def scale(value: float, factor: float = 2.0) -> float:
        """Scale."""
        return value * factor

    def count(to: int) -> Iterator[str]:
        """Count."""
        yield from map(str, range(to))

    tripled = functools.partial(scale, factor=3.0)
    tools = [as_tool(later), as_tool(Adder(2)), as_tool(Desk().sort), as_tool(tripled), as_tool(count)]
    assert [tool.name for tool in tools] == ["later", "Adder", "sort", "scale", "count"]
    assert (tools[1].spec.description, tools[3].spec.description) == ("Add to a number.", "Scale.")
    executor = Executor(Catalog(tools))

    def run(name: str, **arguments: Any) -> str:
        return executor.run(ToolCall(name, arguments)).content

    assert asyncio.iscoroutinefunction(tools[0].function)
    assert run("later", day="2026-11-20") == "2026-11-20"
    assert run("Adder", more=3) == "5"
    assert run("sort", papers=["a", "b"]) == '["b", "a"]'
    assert run("scale", value=2) == "6.0"
    assert run("count", to=3) == "012"


def test_a_tool_made_of_a_tool_is_that_tool():
    assert as_tool(convert) is convert


# Refusals ------------------------------------------------------------------------------------------------------------


def test_a_parameter_without_a_hint_is_refused_with_its_name():
    with pytest.raises(ConfigError, match="'amount' has no type hint"):

        @tool
        def bad(amount): ...


def test_star_arguments_and_positional_ones_are_refused():
    def stars(*amounts: float): ...
    def doubles(**amounts: float): ...
    def positional(amount: float, /): ...

    for function, message in ((stars, r"\*amounts has"), (doubles, r"\*amounts has"), (positional, "positional only")):
        with pytest.raises(ConfigError, match=message):
            as_tool(function)


def test_hints_without_a_schema_are_refused():
    def strange(a: "Missing"): ...  # type: ignore # noqa: F821
    def function(a: type[int] | Iterator[Desk]): ...
    def default(a: int = Field(3, ge=1)): ...
    def renamed(a: Annotated[int, Field(alias="b", ge=1)]): ...

    for bad, message in (
        (strange, "'Missing' is not defined"),
        (function, "a type hint has no JSON Schema"),
        (default, "has a Field for its default; write it as Annotated"),
        (renamed, "alias renames a"),
    ):
        with pytest.raises(ConfigError, match=message):
            as_tool(bad)


def test_what_is_no_function_is_refused():
    for thing in (Desk, 3, "convert"):
        with pytest.raises(ConfigError, match="is no function"):
            as_tool(thing)  # type: ignore
    with pytest.raises(ConfigError, match="'<lambda>'"):
        as_tool(lambda: "")
    with pytest.raises(ConfigError, match="make a tool of the bound method"):
        as_tool(Desk.sort)


def test_a_docstring_that_contradicts_the_signature_is_refused():
    def wrong_choice(unit: Literal["m", "ft"]):
        """Measure.

        Args:
            unit: which (choices: ["m", "yard"])
        """

    def wrong_kind(count: int):
        """Count.

        Args:
            count: how many (choices: ["one"])
        """

    def unreadable(count: int):
        """Count.

        Args:
            count: how many (choices: one)
        """

    def misnamed(amount: int):
        """Count.

        Args:
            ammount: how many
        """

    for function, message in (
        (wrong_choice, r"'unit': the docstring allows 'yard', the type hint only one of \['m', 'ft'\]"),
        (wrong_kind, "'count': the docstring allows 'one', the type hint only integer"),
        (unreadable, "no JSON list"),
        (misnamed, "describes 'ammount', which it does not take; is it 'amount'"),
    ):
        with pytest.raises(ConfigError, match=message):
            as_tool(function)


# Catalogs ------------------------------------------------------------------------------------------------------------


def test_a_catalog_suggests_near_misses():
    catalog = Catalog([convert, load_tool("calculator")])
    with pytest.raises(UnknownToolError, match=r"no tool named 'calculater' among the 2 .* closest: calculator"):
        catalog.get("calculater")


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="two tools are named 'convert'"):
        Catalog([convert, convert])


def test_a_tool_that_is_not_there_is_a_config_error_that_says_how_to_name_one():
    with pytest.raises(ConfigError, match="name a built-in such as 'calculator'"):
        load_tool("calculatr")
    with pytest.raises(ConfigError, match="parameter 'obj' has no type hint"):
        load_tool("json:dumps")
    with pytest.raises(ConfigError, match="not a tool or several; decorate it"):
        load_tool("string:digits")


def test_a_conversion_fails_as_a_bad_call_in_direct_use_too():
    with pytest.raises(BadCallError, match="bad arguments for enums at 'color'"):
        as_tool(enums)(color="green", level=1)


@pytest.mark.parametrize(
    "limits", [{"concurrency": 0}, {"per_second": 0.0}, {"timeout": -1.0}, {"timeout": float("nan")}, {"retries": -1}]
)
def test_a_limit_that_nothing_can_keep_is_a_config_error(limits):
    with pytest.raises(ConfigError, match=f"{next(iter(limits))} must be"):
        Limits(**limits)
