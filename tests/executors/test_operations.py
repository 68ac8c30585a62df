import pytest

from executors.catalog import Catalog
from executors.executor import Executor
from executors.tools.operations import OPERATIONS, Operation, operation_tools
from executors.types import ToolCall


@pytest.mark.parametrize(
    ("name", "numbers", "said"),
    [
        ("add", [0.1, 0.2], "0.3"),
        ("subtract", [10, 4, 3], "3"),
        ("multiply", [67, 253], "16951"),
        ("divide", [1, 3], "0.333333333333"),
        ("power", [0.89, 8], "0.39365888057"),
        ("sqrt", [1.056], "1.02761860629"),
        ("log", [8, 2], "3"),
        ("ln", [1], "0"),
        ("choose", [45, 7], "45379620"),
        ("permutate", [23, 7], "1235591280"),
        ("gcd", [144, 126, 108], "18"),
        ("lcm", [23, 33, 42], "10626"),
        ("remainder", [7893, 777], "123"),
    ],
)
def test_each_operation_answers_at_full_precision(name, numbers, said):
    assert Executor(Catalog(operation_tools())).run(ToolCall(name, {"numbers": numbers})).content == said


def test_there_are_thirteen_and_each_is_a_tool():
    assert [tool.name for tool in operation_tools()] == list(OPERATIONS)
    assert len(set(OPERATIONS)) == 13


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (ToolCall("divide", {"numbers": [1, 0]}), "tool_error"),
        (ToolCall("sqrt", {"numbers": [-1]}), "tool_error"),
        (ToolCall("gcd", {"numbers": [1.5, 3]}), "tool_error"),
        (ToolCall("power", {"numbers": [9999, 9999]}), "tool_error"),
        (ToolCall("power", {"numbers": [2]}), "bad_call"),
        (ToolCall("sqrt", {"numbers": [1, 2]}), "bad_call"),
        (ToolCall("add", {"numbers": ["1 + 1"]}), "bad_call"),
    ],
)
def test_what_has_no_result_is_an_observation(call, status):
    assert Executor(Catalog(operation_tools())).run(call).status == status


def test_decimals_are_what_they_are_written_as():
    assert Operation("add").value([0.1, 0.2]) == Operation("divide").value([3, 10])
