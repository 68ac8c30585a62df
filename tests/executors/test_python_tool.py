"""The tool ``python`` through an executor: what a model reads, and the status that it is given."""

import pickle

import pytest

from executors.catalog import Catalog
from executors.errors import BlockedError, ToolError, TransientError
from executors.executor import Executor
from executors.named import load_tool
from executors.sandbox.posture import posture
from executors.sandbox.types import SandboxConfig, SandboxResult, SandboxStatus, SandboxUnavailableError
from executors.tools import python as tools
from executors.tools.python import answer, lasting_python, python, python_tool
from executors.types import Observation, Scene, ToolCall

CONFIG = SandboxConfig(workers=1, wall_s=0.5)
needs_sandbox = pytest.mark.skipif(posture().tier is None, reason="THE SANDBOX WAS NOT TRIED: neither tier holds here")


@pytest.fixture(scope="module")
def fresh() -> Executor:
    return Executor(Catalog([pickle.loads(pickle.dumps(python_tool(CONFIG)))]))


@pytest.fixture(scope="module")
def lasting() -> Executor:
    return Executor(Catalog([pickle.loads(pickle.dumps(python_tool(CONFIG, lasting=True)))]))


def call(code: str) -> ToolCall:
    return ToolCall("python", {"code": code})


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "status", "content"),
    [
        ("print('a')\n1 + 1", "ok", "a\n2"),
        ("x = 1", "ok", "(no output)"),
        ("import sys\nprint('a')\nprint('b', file=sys.stderr)", "ok", "a\nb"),
        ("print('a')\nwhile True: pass", "timeout", "after 0.5 s and was stopped\nOutput until then:\na"),
        ("print('a')\n1 / 0", "tool_error", "ZeroDivisionError: division by zero\nOutput until then:\na"),
        ("import socket\nsocket.socket()", "blocked", "PermissionError: [Errno 1] Operation not permitted"),
        ("while True: print('x' * 9999)", "tool_error", "the program printed more than"),
    ],
)
def test_a_model_reads_what_came_of_its_program(fresh, code, status, content):
    observation = fresh.run(call(code))
    assert observation.status == status
    assert content in observation.content


@needs_sandbox
def test_variables_last_for_an_episode_and_no_longer(lasting):
    with lasting.open(Scene("one")) as one, lasting.open(Scene("two")) as two:
        one.run(call("x = 41"))
        assert one.run(call("x + 1")).content == "42"
        assert two.run(call("x")).status == "tool_error"
        lost = one.run(call("while True: pass"))
        assert lost.status == "timeout" and "variables and files of earlier calls are gone" in lost.content
        assert "NameError" in one.run(call("x")).content
    with lasting.open(Scene("one")) as again:
        assert again.run(call("x")).status == "tool_error"


@needs_sandbox
async def test_many_calls_at_once_wait_for_their_turn(fresh):
    session = fresh.open(Scene("many"))
    observations = await session.arun_all([call(f"{number} * 2") for number in range(8)])
    assert [observation.content for observation in observations] == [str(2 * number) for number in range(8)]


def test_a_call_without_code_is_a_bad_call(fresh):
    assert fresh.run(ToolCall("python", {})).status == "bad_call"
    assert fresh.run(ToolCall("python", {"code": "1", "timeout": 60})).status == "bad_call"


def test_where_no_sandbox_can_be_had_the_tool_is_unavailable(monkeypatch):
    class Refused:
        async def arun_source(self, source: str) -> SandboxResult:
            raise SandboxUnavailableError("neither tier holds")

    monkeypatch.setattr(tools, "shared_pool", lambda config: Refused())
    monkeypatch.setattr("executors.session._BACKOFF", 0.0)
    observation: Observation = Executor(Catalog([python])).run(call("1"))
    assert (observation.status, observation.content) == ("unavailable", "neither tier holds")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("error", ToolError),
        ("output_limit", ToolError),
        ("blocked", BlockedError),
        ("killed", BlockedError),
        ("timeout", TimeoutError),
        ("internal", TransientError),
    ],
)
def test_each_status_of_the_sandbox_is_an_error_of_tools(status: SandboxStatus, error: type[Exception]):
    with pytest.raises(error) as raised:
        answer(SandboxResult(status=status, error="why", stdout="so far\n"))
    assert type(raised.value) is error
    assert str(raised.value) == "why\nOutput until then:\nso far"


def test_output_that_was_not_kept_is_said_to_be_missing():
    assert (
        answer(SandboxResult(status="ok", stdout="ab", truncated=True)) == "ab\n[the rest of the output was not kept]"
    )


def test_both_forms_can_be_named_in_a_config():
    assert load_tool("python") is python
    assert load_tool("executors.tools.python:lasting_python") is lasting_python
    assert python.spec.name == lasting_python.spec.name == "python"
    assert "0.5 seconds" in python_tool(CONFIG).spec.description
