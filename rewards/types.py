"""What an attempt is worth."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rollouts.types import Episode, Task


@dataclass(frozen=True, slots=True)
class Reward:
    """The worth of one episode. Within a group only order and distance count."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    """What it is made of, by name of the part."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An attempt and its worth."""

    episode: Episode
    reward: Reward


@dataclass(frozen=True, slots=True)
class RankedGroup:
    """The candidates of one task, best first; equal rewards are ties."""

    task: Task
    candidates: tuple[Candidate, ...]
    dropped: int = 0
    """Episodes left out because the infrastructure failed, not the policy."""

    @property
    def tied(self) -> bool:
        """Whether all rewards are equal, so that there is nothing to prefer."""
        return len({candidate.reward.value for candidate in self.candidates}) < 2
