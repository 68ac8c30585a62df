"""An executor some of whose tools run in other processes, and the calls of an episode on their way there."""

import asyncio
import dataclasses
import functools
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from executors.catalog import Catalog
from executors.errors import ConfigError, TransientError
from executors.executor import Executor
from executors.history import Made, Past
from executors.journal import Journal
from executors.schemas.parameters import Parameters
from executors.session import Session
from executors.step import Prepared, Step
from executors.threads import Outcome
from executors.tool import Tool
from executors.types import Observation, Scene
from executors.worker import SeatGoneError, WorkerLostError

_MAX_DEATHS = 3
"""Of workers over one call, after which it is taken for the cause."""
_MARGIN_S = 5.0
"""Beyond a tool's own time, for each try."""


class Crew(Protocol):
    """Workers of one kind, each an ``ExecutorWorker`` somewhere; ``executors.remote`` has those on Ray."""

    name: str
    tools: tuple[str, ...]
    losses: int
    """Of workers, so far."""

    async def present(self, key: str = "") -> Sequence[int]:
        """The workers that can be asked, by number; the best for that key first, or the one least asked.

        Raises:
            TransientError: there is none for too long.
        """
        ...

    async def ask(self, worker: int, method: str, *arguments: Any, within: float = 0.0, **options: Any) -> Any:
        """What a method of a worker gives, which takes so many seconds and may wait beforehand.

        Raises:
            WorkerLostError: the worker died.
            TransientError: it gave no answer in time.
        """
        ...

    def tell(self, worker: int, method: str, *arguments: Any) -> None:
        """Call a method of a worker and go on."""
        ...


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Stands for the function of a tool that a crew runs."""

    crew: str
    stateful: bool
    eager: bool
    judges: bool = False

    async def __call__(self, /, **arguments: Any) -> str:
        raise TransientError(f"it runs in executor pool {self.crew!r}, and this process knows none")


def placed(catalog: Catalog, crews: Sequence[Crew]) -> Catalog:
    """A catalog whose tools are only described where a crew runs them, so that it is light to send.

    Raises:
        ConfigError: two crews run a tool, the catalog lacks one, or tools that share a state would be apart.
    """
    pools: dict[str, str] = {}
    for crew in crews:
        for name in crew.tools:
            if name not in catalog:
                raise ConfigError(f"executor pool {crew.name!r} runs {name!r}, which is no tool of the catalog")
            if pools.setdefault(name, crew.name) != crew.name:
                raise ConfigError(f"executor pools {pools[name]!r} and {crew.name!r} both run {name!r}; name it in one")
    homes: dict[int, tuple[str, str | None]] = {}
    for tool in catalog:
        if tool.state is not None:
            first, home = homes.setdefault(id(tool.state), (tool.name, pools.get(tool.name)))
            if home != pools.get(tool.name):
                raise ConfigError(
                    f"tools {first!r} and {tool.name!r} share a state; put both in the same executor pool"
                )
    return Catalog(_placed(tool, pools[tool.name]) if tool.name in pools else tool for tool in catalog)


def _placed(tool: Tool, crew: str) -> Tool:
    if isinstance(tool.function, Elsewhere):
        return tool
    eager, judges = (bool(getattr(tool.state, trait, False)) for trait in ("eager", "judges"))
    function = Elsewhere(crew, tool.state is not None, eager, judges)
    return Tool(tool.spec, function, limits=dataclasses.replace(tool.limits, concurrency=None, per_second=None))


class RemoteExecutor(Executor):
    """An executor, some of whose tools run with the workers of crews; all else about a call happens here.

    So the limits of an episode, its account and its journal outlive any worker. A call without a state that loses its
    worker is made with another, unless it was answered or is not idempotent. The states of an episode stay with one
    worker; where that one dies, another takes fresh ones through the calls so far, and where those give anything else
    than before, the episode's further calls are ``unavailable``.
    """

    def __init__(self, catalog: Catalog, crews: Sequence[Crew], **options: Any) -> None:
        """
        Args:
            catalog: of all tools.
            crews: who runs some of them.
            options: see ``Executor``.

        Raises:
            ConfigError: see ``placed``.
        """
        super().__init__(placed(catalog, crews), **options)
        self.crews = {crew.name: crew for crew in crews}
        self._read: dict[str, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        _, (catalog, options) = super().__reduce__()  # type: ignore[misc]
        return _made, (catalog, tuple(self.crews.values()), options)

    @functools.cached_property
    def eager(self) -> dict[str, Any]:
        """What makes the states that are opened before the first call; for those elsewhere, the crew."""
        placed = [(tool.name, tool.function) for tool in self.catalog if isinstance(tool.function, Elsewhere)]
        return super().eager | {name: self.crews[there.crew] for name, there in placed if there.eager}

    @functools.cached_property
    def judged(self) -> bool:
        """See ``Executor.judged``; wherever the environments are."""
        placed = [tool.function for tool in self.catalog if isinstance(tool.function, Elsewhere)]
        return super().judged or any(there.judges for there in placed)

    def answered(self, scene: Scene, step: Step) -> Observation | None:
        """What a worker wrote down of a call before it died, if it did."""
        journal = self.cassette
        if not isinstance(journal, Journal):
            return None
        round, losses = journal.round_of(scene.episode), sum(crew.losses for crew in self.crews.values())
        if self._read.get(round) != losses:
            journal.recall(round, again=True)
            self._read[round] = losses
        found = journal.find(scene.episode, step.number, step.call)
        return found if found is None or found.status != "unavailable" else None

    def round_of(self, scene: Scene) -> str:
        """The round that an episode belongs to, where there is a journal."""
        return self.cassette.round_of(scene.episode) if isinstance(self.cassette, Journal) else ""

    def _session(self, scene: Scene, allowed: dict[str, None] | None) -> Session:
        return RemoteSession(self, scene, allowed)

    def _prepare(self, tool: Tool, parameters: Parameters) -> Prepared:
        prepared = super()._prepare(tool, parameters)
        there = tool.function
        shares = self.crews[there.crew] if isinstance(there, Elsewhere) and there.stateful else prepared.shares
        return dataclasses.replace(prepared, shares=shares)


def _made(catalog: Catalog, crews: Sequence[Crew], options: dict[str, Any]) -> RemoteExecutor:
    return RemoteExecutor(catalog, crews, **options)


class RemoteSession(Session):
    """One episode's use of a ``RemoteExecutor``."""

    __slots__ = ("_seats", "remote")

    def __init__(self, executor: RemoteExecutor, scene: Scene, allowed: dict[str, None] | None) -> None:
        super().__init__(executor, scene, allowed)
        self.remote = executor
        self._seats: dict[str, Seat] = {}

    async def reward(self) -> float | None:
        """See ``Session.reward``."""
        own = await super().reward()
        rewards = [own] + [await seat.reward() for seat in self._seats.values()]
        given = [reward for reward in rewards if reward is not None]
        return sum(given) if given else None

    async def aclose(self) -> None:
        """See ``Session.aclose``."""
        self._give_back()
        await super().aclose()

    def close(self) -> None:
        """See ``Session.close``."""
        self._give_back()
        super().close()

    def _give_back(self) -> None:
        while self._seats:
            self._seats.popitem()[1].give_back()

    def _seat(self, crew: Crew) -> "Seat":
        if crew.name not in self._seats:
            self._seats[crew.name] = Seat(crew, self.remote, self.scene, self.history.of(crew))
            self._seats[crew.name].said = self.history.said
        return self._seats[crew.name]

    async def _opened(self, maker: Any, timeout: float) -> Outcome:
        if maker not in self.remote.crews.values():
            return await super()._opened(maker, timeout)
        try:
            return Outcome(await self._seat(maker).opened(timeout))
        except TransientError as error:
            return Outcome(error=error, words=str(error))

    async def _current(self, maker: Any, timeout: float) -> Outcome:
        if maker not in self.remote.crews.values():
            return await super()._current(maker, timeout)
        self._seat(maker)
        return Outcome()

    async def _run_elsewhere(self, step: Step) -> None:
        prepared = step.prepared
        there = prepared.tool.function if prepared is not None else None
        if prepared is None or not isinstance(there, Elsewhere):
            await super()._run_elsewhere(step)
            return
        crew, limits = self.remote.crews[there.crew], prepared.tool.limits
        within = (1 + limits.retries) * (prepared.timeout + _MARGIN_S)
        try:
            run = self._seat(crew).run if there.stateful else functools.partial(self._run_with, crew)
            found = await run(step, limits.idempotent, within)
        except TransientError as error:
            found = Observation(str(error), "unavailable")
        step.observation = dataclasses.replace(found, seconds=time.perf_counter() - step.began)
        step.status = found.status

    async def _run_with(self, crew: Crew, step: Step, idempotent: bool, within: float) -> Observation:
        """Run a call that has no state with any worker."""
        round = self.remote.round_of(self.scene)
        for _ in range(_MAX_DEATHS):
            worker = (await crew.present())[0]
            try:
                return await crew.ask(worker, "run", self.scene, step.number, step.call, round, within=within)
            except WorkerLostError as error:
                if (found := self.remote.answered(self.scene, step)) is not None:
                    return found
                if not idempotent:
                    raise _unknown(step, error) from error
        raise _fatal(step)


class Seat:
    """An episode's place with a worker of a crew, where the states of its tools there live."""

    def __init__(self, crew: Crew, executor: RemoteExecutor, scene: Scene, past: Past) -> None:
        self.said: str | None = None
        """What the environments said on being opened."""
        self._crew = crew
        self._executor = executor
        self._scene = scene
        self._past = past
        self._held: tuple[int, str] | None = None
        self._taking = asyncio.Lock()

    async def run(self, step: Step, idempotent: bool, within: float) -> Observation:
        """Run a call in the states; where they were lost, fresh ones see the calls so far first.

        Raises:
            TransientError: no worker gave an answer.
        """
        self._past.live = True
        for _ in range(_MAX_DEATHS):
            held = await self._take()
            try:
                asked = self._crew.ask(
                    held[0], "run_in", self._scene.episode, held[1], step.number, step.call, within=within
                )
                return self._noted(step, await asked)
            except SeatGoneError:
                self._leave(held)
            except WorkerLostError as error:
                self._leave(held)
                if (found := self._executor.answered(self._scene, step)) is not None:
                    return self._noted(step, found)
                if not idempotent:
                    raise _unknown(step, error) from error
        raise _fatal(step)

    async def opened(self, timeout: float) -> "Opened":
        """Open the environments that are to be open before the first call.

        Raises:
            TransientError: that cannot be done.
        """
        said = self.said = await self._asked("opening", timeout)
        return Opened(said)

    async def reward(self) -> float | None:
        """What the environments say that the episode is worth."""
        return await self._asked("reward", self._executor.timeout)

    def give_back(self) -> None:
        """Let others have it."""
        if self._held is not None:
            self._crew.tell(self._held[0], "close", self._scene.episode, self._held[1])
            self._held = None

    async def _asked(self, method: str, within: float) -> Any:
        for _ in range(_MAX_DEATHS):
            held = await self._take()
            try:
                return await self._crew.ask(held[0], method, self._scene.episode, held[1], within=within)
            except (SeatGoneError, WorkerLostError):
                self._leave(held)
        raise TransientError(f"{_MAX_DEATHS} workers of executor pool {self._crew.name!r} were lost over one episode")

    def _noted(self, step: Step, found: Observation) -> Observation:
        if found.status != "unavailable":
            self._past.calls.append(Made(step.number, step.call, found))  # type: ignore[arg-type]
        return found

    async def _take(self) -> tuple[int, str]:
        """The seat; taken at the worker that every process takes first for this episode, where it has one free."""
        async with self._taking:
            for _ in range(_MAX_DEATHS):
                if self._held is not None:
                    return self._held
                try:
                    await self._look_for_one()
                except WorkerLostError:
                    continue
            if self._held is not None:
                return self._held
        raise TransientError(
            f"executor pool {self._crew.name!r} has no seat for this episode; its workers die or are full"
        )

    async def _look_for_one(self) -> None:
        lease, there = secrets.token_hex(8), await self._crew.present(self._scene.episode)
        made, round = tuple(self._past.calls), self._executor.round_of(self._scene)
        for worker, patient in [*((worker, False) for worker in there), (there[0], True)]:
            options = {"round": round, "patient": patient}
            if await self._crew.ask(worker, "open", self._scene, lease, made, self.said, **options):
                self._held = (worker, lease)
                return

    def _leave(self, held: tuple[int, str]) -> None:
        if self._held == held:
            self._held = None


@dataclass(frozen=True, slots=True)
class Opened:
    """Stands for a state that was opened elsewhere."""

    opening: str


def _unknown(step: Step, error: Exception) -> TransientError:
    return TransientError(f"{error}; nobody knows whether call {step.number} was made, so it is not made again")


def _fatal(step: Step) -> TransientError:
    return TransientError(f"{_MAX_DEATHS} workers died over call {step.number}; see the run's logs/ray")
