"""How fresh the candidates are: attempts of the policy as it is, as it was some rounds ago, or as it began.

RRHF and TRICE are offline: the policy's own candidates are of its beginning. RRHF's table 6 also has the iterative
form, where they are made anew a few times (IP-n), and the online one, which wants a charge for moving away
(``kl_weight``).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field, model_validator

from rl.config import Strict
from rollouts.types import Snapshot


class Refresh(Strict):
    """Which of the policy's weights attempt the tasks of a round."""

    kind: Literal["online", "iterative", "offline"] = "online"
    """``online``: the newest, but for ``max_lag``; ``iterative``: new ones every few rounds, once all that went before
    is learned; ``offline``: those that the stage began with."""
    every: int = Field(default=1, gt=0)
    """Of ``iterative``: rounds that the same weights play."""

    @model_validator(mode="after")
    def _reads_every(self) -> "Refresh":
        if self.kind != "iterative" and self.every != 1:
            raise ValueError(f"every: {self.kind} has no use for it; take kind iterative, or leave it out")
        return self

    def version(self, round: int, max_lag: int) -> int:
        """The weights that play a round, by the rounds that they have learned from."""
        if self.kind == "online":
            return max(0, round - max_lag)
        return 0 if self.kind == "offline" else round - round % self.every

    def saves(self, finished: int) -> bool:
        """Whether the weights after so many rounds are still to play once newer ones are there."""
        return self.kind == "iterative" and finished % self.every == 0


class Published(Protocol):
    """What is asked of a learner: the weights of a version that it has."""

    def snapshot(self, version: int) -> Snapshot: ...


class Players:
    """Finds the weights that play each round, after a crash in the checkpoint that holds them."""

    def __init__(
        self,
        refresh: Refresh,
        learner: Published,
        checkpoint_at: Callable[[int], Path],
        began: int,
    ) -> None:
        """
        Args:
            refresh: which weights play which round.
            learner: has every version from ``began`` on.
            checkpoint_at: the checkpoint of a version.
            began: the first round that is played.
        """
        self._refresh = refresh
        self._learner = learner
        self._checkpoint_at = checkpoint_at
        self._began = began
        self._held: Snapshot | None = None

    def of(self, round: int, max_lag: int) -> Snapshot:
        """The weights that play a round; waits for them. Online, the oldest there are where a crash took older ones."""
        version = self._refresh.version(round, max_lag)
        if self._refresh.kind == "online":
            return self._learner.snapshot(max(self._began, version))
        if self._held is None or self._held.version != version:
            from rl.learner.remote import snapshot_of

            known = version >= self._began
            self._held = (
                self._learner.snapshot(version) if known else snapshot_of(self._checkpoint_at(version), version)
            )
        return self._held
