import asyncio
import threading
import time

from executors.catalog import Catalog
from executors.errors import ToolError
from executors.executor import Executor
from executors.tool import tool
from executors.types import MalformedCall, ToolCall


@tool
def sleepy(seconds: float) -> str:
    """Sleep."""
    time.sleep(seconds)
    return "awake"


@tool
async def patient(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return "done"


@tool
def broken() -> str:
    """Fail."""
    raise RuntimeError("no disk")


@tool
def picky(word: str) -> str:
    """Refuse."""
    raise ToolError(f"{word!r} is not for me")


@tool
def wordy() -> dict[str, str]:
    """Talk."""
    return {"text": "é" * 50}


def make(**options) -> Executor:
    return Executor(Catalog([sleepy, patient, broken, picky, wordy]), **options)


def test_failed_call_is_an_observation_not_an_exception(executor):
    observation = executor.run(ToolCall("calculator", {"expression": "1 / 0"}))
    assert observation.status == "tool_error"
    assert observation.content == "cannot evaluate '1 / 0': division by zero"


def test_a_call_that_works_is_ok(executor):
    observation = executor.run(ToolCall("calculator", {"expression": "6*7"}))
    assert (observation.status, observation.content) == ("ok", "42")


def test_arguments_that_break_the_schema_are_a_bad_call_that_names_the_fault(executor):
    missing = executor.run(ToolCall("calculator", {}))
    assert missing.status == "bad_call"
    assert "'expression' is a required property" in missing.content
    extra = executor.run(ToolCall("calculator", {"expression": "1", "precise": True}))
    assert (extra.status, "'precise' was unexpected" in extra.content) == ("bad_call", True)
    wrong = executor.run(ToolCall("calculator", {"expression": 5}))
    assert (wrong.status, "at 'expression'" in wrong.content) == ("bad_call", True)


def test_an_unknown_tool_and_a_malformed_call_are_bad_calls(executor):
    assert executor.run(ToolCall("calc", {})).status == "bad_call"
    observation = executor.run(MalformedCall("calculator(", "not closed"))
    assert (observation.status, observation.content) == ("bad_call", "not closed")


def test_a_tool_that_hangs_is_a_timeout():
    executor = make(timeout=0.05)
    assert executor.run(ToolCall("sleepy", {"seconds": 5})).status == "timeout"
    assert executor.run(ToolCall("patient", {"seconds": 5})).status == "timeout"


def test_a_hanging_tool_does_not_hold_up_another_call():
    executor = make(timeout=0.2)

    async def both():
        slow = asyncio.ensure_future(executor.arun(ToolCall("sleepy", {"seconds": 1})))
        fast = await executor.arun(ToolCall("patient", {"seconds": 0}))
        assert not slow.done()
        return fast, await slow

    fast, slow = asyncio.run(both())
    assert (fast.status, slow.status) == ("ok", "timeout")


def test_a_late_answer_of_an_abandoned_tool_is_dropped_silently():
    executor = make(timeout=0.02)
    before = threading.excepthook
    caught = []
    threading.excepthook = lambda args: caught.append(args)
    try:
        assert executor.run(ToolCall("sleepy", {"seconds": 0.1})).status == "timeout"
        time.sleep(0.2)
    finally:
        threading.excepthook = before
    assert caught == []


def test_a_tool_that_crashes_or_refuses_is_a_tool_error():
    executor = make()
    assert executor.run(ToolCall("broken", {})).content == "RuntimeError: no disk"
    assert executor.run(ToolCall("picky", {"word": "no"})).content == "'no' is not for me"


def test_a_long_answer_is_cut_and_says_so():
    observation = make(max_chars=20).run(ToolCall("wordy", {}))
    assert observation.content == '{"text": "ééééééééé' + "é... [cut, 62 characters]"
    assert observation.status == "ok"
