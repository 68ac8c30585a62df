"""The groups log: every ranked group of every round, on disk before anyone learns from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rewards.types import RankedGroup
from rollouts.store import Log

FILE = "improve.jsonl"
"""In a run's ``groups`` folder."""


@dataclass(frozen=True, slots=True)
class RoundGroup:
    """One line of the groups log: on disk before anyone learns from it."""

    round: int
    version: int
    """Of the live policy's weights that played it."""
    group: RankedGroup


class RoundLog:
    """The ranked groups of every round; those of a round that a crash cut short are played again."""

    def __init__(self, path: Path) -> None:
        self._log: Log[RoundGroup] = Log(path, RoundGroup)
        self._known: dict[int, dict[str, RoundGroup]] = {}
        for record in self._log.read():
            self._known.setdefault(record.round, {})[record.group.task.id] = record

    def known(self, round: int) -> Mapping[str, RoundGroup]:
        """The groups of a round by task id, as far as they are on disk."""
        return self._known.get(round, {})

    def append(self, records: Sequence[RoundGroup]) -> None:
        self._log.append(records)

    def all(self) -> Iterator[RoundGroup]:
        """Every group, round by round."""
        return (record for round in sorted(self._known) for record in self._known[round].values())

    def last(self) -> Sequence[RoundGroup]:
        """The groups of the last round."""
        return list(self._known[max(self._known)].values()) if self._known else []
