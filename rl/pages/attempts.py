"""The attempts that a run has logged, read as they grow: a line of each log once, whole groups only when asked for."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from rewards.types import RankedGroup
from rl.data.rounds import GROUPS, RoundGroup
from rl.evaluation.seeds import STATES
from rollouts.archive import segments, unpack
from rollouts.types import Group

_ROUND = TypeAdapter(RoundGroup)
_GROUP = TypeAdapter(Group)
EVALUATION = "evaluation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One task at one place of a run, in short."""

    place: str
    """``round-3``, or the name of a state of the policy that was evaluated, such as ``final``."""
    number: int
    """Of its line, from 0, among those of its place's log."""
    task: str
    prompt: str
    version: int | None
    attempts: int
    best: float | None
    worst: float | None
    called: int
    """Attempts that called a tool."""
    malformed: int
    failed: int
    """Attempts with a call that came to something else than ``ok``."""
    sources: tuple[str, ...]

    @property
    def tied(self) -> bool:
        """Whether the rewards prefer nothing."""
        return self.best == self.worst

    @property
    def ranked(self) -> bool:
        return self.best is not None


@dataclass(slots=True)
class ToolFigures:
    """What became of the calls of one tool."""

    name: str
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    """By what was observed, cut."""

    @property
    def calls(self) -> int:
        return self.statuses.total()

    @property
    def median_ms(self) -> float:
        """Of those that ran, in milliseconds."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[len(ordered) // 2] if ordered else 0.0


class Attempts:
    """The attempts of one run. ``refresh`` reads what was added since."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.entries: list[Entry] = []
        self.tools: dict[str, ToolFigures] = {}
        self._logs: dict[Path, _Lines] = {}

    def refresh(self) -> None:
        """Read what the run has logged since the last time; a log that was written anew is read again."""
        paths = [self.run / GROUPS, *sorted((self.run / EVALUATION).glob("*.jsonl"))]
        logs = {path: self._logs.get(path) or _Lines(path) for path in paths}
        if any(log.restarted() for log in logs.values()) or self._logs.keys() - logs.keys():
            self.entries, self.tools = [], {}
            logs = {path: _Lines(path) for path in paths}
        self._logs = logs
        for path, log in logs.items():
            for number, line in log.fresh():
                record = json.loads(line)
                self.entries.append(_entry(path, number, record, self.run))
                for episode in _episodes(record):
                    self._count(episode)

    @property
    def places(self) -> list[str]:
        """Rounds in order, then evaluated states."""
        found = list(dict.fromkeys(entry.place for entry in self.entries))
        rounds = sorted((place for place in found if _round(place) is not None), key=lambda place: _round(place) or 0)
        states = sorted(
            (place for place in found if _round(place) is None),
            key=lambda place: STATES.index(place) if place in STATES else len(STATES),
        )
        return [*rounds, *states]

    def of_task(self, task: str) -> list[Entry]:
        """Every place where a task was attempted, in the order of the places."""
        order = {place: number for number, place in enumerate(self.places)}
        return sorted((entry for entry in self.entries if entry.task == task), key=lambda entry: order[entry.place])

    def group(self, entry: Entry) -> RankedGroup | Group:
        """All of one entry's attempts; ranked where they were."""
        log = self._logs[self.run / GROUPS if entry.ranked else self.run / EVALUATION / f"{entry.place}.jsonl"]
        line = log.line(entry.number)
        return _ROUND.validate_json(line).group if entry.ranked else _GROUP.validate_json(line)

    def _count(self, episode: Mapping[str, Any]) -> None:
        for turn in episode["turns"]:
            for call, observation in zip(turn["calls"], turn["observations"], strict=False):
                name = str(call.get("tool") or "(malformed)")
                figures = self.tools.setdefault(name, ToolFigures(name))
                status = observation["status"]
                figures.statuses[status] += 1
                if status == "ok":
                    figures.seconds.append(float(observation.get("seconds") or 0.0))
                else:
                    figures.failures[f"{status}: {observation['content'][:120]}"] += 1


class _Lines:
    """The whole lines of a log, without their checksums."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._segments = segments(path)
        self._identity = _identity(path)
        self._offset = 0
        self._lines: list[bytes] = []
        self._sealed = False

    def restarted(self) -> bool:
        """Whether the log is another one than it was, or has been cut into segments since."""
        if segments(self.path) != self._segments:
            return True
        identity = _identity(self.path)
        return identity != self._identity or (self.path.stat().st_size if identity else 0) < self._offset

    def fresh(self) -> Iterator[tuple[int, bytes]]:
        """The lines that were added, and their numbers."""
        start = len(self._lines)
        if not self._sealed:
            self._sealed = True
            for segment in self._segments:
                self._lines += [_bare(line) for line in unpack(segment, [])]
        if self._identity is not None:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
            whole = added.rfind(b"\n") + 1
            self._offset += whole
            self._lines += [_bare(line) for line in added[:whole].splitlines()]
        for number in range(start, len(self._lines)):
            if self._lines[number]:
                yield number, self._lines[number]

    def line(self, number: int) -> bytes:
        return self._lines[number]


def _bare(line: bytes) -> bytes:
    """A line without its checksum; nothing where it is damaged, as ``apprentice verify`` will tell."""
    head, found, _ = line.rpartition(b',"crc":"')
    return head + b"}" if found else b""


def _identity(path: Path) -> tuple[int, int] | None:
    if not path.exists():
        return None
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _round(place: str) -> int | None:
    name, _, number = place.rpartition("-")
    return int(number) if name == "round" and number.isdigit() else None


def _episodes(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    group = record.get("group", record)
    return [candidate["episode"] for candidate in group.get("candidates", ())] or list(group.get("episodes", ()))


def _entry(path: Path, number: int, record: Mapping[str, Any], run: Path) -> Entry:
    group = record.get("group", record)
    episodes = _episodes(record)
    rewards = [candidate["reward"]["value"] for candidate in group.get("candidates", ())]
    ranked = path == run / GROUPS
    turns = [turn for episode in episodes for turn in episode["turns"]]
    return Entry(
        place=f"round-{record['round']}" if ranked else path.stem,
        number=number,
        task=group["task"]["id"],
        prompt=group["task"]["prompt"],
        version=record.get("version"),
        attempts=len(episodes),
        best=max(rewards, default=0.0) if ranked else None,
        worst=min(rewards, default=0.0) if ranked else None,
        called=sum(any(turn["calls"] for turn in episode["turns"]) for episode in episodes),
        malformed=sum("tool" not in call for turn in turns for call in turn["calls"]),
        failed=sum(seen["status"] != "ok" for turn in turns for seen in turn["observations"]),
        sources=tuple(dict.fromkeys(episode["source"] for episode in episodes)),
    )
