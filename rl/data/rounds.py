"""The rounds of a run: what was played and how it was ranked, each on disk before the next station sees it.

``episodes/improve.jsonl`` has what workers brought, as it came; ``groups/improve.jsonl`` the ranked groups;
``ledger.sqlite`` where each attempt stands. A line is written first and the ledger moved afterwards, so the ledger
never says more than the logs do, and a crash between the two is mended when the run is opened again. ``calls`` has
what the workers' calls gave until the round is in the episodes log.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from executors.journal import damaged_lines, forget
from rewards.types import RankedGroup
from rollouts.ledger import Attempt, Ledger
from rollouts.policy import Source
from rollouts.store import Damage, Log, LogTakenError, damaged
from rollouts.types import Episode, Group, Task
from rollouts.worker import require_played

EPISODES = Path("episodes") / "improve.jsonl"
GROUPS = Path("groups") / "improve.jsonl"
LEDGER = Path("ledger.sqlite")
CALLS = Path("calls")
"""What workers wrote down of calls, for attempts that are not yet in the episodes log."""

Play = Callable[[Sequence[Task], Sequence[Source]], Iterable[Sequence[Group]]]
"""Lets sources attempt tasks; what has come since the last time, in pieces of groups."""


@dataclass(frozen=True, slots=True)
class Played:
    """One line of the episodes log: attempts at one task by some or all of the sources."""

    round: int
    version: int
    """Of the live policy's weights that played."""
    group: Group


@dataclass(frozen=True, slots=True)
class RoundGroup:
    """One line of the groups log: every attempt at one task, ranked."""

    round: int
    version: int
    """Of the live policy's weights that played it."""
    group: RankedGroup


class Rounds:
    """Plays and ranks rounds, each attempt once, whenever the run is killed in between."""

    def __init__(self, run: Path, began: int = 0) -> None:
        """
        Args:
            run: the run's folder.
            began: the first round that may have something left to do; those before are all learned from.
        """
        self.ledger = Ledger(run / LEDGER)
        self._episodes: Log[Played] = Log(run / EPISODES, Played)
        self._groups: Log[RoundGroup] = Log(run / GROUPS, RoundGroup)
        self._parts: dict[int, dict[str, dict[str, Episode]]] = {}
        self._ranked: dict[int, dict[str, RoundGroup]] = {}
        for played in self._episodes.read():
            if played.round >= began:
                self._take(played)
        for record in self._groups.read():
            if record.round >= began:
                self._ranked.setdefault(record.round, {})[record.group.task.id] = record
        self._calls = run / CALLS
        for round in range(began):
            forget(self._calls, round_name(round))
        calls = [
            Damage(path, line, "its checksum is another than its content's")
            for path, line in damaged_lines(self._calls)
        ]
        self.damage = [*damaged([self._episodes, self._groups]), *calls]
        """Lines that could not be read; their attempts, or calls, are made again."""
        self._mend()

    def earlier(self, began: int) -> Iterator[list[RoundGroup]]:
        """The ranked groups of the rounds before, a round at a time."""
        rounds: dict[int, dict[str, RoundGroup]] = {}
        for record in self._groups.read():
            if record.round < began:
                rounds.setdefault(record.round, {})[record.group.task.id] = record
                for done in [round for round in rounds if round < record.round - 1]:
                    yield list(rounds.pop(done).values())
        for round in sorted(rounds):
            yield list(rounds[round].values())

    def complete(
        self,
        round: int,
        version: int,
        tasks: Sequence[Task],
        sources: Sequence[Source],
        play: Play,
        judge: Callable[[Group], RankedGroup],
    ) -> list[RoundGroup]:
        """The ranked groups of a round: what is on disk already, and the rest played, ranked and written.

        Raises:
            TooManyFailuresError: the infrastructure let too few episodes finish.
            LogTakenError: another driver has taken the run over.
        """
        ranked = self._ranked.pop(round, {})
        left = [task for task in tasks if task.id not in ranked]
        table = _Table(left, sources, self._parts.pop(round, {}))
        self._settle(table.whole(), round, version, judge, ranked)
        failed: list[Group] = []
        for missing, lacking in table.missing():
            lease = self.ledger.issue(_attempts(round, lacking, missing))
            for pieces in play(lacking, missing):
                self._require_lease(pieces, lease)
                good = [piece for piece in pieces if not _failed(piece)]
                failed += [piece for piece in pieces if _failed(piece)]
                self._write(good, round, version, table)
                self._settle(table.whole(), round, version, judge, ranked)
        require_played([*(_as_group(record) for record in ranked.values()), *failed])
        self._write(failed, round, version, table)  # only now: a run that failures stop tries them again
        self._settle(table.whole(), round, version, judge, ranked)
        forget(self._calls, round_name(round))
        return [ranked[task.id] for task in tasks]

    def plan(self, steps: Mapping[int, Sequence[str]], records: Sequence[RoundGroup]) -> None:
        """Note which steps will learn from which tasks of a round."""
        ids = {
            record.group.task.id: [candidate.episode.id for candidate in record.group.candidates] for record in records
        }
        self.ledger.plan({step: [id for task in tasks for id in ids[task]] for step, tasks in steps.items()})

    def close(self) -> None:
        """Let others write."""
        self._episodes.close()
        self._groups.close()
        self.ledger.close()

    def _require_lease(self, pieces: Sequence[Group], lease: int) -> None:
        """See that no other driver has taken the run over in the meantime.

        Raises:
            LogTakenError: one has, and plays these attempts itself.
        """
        if self.ledger.superseded([episode.id for piece in pieces for episode in piece.episodes], lease):
            raise LogTakenError("another process has taken this run over and plays it; what this one brings is refused")

    def _write(self, pieces: Sequence[Group], round: int, version: int, table: "_Table") -> None:
        """The episodes log, then the ledger."""
        if not pieces:
            return
        self._episodes.append([Played(round, version, piece) for piece in pieces])
        self.ledger.advance([episode.id for piece in pieces for episode in piece.episodes], "executed")
        for piece in pieces:
            table.add(piece)

    def _settle(
        self,
        groups: Sequence[Group],
        round: int,
        version: int,
        judge: Callable[[Group], RankedGroup],
        ranked: dict[str, RoundGroup],
    ) -> None:
        """Rank groups that are complete: the groups log, then the ledger."""
        if not groups:
            return
        records = [RoundGroup(round, version, judge(group)) for group in groups]
        self._groups.append(records)
        self.ledger.advance([episode.id for group in groups for episode in group.episodes], "scored")
        ranked.update({record.group.task.id: record for record in records})

    def _take(self, played: Played) -> None:
        known = self._parts.setdefault(played.round, {}).setdefault(played.group.task.id, {})
        for episode in played.group.episodes:
            known.setdefault(episode.id, episode)

    def _mend(self) -> None:
        """Move the ledger on to what the logs say, where a crash came between the two."""
        played = [id for tasks in self._parts.values() for known in tasks.values() for id in known]
        self.ledger.advance(played, "executed")
        ranked = [record for tasks in self._ranked.values() for record in tasks.values()]
        scored = [candidate.episode.id for record in ranked for candidate in record.group.candidates]
        self.ledger.advance(scored, "scored")


class RoundLog:
    """The ranked groups of a run, to be read."""

    def __init__(self, run: Path) -> None:
        self._log: Log[RoundGroup] = Log(run / GROUPS, RoundGroup)

    def all(self) -> Iterator[RoundGroup]:
        """Every group, in the order of their rounds."""
        return self._log.read()

    def last(self) -> Sequence[RoundGroup]:
        """The groups of the last round."""
        newest: dict[str, RoundGroup] = {}
        round = -1
        for record in self._log.read():
            if record.round > round:
                round, newest = record.round, {}
            if record.round == round:
                newest[record.group.task.id] = record
        return list(newest.values())


def _attempts(round: int, tasks: Sequence[Task], sources: Sequence[Source]) -> list[Attempt]:
    return [
        Attempt(round=round_name(round), task=task.id, source=source.name, number=number)
        for task in tasks
        for source in sources
        for number in range(source.count)
    ]


def round_name(round: int) -> str:
    """What a round of this stage is called where seeds and ids are derived from it."""
    return f"improve/{round}"


class _Table:
    """Which attempts of a round are there, and which are missing."""

    def __init__(
        self, tasks: Sequence[Task], sources: Sequence[Source], known: Mapping[str, Mapping[str, Episode]]
    ) -> None:
        self._tasks = {task.id: task for task in tasks}
        self._sources = {source.name: source for source in sources}
        self._order = {source.name: index for index, source in enumerate(sources)}
        self._width = sum(source.count for source in sources)
        self._there = {task.id: dict(known.get(task.id, {})) for task in tasks}

    def add(self, piece: Group) -> None:
        self._there[piece.task.id] |= {episode.id: episode for episode in piece.episodes}

    def whole(self) -> list[Group]:
        """The groups that are complete; each is handed out once."""
        names = [name for name, there in self._there.items() if len(there) == self._width]
        groups = [(self._tasks[name], self._there.pop(name)) for name in names]
        return [Group(task, tuple(sorted(there.values(), key=self._place))) for task, there in groups]

    def missing(self) -> list[tuple[list[Source], list[Task]]]:
        """The sources that are still to attempt tasks, with those tasks; tasks that lack the same ones go together."""
        lacking: dict[tuple[str, ...], list[Task]] = {}
        for name, there in self._there.items():
            counts = Counter(episode.source for episode in there.values())
            lacks = tuple(source.name for source in self._sources.values() if counts[source.name] < source.count)
            lacking.setdefault(lacks, []).append(self._tasks[name])
        return [([self._sources[name] for name in names], tasks) for names, tasks in lacking.items()]

    def _place(self, episode: Episode) -> tuple[int, int]:
        """Sources in their order, and of one source the attempts in theirs."""
        return self._order[episode.source], int(episode.id.rpartition("/")[2])


def _failed(piece: Group) -> bool:
    return any(episode.stop == "failed" for episode in piece.episodes)


def _as_group(record: RoundGroup) -> Group:
    return Group(record.group.task, tuple(candidate.episode for candidate in record.group.candidates))
