import asyncio
import os
import threading
import time

from executors.errors import TransientError
from executors.threads import LOOP, THREADS, Outcome, Threads, finished, outcome_of, start


def test_foreign_code_only_ever_gives_an_outcome():
    def fail():
        raise SystemExit(3)

    assert outcome_of(lambda: 5) == Outcome(5)
    failed = outcome_of(fail)
    assert isinstance(failed.error, SystemExit)
    assert failed.words == "3"
    assert isinstance(start(fail).result(5).error, SystemExit)


def test_what_a_function_returns_is_awaited_where_it_can_be():
    async def later():
        await asyncio.sleep(0)
        return threading.current_thread().name

    assert start(lambda: "now").result(5) == Outcome("now")
    assert start(later).result(5) == start(later, asynchronous=True).result(5) == Outcome("tools")


def test_a_thread_is_used_again():
    threads = Threads()
    names = [threads.start(lambda: threading.current_thread().ident).result(5).value]
    deadline = time.monotonic() + 5
    while not threads._idle and time.monotonic() < deadline:
        time.sleep(0.001)
    names.append(threads.start(lambda: threading.current_thread().ident).result(5).value)
    assert names[0] == names[1]


def test_waiting_work_that_is_given_up_is_left_alone_and_busy_work_is_stopped():
    release, ended = threading.Event(), []

    def wait():
        release.wait(5)
        ended.append("waited")

    def spin():
        try:
            while True:
                pass
        finally:
            ended.append("stopped")

    async def give_up():
        return [type((await finished(start(work), 0.1)).error).__name__ for work in (wait, spin)]

    before = THREADS.given_up
    assert asyncio.run(give_up()) == ["LateError", "LateError"]
    deadline = time.monotonic() + 5
    while THREADS.given_up > before + 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended == ["stopped"]
    release.set()
    while THREADS.given_up > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended == ["stopped", "waited"]


def test_what_is_kept_for_others_goes_on_when_one_stops_waiting():
    release = threading.Event()
    work = start(lambda: release.wait(5))

    async def wait(timeout):
        return await finished(work, timeout, keep=True)

    late = asyncio.run(wait(0.01))
    release.set()
    assert type(late.error).__name__ == "LateError"
    assert asyncio.run(wait(5)) == Outcome(True)


def test_a_loop_that_foreign_code_blocks_is_replaced_and_the_block_removed():
    async def block():
        while True:
            pass

    async def name():
        return threading.get_ident()

    async def outcomes():
        first = await finished(LOOP.start(name), 5)
        blocked = await finished(LOOP.start(block), 0.05)
        await asyncio.sleep(0.3)
        return first, blocked, await finished(LOOP.start(name), 5)

    first, blocked, after = asyncio.run(outcomes())
    assert blocked.error is not None
    assert after.value not in (None, first.value)
    deadline = time.monotonic() + 5
    while LOOP.given_up and time.monotonic() < deadline:
        time.sleep(0.01)
    assert LOOP.given_up == 0


def test_a_forked_process_has_threads_of_its_own():
    assert start(lambda: 1).result(5).value == 1
    child = os.fork()
    if child == 0:
        os._exit(7 if start(lambda: 1).result(5).value == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_coroutine_that_blocks_the_loop_does_not_cost_the_next_call_its_time():
    release = threading.Event()

    async def block():
        release.wait(5)

    async def good():
        return "good"

    async def both():
        late = await finished(start(block, asynchronous=True), 0.05)
        return late, await finished(start(good, asynchronous=True), 2)

    late, done = asyncio.run(both())
    release.set()
    assert type(late.error).__name__ == "LateError"
    assert done == Outcome("good")


def test_a_coroutine_that_never_began_is_no_late_one():
    release = threading.Event()

    async def block():
        release.wait(5)

    async def held_up():
        blocking = start(block, asynchronous=True)
        outcome = await finished(start(block, asynchronous=True), 0.05)
        release.set()
        await finished(blocking, 5)
        return outcome

    outcome = asyncio.run(held_up())
    assert isinstance(outcome.error, TransientError)
    assert "never began" in outcome.words
