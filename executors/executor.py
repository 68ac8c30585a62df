"""Runs calls: the one place where a policy's words become effects."""

import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

from executors.account import Account
from executors.arguments import LIMITS, ArgumentLimits
from executors.cache import Cache
from executors.cassette import Cassette
from executors.catalog import Catalog
from executors.errors import BadCallError, ConfigError, DataError
from executors.gate import Gate
from executors.journal import Journal
from executors.schemas.parameters import Parameters
from executors.session import Session
from executors.step import Prepared
from executors.tool import Stateful, Tool
from executors.types import MalformedCall, Observation, Scene, ToolCall


class Executor:
    """Validates a call against its tool's schema, runs it, and returns what came back.

    It never raises for what a call does: an unknown tool, bad arguments, a failing or hanging tool are observations.
    Calls of one episode go through a session (``open``), which holds the state that its tools share. Blocking tools
    run in threads, asynchronous ones in one event loop of the process's own, and ``instant`` ones in place.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        timeout: float = 10.0,
        max_chars: int = 2048,
        coerce: bool | Collection[str] = False,
        calls_per_turn: int | None = 8,
        calls_per_episode: int | None = 64,
        arguments: ArgumentLimits = LIMITS,
        max_given_up: int = 64,
        cache: Cache | None = None,
        cassette: Cassette | Journal | None = None,
    ) -> None:
        """
        Args:
            catalog: the tools that may be called.
            timeout: seconds after which a try of a call that is not ``instant`` is given up.
            max_chars: length to which an observation is cut.
            coerce: whether to take arguments that are plainly meant for the type that the schema asks for; or the names
                of the tools of which they are taken.
            calls_per_turn: of one reply; further ones are refused. None for no limit.
            calls_per_episode: further ones are refused; None for no limit.
            arguments: what the arguments of a call may hold.
            max_given_up: calls that were given up and still run in this process, from which on no others are started.
            cache: keeps the answers of tools that allow it.
            cassette: records what every call gave, or gives it again; or the journal of a run, which does so after a
                crash.

        Raises:
            ConfigError: a limit that nothing can keep.
        """
        for name, value in (("timeout", timeout), ("max_chars", max_chars), ("max_given_up", max_given_up)):
            if not value > 0:
                raise ConfigError(f"{name} must be over 0, got {value}")
        for name, most in (("calls_per_turn", calls_per_turn), ("calls_per_episode", calls_per_episode)):
            if most is not None and most < 1:
                raise ConfigError(f"{name} must be at least 1, got {most}; None is no limit")
        self.catalog = catalog
        self.timeout = timeout
        self.max_chars = max_chars
        self.coerce = coerce
        self.calls_per_turn = calls_per_turn
        self.calls_per_episode = calls_per_episode
        self.arguments = arguments
        self.max_given_up = max_given_up
        self.cache = cache
        self.cassette = cassette
        self.account = Account()
        self._prepared: dict[str, Prepared] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """It is sent to other processes as what it was made of, and begins a new account there."""
        names = ("timeout", "max_chars", "coerce", "calls_per_turn", "calls_per_episode", "arguments")
        options = {name: getattr(self, name) for name in (*names, "max_given_up", "cache", "cassette")}
        return _made, (self.catalog, options)

    @functools.cached_property
    def eager(self) -> dict[str, Stateful]:
        """What makes the states that are opened before the first call, by the names of the tools that share them."""
        return {tool.name: tool.state for tool in self.catalog if tool.state and getattr(tool.state, "eager", False)}

    @functools.cached_property
    def judged(self) -> bool:
        """Whether any of the tools' environments says what an episode is worth; see ``Session.reward``."""
        return any(getattr(tool.state, "judges", False) for tool in self.catalog)

    def open(self, scene: Scene, tools: str | Sequence[str] = "auto") -> Session:
        """Begin an episode.

        Args:
            scene: where it happens; given to the environments of its tools.
            tools: which may be called, in the words of ``tool_choice``: ``auto`` and ``required`` for all, ``none``,
                one by its name, or a list of names.

        Raises:
            ConfigError: one of them is not in the catalog.
        """
        return self._session(scene, self._allowed(tools))

    def recall(self, round: str, again: bool = False) -> None:
        """Have at hand what the journal says of a round, where there is a journal; see ``Journal.recall``."""
        if isinstance(self.cassette, Journal):
            self.cassette.recall(round, again)

    def _session(self, scene: Scene, allowed: dict[str, None] | None) -> Session:
        return Session(self, scene, allowed)

    def run(self, call: ToolCall | MalformedCall) -> Observation:
        """Run one call of no episode to its end. For use where no event loop is running."""
        session = self._session(_NOWHERE, None)
        try:
            return session.run(call)
        finally:
            session.close()

    async def arun(self, call: ToolCall | MalformedCall) -> Observation:
        """Run one call of no episode; other calls go on meanwhile."""
        session = self._session(_NOWHERE, None)
        try:
            return await session.arun(call)
        finally:
            await session.aclose()

    def problem(self, call: ToolCall) -> str | None:
        """Why a call's arguments break its tool's schema, in words that a policy can act on; None where they do not.

        Raises:
            UnknownToolError: there is no such tool.
            DataError: the schema is none.
        """
        try:
            self.prepared(call.tool).parameters.read(call.arguments)
        except BadCallError as error:
            return str(error)
        return None

    def coerces(self, name: str) -> bool:
        """Whether arguments of a tool that are plainly meant for another type are taken."""
        return self.coerce if isinstance(self.coerce, bool) else name in self.coerce

    def prepared(self, name: str) -> Prepared:
        """A tool, ready to be called many times.

        Raises:
            UnknownToolError: there is no such tool.
            DataError: its schema is none.
        """
        found = self._prepared.get(name)
        if found is None:
            tool = self.catalog.get(name)
            try:
                parameters = Parameters(tool.spec.parameters, coerce=self.coerces(name), limits=self.arguments)
            except DataError as error:
                raise DataError(f"tool {name!r} cannot be called: {error}") from error
            found = self._prepared.setdefault(name, self._prepare(tool, parameters))
        return found

    def _prepare(self, tool: Tool, parameters: Parameters) -> Prepared:
        limits = tool.limits
        asynchronous = is_async(tool.function)
        gated = limits.concurrency is not None or limits.per_second is not None
        return Prepared(
            tool=tool,
            parameters=parameters,
            asynchronous=asynchronous,
            direct=tool.instant and not asynchronous and not gated,
            timeout=self.timeout if limits.timeout is None else limits.timeout,
            gate=Gate(limits.concurrency, limits.per_second) if gated else None,
            cached=self.cache is not None and limits.cache and tool.state is None,
            shares=tool.state,
            noted=not limits.idempotent and isinstance(self.cassette, Journal),
        )

    def _allowed(self, tools: str | Sequence[str]) -> dict[str, None] | None:
        if isinstance(tools, str):
            if tools in ("auto", "required"):
                return None
            tools = () if tools == "none" else (tools,)
        for name in tools:
            if name not in self.catalog:
                raise ConfigError(f"no tool named {name!r} in the catalog, so calls cannot be limited to it")
        return dict.fromkeys(tools)


_NOWHERE = Scene()


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _made(catalog: Catalog, options: dict[str, Any]) -> Executor:
    return Executor(catalog, **options)
