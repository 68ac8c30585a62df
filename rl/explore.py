"""Exploring tools by trial, error and memory: imagine a query, attempt it, reflect, remember; from documentation alone.

An episode is one sitting with one tool: a few trials, each reading those before it. Tools are explored side by side.
Episodes of one tool share its long-term memory as it was when their wave began; one at a time, that is all of it. Every
trial is written as it ends, in order, and follows from the seed and from the trials that it knows of, so exploring that
was stopped anywhere goes on as if it had not been.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from executors.budget import BudgetError
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
from rollouts.memory import Coverage, Memory, Trial, recalling
from rollouts.metered import Metered
from rollouts.policy import Policy, Source, derive_seed
from rollouts.store import Log
from rollouts.types import Completion, Episode, Task

IMAGINED = "imagined"
"""Name of the source that makes the call which a query means, for a policy that cannot make it yet."""
ROUND = "explore"
"""Begins the ids of all attempts."""
_AGAIN = 3
"""Further draws for an attempt that would repeat a call that failed."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What exploring took so far."""

    trials: int = 0
    calls: int = 0
    tokens: int = 0
    cost: float = 0.0

    def plus(self, trial: Trial) -> "Spent":
        """With one more trial."""
        return Spent(self.trials + 1, self.calls + trial.calls, self.tokens + trial.tokens, self.cost + trial.cost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who attempts a query: a policy, and how it is sampled."""

    source: Source
    policy: Policy


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


class Explorer:
    """Explores the tools of a catalog."""

    def __init__(
        self,
        setting: Exploration,
        catalog: Catalog,
        format: Format,
        imaginer: Imaginer,
        actors: Sequence[Actor],
        log: Log[Trial],
        *,
        judge: Model | None = None,
        seed: int = 0,
        tools: Sequence[str] | None = None,
        timeout: float = 10.0,
        journal: Journal | None = None,
    ) -> None:
        """
        Args:
            setting: how much, and how.
            catalog: of the tools; an attempt may call any of them.
            format: how queries and calls are written.
            imaginer: thinks of queries.
            actors: attempt a query one after the other, until one has solved it.
            log: of trials; those that it has are remembered, and not made again.
            judge: reflects on trials that no rule can verify; without one they are neither solved nor unsolved.
            seed: settles what is imagined and how is sampled.
            tools: those that are explored; all by default.
            timeout: seconds that a call may take.
            journal: of the calls: those of a trial that a crash cut are not made again.
        """
        self.setting = setting
        self.catalog = catalog if setting.without.execution else Catalog(_unexecuted(catalog))
        self.executor = Executor(self.catalog, timeout=timeout, cassette=journal)
        if journal is not None:
            journal.recall(ROUND)
        self.format = format
        self.imaginer = imaginer
        self.actors = actors
        self.judge = judge
        self.seed = seed
        self.tools = tuple(catalog.names if tools is None else tools)
        self.spent = Spent()
        self.unreached: list[str] = []
        """Why sittings ended early: a model could not be reached. They are held when exploring goes on."""
        self.unpaid: list[str] = []
        """The same, where an endpoint's own money was spent."""
        self._log = log
        self._pending: list[Trial] = []
        self._writing: asyncio.Task[None] | None = None
        self._trials: dict[str, dict[tuple[int, int], Trial]] = {tool: {} for tool in self.tools}
        for trial in log.read():
            if trial.tool in self._trials:
                self._keep(trial)

    async def explore(self) -> list[Trial]:
        """Explore until the sittings are held or the budget is spent; the trials of all tools, of former runs too.

        A model that cannot be reached, or that has no money left, ends a sitting; ``unreached`` and ``unpaid`` say so.
        """
        even = max(1, round(self.setting.episodes * (1 - self.setting.focus)))
        try:
            await self._sit({tool: range(even) for tool in self.tools})
            extra = (self.setting.episodes - even) * len(self.tools)
            counts = shared_out(extra, {tool: self._unsolved(tool, even) for tool in self.tools})
            await self._sit({tool: range(even, even + count) for tool, count in counts.items()})
        finally:
            if self._writing is not None:
                await self._writing
        return self.trials()

    def trials(self) -> list[Trial]:
        """All that are known, by tool, episode and number."""
        return [trials[place] for trials in self._trials.values() for place in sorted(trials)]

    def coverage(self) -> dict[str, Coverage]:
        """By tool, what the trials have shown of it."""
        return {tool: self.memory(tool).coverage() for tool in self.tools}

    def memory(self, tool: str, before: int | None = None) -> Memory:
        """What is remembered of a tool: all, or what came before an episode."""
        known = sorted(self._trials[tool].items())
        trials = [trial for (episode, _), trial in known if before is None or episode < before]
        return Memory(self.catalog.get(tool).spec, trials)

    @property
    def exhausted(self) -> bool:
        """Whether a budget is spent."""
        limits = (
            (self.setting.max_calls, self.spent.calls),
            (self.setting.max_tokens, self.spent.tokens),
            (self.setting.max_usd, self.spent.cost),
        )
        return any(limit is not None and used >= limit for limit, used in limits)

    async def _sit(self, episodes: Mapping[str, range]) -> None:
        room = asyncio.Semaphore(self.setting.tools_at_once)

        async def explore_tool(tool: str, numbers: range) -> None:
            async with room:
                for first in range(numbers.start, numbers.stop, self.setting.wave):
                    known = self.memory(tool, before=first)
                    wave = range(first, min(first + self.setting.wave, numbers.stop))
                    await asyncio.gather(*(self._episode(tool, number, known) for number in wave))

        await asyncio.gather(*(explore_tool(tool, numbers) for tool, numbers in episodes.items()))

    async def _episode(self, tool: str, number: int, known: Memory) -> None:
        """One sitting; what of it is on disk stays as it is."""
        without = self.setting.without
        recent = [trial for (episode, _), trial in sorted(self._trials[tool].items()) if episode == number]
        for place in range(len(recent), self.setting.trials):
            if self.exhausted:
                return
            remembered = recent if without.short_term else []
            memory = (known if without.long_term else Memory(known.spec)).with_trials(remembered)
            seed = derive_seed(self.seed, tool, number, place)
            try:
                imagined = await self.imaginer.imagine(known.spec, memory, remembered, seed)
                if imagined is None:
                    return
                trial = await self._trial(tool, number, place, imagined, remembered)
            except BudgetError as error:
                self.unpaid.append(f"{tool}: {error}")
                return
            except TransientError as error:
                self.unreached.append(f"{tool}: {error}")
                return
            self._write(trial)
            recent.append(trial)

    def _write(self, trial: Trial) -> None:
        """Remember a trial, and have it written while others go on; in order, so that none is there before its past."""
        self._keep(trial)
        self._pending.append(trial)
        if self._writing is None or self._writing.done():
            if self._writing is not None:
                self._writing.result()  # what the disk refused ends it here
            self._writing = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        while self._pending:
            waiting, self._pending = self._pending, []
            await asyncio.to_thread(self._log.append, waiting)

    async def _trial(self, tool: str, number: int, place: int, imagined: Imagined, recent: Sequence[Trial]) -> Trial:
        """One query, attempted by one actor after the other until one has solved it.

        Raises:
            TransientError: no actor or judge could be reached; nothing is kept.
            BudgetError: there is no money left to ask them.
        """
        task = Task(
            id=f"{tool}-{number}-{place}",
            prompt=imagined.query,
            tools=(tool,) if self.setting.one_tool else self.catalog.names,
            gold=imagined.call,
            needs_tool=True,
            labels={"tool": tool},
        )
        tried = _Tried(task, None if self.judge is None else Metered(self.judge))
        for turn, actor in enumerate(self.actors):
            if imagined.call is None and actor.source.policy == IMAGINED:
                continue  # whoever imagined the query meant no call that could be made
            attempt = await self._attempt(actor, turn, tried, recent)
            if attempt.stop == "failed":
                raise TransientError(f"{actor.source.name} could not attempt {task.id}: {attempt.error}")
            tried.attempts.append(attempt)
            if self.setting.without.reflection:
                tried.solved = await self._solved(tool, tried, attempt)
                if tried.solved:
                    break
        return Trial(
            tool=tool,
            episode=number,
            number=place,
            task=task,
            attempts=tuple(tried.attempts),
            solved=tried.solved,
            imagined_by=self.imaginer.name,
            checks=tried.checks,
            tokens=imagined.tokens + tried.tokens,
            cost=imagined.cost + tried.cost,
        )

    async def _attempt(self, actor: Actor, turn: int, tried: "_Tried", recent: Sequence[Trial]) -> Episode:
        """One attempt; within a trial a call that failed is not made again, if the policy can think of another."""
        task, format = tried.task, self.format
        if self.setting.in_context and recent:
            specs = self.catalog.specs(task.tools)
            format = recalling(format, [(trial.task, trial.attempts[-1]) for trial in recent], specs)
        known = [_first_call(attempt) for attempt in tried.attempts] if self.setting.without.short_term else []
        again = 0
        while True:
            attempt = await play(
                task,
                actor.policy,
                self.executor,
                format,
                source=actor.source,
                id=f"{ROUND}/{task.id}/{actor.source.name}/{turn}-{again}",
                seed=derive_seed(self.seed, task.id, actor.source.name, turn, again),
                max_turns=self.setting.max_turns,
            )
            tried.written += [one.completion for one in attempt.turns]
            again += 1
            if _first_call(attempt) not in known or actor.source.sampling.temperature == 0 or again == _AGAIN:
                return attempt
            tried.checks += len(attempt.calls)

    async def _solved(self, tool: str, tried: "_Tried", attempt: Episode) -> bool | None:
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

    async def _truth(self, task: Task, meant: ToolCall, tried: "_Tried") -> Observation:
        """What the meant call gives, by which another call can be found to be as good."""
        tried.checks += 1
        session = self.executor.open(Scene(f"{ROUND}/{task.id}/meant"))
        try:
            return await session.arun(meant)
        finally:
            await session.aclose()

    def _keep(self, trial: Trial) -> None:
        self._trials[trial.tool].setdefault((trial.episode, trial.number), trial)
        self.spent = self.spent.plus(trial)

    def _unsolved(self, tool: str, before: int) -> float:
        """The share of a tool's first trials that no policy was found to solve."""
        told = [trial for (episode, _), trial in self._trials[tool].items() if episode < before]
        failed = [one.solved is False or bool(one.solved and one.attempts[-1].source == IMAGINED) for one in told]
        return sum(failed) / len(told) if told else 0.0


def shared_out(count: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole shares of a count by weight (largest remainder); equal ones where all weights are 0."""
    total = sum(weights.values())
    exact = {name: count * (weight / total if total else 1 / len(weights)) for name, weight in weights.items()}
    shares = {name: int(value) for name, value in exact.items()}
    left = sorted(exact, key=lambda name: (shares[name] - exact[name], name))
    for name in left[: count - sum(shares.values())]:
        shares[name] += 1
    return shares


def judged_trials(
    trials: Sequence[Trial], reviewed: Mapping[str, bool] | None = None
) -> tuple[list[tuple[Task, Episode]], list[tuple[Task, Episode]]]:
    """The attempts that solved their trial or that the rule passes, and the finished ones that it rejects: what to
    imitate, and what to rank below. An attempt whose query means no known call is neither, unless reflection said so.

    Args:
        trials: that were made.
        reviewed: by attempt, whether it passes, where it was judged afterwards.
    """
    kept, rejected = [], []
    for trial in trials:
        for attempt in trial.attempts:
            if not attempt.finished:
                continue
            verdict = by_rule(trial.task, attempt)
            later = (reviewed or {}).get(attempt.id)
            called = any(isinstance(call, ToolCall) for call in attempt.calls)
            solved = called and (later or (bool(trial.solved) and attempt is trial.attempts[-1]))
            if solved or (verdict is not None and verdict.passed):
                kept.append((trial.task, attempt))
            elif verdict is not None or trial.solved is not None or later is not None:
                rejected.append((trial.task, attempt))
    return kept, rejected


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
