import asyncio
import threading
import time
from typing import Any

import pytest

from executors.catalog import Catalog
from executors.errors import ConfigError, TransientError
from executors.executor import Executor
from executors.tool import Limits, Tool
from executors.tools.calculator import calculator
from executors.types import MalformedCall, Scene, ToolCall, ToolSpec

ANYTHING = {"type": "object"}
ONE = ToolCall("calculator", {"expression": "1"})


class Counter:
    """A state that counts what is done to it."""

    def __init__(self, scene: Scene, opening: str = "") -> None:
        self.scene = scene
        self.opening = opening
        self.calls = 0
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Maker:
    """Opens counters, each after some seconds; the first few times it fails."""

    def __init__(self, seconds: float = 0.0, failures: int = 0, eager: bool = False, opening: str = "") -> None:
        self.seconds, self.failures, self.eager, self.opening = seconds, failures, eager, opening
        self.made: list[Counter] = []

    def open(self, scene: Scene) -> Any:
        time.sleep(self.seconds)
        if self.failures:
            self.failures -= 1
            raise OSError("no room")
        self.made.append(Counter(scene, self.opening))
        return self.made[-1]


class AsyncMaker(Maker):
    async def open(self, scene: Scene) -> Any:
        await asyncio.sleep(self.seconds)
        self.made.append(Counter(scene))
        return self.made[-1]


def count(state: Counter) -> str:
    state.calls += 1
    return f"{state.scene.episode}: {state.calls}"


async def acount(state: Counter) -> str:
    return count(state)


def stateful(maker: Any, name: str = "count", function=count, **options) -> Tool:
    return Tool(ToolSpec(name, "", ANYTHING), function, state=maker, **options)


def make(*tools: Tool, **options) -> Executor:
    return Executor(Catalog([*tools, calculator]), **options)


@pytest.mark.parametrize("maker", [Maker(0.01), AsyncMaker(0.01)])
@pytest.mark.parametrize("options", [{}, {"instant": True}, {"function": acount}])
def test_an_episode_opens_its_state_once_and_shares_it_among_its_tools(maker, options):
    maker.made.clear()
    executor = make(stateful(maker, "count", **options), stateful(maker, "count_too"))

    async def episode(name):
        async with executor.open(Scene(name)) as session:
            await session.arun(ONE)
            opened = len(maker.made)
            calls = [ToolCall("count", {}), ToolCall("count_too", {}), ToolCall("count", {})]
            first = await session.arun_all(calls)
            assert len(maker.made) == opened + 1 and not maker.made[-1].closed
            return {observation.content for observation in first} | {(await session.arun(calls[0])).content}

    both = [asyncio.run(episode(name)) for name in ("a", "b")]
    assert both == [{f"{name}: {n}" for n in range(1, 5)} for name in ("a", "b")]
    assert [(state.scene.episode, state.calls, state.closed) for state in maker.made] == [("a", 4, 1), ("b", 4, 1)]


def test_a_state_is_not_opened_where_no_call_needs_it():
    maker = Maker()
    executor = make(stateful(maker))
    with executor.open(Scene()) as session:
        session.run(ONE)
        session.run(ToolCall("gone", {}))
    assert maker.made == []
    assert executor.run(ToolCall("count", {})).content == ": 1"
    assert executor.run(ToolCall("count", {})).content == ": 1"
    assert [state.closed for state in maker.made] == [1, 1]


def test_a_state_that_cannot_be_opened_is_unavailable_and_tried_again_by_the_next_call():
    maker = Maker(failures=1)
    with make(stateful(maker)).open(Scene("e")) as session:
        failed = session.run(ToolCall("count", {}))
        assert (failed.status, failed.attempts) == ("unavailable", 1)
        assert failed.content == "the environment cannot be opened: OSError: no room"
        assert session.run(ToolCall("count", {})).content == "e: 1"
    assert maker.made[0].closed == 1


def test_a_state_that_opens_too_late_is_used_by_later_calls_or_closed():
    maker = Maker(seconds=0.1)
    executor = make(stateful(maker), timeout=0.02)
    with executor.open(Scene("e")) as session:
        late = session.run(ToolCall("count", {}))
        assert (late.status, "not within 0.02 s" in late.content) == ("unavailable", True)
        time.sleep(0.15)
        assert session.run(ToolCall("count", {})).content == "e: 1"
    with executor.open(Scene("f")) as session:
        session.run(ToolCall("count", {}))
    deadline = time.monotonic() + 5
    while [state.closed for state in maker.made] != [1, 1] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [state.closed for state in maker.made] == [1, 1]


def test_a_state_whose_close_fails_or_hangs_holds_nothing_up_and_is_counted():
    class Failing:
        def open(self, scene) -> Any:
            return self

        def close(self) -> None:
            raise SystemExit

    class Hanging(Failing):
        def close(self) -> None:
            released.wait(5)

    released = threading.Event()
    maker = Maker()
    tools = [
        stateful(maker, "a"),
        stateful(Failing(), "b", lambda state: "x"),
        stateful(Hanging(), "c", lambda state: "x"),
    ]
    executor = make(*tools, timeout=0.05)

    async def episode():
        async with executor.open(Scene()) as session:
            await session.arun_all([ToolCall(name, {}) for name in "abc"])

    began = time.perf_counter()
    asyncio.run(episode())
    released.set()
    assert time.perf_counter() - began < 2
    assert executor.account.unclosed == 2
    assert maker.made[0].closed == 1


def test_states_are_closed_even_when_the_episode_is_cancelled():
    maker = Maker()
    executor = make(stateful(maker))

    async def episode():
        async with executor.open(Scene()) as session:
            await session.arun(ToolCall("count", {}))
            await asyncio.sleep(60)

    async def cut():
        task = asyncio.create_task(episode())
        while not maker.made or not maker.made[0].calls:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cut())
    assert maker.made[0].closed == 1


def test_a_closed_session_runs_nothing_more():
    session = make().open(Scene())
    session.close()
    assert session.run(ONE).status == "unavailable"


def test_eager_environments_open_at_the_start_and_say_so():
    eager, lazy = Maker(eager=True, opening="You stand in a hall."), Maker(opening="unseen")
    executor = make(stateful(eager, "walk"), stateful(lazy, "wait"))

    async def opened(tools):
        async with executor.open(Scene("e"), tools) as session:
            return await session.opening()

    assert asyncio.run(opened("auto")) == "You stand in a hall."
    assert asyncio.run(opened(["wait"])) == ""
    assert (len(eager.made), len(lazy.made)) == (1, 0)
    broken = make(stateful(Maker(eager=True, failures=1)))
    with pytest.raises(TransientError, match="the environment cannot be opened: OSError: no room"):
        asyncio.run(broken.open(Scene()).opening())


def test_environments_may_judge_the_episode():
    class Judge(Counter):
        async def get_reward(self):
            return self.calls / 2

    class Judges(Maker):
        def open(self, scene) -> Any:
            return Judge(scene)

    class Silent(Judges):
        def open(self, scene) -> Any:
            return Counter(scene)

    async def judged(maker, calls):
        async with make(stateful(maker)).open(Scene()) as session:
            for _ in range(calls):
                await session.arun(ToolCall("count", {}))
            return await session.reward()

    assert asyncio.run(judged(Judges(), 3)) == 1.5
    assert asyncio.run(judged(Judges(), 0)) is None
    assert asyncio.run(judged(Silent(), 1)) is None


def test_calls_over_the_budget_are_refused_and_the_episode_goes_on():
    with make(calls_per_episode=2).open(Scene()) as session:
        statuses = [session.run(call).status for call in (ONE, MalformedCall("(", "unclosed"), ONE, ONE)]
        assert statuses == ["ok", "bad_call", "bad_call", "bad_call"]
        assert session.run(ONE).content == "all 2 calls of this episode are spent; go on without tools"


def test_calls_over_what_one_reply_may_make_are_refused():
    async def reply(executor):
        async with executor.open(Scene()) as session:
            return [observation.status for observation in await session.arun_all([ONE] * 4)]

    assert asyncio.run(reply(make(calls_per_turn=3))) == ["ok", "ok", "ok", "bad_call"]
    assert asyncio.run(reply(make(calls_per_turn=None))) == ["ok"] * 4


@pytest.mark.parametrize(
    ("tools", "may", "says"),
    [
        ("auto", True, ""),
        ("required", True, ""),
        ("none", False, "calculator cannot be called here; no tool may be; go on without"),
        ("calculator", True, ""),
        ("count", False, "calculator cannot be called here; what may be: count"),
        (["count", "calculator"], True, ""),
        ([], False, "calculator cannot be called here; no tool may be; go on without"),
    ],
)
def test_which_tools_may_be_called_is_said_at_the_start(tools, may, says):
    with make(stateful(Maker())).open(Scene(), tools) as session:
        observation = session.run(ONE)
        assert observation.status == ("ok" if may else "bad_call")
        assert may or observation.content == says
        assert "no tool named 'calc'" in session.run(ToolCall("calc", {})).content


def test_a_name_that_only_begins_like_a_tool_that_may_not_be_called_calls_nothing():
    long = Tool(ToolSpec("x" * 64, "", ANYTHING), lambda: "called")
    with make(long).open(Scene(), "calculator") as session:
        assert session.run(ToolCall("x" * 65, {})).status == "bad_call"


def test_limiting_calls_to_a_tool_that_is_not_there_is_a_config_error():
    with pytest.raises(ConfigError, match="no tool named 'calc' in the catalog"):
        make().open(Scene(), "calc")


def test_no_more_calls_of_a_tool_run_at_once_than_it_bears():
    running, most = 0, 0
    lock = threading.Lock()

    def busy():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1

    executor = make(Tool(ToolSpec("busy", "", ANYTHING), busy, limits=Limits(concurrency=3)), calls_per_turn=None)

    async def episode():
        async with executor.open(Scene()) as session:
            return await session.arun_all([ToolCall("busy", {})] * 12)

    threads = [threading.Thread(target=lambda: asyncio.run(episode())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert executor.account.snapshot()["busy"].statuses == {"ok": 24}
    assert most == 3


def test_no_more_calls_of_a_tool_start_in_a_second_than_it_bears():
    started = []
    paced = Tool(
        ToolSpec("paced", "", ANYTHING),
        lambda: started.append(time.monotonic()),
        instant=True,
        limits=Limits(per_second=50),
    )

    async def episode():
        async with make(paced).open(Scene()) as session:
            await session.arun_all([ToolCall("paced", {})] * 6)

    asyncio.run(episode())
    assert started[-1] - started[0] >= 0.099


def test_calls_of_one_reply_come_to_a_shared_state_one_after_another():
    def slow(state: Counter) -> str:
        seen = state.calls
        time.sleep(0.01)
        state.calls = seen + 1
        return str(state.calls)

    async def aslow(state: Counter) -> str:
        seen = state.calls
        await asyncio.sleep(0.01)
        state.calls = seen + 1
        return str(state.calls)

    async def reply() -> list[str]:
        maker = Maker()
        tools = [Tool(ToolSpec(f.__name__, "", ANYTHING), f, state=maker) for f in (slow, aslow)]
        async with Executor(Catalog(tools)).open(Scene("episode")) as session:
            told = await session.arun_all([ToolCall(name, {}) for name in ("slow", "aslow", "slow", "aslow")])
        return [observation.content for observation in told]

    assert asyncio.run(reply()) == ["1", "2", "3", "4"]
