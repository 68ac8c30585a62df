import pytest

from executors.catalog import Catalog
from executors.executor import Executor
from executors.tool import tool
from executors.tools.describe import describe_tool
from executors.types import MalformedCall, Observation, ToolCall
from rollouts.episode import play
from rollouts.formats.atomic import ACTION, AtomicFormat, gave_up, pending, read_arguments
from rollouts.policy import ScriptedPolicy
from rollouts.types import Completion, Task, Turn


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"rain in {city}"


CATALOG = Catalog([weather, describe_tool(Catalog([weather]))])
TASK = Task(id="t", prompt="Is it raining in Rome?", tools=("weather", "describe"))


async def test_naming_a_tool_brings_its_documentation_and_only_then():
    replies = [f"I need the weather.\n{ACTION}weather", f"{ACTION}<<Finish>> unknown"]
    episode = await play(TASK, ScriptedPolicy("p", lambda task: replies), Executor(CATALOG), AtomicFormat())
    assert episode.calls == (ToolCall("describe", {"tool": "weather"}),)
    assert "city (string, required)" in episode.observations[0].content
    assert "city" not in AtomicFormat().opening(TASK, CATALOG.specs())
    assert episode.answer == "unknown"


def described(status="ok"):
    return Turn(Completion(text=""), (ToolCall("describe", {"tool": "weather"}),), (Observation("doc", status=status),))


def test_a_tool_is_pending_from_its_documentation_to_its_call():
    called = Turn(Completion(text="{}"), (ToolCall("weather", {"city": "Rome"}),), (Observation("rain"),))
    assert pending(()) is None
    assert pending((described(),)) == "weather"
    assert pending((described(), called)) is None
    assert pending((described("tool_error"),)) is None


def test_documentation_and_observations_are_cut():
    format = AtomicFormat(max_observation=5, max_documentation=4)
    assert format.observed(described()) == f"\ndoc{format.INPUT}"
    long = Turn(Completion(text=""), (ToolCall("weather", {}),), (Observation("0123456789"),))
    assert format.observed(long) == f"{format.OBSERVATION}01234\n"
    failed = Turn(Completion(text=""), (ToolCall("weather", {}),), (Observation("no", status="tool_error"),))
    assert "error" in format.observed(failed)


@pytest.mark.parametrize(("text", "arguments"), [('{"city": "Rome"} and more', {"city": "Rome"}), (" {}", {})])
def test_arguments_are_the_first_json_object(text, arguments):
    assert read_arguments("weather", text) == ToolCall("weather", arguments)


@pytest.mark.parametrize("text", ["", "Rome", "[1]", '{"city": ', "[" * 5000])
def test_anything_else_is_malformed(text):
    call = read_arguments("weather", text)
    assert isinstance(call, MalformedCall) and "weather" in call.error


def test_giving_up_is_no_answer():
    format = AtomicFormat()
    text = f"{ACTION}<<Finish>> give_up_and_restart"
    assert gave_up(text) and format.answer(text) == ""
    assert format.answer(format.write_answer("42")) == "42"
    assert not gave_up("give_up_and_restart")
    assert format.answer("no end") == ""
    assert format.answer_so_far(f"{ACTION}<<Finish>> 4", ()) == "4"
