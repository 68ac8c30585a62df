"""Makes trials: imagines a query, has it attempted, judges. A plain class: tests and scripts use it without Ray."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from executors.catalog import Catalog
from executors.endpoint import Model
from executors.errors import TransientError
from executors.executor import Executor
from executors.journal import Journal
from executors.tool import Tool
from executors.types import Observation, Scene, ToolCall
from rewards.judge import by_model, by_rule
from rl.exploration import Exploration
from rollouts.episode import play
from rollouts.formats import Format
from rollouts.imagine import Imagined, Imaginer
from rollouts.memory import Memory, Trial, recalling
from rollouts.metered import Metered
from rollouts.policy import Policy, Source, derive_seed
from rollouts.types import Completion, Episode, Task

IMAGINED = "imagined"
"""Name of the source that makes the call which a query means, for a policy that cannot make it yet."""
ROUND = "explore"
"""Begins the ids of all attempts."""
DRAWS = 3
"""Of an attempt that would repeat a call that failed, at most."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trial stands."""

    tool: str
    """Which is explored."""
    episode: int
    number: int
    """Within its episode, from 0."""


Make = Callable[[Place, Memory, Sequence[Trial]], Awaitable[Trial | None]]
"""Makes one trial; see ``TrialWorker.make``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who attempts a query: how the policy is built, and how it is sampled."""

    source: Source
    build: Callable[[], Policy]
    """Actors whose sources name the same policy share what is built first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """What a worker is made of; policies are built inside the worker's own process."""

    setting: Exploration
    """How much is explored, and how."""
    catalog: Catalog
    """Of the tools; an attempt may call any of them where the setting says so."""
    format: Format
    """How queries and calls are written."""
    imaginer: Imaginer
    """Thinks of queries."""
    actors: Sequence[Actor]
    """Attempt a query one after the other, until one has solved it."""
    judge: Model | None = None
    """Reflects on trials that no rule can verify; without one they are neither solved nor unsolved."""
    seed: int = 0
    """Settles what is imagined and how is sampled."""
    timeout: float = 10.0
    """Seconds that a call may take."""
    concurrency: Mapping[str, int] = field(default_factory=dict)
    """By policy, its attempts that are made at once in one worker; no limit of its own by default."""
    journal: Journal | None = None
    """Of the calls: those of a trial that a crash cut are not made again."""


@dataclass(slots=True)
class _Tried:
    """A query while it is attempted, and what that took so far."""

    task: Task
    judge: Metered | None
    attempts: list[Episode] = field(default_factory=list)
    written: list[Completion] = field(default_factory=list)
    """By the actors, attempts that were not kept included."""
    truth: Observation | None = None
    checks: int = 0
    solved: bool | None = None

    @property
    def tokens(self) -> int:
        """Read and written by actors and judge."""
        told = sum(one.prompt_tokens + max(one.written_tokens, len(one.token_ids)) for one in self.written)
        return told + (self.judge.tokens if self.judge else 0)

    @property
    def cost(self) -> float:
        """Of both, in US dollars."""
        return sum(one.cost for one in self.written) + (self.judge.cost if self.judge else 0.0)


class TrialWorker:
    """Makes trials, many at once; each follows from the seed and from what it is told was tried before."""

    def __init__(self, config: TrialConfig) -> None:
        self.config = config
        self.setting = config.setting
        self.catalog = config.catalog if self.setting.without.execution else Catalog(_unexecuted(config.catalog))
        self.executor = Executor(self.catalog, timeout=config.timeout, cassette=config.journal)
        if config.journal is not None:
            config.journal.recall(ROUND)
        self.policies: dict[str, Policy] = {}
        for actor in config.actors:
            if actor.source.policy not in self.policies:
                self.policies[actor.source.policy] = actor.build()
        self._room = {name: asyncio.Semaphore(count) for name, count in config.concurrency.items()}

    async def make(self, place: Place, known: Memory, recent: Sequence[Trial], again: bool = False) -> Trial | None:
        """One trial; None where nothing new can be imagined.

        Args:
            place: where it stands.
            known: of the tool, by whoever imagines.
            recent: the trials before it in its sitting that it may know of.
            again: whether a worker died over it: calls that it wrote down are not made again.

        Raises:
            TransientError: no imaginer, actor or judge could be reached; nothing is kept.
            BudgetError: there is no money left to ask them.
        """
        if again and self.config.journal is not None:
            self.config.journal.recall(ROUND, again=True)
        seed = derive_seed(self.config.seed, place.tool, place.episode, place.number)
        imagined = await self.config.imaginer.imagine(known.spec, known, recent, seed)
        return None if imagined is None else await self._trial(place, imagined, recent)

    async def _trial(self, place: Place, imagined: Imagined, recent: Sequence[Trial]) -> Trial:
        """One query, attempted by one actor after the other until one has solved it."""
        tool = place.tool
        task = Task(
            id=f"{tool}-{place.episode}-{place.number}",
            prompt=imagined.query,
            tools=(tool,) if self.setting.one_tool else self.catalog.names,
            gold=imagined.call,
            needs_tool=True,
            labels={"tool": tool},
        )
        tried = _Tried(task, None if self.config.judge is None else Metered(self.config.judge))
        for turn, actor in enumerate(self.config.actors):
            if imagined.call is None and actor.source.policy == IMAGINED:
                continue  # whoever imagined the query meant no call that could be made
            attempt = await self._attempt(actor.source, turn, tried, recent)
            if attempt.stop == "failed":
                raise TransientError(f"{actor.source.name} could not attempt {task.id}: {attempt.error}")
            tried.attempts.append(attempt)
            if self.setting.without.reflection:
                tried.solved = await self._solved(tool, tried, attempt)
                if tried.solved:
                    break
        return Trial(
            tool=tool,
            episode=place.episode,
            number=place.number,
            task=task,
            attempts=tuple(tried.attempts),
            solved=tried.solved,
            imagined_by=self.config.imaginer.name,
            checks=tried.checks,
            tokens=imagined.tokens + tried.tokens,
            cost=imagined.cost + tried.cost,
        )

    async def _attempt(self, source: Source, turn: int, tried: _Tried, recent: Sequence[Trial]) -> Episode:
        """One attempt; within a trial a call that failed is not made again, if the policy can think of another."""
        task, format = tried.task, self.config.format
        if self.setting.in_context and recent:
            specs = self.catalog.specs(task.tools)
            format = recalling(format, [(trial.task, trial.attempts[-1]) for trial in recent], specs)
        known = [_first_call(attempt) for attempt in tried.attempts] if self.setting.without.short_term else []
        again = 0
        while True:
            async with self._room.get(source.policy, contextlib.nullcontext()):
                attempt = await play(
                    task,
                    self.policies[source.policy],
                    self.executor,
                    format,
                    source=source,
                    id=f"{ROUND}/{task.id}/{source.name}/{turn}-{again}",
                    seed=derive_seed(self.config.seed, task.id, source.name, turn, again),
                    max_turns=self.setting.max_turns,
                )
            tried.written += [one.completion for one in attempt.turns]
            again += 1
            if _first_call(attempt) not in known or source.sampling.temperature == 0 or again == DRAWS:
                return attempt
            tried.checks += len(attempt.calls)

    async def _solved(self, tool: str, tried: _Tried, attempt: Episode) -> bool | None:
        """Whether an attempt solved its query, by rule or by the judge; None where neither can tell."""
        if not attempt.finished:
            return tried.solved
        task, verdict = tried.task, None
        if self.setting.without.execution:
            verdict = by_rule(task, attempt)
            if verdict is not None and not verdict.passed and verdict.informative and task.gold is not None:
                tried.truth = tried.truth or await self._truth(task, task.gold, tried)
                verdict = by_rule(task, attempt, tried.truth)
        if verdict is None and tried.judge is not None:
            verdict = await by_model(tried.judge, self.catalog.get(tool).spec, task, attempt)
        return None if verdict is None else verdict.passed

    async def _truth(self, task: Task, meant: ToolCall, tried: _Tried) -> Observation:
        """What the meant call gives, by which another call can be found to be as good."""
        tried.checks += 1
        session = self.executor.open(Scene(f"{ROUND}/{task.id}/meant"))
        try:
            return await session.arun(meant)
        finally:
            await session.aclose()


def _first_call(attempt: Episode) -> object:
    call = attempt.calls[0] if attempt.calls else None
    return (call.tool, repr(sorted(call.arguments.items()))) if isinstance(call, ToolCall) else attempt.text


@dataclass(frozen=True, slots=True)
class _Unexecuted:
    """Stands in for a tool that is not run."""

    def __call__(self, /, **arguments: object) -> str:
        return "the call was taken down and not run"


def _unexecuted(catalog: Catalog) -> list[Tool]:
    return [replace(tool, function=_Unexecuted(), instant=True, state=None) for tool in catalog]
