"""A file of ranked attempts as tasks: what ``apprentice import`` and ``apprentice export ... ranked`` write.

Every attempt's author is a policy whose replies were recorded, with the rewards that the file gives; ``gold`` is the
best attempt of each task, unless the file has a ``gold`` of its own.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter

from executors.cache import canonical
from executors.catalog import Catalog
from executors.errors import BadCallError, BlockedError, ToolError, TransientError
from executors.named import load_tool
from executors.tool import Limits, Tool
from executors.types import Observation, Status, ToolSpec
from rewards.ranking import GOLD
from rewards.selectivity import LIVE
from rl.config import FilePath, Strict
from rl.data.rows import Place, read_rows, usable
from rl.data.tasks.benchmark import Benchmark, split_by_prompt
from rollouts.types import Task

_TASK = TypeAdapter(Task)
_ERROR = "error: "


class RankedFile(Strict):
    """Tasks and recorded attempts at them, from a file of JSON lines or Parquet.

    A row has a ``prompt`` (a text, or messages of which one is the user's) and ``candidates``, each with a ``score``,
    its ``replies`` (texts, in the config's format) and, where it is known, its ``source``. ``tools`` are as in an
    OpenAI request. The splits are made by the hash of the prompt.
    """

    kind: Literal["ranked"] = "ranked"
    path: FilePath
    tools: list[str] = []
    """Tools that are really run, by name; the file's other tools give what was recorded, and fail on other calls."""
    skip_bad_rows: bool = False
    """Whether rows that cannot be used are left out (counted and reported) rather than an error."""
    validation_share: float = Field(default=0.1, gt=0, lt=0.5)
    test_share: float = Field(default=0.2, gt=0, lt=0.5)

    def catalog(self) -> Catalog:
        """The tools of the file, and those of the config in the place of their namesakes.

        Raises:
            ConfigError: the config names a tool that there is not.
            DataError: the file cannot be read.
        """
        return self._read().catalog(self.tools)

    def load(self, seed: int) -> Benchmark:
        """Read the file.

        Raises:
            DataError: it is missing, or has bad rows that are not to be skipped, or leaves a split empty.
        """
        content = self._read()
        catalog = content.catalog(self.tools)
        splits = split_by_prompt(content.tasks.values(), self.validation_share, self.test_share, self.path)
        return Benchmark(
            catalog=catalog,
            demonstrations=splits["train"],
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            recordings=content.complete(),
            rejected=tuple(content.rejected),
        )

    def _read(self) -> "_Content":
        content = _Content()
        places = list(read_rows(Path(self.path)))
        for place in places:
            try:
                content.add(place)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                content.rejected.append(f"row {place.number}: {error}")
        if not self.skip_bad_rows:
            usable(
                content.rejected, len(places), Path(self.path), "set tasks.skip_bad_rows: true to go on without them"
            )
        return content


@dataclass(frozen=True, slots=True)
class Replayed:
    """A tool that gives what it gave when the attempts were recorded, and runs nothing."""

    name: str
    answers: Mapping[str, Observation]
    """By the arguments of the call, as canonical JSON."""

    def __call__(self, /, **arguments: Any) -> str:
        known = self.answers.get(canonical(arguments))
        if known is None:
            raise ToolError(f"{self.name} is not run here, and what it gives for these arguments was not recorded")
        if known.status == "timeout":
            raise TimeoutError(known.content)
        if known.status != "ok":
            raise _FAILURES[known.status](known.content)
        return known.content


_FAILURES: Mapping[Status, type[ToolError]] = {
    "bad_call": BadCallError,
    "tool_error": ToolError,
    "blocked": BlockedError,
    "unavailable": TransientError,
}


@dataclass(slots=True)
class _Content:
    """What a file holds, row by row."""

    tasks: dict[str, Task] = field(default_factory=dict)
    replies: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    """By policy and task."""
    specs: dict[str, ToolSpec] = field(default_factory=dict)
    answers: dict[str, dict[str, Observation]] = field(default_factory=dict)
    """By tool and arguments."""
    rejected: list[str] = field(default_factory=list)

    def add(self, place: Place) -> None:
        """Take a row, whole or not at all. Raises ValueError where it cannot be used."""
        row = place.row
        specs = [_spec(tool) for tool in _list(row, "tools", missing=())]
        for spec in specs:
            if self.specs.get(spec.name, spec) != spec:
                raise ValueError(f"its tool {spec.name!r} is described otherwise on an earlier row; rename one of them")
        candidates = dict(_named(_list(row, "candidates")))
        if not candidates:
            raise ValueError("it has no candidates")
        task = _task(place, specs, {name: score for name, (score, _) in candidates.items()})
        observed = [seen for candidate in row["candidates"] for seen in _observed(candidate.get("messages") or ())]
        repeated = 2
        while task.id in self.tasks:  # a run attempts a task in several rounds
            task, repeated = replace(task, id=f"{row.get('id', task.id)}#{repeated}"), repeated + 1
        self.tasks[task.id] = task
        self.specs |= {spec.name: spec for spec in specs}
        for name, (_, replies) in candidates.items():
            self.replies.setdefault(name, {})[task.id] = replies
        for tool, arguments, observation in observed:
            known = self.answers.setdefault(tool, {})
            if arguments not in known or not known[arguments].ok:
                known[arguments] = observation

    def catalog(self, real: Iterable[str]) -> Catalog:
        """The file's tools; those that are named in ``real`` are run."""
        tools = {
            name: Tool(spec, Replayed(name, self.answers.get(name, {})), instant=True, limits=Limits(retries=0))
            for name, spec in self.specs.items()
        }
        return Catalog((tools | {tool.name: tool for tool in map(load_tool, real)}).values())

    def complete(self) -> dict[str, Mapping[str, tuple[str, ...]]]:
        """Every policy's replies to every task: empty where the file has none, which no ranking takes for an attempt.

        Without that, a task that one of many policies did not attempt would count as a failure.
        """
        return {name: {id: known.get(id, ()) for id in self.tasks} for name, known in self.replies.items()}


def _task(place: Place, specs: list[ToolSpec], scores: dict[str, float]) -> Task:
    row = place.row
    known = row.get("task") or {}
    if not isinstance(known, Mapping):
        raise ValueError(f"its task is an object with what is known of it, not {known!r}")
    told = {name: value for name, value in known.items() if name in ("answer", "aliases", "gold", "needs_tool")}
    return _TASK.validate_python(
        {
            **told,
            "labels": known.get("labels", {}),
            "id": str(row.get("id", f"row-{place.number}")),
            "prompt": known.get("prompt") or _prompt(row),
            "tools": [spec.name for spec in specs],
            "scores": scores,
        }
    )


def _prompt(row: Mapping[str, Any]) -> str:
    given = row.get("prompt")
    if isinstance(given, str) and given:
        return given
    asked = [message for message in given or () if isinstance(message, Mapping) and message.get("role") != "system"]
    if len(asked) != 1 or asked[0].get("role") != "user" or not isinstance(asked[0].get("content"), str):
        raise ValueError(f"its prompt is a text or messages with one of the user's, not {str(given)[:80]!r}")
    return asked[0]["content"]


def _named(candidates: list[Any]) -> Iterator[tuple[str, tuple[float, tuple[str, ...]]]]:
    """Scores and replies of candidates, by names that none shares with another; the gold one last."""
    names: set[str] = set()
    best: tuple[float, tuple[str, ...]] | None = None
    for number, candidate in enumerate(candidates, start=1):
        if not isinstance(candidate, Mapping):
            raise ValueError(f"candidate {number} is an object, not {candidate!r}")
        source = str(candidate.get("source") or f"candidate_{number}")
        name = source = f"recorded_{source}" if source == LIVE else source
        again = 2
        while name in names:
            name, again = f"{source}_{again}", again + 1
        names.add(name)
        judged = _score(candidate, number), _replies(candidate, number)
        best = judged if best is None or judged[0] > best[0] else best
        yield name, judged
    if best is not None and GOLD not in names:
        yield GOLD, best


def _score(candidate: Mapping[str, Any], number: int) -> float:
    score = candidate.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"the score of candidate {number} is a number, not {score!r}")
    return float(score)


def _replies(candidate: Mapping[str, Any], number: int) -> tuple[str, ...]:
    replies = candidate.get("replies")
    messages = candidate.get("messages")
    if replies is None and isinstance(messages, list) and len(messages) == 1 and not messages[0].get("tool_calls"):
        replies = [messages[0].get("content")]
    if not isinstance(replies, list) or not replies or not all(isinstance(reply, str) for reply in replies):
        raise ValueError(f"candidate {number} has no replies: a list of the texts that its author wrote, turn by turn")
    return tuple(replies)


def _spec(tool: Any) -> ToolSpec:
    try:
        function = tool["function"]
        return ToolSpec(str(function["name"]), str(function.get("description") or ""), dict(function["parameters"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            'a tool reads {"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}, '
            f"not {str(tool)[:80]}"
        ) from error


def _list(row: Mapping[str, Any], name: str, missing: Any = None) -> list[Any]:
    given = row.get(name, missing)
    if not isinstance(given, list | tuple):
        raise ValueError(f"{name} is a list, not {str(given)[:80]!r}; the row has {', '.join(row) or 'nothing'}")
    return list(given)


def _observed(messages: Iterable[Any]) -> Iterator[tuple[str, str, Observation]]:
    """Tool, arguments and observation of the calls that messages tell of."""
    calls: dict[str, tuple[str, str]] = {}
    for message in messages:
        for call in message.get("tool_calls") or ():
            calls[call.get("id")] = call["function"]["name"], canonical(call["function"]["arguments"])
        if message.get("role") == "tool" and message.get("tool_call_id") in calls:
            status = message.get("status", "ok")
            content = message["content"] if status == "ok" else message["content"].removeprefix(_ERROR)
            yield *calls[message["tool_call_id"]], Observation(content, status, recorded=True)
