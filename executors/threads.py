"""Runs code that is not ours: a blocking function in a thread, a coroutine in an event loop apart from the caller's.

Nothing that such code does reaches the caller except as an ``Outcome``: no exception, not even ``SystemExit``, and no
delay beyond what the caller is ready to wait. What does not end is given up: its thread is left behind, counted, and
told to stop where it is busy rather than waiting.
"""

import asyncio
import collections
import contextlib
import ctypes
import inspect
import os
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any

from executors.errors import TransientError

_MAX_IDLE = 64
_MAX_WORDS = 100_000
_BUSY_SHARE = 0.1
"""CPU time over wall time from which a thread counts as busy."""
_DEAF = 0.25
"""Seconds without an answer after which an event loop counts as blocked."""


class Abandoned(BaseException):
    """Raised within code that was given up and is still busy, so that it ends."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of foreign code: what it returned, or what it raised."""

    value: Any = None
    error: BaseException | None = None
    words: str = ""
    """What the error says of itself."""


def outcome_of(work: Callable[[], Any]) -> Outcome:
    """Call a function here and now."""
    try:
        return Outcome(work())
    except BaseException as error:
        return Outcome(error=error, words=_words(error))


def _words(error: BaseException) -> str:
    try:
        return str(error)[:_MAX_WORDS]
    except BaseException:
        return ""


class LateError(TimeoutError):
    """Foreign code did not end in time."""


class Coming(Future[Outcome]):
    """What a coroutine will come to."""

    begun = False
    """Whether the event loop has come to it."""


async def finished(future: Future[Outcome], timeout: float | None, *, keep: bool = False) -> Outcome:
    """Wait for foreign code; the error is a ``LateError`` where it takes longer, and a ``TransientError`` where it did
    not even begin, because other code holds up the event loop.

    Args:
        future: as ``start`` gave it.
        timeout: seconds after which it is given up.
        keep: whether it goes on nevertheless, because others wait for it too.
    """
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def tell(_: Future[Outcome]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be gone by then
            loop.call_soon_threadsafe(lambda: done.done() or done.set_result(None))

    future.add_done_callback(tell)
    try:
        async with asyncio.timeout(timeout):
            await done
    except TimeoutError:
        if not future.done():
            return Outcome(error=LateError()) if getattr(future, "begun", True) else _HELD_UP
    finally:
        if not keep:
            future.cancel()
    return future.result()


_HELD_UP = Outcome(error=TransientError(), words="an asynchronous tool that blocks held this call up: it never began")


class Threads:
    """Daemon threads for blocking functions. Idle ones are used again; those given up hold up nothing and nobody."""

    def __init__(self) -> None:
        self._idle: collections.deque[_Thread] = collections.deque()
        self._busy: dict[Future[Outcome], _Thread] = {}
        self._given_up: set[_Thread] = set()
        self._lock = threading.Lock()

    @property
    def given_up(self) -> int:
        """Threads whose work was given up and goes on."""
        with self._lock:
            self._given_up = {thread for thread in self._given_up if thread.is_alive()}
            return len(self._given_up)

    def start(self, work: Callable[[], Any]) -> Future[Outcome]:
        """Call a function in a thread; cancelling the future gives it up."""
        future: Future[Outcome] = Future()
        try:
            thread = self._idle.pop()
        except IndexError:
            thread = _Thread(self._rest)
            try:
                thread.start()
            except RuntimeError as error:
                future.set_result(Outcome(error=TransientError(), words=f"no thread is left to run it in: {error}"))
                return future
        self._busy[future] = thread
        future.add_done_callback(self._done)
        thread.jobs.put((future, work))
        return future

    def _rest(self, thread: "_Thread") -> bool:
        """Whether a thread that has done its work is to wait for more."""
        if len(self._idle) >= _MAX_IDLE:
            return False
        self._idle.append(thread)
        return True

    def _done(self, future: Future[Outcome]) -> None:
        thread = self._busy.pop(future)
        if future.cancelled():
            with self._lock:
                self._given_up.add(thread)
            thread.give_up()


class _Thread(threading.Thread):
    """Does one piece of work after another, until one is given up."""

    def __init__(self, rest: Callable[["_Thread"], bool]) -> None:
        super().__init__(name="tool", daemon=True)
        self.jobs: queue.SimpleQueue[tuple[Future[Outcome], Callable[[], Any]]] = queue.SimpleQueue()
        self._rest = rest
        self._lock = threading.Lock()
        self._began: tuple[float, float] | None = None

    def run(self) -> None:
        try:
            while True:
                future, work = self.jobs.get()
                if future.cancelled():
                    return
                self._began = (time.monotonic(), time.thread_time())
                outcome = outcome_of(work)
                with self._lock:
                    self._began = None
                try:
                    future.set_result(outcome)
                except InvalidStateError:
                    return  # it was given up
                del future, work, outcome
                if not self._rest(self):
                    return
        except Abandoned:
            return

    def give_up(self) -> None:
        """Stop the work if it is busy; leave it alone if it waits for something, which may be shared with others."""
        with self._lock:
            if self._began is None or self.ident is None:
                return
            began, used = self._began
            clock = time.pthread_getcpuclockid(self.ident)
            if time.clock_gettime(clock) - used >= _BUSY_SHARE * (time.monotonic() - began):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(Abandoned))


class Loop:
    """An event loop in a thread of its own, for coroutines. One that they block is replaced."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._asked: tuple[float, threading.Event] | None = None
        self._given_up: set[asyncio.Task[Outcome]] = set()

    @property
    def given_up(self) -> int:
        """Coroutines that were cancelled and go on."""
        with self._lock:
            self._given_up = {task for task in self._given_up if not task.done()}
            return len(self._given_up)

    def start(self, make: Callable[[], Awaitable[Any]]) -> Future[Outcome]:
        """Run what a function makes; cancelling the future gives it up."""
        future = Coming()
        loop = self._ready()
        loop.call_soon_threadsafe(self._begin, loop, make, future)
        return future

    def _begin(self, loop: asyncio.AbstractEventLoop, make: Callable[[], Awaitable[Any]], future: Coming) -> None:
        if future.cancelled():
            return

        async def begun() -> Outcome:
            future.begun = True  # not before: what came first may block the loop in between
            return await _awaited(make)

        task = loop.create_task(begun())

        def settle(task: asyncio.Task[Outcome]) -> None:
            _settle(future, Outcome(error=asyncio.CancelledError()) if task.cancelled() else task.result())

        def give_up(future: Future[Outcome]) -> None:
            if future.cancelled():
                with self._lock:
                    self._given_up.add(task)
                loop.call_soon_threadsafe(task.cancel)
                self._ask(loop)

        task.add_done_callback(settle)
        future.add_done_callback(give_up)

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """See whether the loop still turns: the answer is looked at when it is needed next."""
        with self._lock:
            if loop is self._loop and (self._asked is None or self._asked[1].is_set()):
                answer = threading.Event()
                self._asked = (time.monotonic(), answer)
                loop.call_soon_threadsafe(answer.set)

    def _ready(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._asked and not self._asked[1].wait(max(0.0, self._asked[0] + _DEAF - time.monotonic())):
                self._replace()
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_turn, args=(self._loop,), name="tools", daemon=True)
                self._thread.start()
            return self._loop

    def _replace(self) -> None:
        assert self._loop is not None and self._thread is not None and self._thread.ident is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(_retire, self._loop)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread.ident), ctypes.py_object(Abandoned))
        self._loop = self._thread = self._asked = None


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    except Abandoned:
        return
    loop.close()


def _retire(loop: asyncio.AbstractEventLoop) -> None:
    """Stop a loop that gets no more work, once what it has is done."""
    if asyncio.all_tasks(loop):
        loop.call_later(1.0, _retire, loop)
    else:
        loop.stop()


async def _awaited(make: Callable[[], Awaitable[Any]]) -> Outcome:
    try:
        return Outcome(await make())
    except BaseException as error:
        return Outcome(error=error, words=_words(error))


def start(work: Callable[[], Any], *, asynchronous: bool = False) -> Future[Outcome]:
    """Call a function, and await what it returns where that can be awaited; cancelling the future gives it up.

    Args:
        work: the function.
        asynchronous: whether calling it merely makes a coroutine, so that it needs no thread.
    """
    if asynchronous:
        return LOOP.start(work)
    whole: Future[Outcome] = Future()
    first = THREADS.start(work)

    def go_on(done: Future[Outcome]) -> None:
        if done.cancelled():
            return
        outcome = done.result()
        if inspect.isawaitable(outcome.value):
            second = LOOP.start(lambda: outcome.value)
            second.add_done_callback(lambda done: done.cancelled() or _settle(whole, done.result()))
            whole.add_done_callback(lambda whole: whole.cancelled() and second.cancel())
        else:
            _settle(whole, outcome)

    whole.add_done_callback(lambda whole: whole.cancelled() and first.cancel())
    first.add_done_callback(go_on)
    return whole


def _settle(future: Future[Outcome], outcome: Outcome) -> None:
    """Set a future's result, unless it was given up meanwhile."""
    with contextlib.suppress(InvalidStateError):
        future.set_result(outcome)


THREADS = Threads()
"""Of this process."""
LOOP = Loop()
"""Of this process: whatever the tools of a process await, they await in one loop."""


def _forget() -> None:
    """A forked process has none of its parent's threads."""
    THREADS.__init__()
    LOOP.__init__()


os.register_at_fork(after_in_child=_forget)
