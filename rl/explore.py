"""Exploring tools by trial, error and memory: imagine a query, attempt it, reflect, remember; from documentation alone.

An episode is one sitting with one tool: a few trials, each reading those before it. Tools are explored side by side.
Episodes of one tool share its long-term memory as it was when their wave began; one at a time, that is all of it. Every
trial is written as it ends, in order, and follows from the seed and from the trials that it knows of, so exploring that
was stopped anywhere goes on as if it had not been, and it does not matter which process made which trial.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from executors.budget import BudgetError
from executors.errors import TransientError
from executors.types import ToolCall
from rewards.judge import by_rule
from rl.trials.worker import IMAGINED, Make, Place, TrialConfig, TrialWorker
from rollouts.memory import Coverage, Memory, Trial
from rollouts.store import Log
from rollouts.types import Episode, Task


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


class Explorer:
    """Explores the tools of a catalog."""

    def __init__(
        self, config: TrialConfig, log: Log[Trial], *, tools: Sequence[str] | None = None, make: Make | None = None
    ) -> None:
        """
        Args:
            config: how much is explored, how, and by whom.
            log: of trials; those that it has are remembered, and not made again.
            tools: those that are explored; all by default.
            make: makes trials elsewhere; a worker in this process by default.
        """
        self.setting = config.setting
        self.catalog = config.catalog
        self.tools = tuple(config.catalog.names if tools is None else tools)
        self.spent = Spent()
        self.unreached: list[str] = []
        """Why sittings ended early: a model could not be reached. They are held when exploring goes on."""
        self.unpaid: list[str] = []
        """The same, where an endpoint's own money was spent."""
        self._make = make or TrialWorker(config).make
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
            if not (self.unreached or self.unpaid):  # where the others belong is known once these are held
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
            try:
                trial = await self._make(Place(tool, number, place), memory, remembered)
                if trial is None:
                    return
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
