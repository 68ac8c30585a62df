"""What a run promised, checked from its files alone: nothing lost, nothing twice, nothing torn."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from executors.errors import DataError
from rl.data.rounds import EPISODES, GROUPS, LEDGER, Played, RoundGroup, round_name
from rl.learner import checkpoint
from rl.run import Run
from rollouts.archive import leftovers
from rollouts.ledger import Ledger, State
from rollouts.store import Damage, Log


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of checking one promise."""

    promise: str
    kept: bool
    detail: str
    """Figures, or the first breaches."""


def verify(run: Run) -> list[Finding]:
    """Check a run's promises, in the order of the documents (docs/reliability.md); it may have stopped anywhere.

    Raises:
        DataError: the folder is no run, or another version wrote it.
    """
    records = _Records(run.path)
    promises: list[tuple[str, Callable[[_Records], Iterator[str]], str]] = [
        ("every acknowledged episode is in the log once", _lost_or_double, "{episodes} episodes"),
        ("every line has its checksum", _damaged, "{lines} lines{torn}"),
        ("every attempt is learned from at most once", _learned_twice, "{trained} attempts learned from"),
        ("every checkpoint is whole", _torn, "{checkpoints} checkpoints"),
        ("every step up to the newest checkpoint was taken", _gaps, "{step} steps"),
        ("nobody's half-written files are left", _leftovers, "none"),
        ("no failure of the infrastructure was ranked", _blamed, "{groups} groups"),
        ("all weights are finite", _infinite, "{checkpoints} checkpoints"),
    ]
    findings = []
    for promise, breaches, figures in promises:
        found = list(breaches(records))
        shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
        findings.append(Finding(promise, not found, shown or figures.format(**records.figures)))
    return findings


class _Records:
    """Everything that the checks look at, read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: list[Damage] = []
        self.logged: Counter[str] = Counter()
        self.ranked: Counter[str] = Counter()
        """By round and task."""
        self.unfinished: list[str] = []
        groups = lines = 0
        episodes: Log[Played] = Log(path / EPISODES, Played)
        for played in episodes.read():
            lines += 1
            self.logged.update(episode.id for episode in played.group.episodes)
        ranked: Log[RoundGroup] = Log(path / GROUPS, RoundGroup)
        for record in ranked.read():
            groups += 1
            self.ranked[f"{round_name(record.round)}/{record.group.task.id}"] += 1
            candidates = [candidate.episode for candidate in record.group.candidates]
            self.unfinished += [episode.id for episode in candidates if not episode.finished]
        lines += groups
        self.damage = [*episodes.damage, *ranked.damage]
        self.torn = [log.torn for log in (episodes, ranked) if log.torn is not None]
        self.states, self.unreadable = _states(path / LEDGER)
        self.checkpoints = checkpoint.steps(path / "checkpoints")
        self.whole = {step: checkpoint.problem(path / "checkpoints" / f"step-{step}") for step in self.checkpoints}
        self.newest = max((step for step, problem in self.whole.items() if problem is None), default=0)
        self.taken = Counter(_steps(path / "metrics.jsonl"))
        self.figures = {
            "episodes": sum(self.logged.values()),
            "lines": lines,
            "torn": "".join(
                f"; a crash cut {each.path.name}:{each.line} in {each.path.parent.name}/" for each in self.torn
            ),
            "trained": sum(state == "trained" for state, _ in self.states.values()),
            "checkpoints": len(self.checkpoints),
            "step": self.newest,
            "groups": groups,
        }


def _states(path: Path) -> tuple[Mapping[str, tuple[State, int | None]], str]:
    """What the ledger says of every attempt, and why it does not say all of it."""
    if not path.exists():
        return {}, f"there is no {path.name}"
    try:
        ledger = Ledger(path)
    except DataError as error:
        return {}, str(error)
    try:
        return ledger.states(), ""
    except DataError as error:
        return {}, str(error)
    finally:
        ledger.close()


def _lost_or_double(records: _Records) -> Iterator[str]:
    if records.unreadable and records.logged:
        yield f"the ledger cannot say what was acknowledged: {records.unreadable}"
    unranked: set[str] = set()
    for id, (state, _) in records.states.items():
        if state != "issued" and records.logged[id] == 0:
            yield f"{id} is {state} and not in the log"
        if state in ("scored", "trained") and not records.ranked[_task(id)] and _task(id) not in unranked:
            unranked.add(_task(id))
            yield f"{_task(id)} is {state} and not among the ranked groups"
    for id, count in records.logged.items():
        if count > 1:
            yield f"{id} is in the log {count} times"
        elif not records.unreadable and id not in records.states:
            yield f"{id} is in the log and unknown to the ledger"
    for task, count in records.ranked.items():
        if count > 1:
            yield f"{task} was ranked {count} times"


def _task(id: str) -> str:
    """Round and task of an attempt."""
    return id.rpartition("/")[0].rpartition("/")[0]


def _damaged(records: _Records) -> Iterator[str]:
    yield from map(str, records.damage)


def _learned_twice(records: _Records) -> Iterator[str]:
    for id, (state, step) in records.states.items():
        if state == "trained" and (step is None or step >= records.newest):
            yield f"{id} is called learned from by step {step}, and the newest checkpoint is of step {records.newest}"
    steps: dict[str, set[int]] = {}
    for id, (_, step) in records.states.items():
        if step is not None:
            steps.setdefault(_task(id), set()).add(step)
    for task, found in steps.items():
        if len(found) > 1:
            yield f"the attempts at {task} belong to steps {sorted(found)}"


def _torn(records: _Records) -> Iterator[str]:
    for step, problem in records.whole.items():
        if problem is not None:
            yield f"step-{step}: {problem}"


def _gaps(records: _Records) -> Iterator[str]:
    for step in range(records.newest):
        if not records.taken[step]:
            yield f"step {step} has no record"


def _leftovers(records: _Records) -> Iterator[str]:
    halves = [half for log in (EPISODES, GROUPS) for half in leftovers(records.path / log)]
    for found in [*sorted((records.path / "checkpoints").glob(".step-*")), *halves]:
        yield str(found.relative_to(records.path))


def _blamed(records: _Records) -> Iterator[str]:
    for id in records.unfinished:
        yield f"{id} did not finish and was ranked"


def _infinite(records: _Records) -> Iterator[str]:
    for step in records.checkpoints:
        for path in sorted((records.path / "checkpoints" / f"step-{step}").glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as tensors:
                    names = list(tensors.keys())
                    bad = [name for name in names if not tensors.get_tensor(name).isfinite().all()]
            except (SafetensorError, OSError) as error:
                yield f"step-{step}: {path.name} cannot be read: {error}"
                continue
            for name in bad:
                yield f"step-{step}: {name} is not finite"


def _steps(metrics: Path) -> Iterator[int]:
    """The steps that metrics.jsonl has a learner's record of."""
    for line in metrics.read_bytes().splitlines() if metrics.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the last line of a crash, or a damaged one: its step is missing
        if isinstance(record, dict) and "step" in record and "cpu_seconds" in record:
            yield record["step"]
