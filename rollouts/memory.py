"""What exploring remembers: trials, the long-term memory of a tool, what of a tool was seen, and what is new.

Short-term memory is the episode: the trials of one sitting, each reading those before it. Long-term memory is a tool's:
which queries were tried and whether they were solved, over all episodes and runs.
"""

import copy
import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from executors.types import MalformedCall, Observation, ToolSpec
from rollouts.formats import Format
from rollouts.formats.prefaced import Prefaced
from rollouts.types import Episode, Task

_WORD = re.compile(r"\w+")
_OFFERED = re.compile(r"(?:one of|closest:?|such as|must be|could be)[:\s]+((?:[^;.\n]|\.(?=\d))+)", re.IGNORECASE)
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
    checks: int = 0
    """Further calls: of attempts that were not kept, and to know what the meant call gives."""
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
        return self.checks + sum(len(attempt.calls) for attempt in self.attempts)


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
        self._said: list[frozenset[str]] = []
        self._seen = _Seen()
        for trial in trials:
            self.add(trial)

    def __len__(self) -> int:
        return len(self.trials)

    def add(self, trial: Trial) -> None:
        """Remember one more."""
        self.trials.append(trial)
        self._said.append(shingles(trial.task.prompt))
        for attempt in trial.attempts:
            self._seen.add(self.spec, attempt)

    def with_trials(self, trials: Iterable[Trial]) -> "Memory":
        """A memory of these trials as well; this one stays as it is."""
        more = Memory(self.spec)
        more.trials, more._said, more._seen = [*self.trials], [*self._said], self._seen.copied()
        for trial in trials:
            more.add(trial)
        return more

    def nearest(self, query: str) -> float:
        """How similar the most similar query is that was tried: 0 for nothing in common, 1 for the same words."""
        own = shingles(query)
        return max((similarity(own, known) for known in self._said), default=0.0)

    def block(self, limit: int = 60) -> str:
        """The newest queries as lines that a model reads, each with whether it was solved; empty without any."""
        said = {True: "Yes", False: "No", None: "Unknown"}
        return "\n".join(f"Query: {one.task.prompt} | Solved: {said[one.solved]}" for one in self.trials[-limit:])

    def coverage(self) -> Coverage:
        """What of the tool the calls have shown."""
        return self._seen.coverage(self.spec)

    def worked(self, parameter: str) -> list[Any]:
        """Values of a parameter in calls that were answered, each once, the newest first."""
        return list(self._seen.worked.get(parameter, {}).values())[::-1]

    def failed(self, parameter: str) -> list[Any]:
        """Values of a parameter in calls that failed, and in none that were answered."""
        worked = self._seen.worked.get(parameter, {})
        refused = self._seen.refused.get(parameter, {})
        return [value for key, value in reversed(refused.items()) if key not in worked]

    def answered(self) -> list[Mapping[str, Any]]:
        """The arguments of calls that were answered, the newest first."""
        return self._seen.answered[::-1]

    def refusals(self) -> list[str]:
        """What the tool said when it refused, each once, the newest first."""
        return list(self._seen.refusals)[::-1]

    def offered(self) -> list[str]:
        """Values that errors named: what a tool says when it refuses is the best hint at what it takes."""
        return _distinct(value for content in self.refusals() for value in named_values(content))


class _Seen:
    """What the calls of a tool came to, kept up as they come."""

    def __init__(self) -> None:
        self.given: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.chosen: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.worked: dict[str, dict[str, Any]] = {}
        self.refused: dict[str, dict[str, Any]] = {}
        self.answered: list[Mapping[str, Any]] = []
        self.refusals: dict[str, None] = {}

    def copied(self) -> "_Seen":
        """One that goes on by itself; values are never changed in place, so they are shared."""
        other = _Seen()
        for name in ("given", "left_out", "chosen", "statuses", "answered", "refusals"):
            setattr(other, name, copy.copy(getattr(self, name)))
        other.worked = {name: dict(values) for name, values in self.worked.items()}
        other.refused = {name: dict(values) for name, values in self.refused.items()}
        return other

    def add(self, spec: ToolSpec, attempt: Episode) -> None:
        """Take down one more attempt."""
        properties: Mapping[str, Any] = spec.parameters.get("properties", {})
        required = set(spec.parameters.get("required", ()))
        for turn in attempt.turns:
            for call, seen in zip(turn.calls, turn.observations, strict=True):
                if isinstance(call, MalformedCall) or call.tool != spec.name:
                    self.statuses["malformed" if isinstance(call, MalformedCall) else "other_tool"] += 1
                    continue
                self.statuses[seen.status] += 1
                self.given.update(name for name in call.arguments if name in properties)
                self.left_out.update(n for n in properties if n not in call.arguments and n not in required)
                options = ((n, v, _options(properties.get(n))) for n, v in call.arguments.items())
                self.chosen.update(f"{n}={_said(v)}" for n, v, known in options if _said(v) in known)
                self._keep(call.arguments, seen)

    def _keep(self, arguments: Mapping[str, Any], seen: Observation) -> None:
        kept = self.worked if seen.ok else self.refused
        for name, value in arguments.items():
            values = kept.setdefault(name, {})
            values[repr(value)] = values.pop(repr(value), value)  # the newest stands last
        if seen.ok:
            self.answered.append(arguments)
        else:
            self.refusals.pop(seen.content, None)
            self.refusals[seen.content] = None

    def coverage(self, spec: ToolSpec) -> Coverage:
        """What of the tool was shown."""
        properties: Mapping[str, Any] = spec.parameters.get("properties", {})
        required = set(spec.parameters.get("required", ()))
        wanted = {f"+{name}" for name in properties} | {f"-{name}" for name in properties if name not in required}
        wanted |= {f"{name}={value}" for name, schema in properties.items() for value in _options(schema)}
        wanted |= {"!"} if properties else set()
        shown = {f"+{name}" for name in self.given} | {f"-{name}" for name in self.left_out} | set(self.chosen)
        shown |= {"!"} if self.statuses.keys() - {"ok", "other_tool"} else set()
        return Coverage(
            given=dict(self.given),
            left_out=dict(self.left_out),
            choices=dict(self.chosen),
            statuses=dict(self.statuses),
            missing=tuple(sorted(wanted - shown)),
            total=len(wanted),
        )


def named_values(text: str) -> list[str]:
    """The values that a text names: one of PESOS, DOLARES or EUROS; closest: km, mi."""
    parts = [part.strip(" '\"`") for match in _OFFERED.finditer(text) for part in _PARTED.split(match[1])]
    found = [part if part.count("(") == part.count(")") else part.strip("()") for part in parts]
    return [part for part in found if 0 < len(part) <= _MAX_OFFERED]


@functools.lru_cache(maxsize=8192)
def shingles(text: str) -> frozenset[str]:
    """The words of a text and its pairs of neighbours: what queries are compared by."""
    words = _WORD.findall(text.lower())
    return frozenset(words) | {" ".join(pair) for pair in zip(words, words[1:], strict=False)}


def similarity(left: frozenset[str], right: frozenset[str]) -> float:
    """The share of what two texts have together (Jaccard)."""
    union = len(left | right)
    return len(left & right) / union if union else 1.0


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
