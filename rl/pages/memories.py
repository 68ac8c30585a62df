"""What explorations remember, tool by tool, from the trials that they have kept."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.types import MalformedCall, ToolSpec
from rollouts.memory import Memory, Trial
from rollouts.store import Log

_SHOWN = 200
"""Trials of one tool on a page, the newest; and lines of other things."""
_VALUES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolMemory:
    """What was tried with one tool."""

    tool: str
    trials: Sequence[Trial]
    """The newest last."""
    total: int
    """Of all trials, those that are not shown too."""
    solved: int
    calls: int
    cost: float
    statuses: Mapping[str, int]
    """Of its calls' observations, and of calls that were none."""
    worked: Mapping[str, Sequence[Any]]
    """By parameter, values of calls that were answered, the newest first."""
    refusals: Sequence[tuple[str, int]]
    """What the tool said when it refused, most often first."""

    @property
    def sittings(self) -> int:
        """Episodes of trials that read each other."""
        return len({trial.episode for trial in self.trials})


def memories(run: Path) -> dict[str, list[ToolMemory]]:
    """By exploration, such as ``explored``, what is remembered of each tool.

    Args:
        run: the folder; each ``explored*.jsonl`` in it is the long-term memory of one exploration.
    """
    found = {}
    for path in sorted(run.glob("explored*.jsonl"), key=lambda found: found.stem):
        by_tool: dict[str, list[Trial]] = {}
        for trial in Log(path, Trial).read():
            by_tool.setdefault(trial.tool, []).append(trial)
        if by_tool:
            found[path.stem] = [_memory(tool, trials) for tool, trials in sorted(by_tool.items())]
    return found


def _memory(tool: str, trials: Sequence[Trial]) -> ToolMemory:
    memory = Memory(ToolSpec(tool, ""), trials)
    refusals: Counter[str] = Counter()
    parameters: dict[str, None] = {}
    for turn in (turn for trial in trials for attempt in trial.attempts for turn in attempt.turns):
        for call, seen in zip(turn.calls, turn.observations, strict=True):
            if not isinstance(call, MalformedCall) and call.tool == tool:
                parameters |= dict.fromkeys(call.arguments)
                if not seen.ok:
                    refusals[seen.content[:200]] += 1
    worked = {name: values[:_VALUES] for name in parameters if (values := memory.worked(name))}
    return ToolMemory(
        tool=tool,
        trials=trials[-_SHOWN:],
        total=len(trials),
        solved=sum(trial.solved is True for trial in trials),
        calls=sum(trial.calls for trial in trials),
        cost=sum(trial.cost for trial in trials),
        statuses=dict(memory.coverage().statuses),
        worked=worked,
        refusals=refusals.most_common(3),
    )
