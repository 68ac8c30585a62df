"""What exploring remembers: trials, the long-term memory of a tool, what of a tool was seen, and what is new.

Short-term memory is the episode: the trials of one sitting, each reading those before it. Long-term memory is a tool's:
which queries were tried and whether they were solved, over all episodes and runs.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from executors.types import MalformedCall, ToolCall, ToolSpec
from rollouts.formats import Format
from rollouts.formats.prefaced import Prefaced
from rollouts.types import Episode, Task

_WORD = re.compile(r"\w+")
_OFFERED = re.compile(r"(?:one of|closest:?|such as|must be|could be)[:\s]+([^;.\n]+)", re.IGNORECASE)
_PARTED = re.compile(r",| or | and ")
_MAX_OFFERED = 40
"""Characters of a value that is taken from an error's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One imagined query, and the attempts at it."""

    tool: str
    """Which is explored."""
    episode: int
    number: int
    """Within its episode, from 0."""
    task: Task
    """The query; with a gold call where whoever imagined it meant one."""
    attempts: tuple[Episode, ...]
    """In the order that they were made; the first that solved it ended the trial."""
    solved: bool | None
    """What reflection says; None where nobody reflected."""
    imagined_by: str = ""
    tokens: int = 0
    """Read and written, by the policy and by whoever imagined."""
    cost: float = 0.0
    """In US dollars."""

    @property
    def id(self) -> str:
        return f"{self.tool}/{self.episode}/{self.number}"

    @property
    def calls(self) -> int:
        """How many calls were made."""
        return sum(len(attempt.calls) for attempt in self.attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What of a tool the calls that were made have shown."""

    given: Mapping[str, int] = field(default_factory=dict)
    """By parameter, how often it was given."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """By optional parameter, how often it was not."""
    choices: Mapping[str, int] = field(default_factory=dict)
    """By ``parameter=value`` of an enum or a boolean, how often it was chosen."""
    statuses: Mapping[str, int] = field(default_factory=dict)
    """By status of the observation, how often it came: error paths among them."""
    missing: tuple[str, ...] = ()
    """What was never seen: ``+p`` a parameter given, ``-p`` left out, ``p=v`` a choice, ``!`` any error."""
    total: int = 0
    """Things that there are to be seen."""

    @property
    def share(self) -> float:
        """Of the things to be seen, those that were; 1 where there are none."""
        return 1 - len(self.missing) / self.total if self.total else 1.0


class Memory:
    """What was tried with one tool."""

    def __init__(self, spec: ToolSpec, trials: Iterable[Trial] = ()) -> None:
        self.spec = spec
        self.trials: list[Trial] = []
        self._shingles: list[frozenset[str]] = []
        for trial in trials:
            self.add(trial)

    def __len__(self) -> int:
        return len(self.trials)

    def add(self, trial: Trial) -> None:
        """Remember one more."""
        self.trials.append(trial)
        self._shingles.append(shingles(trial.task.prompt))

    def with_trials(self, trials: Iterable[Trial]) -> "Memory":
        """A memory of these trials as well; this one stays as it is."""
        return Memory(self.spec, [*self.trials, *trials])

    def nearest(self, query: str) -> float:
        """How similar the most similar query is that was tried: 0 for nothing in common, 1 for the same words."""
        own = shingles(query)
        return max((similarity(own, known) for known in self._shingles), default=0.0)

    def block(self, limit: int = 60) -> str:
        """The newest queries as lines that a model reads, each with whether it was solved; empty without any."""
        said = {True: "Yes", False: "No", None: "Unknown"}
        return "\n".join(f"Query: {one.task.prompt} | Solved: {said[one.solved]}" for one in self.trials[-limit:])

    def coverage(self) -> Coverage:
        """What of the tool the calls have shown."""
        return coverage(self.spec, (attempt for trial in self.trials for attempt in trial.attempts))

    def worked(self, parameter: str) -> list[Any]:
        """Values of a parameter in calls that were answered, each once, the newest first."""
        return _distinct(
            call.arguments[parameter] for call, ok, _ in self._calls() if ok and parameter in call.arguments
        )

    def failed(self, parameter: str) -> list[Any]:
        """Values of a parameter in calls that failed, and in none that were answered."""
        worked = {repr(value) for value in self.worked(parameter)}
        values = _distinct(c.arguments[parameter] for c, ok, _ in self._calls() if not ok and parameter in c.arguments)
        return [value for value in values if repr(value) not in worked]

    def offered(self) -> list[str]:
        """Values that errors named: what a tool says when it refuses is the best hint at what it takes."""
        found: list[str] = []
        for _, ok, content in self._calls():
            if not ok:
                found += named_values(content)
        return _distinct(found)

    def _calls(self) -> Iterable[tuple[ToolCall, bool, str]]:
        """Calls of the tool, newest first: whether each was answered, and what came back."""
        for trial in reversed(self.trials):
            for attempt in reversed(trial.attempts):
                for turn in reversed(attempt.turns):
                    for call, seen in zip(turn.calls, turn.observations, strict=True):
                        if isinstance(call, ToolCall) and call.tool == self.spec.name:
                            yield call, seen.ok, seen.content


def named_values(text: str) -> list[str]:
    """The values that a text names: one of PESOS, DOLARES or EUROS; closest: km, mi."""
    found = [part.strip(" '\"`()") for match in _OFFERED.finditer(text) for part in _PARTED.split(match[1])]
    return [part for part in found if 0 < len(part) <= _MAX_OFFERED]


def shingles(text: str) -> frozenset[str]:
    """The words of a text and its pairs of neighbours: what queries are compared by."""
    words = _WORD.findall(text.lower())
    return frozenset(words) | {" ".join(pair) for pair in zip(words, words[1:], strict=False)}


def similarity(left: frozenset[str], right: frozenset[str]) -> float:
    """The share of what two texts have together (Jaccard)."""
    union = len(left | right)
    return len(left & right) / union if union else 1.0


def coverage(spec: ToolSpec, attempts: Iterable[Episode]) -> Coverage:
    """What of a tool the calls of some episodes have shown."""
    properties: Mapping[str, Any] = spec.parameters.get("properties", {})
    required = set(spec.parameters.get("required", ()))
    options = {name: _options(schema) for name, schema in properties.items()}
    wanted = {f"+{name}" for name in properties} | {f"-{name}" for name in properties if name not in required}
    wanted |= {f"{name}={value}" for name, values in options.items() for value in values}
    wanted |= {"!"} if properties else set()
    given, left_out, choices, statuses = (Counter[str]() for _ in range(4))
    for attempt in attempts:
        for turn in attempt.turns:
            for call, seen in zip(turn.calls, turn.observations, strict=True):
                if isinstance(call, MalformedCall) or call.tool != spec.name:
                    statuses["malformed" if isinstance(call, MalformedCall) else "other_tool"] += 1
                    continue
                statuses[seen.status] += 1
                given.update(name for name in call.arguments if name in properties)
                left_out.update(name for name in properties if name not in call.arguments and name not in required)
                choices.update(f"{n}={_said(v)}" for n, v in call.arguments.items() if _said(v) in options.get(n, ()))
    shown = {f"+{name}" for name in given} | {f"-{name}" for name in left_out} | set(choices)
    shown |= {"!"} if statuses.keys() - {"ok", "other_tool"} else set()
    return Coverage(
        given=dict(given),
        left_out=dict(left_out),
        choices=dict(choices),
        statuses=dict(statuses),
        missing=tuple(sorted(wanted - shown)),
        total=len(wanted),
    )


def _options(schema: Any) -> tuple[str, ...]:
    if not isinstance(schema, Mapping):
        return ()
    values = (False, True) if schema.get("type") == "boolean" else schema.get("enum", ())
    return tuple(_said(value) for value in values)


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({repr(value): value for value in values}.values())


def recalling(format: Format, earlier: Sequence[tuple[Task, Episode]], specs: Sequence[ToolSpec]) -> Prefaced:
    """A format whose prompt begins with the trials of the same sitting: short-term memory for a policy that reads.

    Args:
        format: how each trial is written.
        earlier: the trials before, each with the attempt that is remembered.
        specs: the tools that they had.
    """
    told = "".join(f"{transcript(format, task, attempt, specs)}\n\n" for task, attempt in earlier)
    return Prefaced(format, lambda task: told)


def transcript(format: Format, task: Task, attempt: Episode, specs: Sequence[ToolSpec]) -> str:
    """One attempt as the policy read and wrote it."""
    parts = [format.opening(task, specs)]
    for turn in attempt.turns:
        parts.append(turn.completion.text)
        if turn.calls:
            parts.append(format.observed(turn))
    return "".join(parts).strip()
