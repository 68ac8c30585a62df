"""Exploring tools by trial, error and memory: imagine a query, attempt it, reflect, remember; from documentation alone.

An episode is one sitting with one tool: a few trials, each reading those before it. Tools are explored side by side.
Episodes of one tool share its long-term memory as it was when their wave began; one at a time, that is all of it. Every
trial is on disk when it is over, and follows from the seed and from the trials that it knows of, so exploring that was
stopped anywhere goes on as if it had not been.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from executors.catalog import Catalog
from executors.endpoint import Model
from executors.executor import Executor
from executors.tool import Tool
from executors.types import Observation, ToolCall
from rewards.judge import by_model, by_rule
from rl.config import Strict
from rollouts.episode import play
from rollouts.formats import Format
from rollouts.imagine import Imagined, Imaginer
from rollouts.memory import Coverage, Memory, Trial, recalling
from rollouts.policy import Policy, Source, derive_seed
from rollouts.store import Log
from rollouts.types import Episode, Task

IMAGINED = "imagined"
"""Name of the source that makes the call which a query means, for a policy that cannot make it yet."""
_AGAIN = 3
"""Further draws for an attempt that would repeat a call that failed."""


class Ablations(Strict):
    """What exploring may do without, to see what it is worth."""

    execution: bool = True
    """Run the calls; else they are only accepted, and nothing comes back."""
    short_term: bool = True
    """Let a trial know of those before it in its sitting, and of the calls that failed in it."""
    long_term: bool = True
    """Let whoever imagines know of earlier sittings."""
    reflection: bool = True
    """Judge whether a trial was solved: it ends there, and exploring goes where trials were not."""


class Exploration(Strict):
    """How much is explored, and how."""

    episodes: int = Field(default=8, gt=0)
    """Sittings with each tool, on average."""
    trials: int = Field(default=4, gt=0)
    """Of one sitting."""
    max_turns: int = Field(default=2, gt=0)
    """Calls of one attempt at most."""
    ltm_sync: Literal["strict"] | int = "strict"
    """``strict``: each episode knows all before it; k: waves of k episodes run at once, and share what came before."""
    tools_at_once: int = Field(default=16, gt=0)
    """Tools that are explored side by side."""
    focus: float = Field(default=0.25, ge=0, le=1)
    """Share of the sittings that goes to tools whose trials were not solved, as often as that was."""
    in_context: bool = False
    """Whether a policy reads the trials before in its prompt; for models that learn from what they read."""
    max_calls: int | None = Field(default=None, gt=0)
    """Calls of all trials together, those of former runs included. Trials that run are finished."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Read and written by policies and imaginers together."""
    max_usd: float | None = Field(default=None, gt=0)
    """What all of it may cost."""
    one_tool: bool = True
    """Whether an attempt may call only the tool that is explored; else it has to choose among all."""
    without: Ablations = Ablations()

    @property
    def wave(self) -> int:
        """Episodes of a tool that run at once."""
        return 1 if self.ltm_sync == "strict" else max(1, self.ltm_sync)


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
        """
        self.setting = setting
        self.catalog = catalog if setting.without.execution else Catalog(_unexecuted(catalog))
        self.executor = Executor(self.catalog, timeout=timeout)
        self.format = format
        self.imaginer = imaginer
        self.actors = actors
        self.judge = judge
        self.seed = seed
        self.tools = tuple(catalog.names if tools is None else tools)
        self.spent = Spent()
        self._log = log
        self._writing = asyncio.Lock()
        self._trials: dict[str, dict[tuple[int, int], Trial]] = {tool: {} for tool in self.tools}
        for trial in log.read():
            if trial.tool in self._trials:
                self._keep(trial)

    async def explore(self) -> list[Trial]:
        """Explore until the sittings are held or the budget is spent; the trials of all tools, of former runs too."""
        even = max(1, round(self.setting.episodes * (1 - self.setting.focus)))
        await self._sit({tool: range(even) for tool in self.tools})
        extra = (self.setting.episodes - even) * len(self.tools)
        counts = shared_out(extra, {tool: self._unsolved(tool, even) for tool in self.tools})
        await self._sit({tool: range(even, even + count) for tool, count in counts.items()})
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
            imagined = await self.imaginer.imagine(known.spec, memory, remembered, seed)
            if imagined is None:
                return
            trial = await self._trial(tool, number, place, imagined, remembered)
            async with self._writing:  # the disk confirms each trial, and nobody else waits for it
                await asyncio.to_thread(self._log.append, [trial])
            self._keep(trial)
            recent.append(trial)

    async def _trial(self, tool: str, number: int, place: int, imagined: Imagined, recent: Sequence[Trial]) -> Trial:
        task = Task(
            id=f"{tool}-{number}-{place}",
            prompt=imagined.query,
            tools=(tool,) if self.setting.one_tool else self.catalog.names,
            gold=imagined.call,
            needs_tool=True,
            labels={"tool": tool},
        )
        truth = await self._truth(task)
        attempts: list[Episode] = []
        solved: bool | None = None
        for turn, actor in enumerate(self.actors):
            attempt = await self._attempt(task, actor, turn, attempts, recent)
            attempts.append(attempt)
            if self.setting.without.reflection and attempt.finished:
                solved = await self._solved(tool, task, attempt, truth)
                if solved:
                    break
        written = [turn.completion for attempt in attempts for turn in attempt.turns]
        return Trial(
            tool=tool,
            episode=number,
            number=place,
            task=task,
            attempts=tuple(attempts),
            solved=solved,
            imagined_by=self.imaginer.name,
            tokens=imagined.tokens
            + sum(_tokens(one.prompt_tokens, one.written_tokens, one.token_ids) for one in written),
            cost=imagined.cost + sum(one.cost for one in written),
        )

    async def _attempt(
        self, task: Task, actor: Actor, turn: int, before: Sequence[Episode], recent: Sequence[Trial]
    ) -> Episode:
        """One attempt; within a trial a call that failed is not made again, if the policy can think of another."""
        format = self.format
        specs = self.catalog.specs(task.tools)
        if self.setting.in_context and recent:
            format = recalling(format, [(trial.task, trial.attempts[-1]) for trial in recent], specs)
        tried = [_first_call(attempt) for attempt in before] if self.setting.without.short_term else []
        attempt: Episode | None = None
        for again in range(_AGAIN):
            attempt = await play(
                task,
                actor.policy,
                self.executor,
                format,
                source=actor.source,
                id=f"explore/{task.id}/{actor.source.name}/{turn}",
                seed=derive_seed(self.seed, task.id, actor.source.name, turn, again),
                max_turns=self.setting.max_turns,
            )
            if _first_call(attempt) not in tried or actor.source.sampling.temperature == 0:
                break
        assert attempt is not None
        return attempt

    async def _truth(self, task: Task) -> Observation | None:
        """What the meant call gives, by which another call can be found to be as good."""
        if task.gold is None or not (self.setting.without.execution and self.setting.without.reflection):
            return None
        return await self.executor.arun(task.gold)

    async def _solved(self, tool: str, task: Task, attempt: Episode, truth: Observation | None) -> bool | None:
        """Whether an attempt solved its query, by rule or by the judge; None where neither can tell."""
        verdict = by_rule(task, attempt, truth) if self.setting.without.execution else None
        if verdict is None and self.judge is not None:
            verdict = await by_model(self.judge, self.catalog.get(tool).spec, task, attempt)
        return None if verdict is None else verdict.passed

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


def judged_trials(trials: Sequence[Trial]) -> tuple[list[tuple[Task, Episode]], list[tuple[Task, Episode]]]:
    """The attempts that the rule passes, and the finished ones that it rejects: what to imitate, what to rank below.

    An attempt whose query means no known call is neither, unless reflection found its trial solved by it.
    """
    kept, rejected = [], []
    for trial in trials:
        for attempt in trial.attempts:
            if not attempt.finished:
                continue
            verdict = by_rule(trial.task, attempt)
            passed = trial.solved and attempt is trial.attempts[-1] if verdict is None else verdict.passed
            if passed:
                kept.append((trial.task, attempt))
            elif verdict is not None or trial.solved is not None:
                rejected.append((trial.task, attempt))
    return kept, rejected


def _first_call(attempt: Episode) -> object:
    call = attempt.calls[0] if attempt.calls else None
    return (call.tool, repr(sorted(call.arguments.items()))) if isinstance(call, ToolCall) else attempt.text


def _tokens(read: int, written: int, ids: Sequence[int]) -> int:
    return read + max(written, len(ids))


@dataclass(frozen=True, slots=True)
class _Unexecuted:
    """Stands in for a tool that is not run."""

    def __call__(self, /, **arguments: object) -> str:
        return "the call was taken down and not run"


def _unexecuted(catalog: Catalog) -> list[Tool]:
    return [replace(tool, function=_Unexecuted(), instant=True, state=None) for tool in catalog]
