"""Environments behind OpenEnv servers: against a server written from the protocol, and against the library's own."""

import pickle

import pytest

from executors.catalog import Catalog
from executors.errors import ConfigError
from executors.executor import Executor
from executors.listening import listen
from executors.openenv import openenv_tools
from executors.types import Scene, ToolCall
from tests.executors.openenv_server import app

SCENE = Scene("round/task/0", seed=7, row={"start": "2", "seed": "5", "prompt": "Count to ten."})


@pytest.fixture(params=[False, True], ids=["by steps", "by tools"])
def served(request):
    """The server's address, and what its tool is called."""
    with listen(app(tools=request.param)) as listening:
        yield listening.url, "add" if request.param else "step"


def executor(url: str) -> Executor:
    """As a worker gets it: sent to another process."""
    return Executor(pickle.loads(pickle.dumps(Catalog(openenv_tools(url)))))


async def test_an_episode_has_an_environment_of_its_own_and_its_rewards(served):
    url, name = served
    made = executor(url)
    one, two = made.open(SCENE), made.open(Scene("other", seed=1))
    assert await one.opening() == "It stands at 2, seed 5."
    assert await two.opening() == "It stands at 0, seed 1."
    assert (await one.arun(ToolCall(name, {"more": 4}))).content == "6, reward 4"
    assert (await two.arun(ToolCall(name, {"more": 1}))).content == "1, reward 1"
    assert (await one.arun(ToolCall(name, {"more": 5}))).content == "11, reward 5, over"
    after = await one.arun(ToolCall(name, {"more": 1}))
    assert (after.status, after.content) == ("tool_error", "it is over: no further step can be taken")
    assert (await one.reward(), await two.reward()) == (9.0, 1.0)
    assert made.judged
    await one.aclose()
    await two.aclose()


async def test_what_an_action_brings_about_and_what_the_server_does_stay_apart(served):
    url, name = served
    session = executor(url).open(SCENE)
    failed = await session.arun(ToolCall(name, {"more": 3}))
    assert (failed.status, failed.content) == ("tool_error", "three at once is too much")
    assert (await session.arun(ToolCall(name, {"less": 3}))).status == "bad_call"
    assert (await session.arun(ToolCall(name, {"more": 1}))).content == "3, reward 1"
    await session.aclose()


async def test_a_server_without_room_makes_the_environment_unavailable():
    with listen(app(tools=False, sessions=1)) as listening:
        made = executor(listening.url)
        one, two = made.open(SCENE), made.open(SCENE)
        assert (await one.arun(ToolCall("step", {"more": 1}))).ok
        refused = await two.arun(ToolCall("step", {"more": 1}))
        assert refused.status == "unavailable"
        assert "all 1 sessions are taken" in refused.content
        await one.aclose()
        await two.aclose()


def test_the_tools_are_told_as_the_server_tells_them(served):
    url, name = served
    (tool,) = openenv_tools(url)
    assert tool.name == name
    assert tool.spec.parameters["properties"] == {"more": {"type": "integer"}}


def test_where_nobody_answers_is_told_at_once():
    with pytest.raises(ConfigError, match="no OpenEnv environment answers at"):
        openenv_tools("http://127.0.0.1:9", timeout=2)
    with pytest.raises(ConfigError, match="is no address"):
        openenv_tools("somewhere")


async def test_the_librarys_own_server_is_understood():
    reason = "the openenv library (59 packages) is not installed; pip install openenv"
    servers = pytest.importorskip("openenv.core.env_server.http_server", reason=reason)
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import Action, Observation, State

    class Add(Action):
        more: int

    class Seen(Observation):
        text: str

    class Counts(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def reset(self, seed=None, episode_id=None, start="0", **_):
            self.total = int(start)
            return Seen(text=f"It stands at {self.total}, seed {seed}.")

        def step(self, action, timeout_s=None, **_):
            if action.more == 3:
                raise RuntimeError("three at once is too much")
            self.total += action.more
            return Seen(text=str(self.total), reward=float(action.more), done=self.total >= 10)

        @property
        def state(self):
            return State()

    app = servers.create_fastapi_app(Counts, Add, Seen, max_concurrent_envs=4)
    with listen(app) as listening:
        session = executor(listening.url).open(SCENE)
        assert await session.opening() == "It stands at 2, seed 5."
        assert (await session.arun(ToolCall("step", {"more": 4}))).content == "6, reward 4"
        assert (await session.arun(ToolCall("step", {"more": 3}))).status == "tool_error"
        assert (await session.arun(ToolCall("step", {"more": "many"}))).status == "bad_call"
        assert (await session.arun(ToolCall("step", {"more": 4}))).content == "10, reward 4, over"
        assert await session.reward() == 8.0
        await session.aclose()
