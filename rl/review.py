"""Judging what exploring left unjudged: STE's filter, after the fact, where nobody reflected."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from executors.budget import BudgetError
from executors.catalog import Catalog
from executors.endpoint import Model
from executors.errors import TransientError
from executors.types import ToolCall
from rewards.judge import by_model, by_rule
from rl.exploration import Exploration
from rollouts.memory import Trial
from rollouts.metered import Metered
from rollouts.store import Log
from rollouts.types import Episode

_AT_ONCE = 16
"""Attempts that are judged at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What a judge found of one attempt."""

    attempt: str
    """Its id."""
    passed: bool | None
    """None where the judge's reply cannot be read."""
    reasons: tuple[str, ...] = ()
    tokens: int = 0
    cost: float = 0.0
    """In US dollars."""


class Reviewer:
    """Judges attempts that no rule can tell of and that nobody judged while exploring; each once."""

    def __init__(self, setting: Exploration, catalog: Catalog, judge: Model, log: Log[Review]) -> None:
        """
        Args:
            setting: whose budgets of tokens and money hold for trials and reviews together.
            catalog: of the tools.
            judge: is asked.
            log: of reviews; those that it has are not made again.
        """
        self.setting = setting
        self.catalog = catalog
        self.judge = judge
        self.reviews = {review.attempt: review for review in log.read()}
        self.unreached: list[str] = []
        """Why attempts were left unjudged: the judge could not be reached. They are judged when this is done again."""
        self.unpaid: list[str] = []
        """The same, where the judge's own money was spent."""
        self._log = log
        self._tokens, self._cost = 0, 0.0

    async def review(self, trials: Sequence[Trial]) -> dict[str, bool]:
        """By attempt, whether it passes, as far as that could be told within the budget."""
        self._tokens = sum(trial.tokens for trial in trials) + sum(one.tokens for one in self.reviews.values())
        self._cost = sum(trial.cost for trial in trials) + sum(one.cost for one in self.reviews.values())
        room = asyncio.Semaphore(_AT_ONCE)

        async def judged(trial: Trial, attempt: Episode) -> None:
            async with room:
                if not (self._exhausted or self.unpaid or self.unreached):
                    await self._judge(trial, attempt)

        waiting = [(trial, one) for trial in trials for one in trial.attempts if self._is_open(trial, one)]
        await asyncio.gather(*(judged(trial, attempt) for trial, attempt in waiting))
        return {id: review.passed for id, review in self.reviews.items() if review.passed is not None}

    def _is_open(self, trial: Trial, attempt: Episode) -> bool:
        called = any(isinstance(call, ToolCall) for call in attempt.calls)
        unjudged = trial.solved is None and by_rule(trial.task, attempt) is None
        return attempt.finished and called and unjudged and attempt.id not in self.reviews

    async def _judge(self, trial: Trial, attempt: Episode) -> None:
        judge = Metered(self.judge)
        try:
            verdict = await by_model(judge, self.catalog.get(trial.tool).spec, trial.task, attempt)
        except BudgetError as error:
            self.unpaid.append(f"{trial.tool}: {error}")
            return
        except TransientError as error:
            self.unreached.append(f"{trial.tool}: {error}")
            return
        review = Review(
            attempt=attempt.id,
            passed=None if verdict is None else verdict.passed,
            reasons=() if verdict is None else verdict.reasons,
            tokens=judge.tokens,
            cost=judge.cost,
        )
        self._log.append([review])
        self.reviews[attempt.id] = review
        self._tokens += review.tokens
        self._cost += review.cost

    @property
    def _exhausted(self) -> bool:
        limits = ((self.setting.max_tokens, self._tokens), (self.setting.max_usd, self._cost))
        return any(limit is not None and used >= limit for limit, used in limits)
