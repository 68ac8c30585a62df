import asyncio
import pickle
import random
import threading
import time

import pytest

from executors.arguments import ArgumentLimits
from executors.cache import Cache
from executors.catalog import Catalog
from executors.errors import BadCallError, BlockedError, ConfigError, ToolError, TransientError, UnknownToolError
from executors.executor import Executor
from executors.threads import LOOP, THREADS
from executors.tool import Limits, Tool, tool
from executors.tools.calculator import calculator
from executors.types import MalformedCall, ToolCall, ToolSpec

AGAIN = "You need to change the input and try again."
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


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


def make(*tools: Tool, **options) -> Executor:
    return Executor(Catalog(tools or [sleepy, patient, broken, picky, wordy]), **options)


def made(function, name="thing", **options) -> Tool:
    return Tool(ToolSpec(name, "", NOTHING), function, **options)


def outcome(function, arguments=None, **options):
    """What a call of a function comes to, as status and content."""
    observation = make(made(function), **options).run(ToolCall("thing", arguments or {}))
    return observation.status, observation.content


def test_failed_call_is_an_observation_not_an_exception(executor):
    observation = executor.run(ToolCall("calculator", {"expression": "1 / 0"}))
    assert observation.status == "tool_error"
    assert observation.content == "cannot evaluate '1 / 0': division by zero"


def test_a_call_that_works_is_ok(executor):
    observation = executor.run(ToolCall("calculator", {"expression": "6*7"}))
    assert (observation.status, observation.content) == ("ok", "42")


def test_arguments_that_break_the_schema_are_a_bad_call_that_names_the_fault(executor):
    missing = executor.run(ToolCall("calculator", {}))
    assert (missing.status, missing.content) == ("bad_call", f'Missing required parameters: "expression". {AGAIN}')
    extra = executor.run(ToolCall("calculator", {"expression": "1", "expresion": True}))
    unknown = f'Unknown parameter: "expresion"; closest: "expression". {AGAIN}'
    assert (extra.status, extra.content) == ("bad_call", unknown)
    wrong = executor.run(ToolCall("calculator", {"expression": 5}))
    fault = f'Parameter type error: "expression", expected string, but got integer. {AGAIN}'
    assert (wrong.status, wrong.content) == ("bad_call", fault)
    assert executor.problem(ToolCall("calculator", {"expression": 5})) == fault
    assert executor.problem(ToolCall("calculator", {"expression": "5"})) is None


def test_arguments_may_be_coerced_and_limited():
    assert make(coerce=True).run(ToolCall("patient", {"seconds": "0"})).ok
    tight = make(arguments=ArgumentLimits(max_chars=10))
    assert "10 characters are allowed" in tight.run(ToolCall("picky", {"word": "x" * 11})).content


def test_an_unknown_tool_and_a_malformed_call_are_bad_calls(executor):
    assert executor.run(ToolCall("calc", {})).status == "bad_call"
    observation = executor.run(MalformedCall("calculator(", "not closed"))
    assert (observation.status, observation.content) == ("bad_call", "not closed")


def test_a_tool_whose_schema_is_none_is_unavailable_and_the_others_are_not():
    odd = Tool(ToolSpec("odd", "", {"type": "nonsense"}), lambda: "x")
    executor = make(odd, calculator)
    observation = executor.run(ToolCall("odd", {}))
    assert observation.status == "unavailable"
    assert observation.content.startswith("tool 'odd' cannot be called: its parameters are not a JSON Schema")
    assert executor.run(ToolCall("calculator", {"expression": "1"})).ok


def test_a_tool_that_hangs_is_a_timeout():
    executor = make(timeout=0.05)
    assert executor.run(ToolCall("sleepy", {"seconds": 0.5})).status == "timeout"
    observation = executor.run(ToolCall("patient", {"seconds": 5}))
    assert (observation.status, observation.content) == ("timeout", "patient did not answer within 0.05 s")
    hurried = made(lambda: time.sleep(0.5), limits=Limits(timeout=0.02))
    assert make(hurried, timeout=9).run(ToolCall("thing", {})).content == "thing did not answer within 0.02 s"


def test_a_hanging_tool_does_not_hold_up_another_call():
    executor = make(timeout=0.2)

    async def both():
        slow = asyncio.ensure_future(executor.arun(ToolCall("sleepy", {"seconds": 0.4})))
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


@pytest.mark.parametrize(
    ("error", "status", "content"),
    [
        (ToolError("not for me"), "tool_error", "not for me"),
        (BadCallError("no such city"), "bad_call", "no such city"),
        (UnknownToolError("gone"), "bad_call", "gone"),
        (BlockedError("that address is private"), "blocked", "that address is private"),
        (TimeoutError(), "timeout", "thing did not answer in time"),
        (RuntimeError("no disk"), "tool_error", "RuntimeError: no disk"),
        (KeyError("x"), "tool_error", "KeyError: 'x'"),
        (SystemExit(0), "tool_error", "SystemExit: 0"),
        (KeyboardInterrupt(), "tool_error", "KeyboardInterrupt: "),
        (asyncio.CancelledError(), "tool_error", "CancelledError: "),
        (GeneratorExit(), "tool_error", "GeneratorExit: "),
        (MemoryError(), "tool_error", "MemoryError: "),
        (RecursionError("deep"), "tool_error", "RecursionError: deep"),
        (ToolError("x" * 9000), "tool_error", "x" * 2048 + "... [cut, 9000 characters]"),
        (ToolError("\ud800"), "tool_error", "\\ud800"),
    ],
)
def test_whatever_a_tool_raises_has_its_status_and_kills_nothing(error, status, content):
    def sync():
        raise error

    async def asynchronous():
        raise error

    assert outcome(sync) == outcome(asynchronous) == (status, content)
    assert outcome(lambda: "still here") == ("ok", "still here")


def test_an_error_that_cannot_even_say_what_it_is_is_named_by_its_type():
    class MuteError(Exception):
        def __str__(self):
            raise SystemExit

    def fail():
        raise MuteError

    assert outcome(fail) == ("tool_error", "MuteError: ")


def test_what_tools_return_becomes_text():
    async def later():
        return {"a": 1}

    async def pieces():
        for piece in ("a", "b"):
            yield piece

    def forever():
        while True:
            yield "ha"

    class Odd:
        def __str__(self):
            raise ValueError("unspeakable")

    assert outcome(lambda: [1, "é", None]) == ("ok", '[1, "é", null]')
    assert outcome(lambda: later()) == outcome(later) == ("ok", '{"a": 1}')
    assert outcome(pieces) == ("ok", "ab")
    assert outcome(forever, max_chars=5) == ("ok", "hahah... [cut, over 5 characters]")
    assert outcome(lambda: {"x": Odd()}) == ("tool_error", "ValueError: unspeakable")
    assert outcome(lambda: "\ud83d") == ("ok", "\\ud83d")


def test_a_long_answer_is_cut_and_says_so():
    observation = make(max_chars=20).run(ToolCall("wordy", {}))
    assert observation.content == '{"text": "ééééééééé' + "é... [cut, 62 characters]"
    assert observation.status == "ok"


def test_a_tool_that_changes_its_arguments_changes_a_copy():
    def eat(items: list[int]):
        return str(items.pop())

    call = ToolCall("thing", {"items": [1, 2]})
    spec = ToolSpec("thing", "", {"type": "object", "properties": {"items": {"type": "array"}}})
    assert make(Tool(spec, eat)).run(call).content == "2"
    assert call.arguments == {"items": [1, 2]}


def failing(times: int, error: type[Exception] = TransientError):
    left = iter(range(times))

    def flaky():
        for _ in left:
            raise error("the line is busy")
        return "through"

    return flaky


@pytest.fixture
def naps(monkeypatch):
    """Seconds that calls wait between their tries, which they then do not."""
    taken: list[float] = []
    sleep = asyncio.sleep

    async def nap(seconds):
        taken.append(seconds)
        await sleep(0)

    monkeypatch.setattr("executors.session.asyncio.sleep", nap)
    return taken


def test_only_failures_that_pass_are_tried_again_with_longer_and_longer_pauses(naps):
    def run(function, instant=False, **limits):
        executor = make(made(function, limits=Limits(**limits), instant=instant))
        observation = executor.run(ToolCall("thing", {}))
        return observation.status, observation.attempts, observation.content

    assert run(failing(2)) == ("ok", 3, "through")
    first, second = naps
    assert 0.05 <= first <= 0.1 <= second <= 0.2
    naps.clear()
    assert run(failing(2)) == ("ok", 3, "through")
    assert naps == [first, second]
    assert run(failing(3)) == ("unavailable", 3, "the line is busy")
    assert run(failing(1), retries=0) == ("unavailable", 1, "the line is busy")
    assert run(failing(1, ToolError)) == ("tool_error", 1, "the line is busy")
    assert run(failing(1, TimeoutError)) == ("timeout", 1, "the line is busy")
    assert run(failing(1), instant=True) == ("ok", 2, "through")


def test_calls_that_never_end_are_counted_and_from_a_number_on_no_others_are_started():
    release = threading.Event()
    executor = make(made(release.wait), calculator, timeout=0.02, max_given_up=2 + THREADS.given_up, coerce=False)
    before = THREADS.given_up
    try:
        statuses = [executor.run(ToolCall("thing", {})).status for _ in range(2)]
        assert statuses == ["timeout", "timeout"]
        refused = executor.run(ToolCall("thing", {}))
        assert refused.status == "unavailable"
        assert "did not end in time still run here" in refused.content
        assert executor.run(ToolCall("calculator", {"expression": "1"})).ok
    finally:
        release.set()
    while THREADS.given_up > before:
        time.sleep(0.01)
    assert executor.run(ToolCall("thing", {})).ok


def test_a_tool_that_is_busy_for_ever_is_stopped():
    def spin():
        while True:
            pass

    async def aspin():
        while True:
            pass

    before = THREADS.given_up
    assert outcome(spin, timeout=0.1)[0] == "timeout"
    deadline = time.monotonic() + 5
    while THREADS.given_up > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert THREADS.given_up == before
    assert outcome(aspin, timeout=0.1)[0] == "timeout"
    time.sleep(0.3)  # as long as a loop may take to answer
    assert make(timeout=2).run(ToolCall("patient", {"seconds": 0})).ok


def test_a_coroutine_that_refuses_to_be_cancelled_is_given_up():
    asked = threading.Event()

    async def stubborn():
        while not asked.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                asked.set()
        await asyncio.sleep(0.05)
        return "too late"

    assert outcome(stubborn, timeout=0.05) == ("timeout", "thing did not answer within 0.05 s")
    assert asked.wait(1)
    while LOOP.given_up:
        time.sleep(0.01)


def test_many_waiting_calls_take_as_long_as_one():
    executor = make()

    async def all_of(tool):
        calls = [executor.arun(ToolCall(tool, {"seconds": 0.2})) for _ in range(64)]
        began = time.perf_counter()
        assert all(observation.ok for observation in await asyncio.gather(*calls))
        return time.perf_counter() - began

    for name in ("sleepy", "patient"):
        assert asyncio.run(all_of(name)) < 1.0  # 12.8 one after another


def test_what_is_cancelled_leaves_the_executor_as_it_was():
    executor = make(made(lambda: time.sleep(0.05), limits=Limits(concurrency=1)))

    async def play():
        first = asyncio.create_task(executor.arun(ToolCall("thing", {})))
        second = asyncio.create_task(executor.arun(ToolCall("thing", {})))
        await asyncio.sleep(0.01)
        second.cancel()
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        return await executor.arun(ToolCall("thing", {}))

    assert asyncio.run(play()).ok


def test_answers_are_cached_where_the_tool_allows_it_and_only_good_ones():
    asked = []

    def ask(word: str):
        asked.append(word)
        if word == "bad":
            raise ToolError("no")
        return word.upper()

    def ready(**options) -> Executor:
        spec = ToolSpec("thing", "", {"type": "object", "properties": {"word": {"type": "string"}}})
        return make(Tool(spec, ask, limits=Limits(**options)), cache=Cache())

    executor = ready(cache=True)
    first, second, other, *bad = (
        executor.run(ToolCall("thing", {"word": word})) for word in ("a", "a", "b", "bad", "bad")
    )
    assert (first.content, first.recorded) == ("A", False)
    assert (second.content, second.recorded, other.content) == ("A", True, "B")
    assert [observation.status for observation in bad] == ["tool_error"] * 2
    assert asked == ["a", "b", "bad", "bad"]
    asked.clear()
    fresh = ready()
    assert [fresh.run(ToolCall("thing", {"word": "a"})).recorded for _ in range(2)] == [False, False]
    assert asked == ["a", "a"]


def test_another_version_of_a_tool_has_its_own_answers(tmp_path):
    cache = Cache(path=tmp_path / "answers.sqlite")

    def answer(version: str, text: str) -> str:
        thing = made(lambda: text, limits=Limits(cache=True, version=version))
        return make(thing, cache=cache).run(ToolCall("thing", {})).content

    assert [answer("1", "old"), answer("1", "new"), answer("2", "new")] == ["old", "old", "new"]


def test_the_account_tells_how_the_calls_of_each_tool_ended(naps):
    executor = make(calculator, picky, made(failing(1), limits=Limits(cache=True)), cache=Cache())
    for call in (
        ToolCall("calculator", {"expression": "1+1"}),
        ToolCall("calculator", {"expression": 1}),
        ToolCall("picky", {"word": "x"}),
        ToolCall("thing", {}),
        ToolCall("thing", {}),
        ToolCall("nothing", {}),
        MalformedCall("(", "unclosed"),
    ):
        executor.run(call)
    account = executor.account.snapshot()
    assert account["calculator"].statuses == {"ok": 1, "bad_call": 1}
    assert account["picky"].statuses == {"tool_error": 1}
    assert (account["thing"].calls, account["thing"].retried, account["thing"].recorded) == (2, 1, 1)
    assert account[""].statuses == {"bad_call": 2}
    assert 0 < account["thing"].seconds < 1


@pytest.mark.parametrize("options", [{"timeout": 0}, {"max_chars": 0}, {"calls_per_episode": 0}, {"calls_per_turn": 0}])
def test_a_limit_that_nothing_can_keep_is_a_config_error(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        make(**options)


def test_an_executor_can_be_sent_to_another_process(tmp_path):
    executor = Executor(Catalog([calculator]), timeout=3, coerce=True, cache=Cache(path=tmp_path / "answers.sqlite"))
    executor.run(ToolCall("calculator", {"expression": "1"}))
    sent = pickle.loads(pickle.dumps(executor))
    assert (sent.timeout, sent.coerce, sent.cache.path) == (3, True, tmp_path / "answers.sqlite")
    assert sent.account.snapshot() == {}
    assert sent.run(ToolCall("calculator", {"expression": "2*3"})).content == "6"


def test_hundreds_of_calls_of_every_kind_leave_no_thread_behind():
    executor = make(timeout=1)
    calls = [
        ToolCall("sleepy", {"seconds": 0}),
        ToolCall("patient", {"seconds": 0}),
        ToolCall("broken", {}),
        ToolCall("sleepy", {}),
        ToolCall("gone", {}),
    ]
    random.Random(0).shuffle(calls)
    for call in calls:
        executor.run(call)
    before = threading.active_count()
    for call in calls * 60:
        executor.run(call)
    assert threading.active_count() <= before


def test_a_lost_connection_of_a_tool_written_for_others_is_the_infrastructures_failure():
    @tool
    def fetch() -> str:
        """Reach for something that is gone."""
        raise ConnectionRefusedError("nobody listens")

    observation = Executor(Catalog([fetch])).run(ToolCall("fetch", {}))
    assert (observation.status, observation.content) == ("unavailable", "ConnectionRefusedError: nobody listens")
