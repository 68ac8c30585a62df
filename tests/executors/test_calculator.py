import json
import os
import time
from pathlib import Path

import pytest

from executors.errors import ToolError
from executors.tools.calculator import calculator
from executors.types import ToolCall


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("(12/60)*50", "10"),
        ("2^3", "8"),
        ("1,000*2", "2000"),
        ("12.5*37", "462.5"),
        ("0.1+0.2", "0.3"),
        ("-5+2", "-3"),
        ("1/3", "0.333333333333"),
        ("2**-2", "0.25"),
        ("10**20+1", "100000000000000000001"),
        ("9**0.5", "3"),
        ("1/10000000000", "0.0000000001"),
        ("+7", "7"),
    ],
)
def test_arithmetic_is_exact(expression, value):
    assert calculator(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "10/0",
        "50%*20",
        "",
        "   ",
        "__import__('os')",
        "(lambda: 1)()",
        "x+1",
        "'a'*9",
        "1e999",
        "9**256**256",
        "(" * 400 + "1" + ")" * 400,
        "1 if 1 else 2",
        "[1]*99999999",
        "True+1",
        "1j*1j",
        "(-8)**0.5",
        "0**-1",
        "\x00",
        "9" * 501,
        "*".join(["99999999999999999999"] * 20),
        "1;2",
        "a:=3",
    ],
)
def test_anything_else_is_a_typed_error_in_milliseconds(expression):
    began = time.process_time()
    with pytest.raises(ToolError):
        calculator(expression)
    assert time.process_time() - began < 0.2


def test_the_error_says_what_was_wrong():
    with pytest.raises(ToolError, match=r"cannot evaluate '10/0': division by zero"):
        calculator("10/0")
    with pytest.raises(ToolError, match="the exponent is over 256"):
        calculator("9**9**9")


def hostile() -> list[dict[str, str]]:
    path = Path(os.environ.get("APPRENTICE_DATA", "../shared/data")) / "hostile_calls.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there: the corpus of hostile calls is read in place")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    power = "2^10"  # the corpus refuses a caret; here it is a power, as TRICE writes it
    return [r for r in rows if r["tool"] == "calculator" and r["must"] != "ok" and r["input"] != power]


def test_hostile_expressions_are_refused_in_milliseconds(executor):
    for row in hostile():
        began = time.process_time()
        observation = executor.run(ToolCall("calculator", {"expression": row["input"]}))
        assert observation.status == "tool_error", (row, observation)
        assert time.process_time() - began < 0.2, row
