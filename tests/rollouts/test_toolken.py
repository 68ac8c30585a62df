import pytest

from executors.catalog import Catalog
from executors.executor import Executor
from executors.tools.operations import operation_tools
from executors.types import MalformedCall, Observation, ToolCall
from rollouts.episode import play
from rollouts.formats.toolken import ToolkenFormat, call_of, called, read_numbers, spliced, with_calls
from rollouts.policy import ScriptedPolicy
from rollouts.types import Completion, Task, Turn

TASK = Task(id="t", prompt="What is 67 times 29, halved?", tools=("multiply", "divide"))
CATALOG = Catalog(operation_tools())


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("67, 29", [67, 29]),
        ("1,943, 60", [1943, 60]),
        ("67,29", [67, 29]),
        ("$3.50, 2", [3.5, 2]),
        ("((5,2))", [5, 2]),
        ("20%, 50", [0.2, 50]),
        ("=12>, 3", [12, 3]),
        ("0.9337,4/3, 3.14", [0.9337, 4 / 3, 3.14]),
        ("4/3, 3", [4 / 3, 3]),
        ("-0.5", [-0.5]),
    ],
)
def test_arguments_are_cleaned_as_published(text, numbers):
    assert read_numbers(text) == pytest.approx(numbers)


@pytest.mark.parametrize("text", ["", "()", "two, 3", "__import__('os')", "1/0, 2"])
def test_what_is_no_number_is_a_malformed_call_and_never_runs(text):
    call = call_of("add", text, CATALOG.get("add").spec)
    assert isinstance(call, MalformedCall) and "add" in call.error


async def test_inline_calls_run_and_their_results_are_spliced_in():
    replies = [" It is <multiply>(67, 29)=", ", so half is <divide>(1943, 2)=", ". #### 971.5"]
    format = ToolkenFormat(marker="####", inline=True)
    episode = await play(TASK, ScriptedPolicy("p", lambda task: replies), Executor(CATALOG), format)
    assert [o.content for o in episode.observations] == ["1943", "971.5"]
    assert episode.answer == "971.5"
    assert called(episode) == "multiply"
    assert spliced(episode.turns).endswith("(1943, 2)=971.5. #### 971.5")


async def test_a_call_that_is_not_closed_is_malformed():
    episode = await play(
        TASK, ScriptedPolicy("p", lambda task: [" It is <multiply>(67"]), Executor(CATALOG), ToolkenFormat(inline=True)
    )
    assert episode.malformed


def test_tool_mode_reads_calls_where_reasoning_mode_reads_results():
    call = ToolCall("multiply", {"numbers": [67, 29]})
    turns = [Turn(Completion(text=" It is "), (call,), (Observation("1943"),)), Turn(Completion(text=", halved"))]
    failed = Turn(Completion(text=""), (call,), (Observation("no", status="tool_error"),))
    assert spliced([*turns, failed]) == " It is 1943, halved"
    assert with_calls([*turns, failed]) == " It is <multiply>(67, 29)=1943, halved"


def test_the_template_has_the_question_in_its_place():
    assert ToolkenFormat().opening(TASK, ()) == f"Q: {TASK.prompt}\nA:"
    assert ToolkenFormat("Solve [QUESTION] now").opening(TASK, ()) == f"Solve {TASK.prompt} now"
