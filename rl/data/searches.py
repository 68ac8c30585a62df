"""This project's searches as ToolBench's files, and ToolBench's files as what a policy learns attempts from."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from executors.tools.describe import documentation
from executors.types import MalformedCall, Observation, Status, ToolCall, ToolSpec
from rl.data.conversations import UNREADABLE, said
from rl.data.trees import (
    ANSWERED,
    FINISH,
    GAVE_UP,
    GIVE_ANSWER,
    GIVE_UP,
    Searched,
    Step,
    answer_details,
    pairs_of,
    read_searched,
    ways_of,
    written,
)
from rl.run import write_json
from rollouts.formats import Format
from rollouts.formats.atomic import DESCRIBE
from rollouts.search import Node, Search

_CODES: Mapping[Status, int] = {
    "ok": 0,
    "bad_call": 2,
    "tool_error": 11,
    "timeout": 5,
    "blocked": 8,
    "unavailable": 12,
}
"""ToolBench's code for each status."""
_NO_SUCH_TOOL = 1
_FINISH_TOOL: Mapping[str, Any] = {
    "name": FINISH,
    "description": "Ends the attempt: with the answer for the user, or without one, so that another way is tried.",
    "parameters": {
        "type": "object",
        "properties": {
            "return_type": {"type": "string", "enum": [GIVE_ANSWER, GIVE_UP]},
            "final_answer": {"type": "string", "description": f"What the user reads, with {GIVE_ANSWER}."},
        },
        "required": ["return_type"],
    },
}


def searched(found: Search, format: Format, specs: Sequence[ToolSpec]) -> Searched:
    """A search as ToolBench writes it.

    Args:
        found: the search.
        format: in which it was played; of ToolGen's agent, the naming of a tool and its input are one action.
        specs: of the task's tools.
    """
    told = [spec for spec in specs if spec.name != DESCRIBE]
    writer = _Writer(format, told)
    best = found.best()
    valid = bool(best) and best[-1].answered
    answer = _finish(best[-1].answer) if valid else ""
    made = Searched(
        query=found.task.prompt,
        tools=(*({**spec.as_openai()["function"]} for spec in told), _FINISH_TOOL),
        method=found.searching.name,
        steps=writer.steps(found.children, ""),
        answer=answer,
        valid=valid,
        queries=found.queries,
        tokens=sum(_tokens(node) for node in found.children),
    )
    return replace(made, rest=_rest(made, found))


def write_searches(folder: Path, made: Mapping[str, Searched], name: str = "answers") -> Path:
    """Write one file for each query, and ``<name>.json`` with the ``answer_details`` of all.

    Args:
        folder: where.
        made: by the query's id.
        name: of the file for all.

    Returns:
        That file.
    """
    for id, one in made.items():
        write_json(folder / f"{id.replace('/', '-')}_{one.method}.json", written(one))
    write_json(folder / f"{name}.json", {id: answer_details(one) for id, one in made.items()})
    return folder / f"{name}.json"


def read_trees(folder: Path) -> list[Searched]:
    """Every tree and chain in a folder and the folders in it, in the order of their names.

    Raises:
        DataError: one of them cannot be read.
    """
    return [read_searched(path) for path in sorted(folder.rglob("*.json"))]


Form = Literal["answers", "agent", "sharegpt"]
"""``answer_details`` by query for the evaluation; rows of ``agent_tuning.json``; rows of ToolGen's own form."""


def converted(folder: Path, form: Form) -> Any:
    """What a folder of ToolBench's trees and chains says in another form.

    Args:
        folder: with one file a query, named by its id and the method.
        form: which.

    Raises:
        DataError: a file cannot be read.
    """
    if form == "agent":
        return agent_rows(read_trees(folder))
    if form == "sharegpt":
        return sharegpt_rows(read_trees(folder))
    files = sorted(folder.rglob("*.json"))
    return {path.stem.partition("_")[0]: answer_details(read_searched(path)) for path in files}


def agent_rows(
    made: Iterable[Searched], texts: Mapping[str, str] | None = None, max_observation: int = 1024
) -> list[dict[str, Any]]:
    """What ``agent_tuning.json`` holds: the calls of each search's best way, where it ends with an answer.

    Each step has its ``documentation`` and ``observation`` too, which ``rl.data.toolgen`` lets the policy read.

    Args:
        made: searches.
        texts: by the tool's name, what stands for it, such as its token; its name by default.
        max_observation: characters of what came back.
    """
    rows = []
    for one in made:
        best = one.best()
        if not best or not best[-1].ends:
            continue
        specs = _specs(one)
        steps = [
            {
                "thought": thought,
                "action": (texts or {}).get(tool, tool),
                "action_input": _read(arguments),
                "documentation": documentation(specs[tool]) if tool in specs else "",
                "observation": observation[:max_observation],
            }
            for thought, tool, arguments, observation in pairs_of(best)
            if tool and tool != FINISH
        ]
        rows.append({"query": one.query, "plan_sequence": steps, "final_answer": _final(best[-1].text)})
    return rows


def sharegpt_rows(
    made: Iterable[Searched], texts: Mapping[str, str] | None = None, max_observation: int = 1024
) -> list[dict[str, Any]]:
    """The same in ToolGen's form: a message each for thought, action and input, with a flag for what is learned."""
    rows = []
    for row in agent_rows(made, texts, max_observation):
        messages = [_message("user", row["query"], False)]
        for step in row["plan_sequence"]:
            messages += [
                _message("assistant", step["thought"] or "On to the next step.", bool(step["thought"])),
                _message("user", "Name the action.", False),
                _message("assistant", step["action"], True),
                _message("user", f"Now its input. What is known of it:\n{step['documentation']}", False),
                _message("assistant", json.dumps(step["action_input"], ensure_ascii=False), True),
                _message("function", step["observation"], False),
            ]
        messages += [
            _message("assistant", f"<<{FINISH}>>", True),
            _message("user", "Now its input.", False),
            _message("assistant", _finish(row["final_answer"]), True),
        ]
        rows.append({"conversations": messages})
    return rows


class _Writer:
    """Writes the nodes of one search as steps."""

    def __init__(self, format: Format, specs: Sequence[ToolSpec]) -> None:
        self._format = format
        self._specs = specs
        self._known = {spec.name for spec in specs}

    def steps(self, nodes: Sequence[Node], named: str) -> tuple[Step, ...]:
        """Nodes and what follows them.

        Args:
            nodes: the replies that were tried in one place.
            named: the tool that was named before, whose input they are.
        """
        return tuple(self._node(node, named) for node in nodes)

    def _node(self, node: Node, named: str) -> Step:
        turn = node.turn
        pairs = list(zip(turn.calls, turn.observations, strict=True))
        call = turn.call
        naming = isinstance(call, ToolCall) and call.tool == DESCRIBE
        asked = str(call.arguments.get("tool", "")) if isinstance(call, ToolCall) and naming else ""
        below = self.steps(node.children, asked)
        finished = any(child.finished for child in below) or node.answered
        ended = replace(_PLAIN, finished=finished, pruned=node.stop is not None and not node.answered)
        if not turn.calls:
            code = ANSWERED if node.answered else GAVE_UP
            seen = json.dumps({"response": "answered" if node.answered else "given up"})
            given = replace(ended, kind="Action Input", text=_finish(node.answer), observation=seen, code=code)
            made = replace(_PLAIN, kind="Action", text=FINISH, finished=finished, children=(given,))
        elif naming:
            made = replace(ended, kind="Action", text=asked, children=below)
        else:
            made = self._calls(pairs, ended, below, named)
        thought = self._thought(node)
        return made if not thought else replace(_PLAIN, text=thought, finished=finished, children=(made,))

    def _calls(
        self,
        pairs: Sequence[tuple[ToolCall | MalformedCall, Observation]],
        ended: Step,
        below: tuple[Step, ...],
        named: str,
    ) -> Step:
        """The calls of one reply, one below the other."""
        made: Step | None = None
        for place, (call, seen) in reversed(list(enumerate(pairs))):
            tool = named or (call.tool if isinstance(call, ToolCall) else UNREADABLE)
            text = json.dumps(dict(call.arguments)) if isinstance(call, ToolCall) else call.text
            code = _CODES[seen.status]
            if seen.status == "bad_call" and tool not in self._known:
                code = _NO_SUCH_TOOL
            last = place == len(pairs) - 1
            given = replace(
                ended if last else replace(_PLAIN, finished=ended.finished),
                kind="Action Input",
                text=text,
                observation=seen.content,
                code=code,
                children=below if made is None else (made,),
            )
            alone = bool(named) and place == 0
            made = given if alone else Step(kind="Action", text=tool, finished=ended.finished, children=(given,))
        assert made is not None
        return made

    def _thought(self, node: Node) -> str:
        """What a reply says before its call or its answer."""
        text = node.turn.completion.text
        if node.turn.calls:
            unread = any(isinstance(call, MalformedCall) for call in node.turn.calls)
            return "" if unread else said(node.turn, self._format, self._specs).content
        mark = self._format.forced("direct", self._specs).strip()
        return text.partition(mark)[0].strip() if mark and mark in text else ""


_PLAIN = Step(kind="Thought", text="")


def _finish(answer: str | None) -> str:
    given = answer.strip() if answer else ""
    made = {"return_type": GIVE_ANSWER, "final_answer": given} if given else {"return_type": GIVE_UP}
    return json.dumps(made, ensure_ascii=False)


def _final(arguments: str) -> str:
    """The answer in the arguments of ``Finish``; of broken JSON, all that stands there."""
    read = _read(arguments)
    return str(read.get("final_answer", "")) if isinstance(read, dict) else str(read)


def _read(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _specs(one: Searched) -> dict[str, ToolSpec]:
    return {
        str(tool["name"]): ToolSpec(str(tool["name"]), str(tool.get("description", "")), tool.get("parameters", {}))
        for tool in one.tools
        if tool.get("name") != FINISH
    }


def _message(role: str, content: str, loss: bool) -> dict[str, Any]:
    return {"role": role, "content": content, "loss": loss}


def _tokens(node: Node) -> int:
    """Read and written, in all replies from a node on."""
    completion = node.turn.completion
    own = completion.prompt_tokens + (len(completion.token_ids) or completion.written_tokens)
    return own + sum(map(_tokens, node.children))


def _rest(made: Searched, found: Search) -> dict[str, Any]:
    """What ToolBench's file has beside the steps."""
    searching = found.searching
    limits: dict[str, Any] = {"single_chain_max_step": searching.depth, "answer": searching.answers}
    generation = {
        "valid_data": made.valid,
        "query_count": made.queries,
        "total_tokens": made.tokens,
        "final_answer": made.answer,
        "function": [dict(tool) for tool in made.tools],
        "chain": [],
        "train_messages": [_messages(made)] if made.valid else [],
        "query": made.query,
    }
    common = {"win": made.valid, "compare_candidates": [], "answer_generation": generation}
    if searching.method == "chain":
        limits |= {"pass_at": searching.width}
        won = [{"chain": 1, "win": any(way[-1].ends for way in ways_of([step]))} for step in made.steps]
        return {**common, "try_count": len(won), "trys": won, "forward_args": limits}
    limits |= {"tree_beam_size": searching.width, "max_query_count": searching.queries, "with_filter": False}
    root = {"is_terminal": False, "pruned": False, "finished": False, "depth": 0, "node_type": "Action Input"}
    root |= {"description": "", "Elo": 1000.0, "child_count": len(made.steps), "expand_num": 0, "io_state": {}}
    sizes = [_size(step) for step in made.steps]
    lengths = [len(way) for way in made.ways()]
    tree = {"size": 1 + sum(sizes), "max_length": 1 + max(lengths, default=0), "tree": root}
    return {**common, "tree": tree, "forward_args": limits}


def _size(step: Step) -> int:
    return 1 + sum(map(_size, step.children))


def _messages(made: Searched) -> list[dict[str, Any]]:
    """The best way as a chat with functions, as ToolBench trains on it."""
    chat: list[dict[str, Any]] = [{"role": "system", "content": ""}, {"role": "user", "content": made.query}]
    for thought, tool, arguments, observation in pairs_of(made.best()):
        if thought:
            chat.append({"role": "assistant", "content": thought})
        if tool:
            chat.append({"role": "assistant", "function_call": {"name": tool, "arguments": arguments}})
        if tool and tool != FINISH:
            chat.append({"role": "function", "name": tool, "content": observation})
    return chat
