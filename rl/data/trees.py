"""Searches in ToolBench's files: the tree or chain that a search leaves, and the ``answer_details`` that are judged.

A reply is up to three steps there, one below the other: a thought, an action (the name of a tool), and the action's
input, which has what came back. Files are read without loss: what this project has no word for is kept as it is.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from executors.errors import DataError

Kind = Literal["Thought", "Action", "Action Input"]
FINISH = "Finish"
"""The tool that ends a way: with an answer, or by giving up."""
GIVE_ANSWER, GIVE_UP = "give_answer", "give_up_and_restart"
ANSWERED, GAVE_UP = 3, 4
"""What the input of ``Finish`` comes back with, as a code."""
_ROLES: Mapping[str, Kind] = {"assistant": "Thought", "tool": "Action"}
_METHOD = re.compile(r"(.+?)_((?:CoT|DFS).*)")
_FLAGS = ("is_terminal", "pruned", "finished")
_OWN = {"node_type", "description", "observation", "observation_code", "children", *_FLAGS}
_SHAPE = "a search is one object with answer_generation, and a tree or trys, as ToolBench writes it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node of a file."""

    kind: Kind
    text: str
    """The thought, the name of the tool, or its arguments as they were written."""
    observation: str | None = None
    """What came back, of an action's input."""
    code: int | None = None
    """ToolBench's status: 0 is well, 3 an answer, 4 a way given up, others kinds of failure."""
    terminal: bool = False
    pruned: bool = False
    finished: bool = False
    children: tuple["Step", ...] = ()
    rest: Mapping[str, Any] = field(default_factory=dict)
    """What else the file says of it."""

    @property
    def ends(self) -> bool:
        """Whether an answer is given here."""
        return self.kind == "Action Input" and (self.code == ANSWERED or (self.code is None and _gives(self.text)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What one file says of the search at one query."""

    query: str
    tools: tuple[Mapping[str, Any], ...]
    """As OpenAI's functions, ``Finish`` among them."""
    method: str
    """Such as ``CoT@1`` or ``DFS_woFilter_w2``."""
    steps: tuple[Step, ...]
    """First steps, each with what follows it."""
    answer: str
    """The arguments of ``Finish`` as they were written; empty where there is no answer."""
    valid: bool
    """Whether there is one."""
    queries: int = 0
    tokens: int = 0
    rest: Mapping[str, Any] = field(default_factory=dict)
    """The file itself, but for its steps."""

    def ways(self) -> list[tuple[Step, ...]]:
        """Every way from a first step to a last one, in the file's order."""
        return ways_of(self.steps)

    def best(self) -> tuple[Step, ...]:
        """See ``best_way``."""
        return best_way(self.steps)


def ways_of(steps: Sequence[Step]) -> list[tuple[Step, ...]]:
    """Every way from a first step to a last one, in order."""
    return [way for first in steps for way in _ways(first)]


def best_way(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The last way that ends with an answer, else the last of all; ToolBench takes one at random there."""
    ways = ways_of(steps)
    return next((way for way in reversed(ways) if way[-1].ends), ways[-1] if ways else ())


def named(path: Path) -> tuple[str, str]:
    """The query's id and the method that a file's name has: ``G1_tool-7`` and ``CoT@1`` of ``G1_tool-7_CoT@1.json``."""
    if match := _METHOD.fullmatch(path.stem):
        return match[1], match[2]
    id, _, method = path.stem.partition("_")
    return id, method


def read_searched(path: Path, method: str = "") -> Searched:
    """A tree or chain as ToolBench's inference writes it.

    Args:
        path: the file, such as ``588_DFS_woFilter_w2.json``.
        method: by which it was made; what follows the query's id in the file's name by default.

    Raises:
        DataError: it cannot be read, or is of another form.
    """
    content = loaded(path)
    try:
        return searched_of(content, method or named(path)[1])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} has {error!r} missing or of another type; {_SHAPE}") from error


def loaded(path: Path) -> dict[str, Any]:
    """The one object of a file. Raises DataError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a JSON {type(content).__name__}; {_SHAPE}")
    return content


def searched_of(content: Mapping[str, Any], method: str) -> Searched:
    """The same of a file's content. Raises KeyError or TypeError where it is of another form."""
    made = content["answer_generation"]
    if "tree" in content:
        steps = tuple(_step(child) for child in content["tree"]["tree"]["children"])
    else:
        steps = tuple(step for attempt in content["trys"] for step in _chained(attempt["chain"]))
    return Searched(
        query=made["query"],
        tools=tuple(made["function"]),
        method=method,
        steps=steps,
        answer=made["final_answer"],
        valid=bool(made["valid_data"]),
        queries=int(made.get("query_count", 0)),
        tokens=int(made.get("total_tokens", 0)),
        rest=_without_steps(content),
    )


def written(searched: Searched) -> dict[str, Any]:
    """A file's content: what ``searched_of`` read comes out as it was."""
    content = json.loads(json.dumps(dict(searched.rest)))
    if "tree" in content:
        content["tree"]["tree"]["children"] = [_record(step, 1) for step in searched.steps]
    else:
        places = iter(searched.steps)
        for attempt in content["trys"]:
            count = attempt.pop("chain")
            attempt["chain"] = [one for _ in range(count) for one in _flat(next(places))]
    return content


def answer_details(searched: Searched, way: Sequence[Step] | None = None) -> dict[str, Any]:
    """What ToolBench's evaluation reads of a search: its best way, or another, as ``next`` below ``next``."""
    chosen = searched.best() if way is None else way
    details = details_of(_line(chosen))
    return {
        "query": searched.query,
        "available_tools": [dict(tool) for tool in searched.tools],
        "answer": {
            "method": searched.method,
            "total_steps": _count(details),
            "final_answer": searched.answer,
            "answer_details": details,
        },
    }


def details_of(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Steps, branches included, as roles and messages below the system's and the user's, which are left empty."""
    user = {"role": "user", "message": "", "next": _all(steps)}
    return [{"role": "system", "message": "", "next": [user]}]


def steps_of(details: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """The steps of ``answer_details``: the way back from ``details_of``.

    Raises:
        DataError: a role that is none of ToolBench's, or a message without what it should have.
    """
    found: list[Step] = []
    for one in details:
        try:
            if one["role"] in ("system", "user"):
                found += steps_of(one["next"])
            else:
                found.append(_told(one))
        except (KeyError, TypeError) as error:
            raise DataError(f"answer_details: {error!r} is missing or of another type; see ToolBench's form") from error
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One call of a way, with the thought before it; a thought without a call is one without a tool."""

    thought: str
    tool: str
    arguments: str
    """As they were written."""
    observation: str
    code: int | None
    """See ``Step.code``."""

    @property
    def failed(self) -> bool:
        """Whether it did not go well, as far as the file says."""
        return self.code not in (None, 0, ANSWERED)


def calls_of(way: Sequence[Step]) -> list[Made]:
    """The calls of a way in order, ``Finish`` among them."""
    found: list[Made] = []
    thought, tool = "", ""
    for step in way:
        if step.kind == "Thought":
            if thought:
                found.append(Made(thought=thought, tool="", arguments="", observation="", code=None))
            thought = step.text
        elif step.kind == "Action":
            tool = step.text
        else:
            seen = step.observation or ""
            found.append(Made(thought=thought, tool=tool, arguments=step.text, observation=seen, code=step.code))
            thought, tool = "", ""
    last = Made(thought=thought, tool="", arguments="", observation="", code=None)
    return [*found, last] if thought else found


def pairs_of(way: Sequence[Step]) -> list[tuple[str, str, str, str]]:
    """The same as thought, tool, arguments and what came back."""
    return [(made.thought, made.tool, made.arguments, made.observation) for made in calls_of(way)]


def _gives(text: str) -> bool:
    return GIVE_ANSWER in text and GIVE_UP not in text


def _step(record: Mapping[str, Any]) -> Step:
    kind = record["node_type"]
    if kind not in ("Thought", "Action", "Action Input"):
        raise TypeError(f"node_type {kind!r}")
    return Step(
        kind=kind,
        text=record["description"],
        observation=record.get("observation"),
        code=record.get("observation_code"),
        terminal=record["is_terminal"],
        pruned=record["pruned"],
        finished=record["finished"],
        children=tuple(_step(child) for child in record.get("children", ())),
        rest={name: value for name, value in record.items() if name not in _OWN},
    )


def _chained(records: Sequence[Mapping[str, Any]]) -> list[Step]:
    """A chain's records, each below the one before it."""
    below: tuple[Step, ...] = ()
    for record in reversed(records):
        below = (replace(_step(record), children=below),)
    return list(below)


def _record(step: Step, depth: int, *, alone: bool = False) -> dict[str, Any]:
    usual = {"depth": depth, "Elo": 1000.0, "child_count": len(step.children), "expand_num": 0}
    flags = {"is_terminal": step.terminal, "pruned": step.pruned, "finished": step.finished}
    seen = {"observation": step.observation, "observation_code": step.code}
    below = {} if alone else {"children": [_record(child, depth + 1) for child in step.children]}
    return {
        **flags,
        "node_type": step.kind,
        "description": step.text,
        **{name: value for name, value in seen.items() if value is not None},
        **(step.rest or usual),
        **below,
    }


def _flat(step: Step) -> Iterator[dict[str, Any]]:
    depth = 1
    while True:
        yield _record(step, depth, alone=True)
        if not step.children:
            return
        step, depth = step.children[0], depth + 1


def _without_steps(content: Mapping[str, Any]) -> dict[str, Any]:
    """A file's content with the steps taken out; of a chain is left how many first steps it has."""
    if "tree" in content:
        root = {name: value for name, value in content["tree"]["tree"].items() if name != "children"}
        return {**content, "tree": {**content["tree"], "tree": root}}
    return {**content, "trys": [{**one, "chain": int(bool(one["chain"]))} for one in content["trys"]]}


def _ways(step: Step) -> Iterator[tuple[Step, ...]]:
    if not step.children:
        yield (step,)
    for child in step.children:
        for way in _ways(child):
            yield (step, *way)


def _line(way: Sequence[Step]) -> tuple[Step, ...]:
    """A way by itself: each step with the next one alone below it."""
    below: tuple[Step, ...] = ()
    for step in reversed(way):
        below = (replace(step, children=below),)
    return below


def _details(step: Step) -> list[dict[str, Any]]:
    """One step, an action and its input being one. An input without an action is told as a tool without a name."""
    if step.kind == "Thought":
        return [{"role": "assistant", "message": step.text, "next": _all(step.children)}]
    if step.kind == "Action Input":
        return [_tool("", step)]
    given = [child for child in step.children if child.kind == "Action Input"]
    others = tuple(child for child in step.children if child.kind != "Action Input")
    made = [_tool(step.text, one) for one in given] or [_tool(step.text, Step(kind="Action Input", text=""))]
    made[0]["next"] += _all(others)
    return made


def _all(steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [detail for step in steps for detail in _details(step)]


def _tool(name: str, given: Step) -> dict[str, Any]:
    response = "" if name == FINISH else given.observation or ""
    message = {"name": name, "arguments": given.text, "response": response}
    return {"role": "tool", "message": message, "next": _all(given.children)}


def _told(one: Mapping[str, Any]) -> Step:
    below = steps_of(one["next"])
    if _ROLES[one["role"]] == "Thought":
        return Step(kind="Thought", text=one["message"], children=below)
    name, arguments, response = (one["message"][key] for key in ("name", "arguments", "response"))
    code = None if name != FINISH else ANSWERED if _gives(arguments) else GAVE_UP
    given = Step(kind="Action Input", text=arguments, observation=response, code=code, children=below)
    return Step(kind="Action", text=name, children=(given,))


def _count(details: Sequence[Mapping[str, Any]]) -> int:
    return sum(1 + _count(one["next"]) for one in details)
