import pickle
from typing import Literal

import pytest
from pydantic import BaseModel

from executors.catalog import Catalog, load_tool
from executors.errors import ConfigError, UnknownToolError
from executors.tool import tool


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
    assert spec.description == "Convert a length. Written over two lines."
    assert spec.parameters["properties"]["amount"] == {"type": "number", "description": "how much, in the other unit."}
    assert spec.parameters["properties"]["unit"]["enum"] == ["m", "ft"]
    assert spec.parameters["properties"]["precise"] == {"default": False, "type": "boolean"}
    assert spec.parameters["required"] == ["amount"]
    assert spec.parameters["additionalProperties"] is False


def test_a_tool_is_still_callable_and_can_be_sent_to_another_process():
    assert convert(3.0, unit="ft") == "3.0ft"
    assert pickle.loads(pickle.dumps(load_tool("calculator")))("1+1") == "2"


def test_pydantic_parameters_nest_in_the_schema():
    class Place(BaseModel):
        city: str

    @tool(name="find")
    def search(place: Place, tags: list[str]) -> str:
        """Search."""
        return place.city + ",".join(tags)

    assert search.name == "find"
    assert search.spec.parameters["properties"]["tags"]["items"] == {"type": "string"}
    assert "Place" in search.spec.parameters["$defs"]


def test_a_parameter_without_a_hint_is_refused_with_its_name():
    with pytest.raises(ConfigError, match="'amount' has no type hint"):

        @tool
        def bad(amount): ...


def test_star_arguments_are_refused():
    with pytest.raises(ConfigError, match=r"\*amounts has no schema"):

        @tool
        def bad(*amounts: float): ...


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
    with pytest.raises(ConfigError, match="not a tool; decorate it"):
        load_tool("json:dumps")
