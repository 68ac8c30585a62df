"""One episode's use of an executor: its calls in order, and the environments that its tools share."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import random
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from executors.answers import answer, failure
from executors.content import cut
from executors.errors import BadCallError, DataError, TransientError, UnknownToolError
from executors.history import History, Made, lost
from executors.journal import Journal
from executors.states import States
from executors.step import Prepared, Step
from executors.threads import LOOP, THREADS, Outcome, finished, outcome_of, start
from executors.tool import Stateful
from executors.types import MalformedCall, Observation, Scene, ToolCall

if TYPE_CHECKING:
    from executors.executor import Executor

OPENING = -1
"""Stands, in a cassette, for the number of a call: what the environments said before the first one."""
_BACKOFF = 0.1
"""Seconds before the first further try; doubled each time."""
_MAX_BACKOFF = 5.0
_SHOWN = 10


class Session:
    """Runs the calls of one episode; several may be under way at once. Made by ``Executor.open``."""

    __slots__ = ("_allowed", "_closed", "_history", "_numbers", "_states", "executor", "scene")

    def __init__(self, executor: Executor, scene: Scene, allowed: dict[str, None] | None) -> None:
        self.executor = executor
        self.scene = scene
        self._allowed = allowed
        self._numbers = itertools.count()
        self._states = States(scene)
        self._history: History | None = None
        self._closed = False

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def history(self) -> History:
        """What the states have been through elsewhere; nothing, as a rule."""
        if self._history is None:
            self._history = History(self._states, self._repeat, self.executor.cassette is not None)
        return self._history

    def run(self, call: ToolCall | MalformedCall) -> Observation:
        """Run one call to its end. For use where no event loop is running."""
        step = self._begin(call)
        noted = self._is_noted(step)
        if noted:
            self._note(step)
        if step.status is None and not self._run_here(step):
            asyncio.run(self._run_in_turn(step))
        observation = self._end(step)
        if noted and not step.taped:
            self._see_noted()
        return observation

    async def arun(self, call: ToolCall | MalformedCall, number: int | None = None) -> Observation:
        """Run one call; other calls go on meanwhile.

        Args:
            call: the call.
            number: of the call in the episode, where somebody else counts.
        """
        return await self._arun(call, number=number)

    async def _arun(self, call: ToolCall | MalformedCall, refusal: str = "", number: int | None = None) -> Observation:
        step = self._begin(call, refusal, number)
        noted = self._is_noted(step)
        if noted:
            await finished(THREADS.start(functools.partial(self._note, step)), None, keep=True)
        if step.status is None and not self._run_here(step):
            await self._run_in_turn(step)
        observation = self._end(step)
        if noted and not step.taped:
            await finished(THREADS.start(self._see_noted), None, keep=True)
        return observation

    async def arun_all(self, calls: Sequence[ToolCall | MalformedCall]) -> tuple[Observation, ...]:
        """Run the calls of one reply at once, those that share a state in order; those over the limit are refused."""
        most = self.executor.calls_per_turn or len(calls)
        refusal = f"only {most} calls are made at a time, and this one stands after them"
        running = (self._arun(call, refusal if place >= most else "") for place, call in enumerate(calls))
        return tuple(await asyncio.gather(*running))

    async def opening(self) -> str:
        """Open the environments that are to be open before the first call, and say what they say.

        Raises:
            TransientError: one of them cannot be opened.
        """
        cassette = self.executor.cassette
        if cassette is not None:
            replayed = cassette.find(self.scene.episode, OPENING, None)
            if replayed is not None or cassette.mode == "replay":
                self.history.said = replayed.content if replayed else ""
                return self.history.said
        eager = self._eager()
        texts: list[str] = []
        for maker in eager:
            outcome = await self._opened(maker, self.executor.timeout)
            if outcome.error is not None:
                raise TransientError(outcome.words)
            texts.append(getattr(outcome.value, "opening", None) or "")
        text = "\n".join(filter(None, texts))
        if cassette is not None and eager:
            cassette.record(self.scene.episode, OPENING, None, Observation(text))
        return text

    def _eager(self) -> list[Stateful]:
        named = self.executor.eager.items()
        makers = {id(maker): maker for name, maker in named if self._allowed is None or name in self._allowed}
        return list(makers.values())

    async def reward(self) -> float | None:
        """What the environments say that the episode is worth, together; None where none has a word on it.

        To be asked before the session is closed.

        Raises:
            TransientError: one of them fails at it.
        """
        if self.executor.cassette is None or self.executor.cassette.mode != "replay":
            await self._catch_up()
        rewards: list[float] = []
        for state in self._states:
            judge = getattr(state, "get_reward", None)
            if judge is not None:
                outcome = await finished(start(judge), self.executor.timeout)
                if outcome.error is not None:
                    raise TransientError(f"the environment gives no reward: {outcome.words or 'it took too long'}")
                rewards += [] if outcome.value is None else [float(outcome.value)]
        return sum(rewards) if rewards else None

    async def aclose(self) -> None:
        """Close what was opened; further calls are refused. Never raises for what an environment does."""
        self._closed = True
        if self._states:
            await finished(THREADS.start(self.close), None, keep=True)

    def close(self) -> None:
        """Close what was opened; further calls are refused. Never raises for what an environment does."""
        self._closed = True
        if self._states:
            self.executor.account.unclosed += self._states.close(self.executor.timeout)

    def remember(self, calls: Sequence[Made], said: str | None) -> None:
        """Take what another process did as done; the states have yet to see it.

        Args:
            calls: that were made there.
            said: what the environments said there on being opened, if they were.
        """
        self.history.said = said
        for made in calls:
            shares = self.executor.prepared(made.call.tool).shares
            if shares is not None:
                self.history.of(shares).calls.append(made)

    def _begin(self, call: ToolCall | MalformedCall, refusal: str = "", number: int | None = None) -> Step:
        """Settle a call that needs no tool: one that was recorded, is malformed, not allowed, or does not fit."""
        step = Step(call, next(self._numbers) if number is None else number)
        executor = self.executor
        most = executor.calls_per_episode
        if most is not None and step.number >= most:
            refusal = refusal or f"all {most} calls of this episode are spent; go on without tools"
        if executor.cassette is not None and self._replay(step, refusal):
            return step
        if self._closed:
            step.settle("the episode is over, and its calls with it", "unavailable")
        elif isinstance(call, MalformedCall):
            step.settle(call.error, "bad_call")
        elif refusal:
            step.settle(refusal, "bad_call")
        else:
            try:
                prepared = step.prepared = self._find(call.tool)
                step.arguments = prepared.parameters.read(call.arguments)
                if prepared.cached:
                    self._recall(step, prepared)
            except (UnknownToolError, BadCallError) as error:
                step.settle(str(error), "bad_call")
            except DataError as error:
                step.settle(str(error), "unavailable")
        return step

    def _find(self, name: Any) -> Prepared:
        if not isinstance(name, str):
            raise BadCallError(f"a tool is called by its name, a string, and not by {name!r:.40}")
        if self._allowed is None or name in self._allowed:
            return self.executor.prepared(name)
        if name in self.executor.catalog:
            allowed = ", ".join(itertools.islice(self._allowed, _SHOWN))
            hint = f"what may be: {allowed}" if allowed else "no tool may be; go on without"
            raise BadCallError(f"{name} cannot be called here; {hint}")
        return self.executor.prepared(name)  # which says that there is none

    def _replay(self, step: Step, refusal: str) -> bool:
        cassette = self.executor.cassette
        assert cassette is not None
        found = cassette.find(self.scene.episode, step.number, step.call)
        if found is not None and (cassette.mode == "replay" or refusal or self._stands(step, found)):
            step.observation = found
            step.status = found.status
            step.taped = True
        elif found is None and cassette.mode == "replay":
            where = f"call {step.number} of episode {self.scene.episode!r}"
            step.settle(f"{where} is not in the recording {cassette.path}: {step.call!r:.200}", "unavailable")
        return step.status is not None

    def _stands(self, step: Step, found: Observation) -> bool:
        """Whether what a recording says of a call holds: not where its state has gone another way since."""
        call = step.call
        if isinstance(call, MalformedCall):
            return True
        try:
            prepared = self._find(call.tool)
            prepared.parameters.read(call.arguments)
        except (UnknownToolError, BadCallError, DataError):
            return True
        if prepared.shares is None:
            return True
        past = self.history.of(prepared.shares)
        if not past.live:
            past.calls.append(Made(step.number, call, found))
        elif not prepared.tool.limits.idempotent:
            step.settle(lost(f"{call.tool} was called before, and may not be called twice"), "unavailable")
        return not past.live

    def _is_noted(self, step: Step) -> bool:
        return step.status is None and step.prepared is not None and step.prepared.noted

    def _note(self, step: Step) -> None:
        """See on disk that a call is about to be made; settles it where that fails."""
        journal = self.executor.cassette
        assert isinstance(journal, Journal)
        if not journal.begin(self.scene.episode, step.number, step.call):
            step.settle(f"the call cannot be written down in {journal.path}, so it is not made", "unavailable")
            step.taped = True

    def _see_noted(self) -> None:
        """See on disk what the calls so far gave."""
        journal = self.executor.cassette
        assert isinstance(journal, Journal)
        journal.sync(self.scene.episode)

    def _recall(self, step: Step, prepared: Prepared) -> None:
        cache, tool = self.executor.cache, prepared.tool
        assert cache is not None
        step.key = cache.key(tool.name, tool.limits.version, step.arguments, self.executor.max_chars)
        content = cache.get(step.key)
        if content is not None:
            step.observation = Observation(content, "ok", time.perf_counter() - step.began, recorded=True)
            step.status = "ok"

    def _run_here(self, step: Step) -> bool:
        """Run a call in place; False where it has to wait for something."""
        prepared = step.prepared
        assert prepared is not None
        if not prepared.direct:
            return False
        state: tuple[Any, ...] = ()
        if prepared.tool.state is not None:
            opened = self._states.get(prepared.tool.state)
            if opened is None or not self.history.is_seen(prepared.tool.state):
                return False
            state = (opened.value,)
        outcome = outcome_of(self._work(prepared, step.arguments, state))
        if inspect.iscoroutine(outcome.value):
            outcome.value.close()
            outcome = Outcome(error=TypeError(), words="an instant tool cannot be awaited")
        if isinstance(outcome.error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise outcome.error  # a user's own
        if isinstance(outcome.error, TransientError) and prepared.tool.limits.retries > 0:
            step.attempts += 1
            return False
        self._settle(step, prepared, outcome)
        return True

    async def _run_in_turn(self, step: Step) -> None:
        async with self.history.turn(step.prepared):
            await self._run_elsewhere(step)

    async def _run_elsewhere(self, step: Step) -> None:
        """Run a call that may have to wait, as often as it takes."""
        prepared = step.prepared
        assert prepared is not None
        state: tuple[Any, ...] = ()
        if prepared.tool.state is not None:
            opened = await self._current(prepared.tool.state, max(prepared.timeout, self.executor.timeout))
            if opened.error is not None:
                self._settle(step, prepared, opened)
                return
            state = (opened.value,)
        await self._try(step, prepared, state)

    async def _try(self, step: Step, prepared: Prepared, state: tuple[Any, ...]) -> None:
        while True:
            outcome = await self._tried(prepared, step.arguments, state)
            if not isinstance(outcome.error, TransientError) or step.attempts > prepared.tool.limits.retries:
                break
            await asyncio.sleep(self._pause(step))
            step.attempts += 1
        self._settle(step, prepared, outcome)

    async def _opened(self, maker: Any, timeout: float) -> Outcome:
        """A state; a ``TransientError`` where it cannot be had."""
        return await self._states.open(maker, timeout)

    async def _current(self, maker: Any, timeout: float) -> Outcome:
        """A state that has seen what its past says; a ``TransientError`` where it cannot be had."""
        return await self.history.current(maker, timeout)

    async def _repeat(self, made: Made, state: Any) -> Observation | None:
        """Make a call once more, in a fresh state; None where it may not be made twice."""
        prepared = self.executor.prepared(made.call.tool)
        if not prepared.tool.limits.idempotent:
            return None
        step = Step(made.call, made.number)
        step.prepared = prepared
        step.arguments = prepared.parameters.read(made.call.arguments)
        await self._try(step, prepared, (state,))
        return self._told(step)

    async def _catch_up(self) -> None:
        """Open the states that a recording has stood for; a ``TransientError`` where that cannot be done."""
        for maker in self.history.owing([] if self.history.said is None else self._eager()):
            outcome = await self._current(maker, self.executor.timeout)
            if outcome.error is not None:
                raise TransientError(outcome.words)

    async def _tried(self, prepared: Prepared, arguments: dict[str, Any], state: tuple[Any, ...]) -> Outcome:
        if prepared.gate is None:
            return await self._once(prepared, arguments, state)
        async with prepared.gate:
            return await self._once(prepared, arguments, state)

    async def _once(self, prepared: Prepared, arguments: dict[str, Any], state: tuple[Any, ...]) -> Outcome:
        given_up = THREADS.given_up + LOOP.given_up
        if given_up >= self.executor.max_given_up:
            error = TransientError(f"{given_up} calls that did not end in time still run here, so no other is started")
            return Outcome(error=error, words=str(error))
        work = self._work(prepared, arguments, state)
        return await finished(start(work, asynchronous=prepared.asynchronous), prepared.timeout)

    def _work(self, prepared: Prepared, arguments: dict[str, Any], state: tuple[Any, ...]) -> functools.partial[Any]:
        return functools.partial(answer, prepared.tool.function, state, arguments, self.executor.max_chars)

    def _pause(self, step: Step) -> float:
        """Seconds until the next try: the same whenever the episode is played again."""
        jitter = random.Random(f"{self.scene.episode}/{step.number}/{step.attempts}").uniform(0.5, 1.0)
        return jitter * min(_MAX_BACKOFF, _BACKOFF * 2 ** (step.attempts - 1))

    def _settle(self, step: Step, prepared: Prepared, outcome: Outcome) -> None:
        if outcome.error is None:
            step.settle(outcome.value, "ok")
        else:
            step.settle(*failure(outcome, prepared.tool.name, prepared.timeout))

    def _end(self, step: Step) -> Observation:
        """The observation, counted and kept."""
        executor = self.executor
        observation = step.observation or self._told(step)
        if step.key is not None and executor.cache is not None and observation.ok and not observation.recorded:
            executor.cache.put(step.key, observation.content)
        if executor.cassette is not None and not step.taped:
            executor.cassette.record(self.scene.episode, step.number, step.call, observation)
        executor.account.add(step.prepared.tool.name if step.prepared else "", observation)
        return observation

    def _told(self, step: Step) -> Observation:
        """What a call has come to."""
        assert step.status is not None
        content = step.content if step.status == "ok" else cut(step.content, self.executor.max_chars)
        return Observation(content, step.status, time.perf_counter() - step.began, step.attempts)
