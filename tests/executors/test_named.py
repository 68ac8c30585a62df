"""Tools by the names and settings that a config gives them."""

import json
import pickle

import pytest

from executors.errors import ConfigError, DataError
from executors.executor import Executor
from executors.listening import listen
from executors.named import load_catalog, load_tool, load_tools
from executors.simulation.server import simulated_app
from executors.tool import Tool, tool
from executors.tools.calculator import calculator
from executors.tools.dates import dates
from executors.tools.units import units
from executors.types import Scene, ToolCall
from tests.executors.documents import PETS
from tests.executors.endpoints import endpoint


@tool
def greet(name: str) -> str:
    """Say hello."""
    return f"hello {name}"


def greeter(greeting: str = "hello") -> Tool:
    """Makes a tool."""

    @tool
    def say(name: str) -> str:
        """Say something."""
        return f"{greeting} {name}"

    return say


def shout(word: str) -> str:
    """Say it loud."""
    return word.upper()


class Counter:
    """Counts."""

    def reset(self) -> None:
        self.count = 0

    def add(self, number: int) -> int:
        """Add.

        Args:
            number: how many.
        """
        self.count += number
        return self.count


several = [greet, shout]


def test_a_reference_names_one_tool_or_several():
    here = __name__
    assert load_tools("calculator") == [calculator]
    assert load_tools("dates") == dates
    assert load_tools("units") == [units]
    assert [t.name for t in load_tools("http")] == ["http"]
    assert [t.name for t in load_tools(f"{here}:greet")] == ["greet"]
    assert [t.name for t in load_tools(f"{here}:shout")] == ["shout"]
    assert [t.name for t in load_tools(f"{here}:several")] == ["greet", "shout"]
    assert [t.name for t in load_tools(f"{here}:Counter")] == ["add"]


def test_a_reference_names_a_file_of_tools(tmp_path):
    (tmp_path / "passages.jsonl").write_text('{"title": "Lima", "text": "The capital of Peru."}')
    (search,) = load_tools(f"wiki_search:{tmp_path / 'passages.jsonl'}")
    assert "Lima" in search(query="Peru")
    (tmp_path / "tool.jsonl").write_text('{"api_name": "act", "parameters": {}}')
    assert [t.name for t in load_tools(f"sealtools:{tmp_path}")] == ["act"]
    with pytest.raises(DataError):
        load_tools(f"bfcl:{tmp_path / 'none'}")
    with pytest.raises(DataError):
        load_tools(f"openapi:{tmp_path / 'none'}")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nope", "name a built-in such as 'calculator'"),
        ("", "was not found"),
        (":x", "was not found"),
        ("..x:y", "was not found"),
        ("math:pi", "is a float, not a tool or several"),
        ("math:nothing", "was not found"),
        ("wiki_search", "path: Field required. Its settings are path, k, name"),
        ("json:dumps", "'obj' has no type hint"),
    ],
)
def test_a_reference_to_nothing_is_a_config_error_that_says_what_there_is(reference, message):
    with pytest.raises(ConfigError, match=message):
        load_tools(reference)


def test_where_one_tool_is_wanted_several_are_refused():
    with pytest.raises(ConfigError, match="'dates' is 5 tools: today, iso_date"):
        load_tool("dates")
    assert load_tool(f"{__name__}:greet") is greet


def test_a_catalog_is_of_all_that_a_config_names_and_describe_documents_the_others():
    catalog = load_catalog(["describe", "calculator", "dates"])
    assert catalog.names == ("calculator", *(one.name for one in dates), "describe")
    assert catalog.get("describe")(tool="weekday").startswith("weekday: The day of the week")
    assert load_catalog([]).names == ()
    with pytest.raises(ConfigError, match="two tools are named 'calculator'"):
        load_catalog(["calculator", "calculator"])


def test_a_tool_of_the_config_takes_settings(tmp_path):
    (tmp_path / "passages.jsonl").write_text("".join(f'{{"title": "Peru {n}", "text": "x"}}\n' for n in range(5)))
    (search,) = load_tools({"wiki_search": {"path": str(tmp_path / "passages.jsonl"), "k": 3, "name": "look_up"}})
    assert search.name == "look_up"
    assert search(query="Peru").count("Peru") == 3
    (python,) = load_tools({"python": {"wall_s": 5.0}})
    assert "5 seconds" in python.spec.description
    assert load_tools({"calculator": {}}) == [calculator]


def test_a_function_of_a_users_module_is_called_with_the_settings():
    (say,) = load_tools({f"{__name__}:greeter": {"greeting": "good day"}})
    assert say(name="Ada") == "good day Ada"


def test_a_model_behind_an_endpoint_is_named_in_the_config_and_survives_the_way_to_another_process():
    with endpoint("Lima") as served:
        settings = {"model": {"base_url": served.url, "model": "small"}}
        catalog = load_catalog([{"question_answer": settings}, {"translate": settings}])
        executor = pickle.loads(pickle.dumps(Executor(catalog)))
        assert executor.run(ToolCall("question_answer", {"question": "Capital of Peru?"})).content == "Lima"
        assert executor.run(ToolCall("translate", {"text": "Lima"})).status == "ok"
        assert [asked["model"] for asked in served.asked] == ["small", "small"]


def test_the_user_is_asked_by_the_key_that_the_config_names():
    catalog = load_catalog([{"get_details": {"key": "facts", "name": "getDetails"}}])
    session = Executor(catalog).open(Scene("one", 0, {"facts": ["In Lima."]}))
    assert session.run(ToolCall("getDetails", {"question": "Where?"})).content == "In Lima."


def test_a_private_server_is_reached_only_where_the_config_allows_it(tmp_path):
    (tmp_path / "pets.json").write_text(json.dumps(PETS))
    with listen(simulated_app({"pets": PETS})) as served:
        settings = {"path": str(tmp_path / "pets.json"), "server": f"{served.url}/pets"}
        allowed = settings | {"allow_private": [served.url.removeprefix("http://")]}
        observation = Executor(load_catalog([{"openapi": allowed}])).run(ToolCall("listPets", {}))
        assert observation.status == "ok"
        with pytest.raises(ConfigError):
            load_tools({"openapi": settings})


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"wiki_search": {"path": "x", "top": 3}}, "top: Extra inputs are not permitted. Its settings are path, k"),
        ({"question_answer": {"model": {"base_url": "http://x/v1", "modl": "m"}}}, "model.modl|model.model"),
        ({"question_answer": {"model": {"base_url": "ftp://x", "model": "m"}}}, "base_url must be like"),
        ({"question_answer": None}, "model: Field required"),
        ({"mcp": {}}, "give either path"),
        ({"calculator": {"digits": 3}}, "'calculator' takes no settings"),
        ({f"{__name__}:greeter": {"tone": "loud"}}, "other settings than it takes"),
        ({"a": {}, "b": {}}, "one name with its settings"),
        ({"calculator": 3}, "are keys and values, not 3"),
        ({"nope": {}}, "was not found"),
    ],
)
def test_wrong_settings_are_a_config_error_that_names_them(reference, message):
    with pytest.raises(ConfigError, match=message):
        load_tools(reference)
